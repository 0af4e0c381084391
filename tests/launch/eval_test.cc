// `moebius eval` and `moebius chat` on a tiny random model, as a user runs them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/status.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "launch/eval/task_knobs.h"
#include "launch/thought_stream.h"
#include "launch/verb_chat.h"
#include "launch/verb_eval.h"
#include "tests/launch/temp_folder.h"
#include "tests/rl/evaluation/tiny_folder.h"

namespace moebius {
namespace {

std::vector<nlohmann::json> JsonLines(const std::string& text) {
  std::vector<nlohmann::json> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto json = ParseJson(line, "output");
    EXPECT_TRUE(json.ok()) << json.status() << line;
    if (json.ok()) out.push_back(*json);
  }
  return out;
}

class EvalVerb : public testing::Test {
 protected:
  int Run(std::vector<std::string> args) {
    const bool chat = args[0] == "chat";
    args.insert(args.begin() + 1, folder_.File("model"));
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunProgram(chat ? ChatVerbs() : EvalVerbs(), args);
    out_ = testing::internal::GetCapturedStdout();
    error_ = testing::internal::GetCapturedStderr();
    return code;
  }
  // Runs chat with `input` as standard input.
  int Talk(const std::string& input, const std::vector<std::string>& flags) {
    std::istringstream in(input);
    std::streambuf* const before = std::cin.rdbuf(in.rdbuf());
    std::cin.clear();
    std::vector<std::string> args = {"chat"};
    args.insert(args.end(), flags.begin(), flags.end());
    const int code = Run(args);
    std::cin.rdbuf(before);
    return code;
  }

  TempFolder folder_;
  std::string out_, error_;
};

TEST_F(EvalVerb, RunsEveryBenchmarkAndCountsItsProblems) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kChatMl);
  const std::vector<std::pair<std::string, int>> want = {
      {"gsm8k", 3}, {"math", 2}, {"aime", 2},     {"mmlu", 4}, {"humaneval", 2}, {"mbpp", 2},
      {"sort", 3},  {"add", 3},  {"multiply", 3}, {"maze", 3}, {"logic", 3},     {"countdown", 3}};
  for (const char* chat : {"auto", "none"}) {
    std::vector<std::string> args = {"eval"};
    for (const auto& [name, problems] : want) args.push_back(name);
    for (const char* more : {"--data", kEvalData.c_str(), "--limit", "4", "--max-new", "12", "--json",
                             "--chat", chat, "--mmlu", "generate", "--threads", "1"})
      args.push_back(more);
    const std::string samples = folder_.File("samples.jsonl");
    args.insert(args.end(), {"--out", samples, "--samples", "2", "--temperature", "1", "--seed", "7"});
    ASSERT_EQ(Run(args), 0) << error_;
    const std::vector<nlohmann::json> lines = JsonLines(out_);
    ASSERT_EQ(lines.size(), want.size()) << out_;
    int total = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      const nlohmann::json& line = lines[i];
      const int problems = want[i].second == 3 && i > 5 ? 4 : want[i].second;
      EXPECT_EQ(line["benchmark"], want[i].first);
      EXPECT_EQ(line["problems"], problems) << line;
      EXPECT_EQ(line["right"].get<int>() + line["wrong"].get<int>() + line["no_answer"].get<int>() +
                    line["undecided"].get<int>(),
                2 * problems);
      EXPECT_EQ(line["seed"], 7);
      EXPECT_EQ(line["undecided"], 0) << line;
      EXPECT_TRUE(line.contains("pass@2"));
      EXPECT_EQ(line.contains("cons@2"), want[i].first != "humaneval" && want[i].first != "mbpp");
      total += 2 * problems;
    }
    EXPECT_EQ(lines[0]["files"][0]["sha256"].get<std::string>().size(), 64u);
    const std::vector<nlohmann::json> written = JsonLines(folder_.Read("samples.jsonl"));
    ASSERT_EQ(written.size(), static_cast<size_t>(total)) << "an earlier file is replaced";
    for (const nlohmann::json& sample : written) {
      for (const char* field :
           {"id", "sample", "prompt", "answer", "extracted", "gold", "outcome", "verdict"})
        EXPECT_TRUE(sample.contains(field)) << field;
      EXPECT_EQ(sample["prompt"].get<std::string>().find("<|im_start|>") == 0, std::string(chat) == "auto");
    }
  }
}

