// Which experts tokens go to, and what is known of that afterwards.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "core/backend/ops.h"
#include "core/layers/moe_mlp.h"

namespace moebius {
namespace {

// What the k best of `values` lead the next one by.
double Lead(std::vector<float> values, int64_t k) {
  if (k < 1 || k >= static_cast<int64_t>(values.size())) return std::numeric_limits<double>::infinity();
  std::partial_sort(values.begin(), values.begin() + k + 1, values.end(), std::greater<>());
  return static_cast<double>(values[k - 1]) - values[k];
}

// Of one token: `ranked` are its selection scores. Groups as in RouterArgs.
double LeadOfChoice(const RouterSpec& spec, const std::vector<float>& ranked) {
  if (spec.top_groups >= spec.num_groups) return Lead(ranked, spec.top_k);
  const int64_t size = static_cast<int64_t>(ranked.size()) / spec.num_groups;
  std::vector<std::vector<float>> groups;
  std::vector<float> group_scores;
  for (int64_t g = 0; g < spec.num_groups; ++g) {
    std::vector<float>& group =
        groups.emplace_back(ranked.begin() + g * size, ranked.begin() + (g + 1) * size);
    std::sort(group.begin(), group.end(), std::greater<>());
    group_scores.push_back(spec.scoring == Scoring::kSoftmax || size == 1 ? group[0] : group[0] + group[1]);
  }
  std::vector<int64_t> order(spec.num_groups);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return group_scores[a] > group_scores[b]; });
  std::vector<float> candidates;
  for (int64_t i = 0; i < spec.top_groups; ++i) {
    candidates.insert(candidates.end(), groups[order[i]].begin(), groups[order[i]].end());
  }
  return std::min(Lead(group_scores, spec.top_groups), Lead(candidates, spec.top_k));
}

}  // namespace

void MoeMlp::Route(const Pass& pass, TensorView x) const {
  pass.saved[x_] = x;
  const int64_t tokens = x.rows(), experts = parameters_.router->shape()[0];
  const int64_t sequences = pass.layout.sequences();
  const TensorView logits = pass.Keep(logits_, DType::kF32, {tokens, experts});
  const TensorView scores = pass.Keep(scores_, DType::kF32, {tokens, experts});
  const TensorView chosen = pass.Keep(chosen_, DType::kI32, {tokens, spec_.top_k});
  pass.Keep(weights_, DType::kF32, {tokens, spec_.top_k});
  {
    ArenaScope scope(pass.context.scratch);
    MatMul(pass.context, {.a = InputF32(pass, pass.context.scratch),
                          .b = parameters_.router->weight(),
                          .c = logits,
                          .transpose_b = Transpose::kYes});
  }
  if (pass.layout.routes) {
    Choose(pass, {}, pass.Keep(live_, DType::kI32, chosen.shape));
    Choose(pass, pass.layout.routes.Columns(layer_ * spec_.top_k, spec_.top_k), chosen);
  } else {
    Choose(pass, {}, chosen);
  }
  Balance(pass.context, {.scores = scores,
                         .top_k = spec_.top_k,
                         .sequence_starts = pass.layout.sequence_starts,
                         .f = pass.Keep(f_, DType::kF32, {sequences, experts}),
                         .losses = pass.Keep(losses_, DType::kF32, {sequences})});
  if (pass.balance.auxiliary != 0) {
    Balance(pass.context, {.scores = scores,
                           .experts = chosen,
                           .top_k = spec_.top_k,
                           .sequence_starts = pass.layout.sequence_starts,
                           .f = pass.Keep(auxiliary_f_, DType::kF32, {sequences, experts}),
                           .losses = pass.Keep(auxiliary_losses_, DType::kF32, {sequences})});
  }
  if (pass.balance.z != 0) RouterZ(pass.context, {.logits = logits, .z = pass.Keep(z_, DType::kF32, {1})});
}

