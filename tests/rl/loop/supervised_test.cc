// Fine-tuning on worked answers and on preferences, and answers kept for it.
#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/score.h"
#include "gtest/gtest.h"
#include "optim/checkpoint.h"
#include "parallel/comm/solo_world.h"
#include "rl/loop/dpo_source.h"
#include "rl/loop/rejection_source.h"
#include "rl/loop/sft_source.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

// Minus the mean log-probability of the answers' tokens under the present weights.
double AnswerLoss(TinyRun& run, const std::vector<AnswerGroup>& groups) {
  const Context& context = run.trainer().context();
  Microbatch mb(context.backend, run.trainer().model().num_slots());
  double sum = 0;
  const std::vector<float> logprobs = ScoreGroups(run.trainer().model(), context, mb, groups);
  for (const float logprob : logprobs) sum -= logprob;
  return sum / static_cast<double>(logprobs.size());
}

TEST(ToAnswerGroupTest, LeavesOutPromptsAndLaterQuestions) {
  const EncodedChat one{.ids = {1, 2, 3, 4, 5}, .is_answer = {false, false, true, true, true}};
  const AnswerGroup group = ToAnswerGroup(one);
  EXPECT_EQ(group.prompt, (std::vector<int32_t>{1, 2}));
  ASSERT_EQ(group.answers.size(), 1u);
  EXPECT_EQ(group.answers[0].tokens, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_TRUE(group.answers[0].counts.empty());
  EXPECT_EQ(group.Predictions(), 3);
  const EncodedChat turns{.ids = {1, 2, 3, 4, 5, 6}, .is_answer = {false, true, false, false, true, true}};
  const AnswerGroup two = ToAnswerGroup(turns);
  EXPECT_EQ(two.prompt, (std::vector<int32_t>{1}));
  EXPECT_EQ(two.answers[0].tokens, (std::vector<int32_t>{2, 3, 4, 5, 6}));
  EXPECT_EQ(two.answers[0].counts, (std::vector<bool>{true, false, false, true, true}));
  EXPECT_EQ(two.Predictions(), 3);
}

TEST(SftSourceTest, TheLossIsTheAnswersAndFalls) {
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyMoe()));
  std::vector<AnswerGroup> first;
  for (uint64_t i = 0; i < 16; ++i) {
    const Problem problem = run.problems().At(i);
    first.push_back(ToAnswerGroup(*run.codec().Example(problem.messages, problem.gold)));
    EXPECT_EQ(first.back().prompt, *run.codec().Prompt(problem.messages));
    EXPECT_EQ(first.back().Predictions(), 3) << "two digits and the end";
  }
  const double want = AnswerLoss(run, first);
  SftSource source(run.context(), run.problems(), run.scorer());
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(source, 60);
  ASSERT_TRUE(reports.ok()) << reports.status();
  EXPECT_NEAR(reports->front().metrics.loss, want, 1e-5);
  EXPECT_EQ(ValueOf(reports->front(), "sft/answer_tokens"), 16 * 3);
  EXPECT_LT(reports->back().metrics.loss, 0.5 * want);
  EXPECT_EQ(run.trainer().state().sequences, 60u * 16);
  EXPECT_GT(ValueOf(*source.Evaluate(), "eval/sort"), 0.3);
}

// Conversations are gone through once an epoch, in another order each.
TEST(SftSourceTest, EveryEpochSeesEveryConversation) {
  for (const bool shuffle : {true, false}) {
    SoloWorld world;
    TinyRunOptions o = SortTwo(TinyDense());
    o.sequences = 4;
    o.lr = 0;
    TinyRun run(*world, {}, o);
    Conversations conversations;
    std::vector<AnswerGroup> all;
    for (uint64_t i = 0; i < 12; ++i) {
      const Problem problem = run.problems().At(i);
      conversations.items.push_back(*run.codec().Example(problem.messages, problem.gold));
      all.push_back(ToAnswerGroup(conversations.items.back()));
    }
    const double want = AnswerLoss(run, all);
    SftSource source(run.context(), WorkedAnswers(run.context(), conversations, shuffle));
    std::vector<std::vector<double>> epochs;
    for (int epoch = 0; epoch < 2; ++epoch) {
      std::vector<double>& losses = epochs.emplace_back();
      const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(source, 3);
      ASSERT_TRUE(reports.ok()) << reports.status();
      for (const StepReport& report : *reports) losses.push_back(report.metrics.loss);
      EXPECT_NEAR((losses[0] + losses[1] + losses[2]) / 3, want, 1e-5);
    }
    EXPECT_EQ(epochs[0] == epochs[1], !shuffle);
  }
}

