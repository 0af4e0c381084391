#include "launch/plan/cluster_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "core/model/cost.h"
#include "launch/plan/cluster.pb.h"
#include "launch/recipe.pb.h"
#include "launch/train/settings.h"
#include "parallel/pipeline/generate.h"

namespace moebius {
namespace {

double TrainedFlops(const proto::Recipe& r, const ModelConfig& config) {
  const ModelCost cost = CostOf(config, r.batch().sequence_length());
  return cost.train_flops + (TrainsMtp(r) ? cost.train_flops_mtp : 0);
}

double TokensOfRun(const proto::Recipe& r) {
  return SequencesOfRun(r) * static_cast<double>(r.batch().sequence_length());
}

template <typename... Args>
std::string Line(const char* format, Args... args) {
  std::string text(std::snprintf(nullptr, 0, format, args...), '\0');
  std::snprintf(text.data(), text.size() + 1, format, args...);
  return text;
}

std::string Dollars(double usd) {
  return usd >= 1e6   ? Line("$%.3f M", usd / 1e6)
         : usd >= 1e3 ? Line("$%.1f K", usd / 1e3)
                      : Line("$%.2f", usd);
}

std::string HumanHours(double hours) {
  return hours >= 1e6   ? Line("%.3f M", hours / 1e6)
         : hours >= 1e3 ? Line("%.1f K", hours / 1e3)
                        : Line("%.1f", hours);
}

// How tokens reach experts, where they have a way to go.
const char* ExchangeText(const Layout& layout, int per_node) {
  if (layout.expert == 1) return "";
  if (layout.exchange.kind == ExchangeKind::kGather) return ", tokens gathered";
  const std::vector<NodeMap> groups = ExpertGroups(layout, per_node);
  const bool two = std::any_of(groups.begin(), groups.end(),
                               [&](const NodeMap& nodes) { return IsTwoLevel(layout.exchange.kind, nodes); });
  return two ? ", tokens on two levels" : ", tokens flat";
}

}  // namespace

Goodput GoodputOf(double rank_hours, int ranks, double save_s, double restart_s) {
  const double between_s = 3600 * rank_hours / ranks;
  Goodput out;
  out.save_every_s = std::sqrt(2 * save_s * between_s);
  // With this interval saving takes the share of the time that a failure throws away: half an interval.
  out.share = std::max(0.0, 1 - (out.save_every_s + restart_s) / between_s);
  return out;
}

const ActivationBytes& ClusterPlanner::Activations(const proto::Recipe& recipe) {
  const auto [found, is_new] = activations_.try_emplace(recipe.recompute().policy());
  if (is_new) found->second = MeasureActivations(recipe, config_);
  return found->second;
}

absl::StatusOr<ClusterPlan> ClusterPlanner::Prepare(const proto::Recipe& recipe, int ranks,
                                                    int64_t sequences) {
  ClusterPlan plan;
  plan.recipe = std::make_shared<proto::Recipe>(recipe);
  const proto::Recipe& r = *plan.recipe;
  ASSIGN_OR_RETURN(plan.layout, FitPlan(r, config_, ranks, sequences, cluster_.ranks_per_node()));
  ASSIGN_OR_RETURN(const ClusterCosts costs, ClusterCosts::New(r, config_, cluster_, Activations(r)));
  for (int p = 0; p < plan.layout.schedule.ranks; ++p) {
    ASSIGN_OR_RETURN(const RankState state, StateOf(r, config_, plan.layout.layout, p, DType::kBF16));
    plan.states.push_back(state);
    plan.peak_bytes = std::max(plan.peak_bytes, plan.states[p].bytes);
  }
  costs.Fill(plan.states, plan.layout);
  return plan;
}

absl::Status ClusterPlanner::Run(ClusterPlan& plan, int64_t sequences) const {
  const proto::Recipe& r = *plan.recipe;
  ASSIGN_OR_RETURN(plan.layout.run, Simulate(plan.layout.schedule, plan.layout.costs));
  plan.step_s = plan.layout.run.step_end;
  plan.tokens_per_s =
      static_cast<double>(sequences * r.batch().sequence_length()) / plan.step_s / plan.layout.layout.ranks();
  plan.flops_per_s = plan.tokens_per_s * TrainedFlops(r, config_);
  plan.mfu = plan.flops_per_s / (cluster_.accelerator().bf16_tflops() * 1e12);
  for (size_t p = 0; p < plan.states.size(); ++p) {
    plan.peak_bytes = std::max(plan.peak_bytes, plan.states[p].bytes + plan.layout.run.ranks[p].peak_bytes);
  }
  plan.peak_bytes += plan.layout.costs.scratch_bytes + cluster_.accelerator().reserved_gb() * 1e9;
  plan.fits = plan.peak_bytes <= cluster_.accelerator().memory_gb() * 1e9;
  return absl::OkStatus();
}

absl::StatusOr<ClusterPlan> ClusterPlanner::Predict(const proto::Recipe& recipe, int ranks) {
  const int64_t sequences = BatchPhasesOf(recipe).back().sequences;
  ASSIGN_OR_RETURN(ClusterPlan plan, Prepare(recipe, ranks, sequences));
  RETURN_IF_ERROR(Run(plan, sequences));
  RETURN_IF_ERROR(AddOtherBatches(plan));
  return plan;
}

absl::Status ClusterPlanner::AddOtherBatches(ClusterPlan& plan) {
  const std::vector<BatchPhase> phases = BatchPhasesOf(*plan.recipe);
  plan.run_s = static_cast<double>(phases.back().steps) * plan.step_s;
  for (size_t i = 0; i + 1 < phases.size(); ++i) {
    ASSIGN_OR_RETURN(ClusterPlan other,
                     Prepare(*plan.recipe, plan.layout.layout.ranks(), phases[i].sequences));
    RETURN_IF_ERROR(Run(other, phases[i].sequences));
    plan.run_s += static_cast<double>(phases[i].steps) * other.step_s;
    plan.peak_bytes = std::max(plan.peak_bytes, other.peak_bytes);
    plan.fits = plan.fits && other.fits;
  }
  return absl::OkStatus();
}

std::string ClusterPlanner::Describe(const ClusterPlan& plan) {
  const proto::Recipe& r = *plan.recipe;
  const absl::StatusOr<ClusterCosts> costs = ClusterCosts::New(r, config_, cluster_, Activations(r));
  CHECK(costs.ok()) << costs.status();  // it was planned with them
  const Schedule& s = plan.layout.schedule;
  const proto::Cluster::Accelerator& a = cluster_.accelerator();
  const int ranks = plan.layout.layout.ranks();
  std::string out =
      Line("cluster     %s: %d ranks, %lld a node; %.4g TFLOP/s in bf16, %.4g GB; links %.4g and %.4g GB/s\n",
           cluster_.name().c_str(), ranks, static_cast<long long>(cluster_.ranks_per_node()), a.bf16_tflops(),
           a.memory_gb(), cluster_.within_node().gb_per_s(), cluster_.between_nodes().gb_per_s());
  out += Line("layout      %s: %d stages, %d microbatches of %.0f tokens%s\n",
              ToText(plan.layout.layout).c_str(), s.stages, s.microbatches, plan.layout.microbatch_tokens,
              ExchangeText(plan.layout.layout, static_cast<int>(cluster_.ranks_per_node())));
  if (const std::vector<BatchPhase> phases = BatchPhasesOf(r); phases.size() > 1) {
    out += Line("batch       %lld sequences at first, %lld at last, of which are microbatch and step\n",
                static_cast<long long>(phases.front().sequences),
                static_cast<long long>(phases.back().sequences));
  }
  out += Line("compute     %s\n\n", ComputeText(r, DType::kBF16).c_str());

  // The stage with the most work, phase by phase.
  size_t slowest = 0;
  const auto total = [&](size_t i) {
    const StageCosts& c = plan.layout.costs.stages[i];
    return c.forward + c.backward_input + c.backward_weight;
  };
  for (size_t i = 0; i < plan.layout.ranges.size(); ++i) {
    if (total(i) > total(slowest)) slowest = i;
  }
  const StageRange& range = plan.layout.ranges[slowest];
  const StageTime t = costs->TimeOf(plan.layout, range);
  out += Line("a microbatch on the slowest stage (%zu: layers %lld-%lld%s), ms\n", slowest,
              static_cast<long long>(range.first_layer), static_cast<long long>(range.last_layer - 1),
              range.head ? ", head" : "");
  out += "                   dense  experts  attention  elementwise  exchange    sum\n";
  const auto row = [&](const char* name, const PhaseTime& p) {
    out += Line("  %-15s %7.2f  %7.2f  %9.2f  %11.2f  %8.2f  %5.1f\n", name, 1e3 * p.dense, 1e3 * p.experts,
                1e3 * p.attention, 1e3 * p.elementwise, 1e3 * p.exchange, 1e3 * p.total());
  };
  row("forward", t.forward);
  row("backward, input", t.backward_input);
  row("weights", t.backward_weight);

  const Simulation& run = plan.layout.run;
  out += Line(
      "\nstep        %.4g s: compute and exchange %.4g s, bubble %.3g s (%.1f %%) on the worst rank, "
      "gradients and optimizer %.3g s\n",
      plan.step_s, run.makespan - run.worst_idle(), run.worst_idle(), 100 * run.bubble(),
      plan.step_s - run.makespan);
  out += Line(
      "speed       %.0f tokens/s a rank, %.1f TFLOP/s, %.1f %% of the bf16 peak (trained FLOPs, causal "
      "attention)\n",
      plan.tokens_per_s, plan.flops_per_s / 1e12, 100 * plan.mfu);
  size_t fullest = 0;
  const auto bytes = [&](size_t p) { return plan.states[p].bytes + run.ranks[p].peak_bytes; };
  for (size_t p = 0; p < plan.states.size(); ++p) fullest = bytes(p) > bytes(fullest) ? p : fullest;
  out += Line(
      "memory      %.1f GB on pipeline rank %zu: %.1f weights, gradients, moments, %.1f activations, %.1f at "
      "work, %.1f reserved: %s\n",
      plan.peak_bytes / 1e9, fullest, plan.states[fullest].bytes / 1e9,
      (run.ranks[fullest].peak_bytes - run.ranks[fullest].work_bytes) / 1e9,
      (run.ranks[fullest].work_bytes + plan.layout.costs.scratch_bytes) / 1e9, a.reserved_gb(),
      plan.fits ? Line("fits %.4g GB", a.memory_gb()).c_str()
                : Line("does NOT fit %.4g GB", a.memory_gb()).c_str());
  const double tokens = TokensOfRun(r);
  const double hours = plan.run_s / 3600;
  const auto money = [&](double h) {
    return a.usd_per_hour() > 0 ? Line(", %s at $%.2f an hour", Dollars(h * ranks * a.usd_per_hour()).c_str(),
                                       a.usd_per_hour())
                                : std::string();
  };
  out += Line("run         %s tokens in %s: %s rank-hours%s; %s rank-hours a trillion tokens\n",
              WithCommas(std::llround(std::min(tokens, 9e18))).c_str(), HumanSeconds(3600 * hours).c_str(),
              HumanHours(hours * ranks).c_str(), money(hours).c_str(),
              HumanHours(1e12 / 3600 / plan.tokens_per_s).c_str());
  const proto::Cluster::Failures& f = cluster_.failures();
  if (f.rank_hours() > 0) {
    const Goodput goodput = GoodputOf(f.rank_hours(), ranks, f.save_s(), f.restart_s());
    const std::string often = HumanSeconds(3600 * f.rank_hours() / ranks);
    out +=
        goodput.share > 0
            ? Line("failures    one in %s; a checkpoint every %s leaves %.1f %%: %s%s\n", often.c_str(),
                   HumanSeconds(goodput.save_every_s).c_str(), 100 * goodput.share,
                   HumanSeconds(3600 * hours / goodput.share).c_str(), money(hours / goodput.share).c_str())
            : Line("failures    one in %s: saving and restarting take longer than that, the run never ends\n",
                   often.c_str());
  }
  return out;
}

absl::StatusOr<ClusterPlanner::Found> ClusterPlanner::Search(const proto::Recipe& recipe, int ranks) {
  const auto sizes = [](int64_t most, int64_t own) {
    std::set<int64_t> out{own};
    for (int64_t n = 1; n <= most; n *= 2) out.insert(n);
    return out;
  };
  const int64_t most_stages = std::min<int64_t>({ranks, config_.num_hidden_layers, kMaxPipelineRanks});
  const int64_t most_experts = std::max<int64_t>(1, std::min<int64_t>(ranks, config_.n_routed_experts));
  const std::vector<BatchPhase> phases = BatchPhasesOf(recipe);
  const int64_t sequences = phases.back().sequences;
  Found found;
  absl::Status refused;  // the first reason; most layouts fail for sizes that do not divide
  proto::Recipe r = recipe;
  const auto try_layout = [&] {
    absl::StatusOr<ClusterPlan> plan = Prepare(r, ranks, sequences);
    if (!plan.ok()) return refused.Update(plan.status());
    ++found.tried;
    if (plan->peak_bytes > cluster_.accelerator().memory_gb() * 1e9 || !Run(*plan, sequences).ok()) return;
    if (plan->fits && AddOtherBatches(*plan).ok() && plan->fits) found.plans.push_back(*std::move(plan));
  };
  const auto divides = [&](int64_t microbatch) {  // as a recipe's must
    return std::all_of(phases.begin(), phases.end(),
                       [&](const BatchPhase& phase) { return phase.sequences % microbatch == 0; });
  };
  r.mutable_parallel()->set_data(0);  // what is left
  for (const int64_t pipeline : sizes(most_stages, recipe.parallel().pipeline())) {
    r.mutable_parallel()->set_pipeline(pipeline);
    for (const int64_t expert : sizes(most_experts, recipe.parallel().expert())) {
      r.mutable_parallel()->set_expert(expert);
      for (const std::string& schedule :
           pipeline == 1 ? std::vector<std::string>{"1f1b", "dualpipev"} : ScheduleNames()) {
        r.mutable_parallel()->set_schedule(schedule);
        for (const int64_t microbatch : {1, 2, 4}) {
          // No more than a rank's share.
          if (!divides(microbatch) || microbatch > std::max<int64_t>(1, sequences * pipeline / ranks))
            continue;
          r.mutable_batch()->set_microbatch_sequences(microbatch);
          for (const auto policy : std::set<int>{recipe.recompute().policy(), proto::Recompute::SELECTIVE,
                                                 proto::Recompute::BLOCKS}) {
            r.mutable_recompute()->set_policy(static_cast<proto::Recompute::Policy>(policy));
            try_layout();
          }
        }
      }
    }
  }
  if (found.tried == 0) return refused;
  std::stable_sort(found.plans.begin(), found.plans.end(),
                   [](const ClusterPlan& a, const ClusterPlan& b) { return a.step_s < b.step_s; });
  return found;
}

std::string ClusterPlanner::Describe(const Found& found, size_t most) const {
  std::string out = Line("%zu of %d layouts fit %.4g GB\n\n", found.plans.size(), found.tried,
                         cluster_.accelerator().memory_gb());
  if (found.plans.empty()) return out + "none: more ranks, or optimizer.moments=BF16 where it is not set\n";
  out +=
      "pipeline  data  expert  schedule     sequences  recompute   step s  tokens/s a rank  MFU %  bubble %  "
      " GB\n";
  for (size_t i = 0; i < std::min(most, found.plans.size()); ++i) {
    const ClusterPlan& p = found.plans[i];
    const Layout& l = p.layout.layout;
    out +=
        Line("%8d  %4d  %6d  %-11s  %9lld  %-9s  %7.3f  %15.0f  %5.1f  %8.1f  %3.0f\n", l.pipeline, l.data,
             l.expert, l.schedule.c_str(), static_cast<long long>(p.recipe->batch().microbatch_sequences()),
             proto::Recompute::Policy_Name(p.recipe->recompute().policy()).c_str(), p.step_s, p.tokens_per_s,
             100 * p.mfu, 100 * p.layout.run.bubble(), p.peak_bytes / 1e9);
  }
  return out;
}

}  // namespace moebius
