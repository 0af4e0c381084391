// What `moebius verify` prints: a table or, with --json, a line for each layout, and the verdict.
#pragma once

#include <cmath>
#include <map>

#include "absl/status/status.h"
#include "core/model/config.h"
#include "optim/shrink.h"
#include "optim/verify.h"
#include "parallel/layout.h"

namespace moebius {

// On rank 0.
class VerifyReport {
 public:
  // `config` outlives the report.
  VerifyReport(const VerifyConfig& config, bool json) : config_(config), json_(json) {}

  // `from` is the recipe's model; `seconds` what the reference took.
  void Begin(const ModelConfig& from, const ShrunkModel& shrunk, const LayoutResult& reference,
             double seconds);
  void Add(const Layout& layout, const LayoutResult& result, const LayoutResult& reference, double seconds);
  // ComparisonError where a layout differs.
  absl::Status End();

 private:
  void PrintJson(const Layout& layout, const LayoutDifference& d, Verdict verdict, double seconds) const;

  const VerifyConfig& config_;
  const bool json_;
  const VerifyBounds bounds_;
  double margin_ = INFINITY;
  int total_ = 0;
  std::map<Verdict, int> by_verdict_;
  double worst_gradient_ = 0, worst_loss_ = 0;
};

}  // namespace moebius