TEST_F(EvalVerb, PrintsATableWithHashesAndIntervals) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  ASSERT_EQ(Run({"eval", "mmlu", "sort", "--data", kEvalData, "--limit", "3", "--knob", "sort_length=3"}), 0)
      << error_;
  for (const char* part : {"sort: seed 0, held_out 0.1, sort_length 3\n", "pass@1 %", "letter, 1 shot, text",
                           "terse, 0 shots, text", "seed 0", "95 %", "mmlu: ", "sha256 "})
    EXPECT_NE(out_.find(part), out_.npos) << part << "\n" << out_;
}

TEST_F(EvalVerb, WeightsOfNanAreNoModel) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  std::string weights = folder_.Read("model/model.safetensors");
  uint64_t header = 0;
  ASSERT_GT(weights.size(), sizeof header);
  std::memcpy(&header, weights.data(), sizeof header);
  std::fill(weights.begin() + static_cast<std::ptrdiff_t>(8 + header), weights.end(), '\xff');
  folder_.Write("model/model.safetensors", weights);
  EXPECT_EQ(Run({"eval", "sort", "mmlu", "--data", kEvalData, "--limit", "2", "--max-new", "4"}),
            kExitBadNumbers)
      << out_;
  EXPECT_NE(error_.find("not finite"), error_.npos) << error_;
}

// A knob or flag without effect would look like a result with it.
TEST_F(EvalVerb, RefusesWhatNoBenchmarkReads) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"add", "--knob", "sort_length=3"},
       "--knob sort_length is given, and none of add reads it, only sort"},
      {{"gsm8k", "--data", kEvalData, "--knob", "seed=3"}, "none of gsm8k reads it, only procedural sets do"},
      {{"gsm8k", "--data", kEvalData, "--style", "terse"}, "--style is given"},
      {{"sort", "--mmlu", "cloze"}, "--mmlu is given"},
      {{"mmlu", "--data", kEvalData, "--samples", "4"}, "--samples is given"},
      {{"mmlu", "--data", kEvalData, "--temperature", "1"}, "--temperature is given"}};
  for (const auto& [tail, part] : cases) {
    std::vector<std::string> args = {"eval"};
    args.insert(args.end(), tail.begin(), tail.end());
    EXPECT_EQ(Run(args), kExitUsage) << part;
    EXPECT_NE(error_.find(part), error_.npos) << error_;
  }
}

TEST_F(EvalVerb, RecordsTheKnobsOfASet) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  ASSERT_EQ(Run({"eval", "maze", "--knob", "maze_rows=4", "--limit", "1", "--max-new", "2", "--json"}), 0)
      << error_;
  const nlohmann::json line = JsonLines(out_).at(0);
  EXPECT_EQ(line["knobs"]["maze_rows"], 4) << line;
  EXPECT_EQ(line["knobs"]["maze_cols"], 5);
  EXPECT_EQ(line["knobs"]["maze_shortest"], true);
  EXPECT_EQ(line["knobs"].size(), 7u) << line;
}

// gsm8k has two examples here, one of mmlu's subjects one.
TEST_F(EvalVerb, NeverClaimsExamplesThatItDoesNotHave) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  for (const auto& [name, shots, text] :
       {std::tuple{"mmlu", "1", "1 shot, text"}, {"gsm8k", "2", "2 shots, text"}}) {
    std::vector<std::string> args = {"eval", name, "--data", kEvalData, "--limit", "2"};
    if (std::string_view(name) == "gsm8k") args.insert(args.end(), {"--max-new", "4"});
    const auto with = [&](const char* wanted) {
      std::vector<std::string> all = args;
      all.insert(all.end(), {"--shots", wanted});
      return Run(all);
    };
    EXPECT_EQ(with("10"), kExitUsage);
    EXPECT_NE(error_.find("--shots is 10"), error_.npos) << error_;
    EXPECT_EQ(with(shots), 0) << error_;
    EXPECT_NE(out_.find(text), out_.npos) << out_;
  }
}

// eval --help sends to the page for them.
TEST(TaskKnobs, AreAllOnThePageOfEvaluation) {
  const absl::StatusOr<std::string> page = ReadFile(MOEBIUS_SOURCE_DIR "/docs/evaluation.md");
  ASSERT_TRUE(page.ok()) << page.status();
  for (const std::string& name : TaskKnobNames()) EXPECT_NE(page->find("`" + name + "="), page->npos) << name;
}

