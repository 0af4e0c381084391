#include "launch/train/judge.h"

#include <cstdio>
#include <utility>

#include "core/base/strings.h"
#include "core/io/file.h"

namespace moebius {
namespace {

// Under one key all figures are of the same text.
void SetFigures(const Validation::Result& result, MetricsRow* row) {
  row->Set(result.whole_file ? "val/loss" : "val/part_loss", result.loss);
  row->Set(result.whole_file ? "val/bpb" : "val/part_bpb", result.bits_per_byte);
}

}  // namespace

Judge::Judge(Validation validation, int64_t max_tokens)
    : validation_(std::move(validation)),
      estimates_(max_tokens > 0 && max_tokens < file().num_tokens() - 1),
      text_(Concat(FileName(file().path()), ", ", file().num_tokens(), " tokens, at most ", max_tokens)) {}

void Judge::Begin(TrainerState& state) const {
  if (state.judged_by == text_) return;
  if (!state.judged_by.empty()) ForgetBest(state);
  state.judged_by = text_;
}

void Judge::ForgetBest(TrainerState& state) {
  const TrainerState begins;
  state.best_val_loss = begins.best_val_loss;
  state.best_step = begins.best_step;
}

absl::StatusOr<std::optional<std::string>> Judge::Run(Trainer& trainer, bool is_last,
                                                      const Validation::Stop& stop, MetricsRow* row) const {
  const auto extent = is_last ? Validation::Extent::kWholeFile : Validation::Extent::kUpToMaxTokens;
  ASSIGN_OR_RETURN(const std::optional<Validation::Result> result, validation_.Run(trainer, extent, stop));
  std::optional<Validation::Result> judged = result;
  // Steps are compared by the same part of the text.
  if (result && is_last && estimates_) {
    ASSIGN_OR_RETURN(judged, validation_.Run(trainer, Validation::Extent::kUpToMaxTokens, stop));
  }
  TrainerState& state = trainer.state();
  state.unvalidated = !judged;
  if (!judged) return std::nullopt;
  SetFigures(*result, row);
  if (is_last) SetFigures(*judged, row);
  const bool best = judged->loss < state.best_val_loss;
  if (best) {
    state.best_val_loss = judged->loss;
    state.best_step = state.step;
  }
  char line[160];
  std::snprintf(line, sizeof line, "step %lld  validation loss %.4f  bits per byte %.4f%s%s",
                static_cast<long long>(state.step), result->loss, result->bits_per_byte,
                result->whole_file ? "" : " (estimate on a part)", best ? "  (best so far)" : "");
  return line;
}

}  // namespace moebius
