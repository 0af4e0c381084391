#include "optim/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

// A rank's owned gradients as text: "NAME FIRST COUNT\n", then the numbers.
std::string OwnedGradients(const Trainer& trainer) {
  const Context& context = trainer.context();
  std::string out;
  for (const AdamWOptimizer::State& state : trainer.optimizer().states()) {
    const ParameterSlice& slice = state.slice;
    std::vector<float> values(slice.count);
    context.backend.CopyToHost(context.stream, slice.Of(slice.parameter->grad()), values.data());
    context.stream.Synchronize();
    for (const Piece& piece : slice.parameter->spec().pieces) {
      const int64_t from = std::max(slice.offset, piece.offset);
      const int64_t to = std::min(slice.offset + slice.count, piece.offset + piece.shape.elements());
      if (from >= to) continue;
      out += Concat(piece.name, " ", piece.shape.elements(), " ", from - piece.offset, " ", to - from, "\n");
      out.append(reinterpret_cast<const char*>(values.data() + from - slice.offset),
                 (to - from) * sizeof(float));
    }
  }
  return out;
}

void Unpack(const std::string& text, std::map<std::string, std::vector<float>>& gradients) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    char name[512];
    long long elements = 0, first = 0, count = 0;
    CHECK_EQ(std::sscanf(text.c_str() + at, "%511s %lld %lld %lld", name, &elements, &first, &count), 4);
    std::vector<float>& to = gradients[name];
    to.resize(elements);
    std::memcpy(to.data() + first, text.data() + end + 1, count * sizeof(float));
    at = end + 1 + count * sizeof(float);
  }
}

}  // namespace

absl::StatusOr<LayoutResult> RunLayout(World& world, const VerifyConfig& config, const Layout& layout,
                                       int threads) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = threads});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ModelOptions options;
  options.storage = {.act = config.act, .training = true};
  options.max_positions = config.length + 1;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::New(world, *backend, *stream, config.model, options, layout, config.train));
  WorldGuard guard(&world);
  for (Model* model : trainer->stages().models()) {
    model->parameters().Initialize(*backend, *stream, config.seed, config.sigma);
  }
  const RandomStream random(config.seed, "verify/tokens");
  std::vector<int32_t> tokens(config.sequences * (config.length + 1));
  LayoutResult result;
  for (int64_t step = 0; step < config.steps; ++step) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(random.Below(step * tokens.size() + i, config.model.vocab_size));
    }
    const StepBatch batch{
        .tokens = tokens, .sequences = config.sequences, .length = config.length, .document_starts = {}};
    if (step == 0) {
      ASSIGN_OR_RETURN(const StepMetrics m, trainer->ForwardBackward(batch));
      result.counts = m.expert_counts;
      ASSIGN_OR_RETURN(const std::vector<std::string> owned,
                       trainer->mesh().GatherText(OwnedGradients(*trainer)));
      for (const std::string& text : owned) Unpack(text, result.gradients);
      trainer->ClearGradients();
    }
    ASSIGN_OR_RETURN(StepMetrics m, trainer->Step(batch));
    result.steps.push_back(std::move(m));
  }
  RETURN_IF_ERROR(trainer->Close());
  guard.Dismiss();
  return result;
}

absl::StatusOr<LayoutResult> RunLayout(const VerifyConfig& config, const Layout& layout,
                                       const WorldOptions& world, int threads) {
  LayoutResult out;
  if (layout.ranks() == 1) {
    SoloWorld solo;
    return RunLayout(*solo, config, layout, threads);
  }
  RETURN_IF_ERROR(RunRanks(layout.ranks(), world, [&](World& rank) -> absl::Status {
    ASSIGN_OR_RETURN(LayoutResult mine,
                     RunLayout(rank, config, layout, std::max(1, threads / layout.ranks())));
    if (rank.rank() == 0) out = std::move(mine);
    return absl::OkStatus();
  }));
  return out;
}

LayoutDifference Compare(const LayoutResult& result, const LayoutResult& reference) {
  LayoutDifference out;
  for (const auto& [name, want] : reference.gradients) {
    const auto found = result.gradients.find(name);
    const bool here = found != result.gradients.end() && found->second.size() == want.size();
    double difference = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double got = here ? found->second[i] : 0;
      difference += (got - want[i]) * (got - want[i]);
      norm += static_cast<double>(want[i]) * want[i];
    }
    // A tensor without a gradient has to stay without one.
    double relative = norm > 0 ? std::sqrt(difference / norm) : difference > 0 ? INFINITY : 0;
    if (!here || !(relative >= 0)) relative = INFINITY;
    if (relative <= out.gradient && !out.tensor.empty()) continue;
    out.gradient = relative;
    out.tensor = name;
  }
  if (result.gradients.size() != reference.gradients.size()) out.gradient = INFINITY;
  for (size_t layer = 0; layer < reference.counts.size(); ++layer) {
    for (size_t e = 0; e < reference.counts[layer].size(); ++e) {
      const int64_t got = layer < result.counts.size() ? result.counts[layer][e] : 0;
      out.counts += std::max<int64_t>(0, reference.counts[layer][e] - got);
    }
  }
  for (size_t i = 0; i < reference.steps.size(); ++i) {
    const auto relative = [](double got, double want) {
      return want == 0 ? std::abs(got) : std::abs(got - want) / std::abs(want);
    };
    const StepMetrics& want = reference.steps[i];
    if (i >= result.steps.size()) {
      out.loss = INFINITY;
      break;
    }
    const StepMetrics& got = result.steps[i];
    for (const double d :
         {relative(got.loss, want.loss), relative(got.mtp_loss, want.mtp_loss),
          relative(got.balance_loss, want.balance_loss), relative(got.grad_norm, want.grad_norm)}) {
      if (d <= out.loss) continue;
      out.loss = std::isnan(d) ? INFINITY : d;
      out.step = want.step;
    }
  }
  return out;
}

}  // namespace moebius
