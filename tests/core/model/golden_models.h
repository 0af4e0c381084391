// Golden models: tiny Hugging Face folders with what transformers computes for them (tests/golden/README.md).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace moebius {

struct GoldenStep {
  std::map<std::string, double> metrics;  // by the names of metrics.jsonl
};

struct GoldenRun {
  std::string name;
  double sequence_loss = 0;
  double bias_update_speed = 0;
  double mtp_loss_weight = 0;
  std::vector<GoldenStep> steps;
};

struct GoldenTraining {
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  std::vector<int32_t> tokens;  // one stream, cut as in the contract's token file
  std::vector<GoldenRun> runs;

  // The batch of step `step` (0 is the first): sequences x (sequence_length + 1) ids.
  std::vector<int32_t> Batch(int64_t step) const;
};

struct GoldenModel {
  std::string folder;  // config.json and weights
  std::vector<std::vector<int32_t>> score_input;
  std::vector<std::vector<double>> score_expected;
  bool trains = false;
  GoldenTraining training;
};

// Reads one model's files; anything missing or odd fails the calling test and ends it.
GoldenModel ReadGoldenModel(const std::string& folder);

// The folders below `root`/golden/models that have weights.
std::vector<std::string> GoldenFolders(const std::string& root);

}  // namespace moebius
