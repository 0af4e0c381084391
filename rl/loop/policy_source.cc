#include "rl/loop/policy_source.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <numeric>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/score.h"
#include "rl/loop/archive.h"
#include "rl/loop/entropy_guard.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/policy_figures.h"
#include "rl/loop/reference_model.h"
#include "rl/loop/rl_options.h"
#include "rl/loop/roll_out.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool EarnsTheSame(const RolloutGroup& group) {
  std::optional<double> first;
  for (const RolloutSample& s : group.samples) {
    if (!first) first = s.score.reward;
    if (s.score.reward && s.score.reward != first) return false;
  }
  return true;
}

}  // namespace

PolicySource::PolicySource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer,
                           std::unique_ptr<Journal> journal, std::string samples_folder)
    : context_(context),
      rl_(context.rl),
      tools_{problems, context.codec, scorer},
      journal_(std::move(journal)),
      samples_folder_(std::move(samples_folder)),
      options_(PolicyOptionsOf(rl_)),
      rollout_(RolloutOptionsOf(rl_, context.max_length, context.seed)),
      decoder_(DecoderOptionsOf(rl_, context.trainer)),
      needs_reference_(rl_.kl() != proto::Rl::NO_KL),
      policy_(context.trainer, context.max_length, rl_),
      programs_(problems),
      watch_(rl_.no_signal_steps(), context_.trainer.state().without_signal) {}

absl::Status PolicySource::Start(const std::string& reference) {
  if (!needs_reference_) return absl::OkStatus();
  reference_.reset();  // one that moves is not held beside its successor
  ASSIGN_OR_RETURN(reference_, LoadReference(context_.trainer, reference, context_.max_length));
  return absl::OkStatus();
}

bool PolicySource::ArchivesNext() const {
  const int64_t every = rl_.archive_every_steps();
  return every > 0 && (context_.trainer.state().step + 1) % every == 0;
}

// Log-probabilities of the samples' tokens under `model`, as a training forward computes them.
void PolicySource::Score(const Model& model, Routes routes, std::vector<float> RolloutSample::*to,
                         std::vector<RolloutGroup>& groups) {
  const bool replays = routes == Routes::kRollouts && options_.replays_routes;
  std::vector<AnswerGroup> all;
  for (const RolloutGroup& group : groups) {
    AnswerGroup& g = all.emplace_back();
    g.prompt = group.prompt;
    if (replays) g.prompt_routes = group.prompt_routes;
    for (const RolloutSample& s : group.samples) {
      g.answers.push_back({.tokens = s.tokens, .weights = {}});
      if (replays) g.answers.back().routes = s.routes;
    }
  }
  const Context& c = context_.trainer.context();
  Microbatch mb(c.backend, model.num_slots());
  const std::vector<float> logprobs =
      ScoreGroups(model, c, mb, all, ScoreOptionsOf(context_.trainer, options_.temperature));
  auto next = logprobs.begin();
  for (RolloutGroup& group : groups) {
    for (RolloutSample& s : group.samples) {
      (s.*to).assign(next, next + std::ssize(s.tokens));
      next += std::ssize(s.tokens);
    }
  }
}

// `count` problems from `first_problem` on, on all ranks.
absl::StatusOr<std::vector<RolloutGroup>> PolicySource::Sample(uint64_t first_problem, int64_t count) {
  std::vector<uint64_t> problems(count);
  std::iota(problems.begin(), problems.end(), first_problem);
  RollOutOptions options{.rollout = rollout_,
                         .decoder = decoder_,
                         .seed = context_.seed,
                         .first_group = first_problem,
                         .journal = journal_.get()};
  options.decoder.routes = options_.replays_routes || ArchivesNext();
  options.before_judging = [this](const Model& policy, std::vector<RolloutGroup>& mine) {
    // One update: the live policy is the proximal one, and the training forward says what it is; but what KL
    // takes off rewards is wanted before, by the forward that the reference's is.
    if (!options_.exact && (options_.updates > 1 || options_.kl_in_reward != 0))
      Score(policy, Routes::kRollouts, &RolloutSample::proximal, mine);
    if (reference_ != nullptr) Score(*reference_, Routes::kOwn, &RolloutSample::reference, mine);
  };
  return RollOut(context_.trainer, policy_, tools_, problems, options);
}