TEST(SftSourceTest, RefusesAnswersThatDoNotFit) {
  TinyRunOptions o = SortTwo(TinyDense());
  o.problems.set_sort_length(30);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  SftSource source(run.context(), run.problems(), run.scorer());
  const absl::Status status = source.Step().status();
  EXPECT_EQ(ExitCode(status), 64);
  EXPECT_TRUE(Contains(status, "batch.sequence_length is 24")) << status;
}

TEST(PairLossTest, IsTheFormulaAndItsDerivative) {
  for (const double smoothing : {0.0, 0.2}) {
    for (const double x : {-400.0, -3.0, 0.0, 0.7, 300.0}) {
      const PairLoss loss = ComputePairLoss(0.3, smoothing, x, 0.4);
      const double z = 0.3 * (x - 0.4);
      EXPECT_DOUBLE_EQ(loss.margin, z);
      if (std::abs(z) < 20) {
        EXPECT_NEAR(loss.loss,
                    (1 - smoothing) * std::log1p(std::exp(-z)) + smoothing * std::log1p(std::exp(z)), 1e-12);
      } else {
        EXPECT_NEAR(loss.loss, (z < 0 ? 1 - smoothing : smoothing) * std::abs(z), 1e-9);
      }
      const double above = ComputePairLoss(0.3, smoothing, x + 1e-6, 0.4).loss;
      const double below = ComputePairLoss(0.3, smoothing, x - 1e-6, 0.4).loss;
      EXPECT_NEAR(loss.slope, (above - below) / 2e-6, 1e-7) << x;
    }
  }
}

// Three steps of sampling after a short start; the lines that were kept.
std::string KeptOn(const Layout& layout, const Scratch& scratch) {
  const std::string path = scratch.path(Concat("kept-", layout.data, ".jsonl"));
  TinyRunOptions o = SortTwo(TinyDense());
  const absl::Status status = OnRanks(layout, o, [&](TinyRun& run, int rank) -> absl::Status {
    SftSource sft(run.context(), run.problems(), run.scorer());
    RETURN_IF_ERROR(RunSteps(sft, 25).status());
    RejectionSource source(run.context(), run.problems(), run.scorer(), {.keep = 1}, nullptr,
                           rank == 0 ? path : "");
    RETURN_IF_ERROR(source.Start(""));
    const std::vector<float> before = run.Weights();
    ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(source, 3));
    EXPECT_EQ(run.Weights(), before);
    EXPECT_EQ(run.trainer().state().step, 28);
    EXPECT_EQ(run.trainer().state().sequences, 28u * 16);
    double kept = 0;
    for (const StepReport& report : reports) kept += ValueOf(report, "rejection/kept");
    if (rank != 0) return absl::OkStatus();
    const std::string text = ReadRaw(path);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), kept);
    EXPECT_GT(kept, 5);
    EXPECT_LT(kept, 3 * 16);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return path;
}

