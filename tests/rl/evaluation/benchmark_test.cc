#include "rl/evaluation/benchmark.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "core/io/hash.h"
#include "rl/evaluation/evaluate.h"
#include "rl/evaluation/sources.h"
#include "tests/launch/temp_folder.h"
#include "tests/rl/evaluation/tiny_folder.h"

namespace moebius {
namespace {

Benchmark Make(const std::string& name, BenchmarkOptions options) {
  if (options.data.empty()) options.data = kEvalData;
  absl::StatusOr<Benchmark> made = MakeBenchmark(name, options);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : Benchmark();
}

std::vector<Graded> Grade(const Benchmark& benchmark, const std::vector<std::string>& answers) {
  std::vector<Attempt> attempts;
  for (size_t i = 0; i < answers.size(); ++i) attempts.push_back({i, answers[i]});
  const auto graded = benchmark.grader->Grade(attempts);
  EXPECT_TRUE(graded.ok()) << graded.status();
  return *graded;
}

TEST(Csv, ReadsQuotedFieldsAndCountsLines) {
  const auto rows = ParseCsv("a,\"b, \"\"c\"\"\nd\"\r\n\ne,f\n", "x.csv");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].fields, (std::vector<std::string>{"a", "b, \"c\"\nd"}));
  EXPECT_EQ((*rows)[1].fields, (std::vector<std::string>{"e", "f"}));
  EXPECT_EQ((*rows)[1].line, 4);
}

TEST(Csv, NamesTheLineOfABadQuote) {
  for (const auto& [text, line] :
       std::vector<std::pair<std::string, std::string>>{{"a,b\n\"c,d\n", "x.csv line 2"},
                                                        {"a,b\nc\"d,e\n", "x.csv line 2"},
                                                        {"\"a\"b,c\n", "x.csv line 1"}}) {
    const auto rows = ParseCsv(text, "x.csv");
    EXPECT_EQ(ExitCode(rows.status()), kExitDamaged) << text;
    EXPECT_NE(rows.status().message().find(line), std::string::npos) << rows.status();
  }
}

TEST(Gsm8k, AsksWithExamplesAndGradesNumbers) {
  const Benchmark text = Make("gsm8k", {.shots = 1});
  EXPECT_EQ(BenchmarkText(text, text.questions[0], 1),
            "Question: One cup costs $2. What do 6 cost?\nAnswer: 6*2=$12\n#### 12\n\n"
            "Question: Ada has 3 pens and buys 4 more. How many has she?\nAnswer:");
  EXPECT_EQ(text.questions[1].gold, "1200");
  const std::vector<Graded> graded = Grade(text, {"3+4=7\n#### 7", "It is 1200.0 trees", "#### 3"});
  EXPECT_EQ(graded[0].outcome, Outcome::kRight);
  EXPECT_EQ(graded[1].outcome, Outcome::kRight);
  EXPECT_EQ(graded[2].outcome, Outcome::kWrong) << "the sign counts";
  EXPECT_EQ(Grade(text, {"no idea"})[0].outcome, Outcome::kNoAnswer);
  ASSERT_EQ(text.files.size(), 2u);
  EXPECT_EQ(text.files[0].rows, 3);
  EXPECT_EQ(text.files[0].sha256, HashFile(kEvalData + "/gsm8k/test.jsonl")->sha256);

  const Benchmark chat = Make("gsm8k", {.asking = Asking::kChat, .shots = 2});
  const std::vector<ChatMessage> messages = BenchmarkMessages(chat, chat.questions[0], 2);
  ASSERT_EQ(messages.size(), 5u);
  EXPECT_EQ(messages[1].role, "assistant");
  EXPECT_EQ(messages[1].content, "6*2=$12\n#### 12");
  EXPECT_EQ(messages[4].role, "user");
  EXPECT_EQ(messages[4].content.find("Ada has 3 pens"), 0u);
}

TEST(MathAndAime, GradeByEquivalenceAndRefuseExamplesThatAreNotThere) {
  const Benchmark math = Make("math", {});
  EXPECT_EQ(math.questions[0].gold, "\\frac{1}{2}");
  EXPECT_EQ(math.questions[1].subject, "Algebra");
  const std::vector<Graded> graded = Grade(math, {"So \\boxed{0.5}.", "\\boxed{x=3,-3}"});
  EXPECT_EQ(graded[0].outcome, Outcome::kRight);
  EXPECT_EQ(graded[1].outcome, Outcome::kRight);
  EXPECT_TRUE(math.grader->Same("0.5", "\\frac12"));
  EXPECT_FALSE(math.grader->Same("0.5", "0.25"));

  const Benchmark aime = Make("aime", {});
  EXPECT_EQ(aime.questions[0].gold, "25");
  EXPECT_EQ(Grade(aime, {"\\boxed{025}"})[0].outcome, Outcome::kRight);
  EXPECT_EQ(Grade(aime, {"perhaps 25"})[0].outcome, Outcome::kNoAnswer)
      << "a number without a mark is no answer";
  EXPECT_EQ(ExitCode(MakeBenchmark("aime", {.data = kEvalData, .shots = 1}).status()), kExitUsage);
}