TEST_F(EvalVerb, RefusesWhatCannotWork) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kNone);
  EXPECT_EQ(Run({"eval", "gsm9k"}), kExitUsage);
  EXPECT_NE(error_.find("did you mean gsm8k?"), error_.npos) << error_;
  EXPECT_EQ(Run({"eval", "add", "--knob", "sort_lenght=3"}), kExitUsage);
  EXPECT_NE(error_.find("did you mean sort_length?"), error_.npos) << error_;
  EXPECT_EQ(Run({"eval", "add", "--knob", "sort_length=three"}), kExitUsage);
  EXPECT_EQ(Run({"eval", "add", "--samples", "4"}), kExitUsage) << "greedy samples are all alike";
  EXPECT_EQ(Run({"eval", "gsm8k"}), kExitUsage);
  EXPECT_EQ(Run({"eval", "gsm8k", "--data", folder_.path()}), kExitMissing);
  EXPECT_NE(error_.find("gsm8k/test.jsonl"), error_.npos) << error_;
  const std::string damaged =
      folder_.Write("bad/gsm8k/test.jsonl", "{\"question\": \"q\", \"answer\": \"#### 1\"}\n{}\n");
  EXPECT_EQ(Run({"eval", "gsm8k", "--data", folder_.File("bad")}), kExitDamaged);
  EXPECT_NE(error_.find(damaged + " line 2"), error_.npos) << error_;
  for (const std::string& to : {folder_.path(), std::string("/dev/null")}) {
    EXPECT_EQ(Run({"eval", "add", "--out", to, "--limit", "1"}), kExitCannotWrite) << "it would be replaced";
  }
}

TEST_F(EvalVerb, ChatKeepsTheConversationAndDropsItsOldestExchanges) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kChatMl);
  const std::vector<std::string> flags = {"--json", "--max-new", "20",       "--temperature",
                                          "0",      "--system",  "Be brief."};
  ASSERT_EQ(Talk("one\n\none\n/reset\none\n/quit\nnever\n", flags), 0) << error_;
  std::vector<nlohmann::json> turns = JsonLines(out_);
  ASSERT_EQ(turns.size(), 3u) << out_;
  EXPECT_EQ(turns[0]["answer"], turns[2]["answer"]) << "after /reset the same words get the same answer";
  EXPECT_NE(turns[0]["answer"], turns[1]["answer"]) << "the second turn has the first before it";
  EXPECT_EQ(turns[0]["dropped"], 0);

  const std::string message(200, 'a');
  ASSERT_EQ(Talk(message + "\n" + message + "\n" + message + "\n", flags), 0) << error_;
  turns = JsonLines(out_);
  ASSERT_EQ(turns.size(), 3u);
  EXPECT_GT(turns[2]["dropped"].get<int>(), 0) << out_;
  EXPECT_NE(error_.find("oldest"), error_.npos) << error_;
  EXPECT_EQ(Talk(std::string(kTinyPositions, 'a') + "\n", flags), kExitUsage)
      << "one message that cannot fit";
}

TEST_F(EvalVerb, ChatStreamsWhatJsonGivesAndNeedsATemplate) {
  WriteTinyFolder(folder_.File("model"), TinyChat::kChatMl);
  ASSERT_EQ(Talk("hello\n", {"--json", "--max-new", "20", "--seed", "4"}), 0) << error_;
  const std::string answer = JsonLines(out_).at(0)["answer"];
  ASSERT_EQ(Talk("hello\n/nonsense\n", {"--max-new", "20", "--seed", "4"}), 0) << error_;
  EXPECT_EQ(out_, answer + "\n");
  EXPECT_NE(error_.find("/nonsense"), error_.npos);

  ASSERT_EQ(Talk("hello\n", {"--chat", "none"}), kExitUsage);
  EXPECT_NE(error_.find("chatml"), error_.npos) << error_;
  ASSERT_EQ(Talk("hello\n", {"--chat", "chatlm"}), kExitUsage);
}

TEST(ThoughtStream, TakesTagsApartHoweverTheyAreSplit) {
  const std::string text = "a <b <think>x < y</think>\nz</think";
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      std::string thoughts, answer;
      ThoughtStream stream(TextPart::kAnswer, [&](TextPart part, std::string_view piece) {
        EXPECT_FALSE(piece.empty());
        (part == TextPart::kThoughts ? thoughts : answer) += piece;
      });
      stream.Push(text.substr(0, first));
      stream.Push(text.substr(first, second - first));
      stream.Push(text.substr(second));
      stream.Finish();
      EXPECT_EQ(thoughts, "x < y");
      EXPECT_EQ(answer, "a <b \nz</think");
    }
  }
  std::string thoughts;
  ThoughtStream opened(TextPart::kThoughts, [&](TextPart part, std::string_view piece) {
    if (part == TextPart::kThoughts) thoughts += piece;
  });
  opened.Push("deep</think>done");
  EXPECT_EQ(thoughts, "deep");
}

}  // namespace
}  // namespace moebius