TEST(RejectionSourceTest, KeepsRightAnswersToLearnFrom) {
  const Scratch scratch;
  const std::string path = KeptOn({}, scratch);
  EXPECT_EQ(ReadRaw(KeptOn({.data = 2}, scratch)), ReadRaw(path));
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  const absl::StatusOr<Conversations> kept =
      ReadConversations(path, {.max_tokens = 24}, [&](const std::vector<ChatMessage>& messages) {
        const std::string& question = messages[0].content;
        std::string sorted = question.substr(5, 2);
        std::sort(sorted.begin(), sorted.end());
        EXPECT_EQ(messages[1].content, sorted) << question;
        return run.codec().Conversation(messages);
      });
  ASSERT_TRUE(kept.ok()) << kept.status();
  // No question twice, in a run that goes on neither; and with room for more, no answer twice.
  for (const int64_t keep : {1, 2}) {
    SCOPED_TRACE(keep);
    TinyRunOptions o = SortTwo(TinyDense());
    if (keep == 2) o.open_answer = " ";
    const absl::Status status = OnRanks({}, o, [&](TinyRun& on, int) -> absl::Status {
      SftSource sft(on.context(), on.problems(), on.scorer());
      RETURN_IF_ERROR(RunSteps(sft, 25).status());
      const std::string more = scratch.path(Concat("more-", keep, ".jsonl"));
      for (int process = 0; process < 3; ++process) {
        RejectionSource source(on.context(), on.problems(), on.scorer(), {.keep = keep}, nullptr, more);
        RETURN_IF_ERROR(source.Start(""));
        RETURN_IF_ERROR(RunSteps(source, 3).status());
      }
      std::map<std::string, std::set<std::string>> seen;
      const auto count = [&](const std::vector<ChatMessage>& messages) {
        EXPECT_TRUE(seen[messages[0].content].insert(messages[1].content).second) << messages[0].content;
        EXPECT_TRUE(messages[1].content.starts_with(o.open_answer))
            << "what the prompt had opened is part of it";
        EXPECT_LE(std::ssize(seen[messages[0].content]), keep) << messages[0].content;
        return on.codec().Conversation(messages);
      };
      RETURN_IF_ERROR(ReadConversations(more, {.max_tokens = 24}, count).status());
      EXPECT_GT(seen.size(), 10u);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
  // A run that goes on from an earlier step says its later steps again.
  RejectionSource again(run.context(), run.problems(), run.scorer(), {}, nullptr, path);
  ASSERT_TRUE(again.Start("").ok());
  EXPECT_EQ(ReadRaw(path), "");
}

std::string PairLine(const std::string& prompt, const std::string& chosen, const std::string& rejected) {
  return Concat("{\"prompt\": \"", prompt, "\", \"chosen\": \"", chosen, "\", \"rejected\": \"", rejected,
                "\"}\n");
}

TEST(PreferencePairsTest, ReadsPairsAndNamesWhatIsWrong) {
  const Scratch scratch;
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  const std::string path = scratch.path("pairs.jsonl");
  WriteRaw(path, PairLine("sort 21=", "12", "21") + "\n \t\n" +
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"sort 43=\"}], \"chosen\": \"34\", "
                     "\"rejected\": \"4\"}\n" +
                     PairLine("sort 1111111111111=", "1111111111111", "1"));
  const absl::StatusOr<PreferencePairs> pairs = ReadPreferencePairs(path, run.codec(), 24);
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  ASSERT_EQ(pairs->pairs.size(), 2u);
  EXPECT_EQ(pairs->left_out, 1);
  EXPECT_EQ(pairs->pairs[0].prompt, *run.codec().Prompt({{"user", "sort 21="}}));
  EXPECT_EQ(pairs->pairs[0].chosen.size(), 3u);
  EXPECT_EQ(pairs->pairs[0].chosen.back(), run.codec().stop_ids()[0]);
  EXPECT_EQ(pairs->pairs[1].rejected.size(), 2u);
  for (const auto& [line, part] :
       {std::pair<std::string, const char*>{PairLine("sort 21=", "12", "12"), "are the same"},
        {PairLine("sort 21=", "12", "x"), "line 2"},
        {PairLine("sort 21=", "", "1"), "line 2"},
        {"{\"prompt\": \"sort 21=\", \"chosen\": \"1\"}\n", "rejected"},
        {"{\"messages\": [], \"chosen\": \"1\", \"rejected\": \"2\"}\n", "messages"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"1\"}], \"chosen\": \"1\", \"rejected\": "
         "\"2\"}\n",
         "messages[0]: role \"tool\""},
        {"{\"chosen\": \"1\", \"rejected\": \"2\"}\n", "prompt"},
        {"{\"prompt\": \"sort 1=\", \"messages\": [{\"role\": \"user\", \"content\": \"sort 2=\"}], "
         "\"chosen\": \"1\", \"rejected\": \"2\"}\n",
         "a prompt that is not the last of them"},
        {"[1]\n", "line 2"},
        {"no json\n", "line 2"}}) {
    WriteRaw(path, PairLine("sort 21=", "12", "21") + line);
    const absl::Status status = ReadPreferencePairs(path, run.codec(), 24).status();
    const bool recipes = line == PairLine("sort 21=", "12", "x");  // whose tokenizer has no x
    EXPECT_EQ(ExitCode(status), recipes ? 64 : 65) << line << status;
    EXPECT_TRUE(Contains(status, part) && Contains(status, "line 2")) << line << status;
  }
  WriteRaw(path, PairLine("sort 1111111111111=", "1111111111111", "1"));
  EXPECT_TRUE(Contains(ReadPreferencePairs(path, run.codec(), 24).status(), "1 are longer"));
}

PreferencePairs SortedOverReversed(const TinyRun& run, int64_t n) {
  PreferencePairs out;
  for (uint64_t i = 0; std::ssize(out.pairs) < n; ++i) {
    const Problem problem = run.problems().At(i);
    const std::string reversed(problem.gold.rbegin(), problem.gold.rend());
    if (reversed == problem.gold) continue;
    const AnswerGroup chosen = ToAnswerGroup(*run.codec().Example(problem.messages, problem.gold));
    const AnswerGroup rejected = ToAnswerGroup(*run.codec().Example(problem.messages, reversed));
    out.pairs.push_back({.prompt = chosen.prompt,
                         .chosen = chosen.answers[0].tokens,
                         .rejected = rejected.answers[0].tokens});
  }
  return out;
}

struct DpoRun {
  std::vector<double> losses, margins, accuracies;
};

DpoRun RunDpo(const Layout& layout, const TinyRunOptions& options, int64_t steps,
              double label_smoothing = 0) {
  const Scratch scratch;
  DpoRun out;
  proto::Dpo dpo;
  dpo.set_beta(0.5);
  dpo.set_label_smoothing(label_smoothing);
  const absl::Status status = OnRanks(layout, options, [&](TinyRun& run, int rank) -> absl::Status {
    RETURN_IF_ERROR(SaveCheckpoint(rank == 0 ? scratch.path("start") : "", run.trainer(), {}));
    DpoSource source(run.context(), SortedOverReversed(run, 24), dpo);
    RETURN_IF_ERROR(source.Start(scratch.path("start")));
    ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(source, steps));
    if (rank != 0) return absl::OkStatus();
    for (const StepReport& report : reports) {
      out.losses.push_back(report.metrics.loss);
      out.margins.push_back(ValueOf(report, "dpo/margin"));
      out.accuracies.push_back(ValueOf(report, "dpo/accuracy"));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

TEST(DpoSourceTest, RaisesTheMarginFromWhereTheReferenceIs) {
  const DpoRun run = RunDpo({}, SortTwo(TinyMoe()), 40);
  // The policy is the reference: z = 0, loss ln 2.
  EXPECT_NEAR(run.losses[0], std::log(2), 1e-5);
  EXPECT_NEAR(run.margins[0], 0, 1e-5);
  EXPECT_GT(run.margins.back(), 1);
  EXPECT_GT(run.accuracies.back(), 0.9);
  EXPECT_LT(run.losses.back(), 0.4);
}

// The reference rounds as the policy does, so that equal weights differ by nothing.
TEST(DpoSourceTest, InFp8PolicyAndReferenceBeginAlike) {
  TinyRunOptions options = SortTwo(TinyMoe());
  options.rounding = Rounding::kFp8;
  const DpoRun run = RunDpo({}, options, 2);
  EXPECT_NEAR(run.losses[0], std::log(2), 1e-5);
  EXPECT_NEAR(run.margins[0], 0, 1e-5);
  EXPECT_NE(run.losses[1], RunDpo({}, SortTwo(TinyMoe()), 2).losses[1]) << "it does round";
}

TEST(DpoSourceTest, AllLayoutsGiveOneLoss) {
  const DpoRun want = RunDpo({}, SortTwo(TinyMoe()), 4, 0.1);
  for (const Layout& layout : {Layout{.data = 2}, Layout{.pipeline = 2}, Layout{.expert = 2}}) {
    const DpoRun got = RunDpo(layout, SortTwo(TinyMoe()), 4, 0.1);
    ASSERT_EQ(got.losses.size(), want.losses.size());
    for (size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], 1e-5) << ToText(layout) << " step " << i;
      EXPECT_NEAR(got.accuracies[i], want.accuracies[i], 1.0 / 16 + 1e-9);
    }
  }
}

}  // namespace
}  // namespace moebius