// For the archive: the policy at the start of the step, where nothing else wanted it. The batch is made, so
// no update depends on it; only the rank that writes needs it.
absl::Status PolicySource::FillProximal(std::vector<RolloutGroup>& groups) {
  ASSIGN_OR_RETURN(const Model* model, policy_.Get());
  if (context_.trainer.mesh().all().rank() != 0 || !groups[0].samples[0].proximal.empty()) {
    return absl::OkStatus();
  }
  if (!options_.exact) {
    Score(*model, Routes::kRollouts, &RolloutSample::proximal, groups);
    return absl::OkStatus();
  }
  for (RolloutGroup& group : groups) {
    for (RolloutSample& s : group.samples) s.proximal = s.logprobs;  // asserted by the step
  }
  return absl::OkStatus();
}

// The prompts of a step. Groups whose answers all earn the same make room for others (dynamic sampling).
absl::StatusOr<PolicySource::Drawn> PolicySource::SampleStep() {
  const auto start = Clock::now();
  if (journal_ != nullptr) journal_->Begin(context_.trainer.state().step + 1);
  const uint64_t first = context_.trainer.state().sequences;
  Drawn drawn;
  ASSIGN_OR_RETURN(drawn.groups, Sample(first, context_.sequences));
  std::vector<RolloutGroup> replaced;
  for (int64_t round = 0; round < rl_.refill_rounds(); ++round) {
    const auto flat = std::stable_partition(drawn.groups.begin(), drawn.groups.end(),
                                            [](const RolloutGroup& group) { return !EarnsTheSame(group); });
    const int64_t missing = std::distance(flat, drawn.groups.end());
    if (missing == 0) break;
    ASSIGN_OR_RETURN(std::vector<RolloutGroup> more,
                     Sample(first + context_.sequences + replaced.size(), missing));
    std::move(flat, drawn.groups.end(), std::back_inserter(replaced));
    std::move(more.begin(), more.end(), flat);
  }
  drawn.trained = std::ssize(drawn.groups);
  std::move(replaced.begin(), replaced.end(), std::back_inserter(drawn.groups));
  drawn.seconds = SecondsSince(start);
  return drawn;
}

absl::StatusOr<StepReport> PolicySource::Step() {
  StepReport report;
  const auto start = Clock::now();
  const bool archives = ArchivesNext();
  ASSIGN_OR_RETURN(Drawn drawn, SampleStep());
  std::vector<RolloutGroup>& groups = drawn.groups;
  const auto trained = std::span<const RolloutGroup>(groups).first(drawn.trained);
  PolicyBatch batch(GuardEntropy(groups, report), trained, context_.trainer.GroupsAtLeast());
  if (archives) RETURN_IF_ERROR(FillProximal(groups));
  ASSIGN_OR_RETURN(report.metrics, context_.trainer.Step(batch.updates(), std::ssize(groups)));
  RETURN_IF_ERROR(AddSums(batch, report));
  RETURN_IF_ERROR(AddRoutes(report));
  const GroupSignal signal = SignalOf(groups);
  AddSampleFigures(groups, signal, report.values);
  if (rl_.refill_rounds() > 0)
    report.values.emplace_back("rl/replaced_groups", static_cast<double>(std::ssize(groups) - drawn.trained));
  programs_.Observe(groups, report);
  report.metrics.seconds = SecondsSince(start);
  AddRolloutTimes(drawn, report);
  report.samples = ShowSamples(tools_.problems, trained, batch.advantages(), rl_.show_samples());
  if (archives) RETURN_IF_ERROR(Archive(groups, batch, report.metrics.step));
  report.stop = watch_.Observe(batch.has_signal(), signal, report.notes);
  return report;
}

void PolicySource::AddRolloutTimes(const Drawn& drawn, StepReport& report) {
  int64_t sampled = 0;
  for (const RolloutGroup& group : drawn.groups) {
    for (const RolloutSample& s : group.samples) sampled += std::ssize(s.tokens);
  }
  auto& v = report.values;
  v.emplace_back("rl/rollout_tokens_per_s", static_cast<double>(sampled) / drawn.seconds);
  v.emplace_back("rl/rollout_s", drawn.seconds);
  v.emplace_back("rl/update_s", report.metrics.seconds - drawn.seconds);
}

