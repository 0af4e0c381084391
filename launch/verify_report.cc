#include "launch/verify_report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"

namespace moebius {
namespace {

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual:
      return "equal";
    case Verdict::kFlip:
      return "flip";
    case Verdict::kDifferent:
      return "DIFFERENT";
  }
  return "";
}

std::string Short(const Layout& l) { return Concat("pp ", l.pipeline, " dp ", l.data, " ep ", l.expert); }

// Names of experts are long: "model.layers.3.mlp.experts.5.up_proj.weight" from its end.
std::string Tail(const std::string& name, size_t width) {
  return name.size() <= width ? name : "..." + name.substr(name.size() - width + 3);
}

}  // namespace

void VerifyReport::Begin(const ModelConfig& from, const ShrunkModel& shrunk, const LayoutResult& reference,
                         double seconds) {
  margin_ = SmallestMargin(reference);
  if (json_) return;
  const ModelConfig& m = shrunk.config;
  std::printf("model      %s, shrunk: %s\n", from.model_type.c_str(),
              shrunk.changes.empty() ? "nothing" : Join(shrunk.changes).c_str());
  std::printf("kept       %s, %s%s%s%s%s%s\n", m.attention == AttentionKind::kMla ? "MLA" : "GQA",
              m.n_routed_experts == 0          ? "no experts"
              : m.scoring == Scoring::kSigmoid ? "experts by sigmoid"
                                               : "experts by softmax",
              m.n_group > 1 ? ", groups" : "", m.selection_bias ? ", selection bias" : "",
              m.n_shared_experts > 0 ? ", shared experts" : "",
              m.num_nextn_predict_layers > 0
                  ? (config_.train.mtp_loss_weight != 0 ? ", MTP" : ", MTP modules at rest")
                  : "",
              m.tie_word_embeddings ? ", tied embedding" : ", untied embedding");
  std::printf("run        %lld steps of %lld x %lld random tokens, fp32, AdamW with ZeRO-1, seed %llu\n",
              static_cast<long long>(config_.steps), static_cast<long long>(config_.sequences),
              static_cast<long long>(config_.length), static_cast<unsigned long long>(config_.seed));
  std::printf("reference  one rank, %.2f s; smallest routing margin %.2g%s\n", seconds, margin_,
              margin_ < bounds_.flip_margin
                  ? Concat(" is below ", bounds_.flip_margin, ": a flip may excuse ", bounds_.flip).c_str()
                  : "");
  std::printf(
      "bounds     gradients of step 1: %.0e of the tensor's norm; expert counts and selection biases: "
      "equal; losses of all steps: %.0e\n\n",
      bounds_.gradient, bounds_.loss);
  std::printf("%-16s %-11s %9s  %-34s %6s %9s %4s %7s  %s\n", "layout", "schedule", "gradient",
              "worst tensor", "counts", "loss", "step", "time", "verdict");
  std::fflush(stdout);
}

void VerifyReport::Add(const Layout& layout, const LayoutResult& result, const LayoutResult& reference,
                       double seconds) {
  const LayoutDifference d = Compare(result, reference);
  const Verdict verdict = Judge(d, reference, bounds_);
  ++total_;
  ++by_verdict_[verdict];
  worst_gradient_ = std::max(worst_gradient_, d.gradient);
  worst_loss_ = std::max(worst_loss_, d.loss);
  if (json_) {
    PrintJson(layout, d, verdict, seconds);
  } else {
    std::printf("%-16s %-11s %9.1e  %-34s %6lld %9.1e %4lld %6.2fs  %s%s%s\n", Short(layout).c_str(),
                layout.schedule.c_str(), d.gradient, Tail(d.tensor, 34).c_str(),
                static_cast<long long>(d.counts + d.later_counts), d.loss, static_cast<long long>(d.step),
                seconds, Word(verdict), d.bias.empty() ? "" : Concat("; another ", d.bias).c_str(),
                d.torn_replica.empty() ? "" : Concat("; ranks disagree on ", d.torn_replica).c_str());
  }
  std::fflush(stdout);
}

absl::Status VerifyReport::End() {
  const int equal = by_verdict_[Verdict::kEqual], flips = by_verdict_[Verdict::kFlip];
  const int different = by_verdict_[Verdict::kDifferent];
  char worst[96];
  std::snprintf(worst, sizeof worst, "worst gradient %.1e, worst loss %.1e", worst_gradient_, worst_loss_);
  if (!json_) {
    std::printf("\n%d of %d layouts equal one rank%s; %s\n", equal, total_,
                flips > 0 ? Concat(", ", flips, " after a flip of a choice").c_str() : "", worst);
  }
  if (different == 0) return absl::OkStatus();
  return ComparisonError(Concat(different, " of ", total_, " layouts differ from one rank; ", worst,
                                "; this is a bug: report it with this output, and train with a layout "
                                "that is equal"));
}

void VerifyReport::PrintJson(const Layout& layout, const LayoutDifference& d, Verdict verdict,
                             double seconds) const {
  nlohmann::ordered_json o;
  o["pipeline"] = layout.pipeline;
  o["data"] = layout.data;
  o["expert"] = layout.expert;
  o["schedule"] = layout.schedule;
  o["ranks"] = layout.ranks();
  o["gradient"] = d.gradient;
  o["tensor"] = d.tensor;
  o["counts"] = d.counts + d.later_counts;
  o["selection_bias"] = d.bias;
  o["loss"] = d.loss;
  o["step"] = d.step;
  o["evaluation"] = d.step == config_.steps + 1;  // the one after the last step
  o["torn_replica"] = d.torn_replica;
  o["routing_margin"] = margin_;
  o["gradient_bound"] = bounds_.gradient;
  o["loss_bound"] = bounds_.loss;
  o["seconds"] = seconds;
  o["verdict"] = verdict == Verdict::kDifferent ? "different" : Word(verdict);
  std::printf("%s\n", DumpJson(o).c_str());
}

}  // namespace moebius