// Scores, weights and `chosen`, from the logits.
void MoeMlp::Choose(const Pass& pass, TensorView given, TensorView chosen) const {
  Router(pass.context, {.spec = spec_,
                        .logits = pass.saved[logits_],
                        .bias = parameters_.bias != nullptr ? parameters_.bias->weight() : TensorView(),
                        .given = given,
                        .scores = pass.saved[scores_],
                        .experts = chosen,
                        .weights = pass.saved[weights_]});
}

RoutingRecord MoeMlp::Record(const Pass& pass, TensorView words) const {
  const Context& context = pass.context;
  const TensorView chosen = pass.saved[chosen_];
  RoutingRecord record{.experts = parameters_.router->shape()[0], .sequences = pass.layout.sequences()};
  CHECK_LE(RoutingRecord::Words(record.experts, record.sequences), words.elements());
  {
    ArenaScope scope(context.scratch);
    RouteSort(context, {.experts = chosen,
                        .offsets = words.Rows(0, record.experts + 1),
                        .row_of = context.scratch.New(DType::kI32, chosen.shape),
                        .choice_of = context.scratch.New(DType::kI32, {chosen.elements()})});
  }
  const TensorView floats(words.as<int64_t>() + record.experts + 1, DType::kF32, {2 * record.sequences + 1});
  Cast(context, pass.saved[losses_], floats.Rows(0, record.sequences));
  if (pass.balance.auxiliary != 0) {
    Cast(context, pass.saved[auxiliary_losses_], floats.Rows(record.sequences, record.sequences));
  }
  if (pass.balance.z != 0) Cast(context, pass.saved[z_], floats.Rows(2 * record.sequences, 1));
  if (pass.layout.routes) CountReplayed(pass, record);
  return record;
}

RoutingStatistics RoutingRecord::Read(const int64_t* words) const {
  RoutingStatistics out;
  out.routes_given = routes_given;
  out.routes_changed = routes_changed;
  for (int64_t e = 0; e < experts; ++e) out.counts.push_back(words[e + 1] - words[e]);
  std::vector<float> floats(2 * sequences + 1);
  std::memcpy(floats.data(), words + experts + 1, floats.size() * sizeof(float));
  for (int64_t s = 0; s < sequences; ++s) {
    out.balance_loss_sum += floats[s];
    out.auxiliary_loss_sum += floats[sequences + s];
  }
  out.z_sum = floats[2 * sequences];
  return out;
}

void MoeMlp::CountReplayed(const Pass& pass, RoutingRecord& record) const {
  const int64_t k = spec_.top_k, width = pass.layout.routes.cols();
  std::vector<int32_t> live(pass.saved[live_].elements());
  pass.context.backend.CopyToHost(pass.context.stream, pass.saved[live_], live.data());
  pass.context.stream.Synchronize();
  for (int64_t t = 0; t < pass.layout.tokens(); ++t) {
    const auto given = pass.layout.host_routes.begin() + t * width + layer_ * k;
    if (*given == kNoRoute) continue;
    ++record.routes_given;
    const auto chosen = live.begin() + t * k;
    record.routes_changed += !std::is_permutation(chosen, chosen + k, given);
  }
}

double MoeMlp::RoutingMargin(const Pass& pass) const {
  const TensorView scores = pass.saved[scores_];
  const int64_t experts = scores.cols();
  std::vector<float> all(scores.elements()), bias(experts, 0);
  Backend& backend = pass.context.backend;
  Stream& stream = pass.context.stream;
  if (parameters_.bias != nullptr) bias = GetParameter(backend, stream, *parameters_.bias, 0, experts);
  backend.CopyToHost(stream, scores, all.data());
  stream.Synchronize();
  double margin = std::numeric_limits<double>::infinity();
  for (auto row = all.begin(); row != all.end(); row += experts) {
    std::vector<float> ranked(row, row + experts);
    if (pass.balance.sequence != 0) margin = std::min(margin, Lead(ranked, spec_.top_k));
    for (int64_t e = 0; e < experts; ++e) ranked[e] += bias[e];
    margin = std::min(margin, LeadOfChoice(spec_, ranked));
  }
  return margin;
}

}  // namespace moebius
