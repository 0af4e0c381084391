// Which step of a run was best, by its loss on the validation text.
#pragma once

#include <optional>
#include <string>

#include "launch/metrics.h"
#include "launch/train/validation.h"
#include "optim/trainer.h"

namespace moebius {

class Judge {
 public:
  // max_tokens: of an estimate, 0 for the whole file.
  Judge(Validation validation, int64_t max_tokens);

  const TokenFile& file() const { return validation_.file(); }

  // Of a run that begins, or goes on: losses on another text, or on another part of it, do not compare.
  void Begin(TrainerState& state) const;
  static void ForgetBest(TrainerState& state);

  // Collective. Judges the weights as they are: sets the row's figures (val/loss and val/bpb of the whole
  // file, val/part_loss and val/part_bpb of a part) and the state's best step, and returns the line that says
  // so. Where `stop` ends it, it leaves no trace but `unvalidated` in the state. is_last: of what a run ends
  // with the figures are of the whole file too.
  absl::StatusOr<std::optional<std::string>> Run(Trainer& trainer, bool is_last, const Validation::Stop& stop,
                                                 MetricsRow* row) const;

 private:
  Validation validation_;
  bool estimates_;    // max_tokens are not all of it
  std::string text_;  // what losses are of
};

}  // namespace moebius
