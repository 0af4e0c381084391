#include "launch/train/outputs.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "core/backend/measure.h"
#include "core/base/strings.h"
#include "core/model/cost.h"
#include "launch/environment.h"
#include "launch/recipe.pb.h"
#include "launch/report/report.h"
#include "launch/train/settings.h"
#include "launch/train/shown_text.h"

namespace moebius {

namespace {

// Whether experts were counted: in a step where nothing was to be learnt they are not.
bool Routed(const StepMetrics& m) {
  return std::any_of(m.expert_counts.begin(), m.expert_counts.end(), [](const std::vector<int64_t>& layer) {
    return std::any_of(layer.begin(), layer.end(), [](int64_t count) { return count > 0; });
  });
}

}  // namespace

std::vector<RunFact> FactsOf(const proto::Recipe& recipe, const ModelConfig& config, bool unsafe_programs) {
  std::vector<RunFact> facts;
  if (unsafe_programs) {
    facts.push_back(
        {"sandbox", "none",
         "warning: programs run without isolation, as the recipe and --unsafe allow; a verdict may "
         "be forged, and this machine is not protected from them"});
  }
  if (recipe.task() == proto::GRPO && config.selection_bias) {
    const bool frozen = recipe.rl().router_bias() == proto::Rl::FROZEN;
    facts.push_back({"router_bias", frozen ? "FROZEN" : "MOVING",
                     frozen ? "selection biases of routers stay as they are (rl.router_bias: FROZEN)"
                            : "selection biases of routers go on moving (rl.router_bias: MOVING)"});
  }
  return facts;
}

absl::StatusOr<double> MeasurePeakOfRanks(const proto::Recipe& recipe, const Training& training) {
  RETURN_IF_ERROR(training.trainer->mesh().Agree(absl::OkStatus()));  // they begin together
  double peak = MeasureProductPeak(*training.backend, ComputeOf(recipe, *training.backend));
  RETURN_IF_ERROR(training.trainer->mesh().Sum({&peak}));
  return peak;
}

absl::StatusOr<std::unique_ptr<RunOutputs>> RunOutputs::Open(const Recipe& recipe, const ModelConfig& config,
                                                             const Training& training, RunFolder& folder,
                                                             int64_t first_step, double peak_flops,
                                                             const std::vector<RunFact>& facts) {
  const proto::Recipe& r = recipe.proto();
  std::unique_ptr<RunOutputs> out(new RunOutputs(r, config, folder));
  const ModelCost cost = CostOf(config, r.batch().sequence_length());
  const bool mtp = TrainsMtp(r);
  out->flops_per_token_ = cost.train_flops + (mtp ? cost.train_flops_mtp : 0);
  const DType act = ComputeOf(r, *training.backend);
  const Layout& layout = training.trainer->mesh().layout();
  out->peak_flops_ = peak_flops;
  RETURN_IF_ERROR(folder.WriteRecipe(recipe.ToText()));
  std::vector<std::pair<std::string, std::string>> more = {
      {"backend", training.backend->Name()},
      {"compute", ComputeText(r, act)},
      {"perf/mfu_basis",
       Concat(static_cast<int64_t>(out->peak_flops_ / 1e9), " GFLOP/s: ", act, " product of ",
              ProductPeakSize(*training.backend), " cubed, measured at the start of the run",
              layout.ranks() > 1 ? Concat(" on all ", layout.ranks(), " ranks at once") : std::string(),
              "; FLOPs of ", out->flops_per_token_ / 1e9, " GFLOP a token (causal attention",
              mtp ? ", MTP included" : "",
              "); where the machine is faster later than it was then, shares pass 1")}};
  if (layout.ranks() > 1) more.push_back({"layout", ToText(layout)});
  for (const RunFact& fact : facts) more.emplace_back(fact.name, fact.value);
  RETURN_IF_ERROR(folder.WriteEnvironment(EnvironmentJson(ReadEnvironment(), more)));
  ASSIGN_OR_RETURN(out->metrics_, JsonLinesWriter::Open(folder.metrics_path()));
  ASSIGN_OR_RETURN(out->loads_, JsonLinesWriter::Open(folder.expert_load_path()));
  ASSIGN_OR_RETURN(out->tensorboard_, TensorboardWriter::Open(folder.tensorboard_path(), first_step + 1));
  out->progress_ = std::make_unique<Progress>(Progress::Options{.terminal = DetectTerminal(STDOUT_FILENO),
                                                                .fd = STDOUT_FILENO,
                                                                .first_step = first_step,
                                                                .last_step = r.steps(),
                                                                .log_every_steps = r.log().every_steps(),
                                                                .log_path = folder.log_path(0)});
  out->Print(Concat(
      r.name(), ": ", WithCommas(cost.parameters), " parameters (", WithCommas(cost.active),
      " active a token), ", training.backend->Name(), ", ", ComputeText(r, act),
      layout.ranks() > 1 ? Concat(", ", layout.ranks(), " ranks (", ToText(layout), ")") : std::string(),
      first_step > 0 ? Concat(", going on after step ", first_step) : std::string()));
  for (const RunFact& fact : facts) out->Print(fact.line);
  return out;
}

std::vector<SampleRow> SampleRowsOf(const std::vector<ShownSample>& samples, int64_t step) {
  std::vector<SampleRow> rows;
  for (const ShownSample& s : samples) {
    rows.push_back({.step = step,
                    .prompt = s.prompt,
                    .text = s.text,
                    .values = s.values,
                    .gold = s.gold,
                    .verdict = s.verdict});
  }
  return rows;
}

MetricsRow RunOutputs::RowOf(const StepMetrics& m, const TrainerState& state, double bits_per_nat) const {
  const double tokens_per_s = static_cast<double>(m.tokens) / m.seconds;
  MetricsRow row{.step = m.step, .values = {}};
  row.Set("time_s", state.elapsed_s);
  row.Set("tokens", static_cast<double>(state.tokens));
  if (r_.task() != proto::REJECTION) {  // which trains nothing
    row.Set("train/loss", m.loss);
    if (bits_per_nat > 0) row.Set("train/bpb", m.loss * bits_per_nat);
    row.Set("train/grad_norm", m.grad_norm);
    row.Set("train/lr", m.lr);
  }
  if (state.skipped_steps > 0) row.Set("train/skipped_steps", static_cast<double>(state.skipped_steps));
  if (config_.num_nextn_predict_layers > 0 && TrainsMtp(r_)) row.Set("mtp/loss", m.mtp_loss);
  if (Routed(m)) {
    row.Set("moe/balance_loss", m.balance_loss);
    if (r_.balance().auxiliary_loss() > 0) row.Set("moe/auxiliary_loss", m.auxiliary_loss);
    if (r_.balance().router_z_loss() > 0) row.Set("moe/router_z_loss", m.z_loss);
    row.Set("moe/max_violation", m.max_violation);
    row.Set("moe/load_entropy", m.load_entropy);
  }
  row.Set("perf/tokens_per_s", tokens_per_s);
  // Of other tasks no two steps do the same work a token.
  if (r_.task() == proto::PRETRAIN) row.Set("perf/mfu", tokens_per_s * flops_per_token_ / peak_flops_);
  row.Set("perf/step_s", m.seconds);
  row.Set("mem/peak_bytes", static_cast<double>(m.peak_bytes));
  if (m.ranks > 1) {
    row.Set("comm/bytes_within_node", static_cast<double>(m.bytes_within));
    row.Set("comm/bytes_between_nodes", static_cast<double>(m.bytes_between));
    // On a GPU actions end when they have been told to it.
    if (r_.device() != proto::CUDA) row.Set("pipe/bubble", m.bubble);
  }
  return row;
}

void RunOutputs::Update(const StepMetrics& m, const MetricsRow& row) {
  if (m.skipped) {
    Print(Concat("step ", m.step, " skipped: loss ", m.loss, ", gradient norm ", m.grad_norm,
                 "; nothing was changed"));
  } else if (m.skipped_updates > 0) {
    Print(Concat("step ", m.step, ": ", m.skipped_updates,
                 " of its updates gave NaN or infinity and changed nothing"));
  }
  using Keys = std::vector<std::pair<std::string, std::string>>;
  const auto text_of = [&](const Keys& keys) {
    std::string out;
    for (const auto& [key, name] : keys) {
      const std::optional<double> value = row.Get(key);
      char text[80];
      if (!value) continue;
      std::snprintf(text, sizeof text, "%s%.40s %.3g", out.empty() ? "" : "  ", name.c_str(), *value);
      out += text;
    }
    return out;
  };
  Keys details = {{"rl/entropy", "entropy"}, {"rl/kl", "kl"}};
  // Of a reward of one part the reward says it all.
  constexpr std::string_view kPart = "rl/reward_";
  Keys parts;
  for (const auto& [key, value] : row.values) {
    if (key.starts_with(kPart) && key != "rl/reward_mean" && key != "rl/reward_std")
      parts.emplace_back(key, key.substr(kPart.size()));
  }
  if (parts.size() > 1) details.insert(details.begin(), parts.begin(), parts.end());
  const auto now = std::chrono::steady_clock::now();
  const auto before = std::exchange(last_update_, now);
  progress_->Update({.step = m.step,
                     .loss = m.loss,
                     .grad_norm = m.grad_norm,
                     .lr = m.lr,
                     .tokens_per_s = *row.Get("perf/tokens_per_s"),
                     .step_s = before ? std::chrono::duration<double>(now - *before).count() : m.seconds,
                     .more = text_of({{"rl/reward_mean", "reward"},
                                      {"rl/accuracy", "accuracy"},
                                      {"rl/response_tokens_mean", "tokens"}}),
                     .details = text_of(details)});
}

absl::Status RunOutputs::ShowSamples(const std::vector<SampleRow>& rows) {
  if (rows.empty()) return absl::OkStatus();
  for (const SampleRow& row : ChosenToPrint(rows)) Print(SampleInOneLine(row));
  return tensorboard_->AddText("samples", rows[0].step, SamplesInMarkdown(rows),
                               static_cast<double>(std::time(nullptr)));
}

absl::Status RunOutputs::Write(const StepMetrics& m, const MetricsRow& row, bool last) {
  RETURN_IF_ERROR(metrics_->Append(MetricsLine(row)));
  RETURN_IF_ERROR(tensorboard_->AddScalars(row, static_cast<double>(std::time(nullptr))));
  RETURN_IF_ERROR(tensorboard_->Flush());  // who watches sees the step now, and a kill does not lose it
  const int64_t every = r_.log().expert_load_every_steps();
  if (!Routed(m) || !(last || (every > 0 && m.step % every == 0))) return absl::OkStatus();
  ExpertLoadRow load{.step = m.step, .load = {}};
  for (const auto& counts : m.expert_counts) {
    double total = 0;
    for (const int64_t count : counts) total += static_cast<double>(count);
    std::vector<double>& shares = load.load.emplace_back();
    for (const int64_t count : counts) shares.push_back(total > 0 ? static_cast<double>(count) / total : 0);
  }
  return loads_->Append(ExpertLoadLine(load));
}

absl::Status RunOutputs::Sync() {
  RETURN_IF_ERROR(metrics_->Sync());
  return loads_->Sync();
}

absl::Status RunOutputs::Finish() {
  progress_->Finish();
  RETURN_IF_ERROR(tensorboard_->Flush());
  return WriteReport({folder_.path()}, folder_.report_path());
}

}  // namespace moebius
