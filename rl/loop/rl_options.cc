#include "rl/loop/rl_options.h"

#include <limits>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/loop/loop.pb.h"

namespace moebius {
namespace {

AdvantageKind AdvantageOf(proto::Rl::Advantage advantage) {
  switch (advantage) {
    case proto::Rl::GROUP_NORMALISED:
      return AdvantageKind::kGrpo;
    case proto::Rl::GROUP_MEAN:
      return AdvantageKind::kDrGrpo;
    case proto::Rl::LEAVE_ONE_OUT:
      return AdvantageKind::kRloo;
    case proto::Rl::BATCH_DEVIATION:
      return AdvantageKind::kBatchStd;
    case proto::Rl::REINFORCE_PP:
      return AdvantageKind::kReinforcePlusPlus;
    case proto::Rl::REINFORCE_PP_BASELINE:
      return AdvantageKind::kReinforcePlusPlusBaseline;
  }
  return AdvantageKind::kGrpo;
}

Surrogate SurrogateOf(proto::Rl::Surrogate surrogate) {
  switch (surrogate) {
    case proto::Rl::CLIPPED:
      return Surrogate::kClipped;
    case proto::Rl::GSPO:
      return Surrogate::kGspo;
    case proto::Rl::CISPO:
      return Surrogate::kCispo;
    case proto::Rl::PLAIN:
      return Surrogate::kPlain;
  }
  return Surrogate::kClipped;
}

KlKind KlOf(proto::Rl::Kl kl) {
  switch (kl) {
    case proto::Rl::NO_KL:
      return KlKind::kNone;
    case proto::Rl::K1:
      return KlKind::kK1;
    case proto::Rl::K2:
      return KlKind::kK2;
    case proto::Rl::K3:
      return KlKind::kK3;
    case proto::Rl::TRUE_GRADIENT:
      return KlKind::kTrue;
  }
  return KlKind::kNone;
}

Normaliser NormaliserOf(proto::Rl::Normaliser normaliser) {
  switch (normaliser) {
    case proto::Rl::TOKENS:
      return Normaliser::kTokens;
    case proto::Rl::ANSWERS:
      return Normaliser::kAnswers;
    case proto::Rl::FIXED_LENGTH:
      return Normaliser::kFixedLength;
  }
  return Normaliser::kTokens;
}

}  // namespace

absl::Status CheckRl(const proto::Rl& rl, const ModelConfig& model) {
  RETURN_IF_ERROR(
      Annotate(Validate({.temperature = rl.temperature(), .top_k = rl.top_k(), .top_p = rl.top_p()}), "rl"));
  if (rl.drafts() && model.num_nextn_predict_layers == 0) {
    return UsageError(
        "rl.drafts is true; drafts come from an MTP module, and the model has none (num_nextn_predict_layers "
        "is 0); leave rl.drafts out, or start from a model that was trained with one");
  }
  if (rl.routing_replay() != proto::Rl::OFF && model.NumMoe(model.num_hidden_layers) == 0) {
    return UsageError(
        "rl.routing_replay = ROLLOUT, but no layer of the model has experts; there are no routes to replay; "
        "leave rl.routing_replay out, or train a model with experts (model.n_routed_experts)");
  }
  return absl::OkStatus();
}

absl::Status CheckPolicy(const proto::Rl& rl) {
  if (rl.dual_clip() != 0 && rl.dual_clip() <= 1)
    return UsageError(Concat("rl.dual_clip is ", rl.dual_clip(),
                             "; a bound on what a token costs lies above 1 (3 is common); 0 is none"));
  if (rl.kl() == proto::Rl::NO_KL && (rl.kl_coefficient() != 0 || rl.kl_in_reward())) {
    return UsageError(
        "rl.kl is NO_KL, but a coefficient is set; nothing would use it; set rl.kl: TRUE_GRADIENT or leave "
        "kl_coefficient and kl_in_reward out");
  }
  if (rl.kl() == proto::Rl::NO_KL && rl.reference_refresh_steps() != 0) {
    return UsageError(
        "rl.reference_refresh_steps is set, but rl.kl is NO_KL; there is no reference to move; set rl.kl, or "
        "leave it out");
  }
  if (rl.kl_in_reward() != (rl.kl() == proto::Rl::K1)) {
    return UsageError(
        rl.kl_in_reward()
            ? "rl.kl_in_reward is true, and rl.kl is not K1; in the reward only k1 has the right gradient "
              "(rl/objective/policy_loss.h); set rl.kl: K1"
            : "rl.kl is K1, and rl.kl_in_reward is not set; as a term of the loss k1's gradient is 0 on "
              "average, whatever the KL is (rl/objective/policy_loss.h); set rl.kl: TRUE_GRADIENT, or "
              "rl.kl_in_reward: true");
  }
  if (rl.kl_in_reward() && rl.kl_coefficient() == 0) {
    return UsageError(
        "rl.kl_in_reward is true, and rl.kl_coefficient is 0; nothing would come off a reward; set "
        "kl_coefficient, or leave kl and kl_in_reward out");
  }
  if (rl.surrogate() == proto::Rl::PLAIN && rl.updates() > 1) {
    return UsageError(Concat("rl.surrogate is PLAIN, and rl.updates is ", rl.updates(),
                             "; PLAIN has no ratio to make up for a step's earlier updates; use 1 update, or "
                             "surrogate: CLIPPED"));
  }
  if (rl.has_entropy_guard() && rl.entropy_floor() == 0) {
    return UsageError(
        "rl.entropy_guard is set, but rl.entropy_floor is not; nothing would use it; set entropy_floor to "
        "the entropy (nats a token) below which it acts");
  }
  if (rl.entropy_floor() > 0 && (rl.top_k() > 0 || rl.top_p() < 1)) {
    return UsageError(
        "rl.entropy_floor is set, and rl.top_k or rl.top_p as well; from tokens drawn of a cut distribution "
        "its entropy is not known; leave the cuts out or the floor");
  }
  if (rl.group_size() == 1 && rl.advantage() != proto::Rl::REINFORCE_PP) {
    return UsageError(
        "rl.group_size = 1; a group of one answer has nothing to compare it with; use 2 or more, or "
        "advantage: REINFORCE_PP");
  }
  if (rl.group_size() == 1 && rl.refill_rounds() > 0) {
    return UsageError(
        "rl.refill_rounds is set, and rl.group_size is 1; one answer always earns what its group earns, so "
        "every prompt would be replaced; leave rl.refill_rounds out");
  }
  return absl::OkStatus();
}

PolicyOptions PolicyOptionsOf(const proto::Rl& rl) {
  const double none = std::numeric_limits<double>::infinity();
  PolicyOptions out;
  out.advantage = AdvantageOf(rl.advantage());
  out.objective = {.surrogate = SurrogateOf(rl.surrogate()),
                   .clip_low = rl.clip_low() >= 1 ? none : rl.clip_low(),
                   .clip_high = rl.clip_high(),
                   .dual_clip = rl.dual_clip(),
                   .kl = rl.kl_in_reward() ? KlKind::kNone : KlOf(rl.kl()),
                   .kl_coefficient = rl.kl_in_reward() ? 0 : rl.kl_coefficient(),
                   .normaliser = NormaliserOf(rl.normaliser()),
                   .maximum_length = rl.max_new(),
                   .truncate_at = rl.truncate_at(),
                   .keep_from = rl.keep_from(),
                   .keep_to = rl.keep_to(),
                   .correct_mismatch = rl.correct_mismatch()};
  out.entropy_coefficient = rl.entropy_coefficient();
  out.temperature = rl.temperature();
  out.updates = rl.updates();
  out.exact = rl.rollout() == proto::Rl::EXACT;
  out.replays_routes = rl.routing_replay() == proto::Rl::ROLLOUT;
  out.cuts = rl.top_k() > 0 || rl.top_p() < 1;
  out.kl_in_reward = rl.kl_in_reward() ? rl.kl_coefficient() : 0;
  return out;
}

RolloutOptions RolloutOptionsOf(const proto::Rl& rl, int64_t max_length, uint64_t seed) {
  return {
      .group_size = rl.group_size(),
      .max_new = rl.max_new(),
      .sampling = {.temperature = rl.temperature(), .top_k = rl.top_k(), .top_p = rl.top_p(), .seed = seed},
      .max_batch = rl.max_batch(),
      .max_length = max_length};
}

DecoderOptions DecoderOptionsOf(const proto::Rl& rl, const Trainer& trainer) {
  return {.exact = rl.rollout() == proto::Rl::EXACT && trainer.context().backend.batch_invariant(),
          .int8 = rl.rollout() == proto::Rl::INT8,
          .drafts = rl.drafts()};
}

ScoreOptions ScoreOptionsOf(const Trainer& trainer, double temperature) {
  return {.temperature = temperature,
          .rounding = trainer.config().rounding,
          .max_expert_rows = trainer.config().recompute.max_expert_rows};
}

absl::StatusOr<StepReport> EvaluateHeldOut(const SourceContext& context, PolicyModel& policy,
                                           const DecoderOptions& decoder) {
  if (context.held_out == nullptr) return StepReport();
  const ProblemEvaluation options{.name = context.eval_name,
                                  .problems = context.evaluate.problems(),
                                  .samples = context.evaluate.samples(),
                                  .rollout = RolloutOptionsOf(context.rl, context.max_length, context.seed),
                                  .seed = context.seed};
  return EvaluateProblems(context.trainer, policy,
                          {*context.held_out, context.codec, *context.held_out_scorer}, decoder, options);
}

}  // namespace moebius