TEST(Mmlu, AsksLettersOptionTextsAndAnswers) {
  const Benchmark letter = Make("mmlu", {.shots = 1});
  ASSERT_EQ(letter.questions.size(), 4u);
  EXPECT_EQ(letter.questions[0].subject, "colours");
  EXPECT_EQ(letter.questions[1].subject, "sums") << "subjects take turns";
  EXPECT_EQ(letter.questions[0].gold, "B");
  EXPECT_EQ(letter.questions[1].gold, "B") << "letters and no header, as in the original files";
  EXPECT_EQ(letter.questions[0].options, (std::vector<std::string>{" A", " B", " C", " D"}));
  EXPECT_EQ(BenchmarkText(letter, letter.questions[1], 1),
            "The following are multiple choice questions (with answers) about sums.\n\n"
            "1+2 is\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n1+1 is\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  EXPECT_EQ(letter.grader, nullptr);
  EXPECT_EQ(letter.files.size(), 4u);

  EXPECT_EQ(letter.files[0].rows, 2) << "the header is none";

  const Benchmark cloze = Make("mmlu", {.limit = 1, .mmlu = MmluMode::kCloze});
  ASSERT_EQ(cloze.questions.size(), 1u);
  EXPECT_EQ(cloze.questions[0].options[1], " blue \"azure\"");
  EXPECT_EQ(cloze.files.size(), 2u) << "without examples dev is not read";

  const Benchmark written = Make("mmlu", {.asking = Asking::kChat, .mmlu = MmluMode::kGenerate});
  const std::vector<Graded> graded = Grade(written, {"Hm.\nAnswer: B", "<think>B</think>C", "B or C", "Z"});
  EXPECT_EQ(graded[0].outcome, Outcome::kRight);
  EXPECT_EQ(graded[1].outcome, Outcome::kWrong);
  EXPECT_EQ(graded[1].extracted, "C");
  EXPECT_EQ(graded[2].outcome, Outcome::kNoAnswer);
  EXPECT_EQ(graded[3].outcome, Outcome::kNoAnswer);
}

// A subject whose file is packed is a subject.
TEST(Mmlu, ReadsPackedFiles) {
  const TempFolder folder;
  std::filesystem::copy(kEvalData, folder.File("data"), std::filesystem::copy_options::recursive);
  const std::string test = folder.File("data/mmlu/test/sums_test.csv");
  const std::string pack = "gzip " + test + " && gzip -k " + folder.File("data/mmlu/test/colours_test.csv");
  ASSERT_EQ(std::system(pack.c_str()), 0);
  const Benchmark packed = Make("mmlu", {.data = folder.File("data"), .shots = 0});
  ASSERT_EQ(packed.questions.size(), 4u) << "colours lie there twice";
  EXPECT_EQ(packed.questions[1].subject, "sums");
  EXPECT_EQ(packed.files[1].sha256, HashFile(test + ".gz")->sha256);
}

TEST(Code, RunsProgramsInTheSandbox) {
  auto sandbox = sandbox::Sandbox::Start({.runner = {.slots = 2, .without = {}}});
  ASSERT_TRUE(sandbox.ok()) << sandbox.status();
  const Benchmark text = Make("humaneval", {.sandbox = sandbox->get()});
  std::vector<Graded> graded = Grade(text, {"\n    return math.pi * radius ** 2", "\n    return x + x + 1"});
  EXPECT_EQ(graded[0].verdict, "OK");
  EXPECT_EQ(graded[0].outcome, Outcome::kRight);
  EXPECT_EQ(graded[1].verdict, "WRONG");
  EXPECT_EQ(Grade(text, {" \n"})[0].outcome, Outcome::kNoAnswer);

  const Benchmark chat = Make("humaneval", {.asking = Asking::kChat, .sandbox = sandbox->get()});
  graded = Grade(chat, {"Here:\n```python\ndef area(r):\n    return math.pi * r * r\n```\nDone.",
                        "```\n    return 2 * x\n```"});
  EXPECT_EQ(graded[0].verdict, "OK") << "the imports of the prompt stand before a function written anew";
  EXPECT_EQ(graded[1].verdict, "OK") << "a body goes on from the prompt";
  EXPECT_EQ(Grade(chat, {"<think>first a loop"})[0].outcome, Outcome::kNoAnswer) << "thoughts without an end";

  const Benchmark mbpp = Make("mbpp", {.sandbox = sandbox->get()});
  ASSERT_EQ(mbpp.questions.size(), 2u) << "11 to 510";
  EXPECT_EQ(mbpp.questions[0].id, "mbpp/11");
  EXPECT_EQ(mbpp.examples[0].examples.size(), 3u);
  EXPECT_EQ(mbpp.examples[0].examples[0].answer, "\ndef inc(x):\n  return x + 1\n[DONE]");
  EXPECT_EQ(mbpp.stops, std::vector<std::string>{"[DONE]"});
  graded = Grade(mbpp, {"\ndef neg(x):\n  return 0 - x\n", "\ndef last(a):\n  return a[0]\n"});
  EXPECT_EQ(graded[0].verdict, "OK");
  EXPECT_EQ(graded[1].verdict, "WRONG");
}

TEST(Code, IsRefusedWithoutASandbox) {
  for (const char* name : {"humaneval", "mbpp"})
    EXPECT_EQ(ExitCode(MakeBenchmark(name, {.data = kEvalData}).status()), kExitUnavailable);
}

TEST(Procedural, AsksHeldOutItemsAndGradesTheirGold) {
  for (const char* name : {"sort", "add", "multiply", "countdown", "maze", "logic"}) {
    const Benchmark benchmark = Make(name, {.shots = 2, .limit = 5});
    ASSERT_EQ(benchmark.questions.size(), 5u);
    EXPECT_EQ(benchmark.examples[0].examples.size(), 2u);
    std::vector<std::string> golds;
    for (const Question& question : benchmark.questions) golds.push_back(question.gold);
    for (const Graded& graded : Grade(benchmark, golds)) {
      EXPECT_EQ(graded.outcome, Outcome::kRight) << name;
      EXPECT_EQ(graded.dense, 1.0);
    }
    EXPECT_EQ(Grade(benchmark, {"Paris"})[0].outcome, Outcome::kWrong);
    EXPECT_EQ(Grade(benchmark, {""})[0].outcome, Outcome::kNoAnswer);
  }
}

// Each once: repeated, 22 products would have the interval of 500.
TEST(Procedural, AsksEachItemOnceWhereThereAreFew) {
  const Benchmark benchmark =
      Make("multiply", {.task = {.held_out = 0.15, .multiply_low = 2, .multiply_high = 12}});
  std::set<std::string> asked;
  std::vector<std::string> golds;
  for (const Question& question : benchmark.questions) {
    EXPECT_TRUE(asked.insert(question.ask).second) << question.ask;
    golds.push_back(question.gold);
  }
  EXPECT_GT(asked.size(), 5u);
  EXPECT_LT(asked.size(), 40u);
  for (const Graded& graded : Grade(benchmark, golds)) EXPECT_EQ(graded.outcome, Outcome::kRight);
}

TEST(Benchmarks, UnknownNamesGetTheNearest) {
  const absl::Status status = CheckBenchmarkName("humanevl");
  EXPECT_EQ(ExitCode(status), kExitUsage);
  EXPECT_NE(status.message().find("did you mean humaneval?"), std::string::npos) << status;
  for (const std::string& name : BenchmarkNames()) EXPECT_TRUE(CheckBenchmarkName(name).ok());
}

TEST(Benchmarks, MissingFilesAreNamed) {
  const TempFolder folder;
  for (const auto& [name, file] :
       std::vector<std::pair<std::string, std::string>>{{"gsm8k", "gsm8k/test.jsonl"},
                                                        {"math", "math/test.jsonl"},
                                                        {"aime", "aime/test.jsonl"},
                                                        {"mmlu", "mmlu/test/SUBJECT_test.csv"}}) {
    const absl::Status status = MakeBenchmark(name, {.data = folder.path()}).status();
    EXPECT_EQ(ExitCode(status), kExitMissing);
    EXPECT_NE(status.message().find(file), std::string::npos) << status;
    EXPECT_EQ(ExitCode(MakeBenchmark(name, {.data = ""}).status()), kExitUsage);
  }
}

TEST(Benchmarks, DamagedLinesAreNamed) {
  struct Case {
    const char *name, *file, *text, *where;
  };
  const Case cases[] = {
      {"gsm8k", "gsm8k/test.jsonl", "{\"question\": \"q\", \"answer\": \"#### 1\"}\n{\"question\": \"q\"",
       "line 2"},
      {"gsm8k", "gsm8k/test.jsonl", "{\"question\": \"q\", \"answer\": \"no mark 1\"}\n", "line 1"},
      {"gsm8k", "gsm8k/test.jsonl", "\n[1]\n", "line 2"},
      {"gsm8k", "gsm8k/test.jsonl", "", "no rows"},
      {"math", "math/test.jsonl", "{\"problem\": \"p\", \"solution\": \"no box\"}\n", "line 1"},
      {"aime", "aime/test.jsonl", "{\"problem\": \"p\", \"answer\": \"1000\"}\n", "line 1"},
      {"aime", "aime/test.jsonl", "{\"problem\": 3, \"answer\": \"1\"}\n", "line 1"},
      {"mmlu", "mmlu/test/a_test.csv", "q,1,2,3,4,A\nq,1,2,3,A\n", "line 2"},
      {"mmlu", "mmlu/test/a_test.csv", "q,1,2,3,4,E\n", "line 1"},
  };
  for (const Case& c : cases) {
    const TempFolder folder;
    const std::string path = folder.Write(c.file, c.text);
    const absl::Status status = MakeBenchmark(c.name, {.data = folder.path(), .shots = 0}).status();
    EXPECT_EQ(ExitCode(status), kExitDamaged) << c.text << status;
    EXPECT_NE(status.message().find(path), std::string::npos) << status;
    EXPECT_NE(status.message().find(c.where), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace moebius
