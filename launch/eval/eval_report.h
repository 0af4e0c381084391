// The figures of `moebius eval` as people and programs read them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rl/evaluation/evaluate.h"

namespace moebius {

// One finished benchmark and what it ran with.
struct EvalRow {
  std::string model;
  std::string chat;     // the template's choice: "auto", a name; "none"
  std::string numbers;  // that it was computed in: "fp32", "bf16", "bf16, weights of 8 bits"
  std::string name, protocol;
  std::vector<SourceFile> files;
  EvaluateOptions options;
  bool compares = false;  // option texts or letters, nothing sampled
  int64_t shots = 0;
  nlohmann::ordered_json knobs = {};  // of a procedural set: TaskKnobs
  Evaluation result;
};

// A table with a header, a line a benchmark, columns that no benchmark uses left out; below it what holds for
// all, then the files with their hashes. Ends with a line end.
std::string EvalTable(const std::vector<EvalRow>& rows);

// One line's object. Shares are in [0, 1]; "pass@1": {"mean", "half_width", "problems"}.
nlohmann::ordered_json EvalJson(const EvalRow& row);

nlohmann::ordered_json SampleJson(const EvalRow& row, const Sample& sample);

}  // namespace moebius
