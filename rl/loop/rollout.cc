#include "rl/loop/rollout.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/loop/loop.pb.h"

namespace moebius {
namespace {

// Judging a program waits for it, so several threads judge at once.
constexpr int kJudges = 4;
constexpr size_t kMostGathered = std::numeric_limits<int32_t>::max();  // protobuf's limit

SampledAnswer AnswerOf(const RolloutSample& sample, uint64_t seed, uint64_t number) {
  return {.text = sample.text,
          .num_tokens = std::ssize(sample.tokens),
          .finished = sample.finished,
          .seed = seed,
          .sample = number};
}

absl::StatusOr<std::vector<int32_t>> PromptOf(const Problem& problem, const PromptCodec& codec,
                                              const RolloutOptions& options) {
  absl::StatusOr<std::vector<int32_t>> prompt = codec.Prompt(problem.messages);
  RETURN_IF_ERROR(Annotate(prompt.status(), Concat("problem ", problem.id)));
  const int64_t room = options.max_length - options.max_new;
  if (std::ssize(*prompt) <= room) return prompt;
  return UsageError(Concat("problem ", problem.id, ": its prompt has ", prompt->size(),
                           " tokens, but batch.sequence_length ", options.max_length, " less rl.max_new ",
                           options.max_new, " leaves ", room,
                           "; raise batch.sequence_length, or lower rl.max_new"));
}

absl::StatusOr<Judgement> JudgeOnce(const ProblemTools& tools, const Problem& problem,
                                    const SampledAnswer& answer, Journal* journal, bool again = false) {
  const std::optional<std::string> extracted = tools.scorer.Extract(answer);
  if (journal == nullptr || !extracted || problem.fingerprint.empty())
    return tools.scorer.Judge(problem, answer);
  const std::string text = Concat(again ? "again: " : "once: ", *extracted);
  if (std::optional<Judgement> known = journal->Find(problem.fingerprint, text)) return *std::move(known);
  ASSIGN_OR_RETURN(Judgement judgement, tools.scorer.Judge(problem, answer));
  // A sandbox that failed has judged nothing, and may work another time.
  const bool keep = judgement.depends_on_time && judgement.correct.has_value();
  return keep ? journal->Add(problem.fingerprint, text, judgement) : judgement;
}

template <typename From, typename To>
void CopyTo(const From& from, To* to) {
  to->Assign(from.begin(), from.end());
}

proto::SampledGroups ToProto(const std::vector<RolloutGroup>& groups) {
  proto::SampledGroups out;
  for (const RolloutGroup& group : groups) {
    proto::SampledGroup& to = *out.add_group();
    to.set_problem(group.problem);
    CopyTo(group.prompt, to.mutable_prompt());
    CopyTo(group.prompt_routes, to.mutable_prompt_routes());
    for (const RolloutSample& s : group.samples) {
      proto::SampledGroup::Sample& sample = *to.add_sample();
      CopyTo(s.tokens, sample.mutable_tokens());
      CopyTo(s.logprobs, sample.mutable_logprobs());
      CopyTo(s.sampling_logprobs, sample.mutable_sampling_logprobs());
      CopyTo(s.proximal, sample.mutable_proximal());
      CopyTo(s.reference, sample.mutable_reference());
      CopyTo(s.routes, sample.mutable_routes());
      sample.set_sequence(s.sequence);
      sample.set_finished(s.finished);
      sample.set_drafts(s.drafts);
      sample.set_accepted_drafts(s.accepted_drafts);
      sample.set_text(s.text);
      if (s.score.reward) sample.set_reward(*s.score.reward);
      if (s.score.correct) sample.set_correct(*s.score.correct);
      for (const auto& [name, value] : s.score.parts) {
        sample.add_part()->set_name(name);
        sample.mutable_part()->rbegin()->set_value(value);
      }
      sample.set_verdict(s.score.verdict);
      sample.set_extracted(s.score.extracted);
      if (s.score.visible) sample.set_visible(*s.score.visible);
      if (s.score.differs) sample.set_differs(*s.score.differs);
    }
  }
  return out;
}

void AddFromProto(const proto::SampledGroups& from, std::vector<RolloutGroup>& out) {
  for (const proto::SampledGroup& group : from.group()) {
    RolloutGroup& to = out.emplace_back();
    to.problem = group.problem();
    to.prompt.assign(group.prompt().begin(), group.prompt().end());
    to.prompt_routes.assign(group.prompt_routes().begin(), group.prompt_routes().end());
    for (const proto::SampledGroup::Sample& s : group.sample()) {
      RolloutSample& sample = to.samples.emplace_back();
      sample.tokens.assign(s.tokens().begin(), s.tokens().end());
      sample.logprobs.assign(s.logprobs().begin(), s.logprobs().end());
      sample.sampling_logprobs.assign(s.sampling_logprobs().begin(), s.sampling_logprobs().end());
      sample.proximal.assign(s.proximal().begin(), s.proximal().end());
      sample.reference.assign(s.reference().begin(), s.reference().end());
      sample.routes.assign(s.routes().begin(), s.routes().end());
      sample.sequence = s.sequence();
      sample.finished = s.finished();
      sample.drafts = s.drafts();
      sample.accepted_drafts = s.accepted_drafts();
      sample.text = s.text();
      if (s.has_reward()) sample.score.reward = s.reward();
      if (s.has_correct()) sample.score.correct = s.correct();
      for (const auto& part : s.part()) sample.score.parts.emplace_back(part.name(), part.value());
      sample.score.verdict = s.verdict();
      sample.score.extracted = s.extracted();
      if (s.has_visible()) sample.score.visible = s.visible();
      if (s.has_differs()) sample.score.differs = s.differs();
    }
  }
}

// routes: of the prompt and the sample's `tokens` - 1 tokens that ran.
void SplitRoutes(const std::vector<Route>& routes, int64_t tokens, RolloutGroup& group,
                 RolloutSample& sample) {
  const int64_t prompt = std::ssize(group.prompt);
  const auto answer = routes.begin() + std::ssize(routes) / (prompt + tokens - 1) * prompt;
  if (group.samples.size() == 1) group.prompt_routes.assign(routes.begin(), answer);
  sample.routes.assign(answer, routes.end());
}

}  // namespace

std::pair<int64_t, int64_t> ShareOf(int64_t n, int rank, int ranks) {
  return {rank * n / ranks, (rank + 1) * n / ranks};
}

absl::Status CheckPrompts(const ProblemSet& problems, const PromptCodec& codec,
                          const std::vector<uint64_t>& indices, const RolloutOptions& options) {
  for (const uint64_t index : indices) {
    RETURN_IF_ERROR(PromptOf(problems.At(index), codec, options).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RolloutGroup>> SampleGroups(Decoder& decoder, const ProblemTools& tools,
                                                       const std::vector<uint64_t>& problems,
                                                       uint64_t first_group, const RolloutOptions& options) {
  std::vector<RolloutGroup> groups;
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < problems.size(); ++i) {
    RolloutGroup& group = groups.emplace_back();
    const Problem problem = tools.problems.At(problems[i]);
    group.problem = problems[i];
    ASSIGN_OR_RETURN(group.prompt, PromptOf(problem, tools.codec, options));
    for (int64_t k = 0; k < options.group_size; ++k) {
      const uint64_t sequence = (first_group + i) * options.group_size + k;
      requests.push_back({.prompt = group.prompt,
                          .max_new = options.max_new,
                          .sampling = options.sampling,
                          .sequence = sequence % (uint64_t{1} << 32),
                          .stop = tools.codec.stop_ids(),
                          .logprobs = options.logprobs});
    }
  }
  ASSIGN_OR_RETURN(std::vector<GenerateResult> results,
                   Generate(decoder, requests, {.max_batch = options.max_batch}));
  for (size_t i = 0; i < results.size(); ++i) {
    RolloutGroup& group = groups[i / options.group_size];
    RolloutSample& sample = group.samples.emplace_back();
    sample.sequence = requests[i].sequence;
    sample.tokens = std::move(results[i].tokens);
    sample.logprobs = std::move(results[i].logprobs);
    sample.sampling_logprobs = std::move(results[i].sampling_logprobs);
    SplitRoutes(results[i].routes, std::ssize(sample.tokens), group, sample);
    sample.finished = results[i].reason == StopReason::kStopToken;
    sample.drafts = results[i].drafts;
    sample.accepted_drafts = results[i].accepted_drafts;
    sample.text = tools.codec.AnswerText(sample.tokens);
  }
  return groups;
}

absl::Status ScoreSamples(const ProblemTools& tools, uint64_t seed, uint64_t first_sample, Journal* journal,
                          std::vector<RolloutGroup>& groups) {
  struct Item {
    const Problem* problem;
    RolloutSample* sample;
  };
  std::vector<Problem> problems;
  problems.reserve(groups.size());
  std::vector<Item> items;
  for (RolloutGroup& group : groups) {
    problems.push_back(tools.problems.At(group.problem));
    for (RolloutSample& sample : group.samples) items.push_back({&problems.back(), &sample});
  }
  std::mutex mutex;
  absl::Status failed;
  std::atomic<bool> waits = false;  // judgements take their time: worth other threads
  std::atomic<size_t> next = 0;
  const auto fail = [&](const absl::Status& status) {
    std::lock_guard lock(mutex);
    failed.Update(status);
  };
  const auto work = [&](bool first) {
    for (size_t i = next++; i < items.size(); i = next++) {
      const Item& item = items[i];
      const SampledAnswer answer = AnswerOf(*item.sample, seed, first_sample + i);
      const absl::StatusOr<Judgement> judgement = JudgeOnce(tools, *item.problem, answer, journal);
      if (!judgement.ok()) return fail(judgement.status());
      ScoredAnswer& score = item.sample->score;
      score = tools.scorer.Combine(*item.problem, answer, *judgement);
      if (judgement->depends_on_time && journal != nullptr && tools.scorer.JudgesAgain(answer)) {
        const absl::StatusOr<Judgement> second = JudgeOnce(tools, *item.problem, answer, journal, true);
        if (!second.ok()) return fail(second.status());
        // What the sandbox failed at is no verdict to differ from.
        if (judgement->correct && second->correct) score.differs = *second != *judgement;
      }
      if (first && judgement->depends_on_time) {
        waits = true;
        return;
      }
    }
  };
  work(true);
  if (waits) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kJudges; ++t) threads.emplace_back(work, false);
    for (std::thread& thread : threads) thread.join();
  }
  return failed;
}

absl::StatusOr<std::vector<RolloutGroup>> GatherGroups(Mesh& mesh, const std::vector<RolloutGroup>& mine) {
  const proto::SampledGroups message = ToProto(mine);
  std::string text;
  absl::Status status;
  if (message.ByteSizeLong() > kMostGathered) {
    status =
        UsageError(Concat("the samples of a rank's step are ", HumanBytes(message.ByteSizeLong()),
                          "; ranks tell each other at most 2 GiB; use more ranks, fewer prompts or answers a "
                          "step, or leave out rl.routing_replay"));
  } else {
    message.SerializeToString(&text);
  }
  RETURN_IF_ERROR(mesh.Agree(status));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, mesh.GatherText(text));
  std::vector<RolloutGroup> out;
  for (const std::string& of_rank : texts) {
    proto::SampledGroups part;
    CHECK(part.ParseFromString(of_rank)) << "samples of another rank";
    AddFromProto(part, out);
  }
  return out;
}

}  // namespace moebius