// With the log-probabilities of the policy that the step has made.
absl::Status PolicySource::Archive(std::vector<RolloutGroup>& groups, const PolicyBatch& batch,
                                   int64_t step) {
  Mesh& mesh = context_.trainer.mesh();
  ASSIGN_OR_RETURN(const Model* model, policy_.Get());
  absl::Status status;
  if (mesh.all().rank() == 0) {
    Score(*model, Routes::kRollouts, &RolloutSample::live, groups);
    status = WriteArchive(ArchivePath(samples_folder_, step), groups, batch.advantages(), context_.seed);
  }
  return mesh.Agree(status);
}

// The options of a step on these samples.
PolicyOptions PolicySource::GuardEntropy(std::span<const RolloutGroup> groups, StepReport& report) {
  PolicyOptions options = options_;
  if (rl_.entropy_floor() == 0) return options;
  const double entropy = SampledEntropy(groups);
  options.entropy_coefficient = GuardedEntropyCoefficient(options_.entropy_coefficient, entropy,
                                                          rl_.entropy_floor(), rl_.entropy_guard());
  report.values.emplace_back("rl/entropy_sampled", entropy);
  report.values.emplace_back("rl/entropy_coefficient", options.entropy_coefficient);
  return options;
}

// What ranks with the head have added up.
absl::Status PolicySource::AddSums(PolicyBatch& batch, StepReport& report) {
  Mesh& mesh = context_.trainer.mesh();
  absl::Status exact;
  if (!batch.mismatch().empty()) {
    exact = absl::InternalError(Concat("step ", report.metrics.step,
                                       ": an exact rollout's log-probability is not the training "
                                       "forward's; ",
                                       batch.mismatch(),
                                       "; this is a bug, rl.rollout: FAST goes on without exactness"));
  }
  RETURN_IF_ERROR(mesh.Agree(exact));
  PolicySums& s = batch.sums();
  RETURN_IF_ERROR(
      mesh.Sum({&s.loss, &s.kl, &s.ratio, &s.tokens, &s.clipped_low, &s.clipped_high, &s.clipped_dual}));
  RETURN_IF_ERROR(mesh.Max({&s.ratio_high, &s.mismatch_high}));
  report.metrics.loss = s.loss;
  if (s.tokens == 0) return absl::OkStatus();  // no answer was judged: there is nothing to say
  auto& v = report.values;
  v.emplace_back("rl/policy_loss", s.loss);
  if (needs_reference_) v.emplace_back("rl/kl", s.kl / s.tokens);
  v.emplace_back("rl/entropy", report.metrics.entropy);
  v.emplace_back("rl/ratio_mean", s.ratio / s.tokens);
  v.emplace_back("rl/ratio_max", s.ratio_high);
  v.emplace_back("rl/clip_fraction", (s.clipped_low + s.clipped_high + s.clipped_dual) / s.tokens);
  v.emplace_back("rl/clip_fraction_low", s.clipped_low / s.tokens);
  v.emplace_back("rl/clip_fraction_high", s.clipped_high / s.tokens);
  v.emplace_back("rl/mismatch_max", s.mismatch_high);
  return absl::OkStatus();
}

absl::Status PolicySource::AddRoutes(StepReport& report) const {
  if (!options_.replays_routes) return absl::OkStatus();
  const int64_t given = report.metrics.routes_given, changed = report.metrics.routes_changed;
  report.values.emplace_back("rl/route_mismatch",
                             static_cast<double>(changed) / static_cast<double>(std::max<int64_t>(given, 1)));
  // Where nothing has moved since the rollout, replay must be without effect.
  if (!options_.exact || options_.updates > 1 || changed == 0) return absl::OkStatus();
  return absl::InternalError(Concat("step ", report.metrics.step,
                                    ": an exact rollout's experts are not the training forward's for ",
                                    changed, " of ", given,
                                    " pairs of token and layer; this is a bug, rl.rollout: FAST goes on "
                                    "without exactness"));
}

absl::StatusOr<StepReport> PolicySource::Evaluate() { return EvaluateHeldOut(context_, policy_, decoder_); }

}  // namespace moebius
