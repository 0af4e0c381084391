// Problems from files of JSON lines: what lines may say, how each kind is judged, and what damaged lines get.
#include <map>
#include <set>

#include "absl/strings/str_split.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "rl/problems/jsonl_line.h"
#include "rl/problems/problem.h"
#include "rl/problems/problems.pb.h"
#include "rl/problems/scoring.h"
#include "rl/sandbox/sandbox.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

class JsonlTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<ProblemSet>> Read(const std::string& text, proto::Problems::JsonlKind kind,
                                                   sandbox::Sandbox* sandbox = nullptr) {
    problems_.set_jsonl(path());
    problems_.set_jsonl_kind(kind);
    if (!problems_.has_held_out()) problems_.set_held_out(0);
    WriteRaw(path(), text);
    return MakeProblemSet(problems_, TaskSplit::kTrain, sandbox);
  }
  // Of a file whose second line this is; the first is fine.
  std::string ErrorOf(const std::string& line, proto::Problems::JsonlKind kind) {
    const std::map<proto::Problems::JsonlKind, std::string> fine = {
        {proto::Problems::MATH, R"({"question": "1+1?", "answer": 2})"},
        {proto::Problems::EXACT, R"({"question": "1+1?", "answer": 2})"},
        {proto::Problems::CHOICE, R"({"question": "1+1?", "choices": ["1", "2"], "answer": "B"})"}};
    const auto set = Read(fine.at(kind) + "\n" + line + "\n", kind);
    EXPECT_FALSE(set.ok()) << line;
    if (set.ok()) return "";
    EXPECT_EQ(ExitCode(set.status()), kExitDamaged) << set.status();
    EXPECT_TRUE(Contains(set.status(), path() + " line 2")) << set.status();
    return MessageOf(set.status());
  }
  std::string path() const { return scratch_.path("problems.jsonl"); }

  Scratch scratch_;
  proto::Problems problems_;
};

std::optional<double> CorrectOf(const ProblemSet& set, uint64_t index, const std::string& answer) {
  return (*set.Judge(set.At(index), answer)).correct;
}

TEST_F(JsonlTest, ALineAsksByQuestionProblemPromptOrMessages) {
  const auto set = Read(
      R"({"question": "2+2?", "answer": "4", "subject": "sums"}
{"problem": "3+3?", "answer": 6, "id": "six"}

{"prompt": "Q: 4+4? A:", "answer": "8"}
{"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "5+5?"}], "answer": "10"}
)",
      proto::Problems::EXACT);
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ((*set)->size(), 4);
  EXPECT_FALSE((*set)->has_dense());
  const std::vector<std::string> asked = {"2+2?", "3+3?", "Q: 4+4? A:", "5+5?"},
                                 golds = {"4", "6", "8", "10"};
  for (uint64_t i = 0; i < 8; ++i) {
    const Problem problem = (*set)->At(i);
    EXPECT_EQ(problem.index, i % 4);
    EXPECT_EQ(problem.messages.back().content, asked[i % 4]);
    EXPECT_EQ(problem.gold, golds[i % 4]);
  }
  EXPECT_EQ((*set)->At(0).id, path() + " line 1");
  EXPECT_EQ((*set)->At(1).id, "six");
  EXPECT_EQ((*set)->At(2).id, path() + " line 4");
}

TEST_F(JsonlTest, NumbersKeepTheirDigits) {
  const std::vector<std::string> numbers = {"123456789012345678901234567890", "-18446744073709551617",
                                            "0.12345678901234567890123", "2.50"};
  std::string lines;
  for (const std::string& number : numbers)
    lines += Concat("{\"question\": \"", number, "?\", \"answer\": ", number, "}\n");
  const auto set = Read(lines, proto::Problems::MATH);
  ASSERT_TRUE(set.ok()) << set.status();
  for (size_t i = 0; i < numbers.size(); ++i) EXPECT_EQ((*set)->At(i).gold, numbers[i]);
}

TEST_F(JsonlTest, WordsAreOfTheRecipeButALinesOwnSystemMessageStays) {
  problems_.set_prompt("{question} Box it: \\boxed{}");
  problems_.set_system("Think.");
  const auto set = Read(
      R"({"question": "2+2?", "answer": "4"}
{"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "5+5?"}], "answer": "10"})",
      proto::Problems::MATH);
  ASSERT_TRUE(set.ok()) << set.status();
  const Problem first = (*set)->At(0), second = (*set)->At(1);
  ASSERT_EQ(first.messages.size(), 2u);
  EXPECT_EQ(first.messages[0].content, "Think.");
  EXPECT_EQ(first.messages[1].content, "2+2? Box it: \\boxed{}");
  ASSERT_EQ(second.messages.size(), 2u);
  EXPECT_EQ(second.messages[0].content, "Own.");
  EXPECT_EQ(second.messages[1].content, "5+5? Box it: \\boxed{}");
}

TEST_F(JsonlTest, MathIsJudgedByEquivalenceAndUndecidedIsNoZero) {
  const auto set = Read(
      R"({"problem": "half?", "answer": "\\frac{1}{2}"}
{"question": "eggs?", "answer": "She has 16 - 3 = <<16-3=13>>13 eggs.\nThat is $<<13*80=1040>>1,040.\n#### 1,040"}
{"question": "sum?", "answer": "\\sum_{k=1}^{\\infty} \\frac{\\sin(k!)}{k^{2+\\cos k}}"})",
      proto::Problems::MATH);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(CorrectOf(**set, 0, "0.5"), 1);
  EXPECT_EQ(CorrectOf(**set, 0, "0.51"), 0);
  EXPECT_EQ((*(*set)->Judge((*set)->At(0), "0.5")).verdict, "equal");
  EXPECT_EQ((*set)->At(1).gold, "1,040");
  EXPECT_EQ(CorrectOf(**set, 1, "1040"), 1);
  EXPECT_EQ(CorrectOf(**set, 1, "\\boxed{104}"), 0);
  const WorkedAnswer worked = (*set)->Demonstration((*set)->At(1), 0);
  EXPECT_EQ(worked.thoughts, "She has 16 - 3 = 13 eggs.\nThat is $1,040.");
  EXPECT_EQ(worked.answer, "1,040");
  const Judgement undecided = *(*set)->Judge((*set)->At(2), "0.7");
  EXPECT_EQ(undecided.verdict, "undecided");
  EXPECT_FALSE(undecided.correct.has_value());
}

TEST_F(JsonlTest, ChoicesAreLetteredBelowAQuestion) {
  const auto set = Read(
      R"({"question": "Capital of France?", "choices": ["Rome", "Paris", "Oslo"], "answer": "B"}
{"question": "2+2?", "choices": ["4", "5"], "answer": 0}
{"prompt": "2+2? A) 4 B) 5", "choices": ["4", "5"], "answer": "A"})",
      proto::Problems::CHOICE);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ((*set)->At(0).messages[0].content, "Capital of France?\nA. Rome\nB. Paris\nC. Oslo");
  EXPECT_EQ((*set)->At(1).gold, "A");
  EXPECT_EQ((*set)->At(2).messages[0].content, "2+2? A) 4 B) 5");
  EXPECT_EQ(CorrectOf(**set, 0, "B"), 1);
  EXPECT_EQ(CorrectOf(**set, 0, "The answer is (B)."), 1);
  EXPECT_EQ(CorrectOf(**set, 0, "A"), 0);
  EXPECT_EQ(CorrectOf(**set, 0, "B or C"), 0);
  EXPECT_EQ((*(*set)->Judge((*set)->At(0), "B or C")).verdict, "several");
  EXPECT_EQ((*(*set)->Judge((*set)->At(0), "C")).verdict, "C");
  EXPECT_EQ((*(*set)->Judge((*set)->At(0), "no idea")).verdict, "none");
}

TEST_F(JsonlTest, ExactIsTheSameTextWithoutBlanksAroundIt) {
  const auto set = Read(R"({"question": "Say it.", "answer": " Hello you\n", "solution": "I say:"})",
                        proto::Problems::EXACT);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(CorrectOf(**set, 0, "Hello you"), 1);
  EXPECT_EQ(CorrectOf(**set, 0, "\tHello you \n"), 1);
  for (const char* answer : {"Hello  you", "hello you", "Hello you!", ""})
    EXPECT_EQ(CorrectOf(**set, 0, answer), 0) << answer;
  EXPECT_EQ((*set)->Demonstration((*set)->At(0), 0).thoughts, "I say:");
}

TEST_F(JsonlTest, DamagedLinesNamePathLineAndField) {
  const auto math = [&](const std::string& line) { return ErrorOf(line, proto::Problems::MATH); };
  EXPECT_NE(math("{").find("line 2"), std::string::npos);
  EXPECT_NE(math("[1]").find("array"), std::string::npos);
  EXPECT_NE(math(R"({"answer": "1"})").find("has none of \"question\""), std::string::npos);
  EXPECT_NE(math(R"({"question": "a", "prompt": "b", "answer": "1"})").find("question and prompt"),
            std::string::npos);
  EXPECT_NE(math(R"({"question": 7, "answer": "1"})").find("\"question\""), std::string::npos);
  EXPECT_NE(math(R"({"question": " ", "answer": "1"})").find("\"question\" is blank"), std::string::npos);
  EXPECT_NE(math(R"({"question": "a"})").find("\"answer\" is missing"), std::string::npos);
  EXPECT_NE(math(R"({"question": "a", "answer": [1]})").find("\"answer\" is array"), std::string::npos);
  EXPECT_NE(math(R"({"question": "a", "answer": "so\n#### "})").find("\"answer\" is blank"),
            std::string::npos);
  EXPECT_NE(math(R"({"messages": [], "answer": "1"})").find("\"messages\""), std::string::npos);
  EXPECT_NE(
      math(
          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "answer": 1})")
          .find("\"messages\""),
      std::string::npos);
  EXPECT_NE(math(R"({"messages": [{"role": "boss", "content": "b"}], "answer": "1"})").find("\"boss\""),
            std::string::npos);
  EXPECT_NE(math(R"({"messages": [{"role": "user"}], "answer": "1"})").find("messages[0]: field \"content\""),
            std::string::npos);
  const auto choice = [&](const std::string& line) { return ErrorOf(line, proto::Problems::CHOICE); };
  EXPECT_NE(choice(R"({"question": "a", "answer": "A"})").find("\"choices\""), std::string::npos);
  EXPECT_NE(choice(R"({"question": "a", "choices": ["x"], "answer": "A"})").find("2 to 26"),
            std::string::npos);
  EXPECT_NE(choice(R"({"question": "a", "choices": ["x", "y", "x"], "answer": "C"})").find("same text twice"),
            std::string::npos);
  EXPECT_NE(choice(R"({"question": "a", "choices": ["x", "y"], "answer": "C"})").find("A to B"),
            std::string::npos);
  EXPECT_NE(choice(R"({"question": "a", "choices": ["x", "y"], "answer": 2})").find("\"answer\""),
            std::string::npos);
}

// Most answers to such a gold stay undecided, and nobody would learn why.
TEST_F(JsonlTest, GoldsThatNothingCanBeComparedWithAreSaid) {
  const std::string unclear = R"({"question": "a", "answer": "\\text{"})"
                              "\n";
  const auto none = Read(unclear + unclear, proto::Problems::MATH);
  EXPECT_EQ(ExitCode(none.status()), kExitDamaged);
  EXPECT_NE(MessageOf(none.status()).find("2 of 2 golds"), std::string::npos) << none.status();
  testing::internal::CaptureStderr();
  EXPECT_TRUE(Read(unclear + R"({"question": "a", "answer": "1"})", proto::Problems::MATH).ok());
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("warning: "), std::string::npos);
  EXPECT_NE(said.find("1 of 2 golds"), std::string::npos) << said;
  EXPECT_TRUE(Read(unclear, proto::Problems::EXACT).ok()) << "compared as it is written";
}

TEST_F(JsonlTest, LastNumbersMeetGoldsThatAreNumbers) {
  proto::Answer answer;
  answer.set_where(proto::Answer::LAST_NUMBER);
  const auto make = [&](const std::string& golds) {
    std::string text;
    for (const std::string& gold : std::vector<std::string>(absl::StrSplit(golds, ';')))
      text += Concat(R"({"question": "a", "answer": ")", gold, "\"}\n");
    const auto set = *Read(text, proto::Problems::MATH);
    return Scorer::Make(proto::Reward(), answer, *set).status();
  };
  EXPECT_TRUE(make("1;-2.5;1,000").ok());
  answer.set_opens_thinking(true);
  EXPECT_TRUE(make("1;-2.5").ok()) << "golds have no thoughts to close";
  answer.clear_opens_thinking();
  const absl::Status none = make("3/4;(1,2)");
  EXPECT_EQ(ExitCode(none), kExitUsage);
  EXPECT_NE(MessageOf(none).find("2 of 2 golds are not one number"), std::string::npos) << none;
  testing::internal::CaptureStderr();
  EXPECT_TRUE(make("7;3/4").ok());
  EXPECT_NE(testing::internal::GetCapturedStderr().find("1 of 2 golds are not one number"),
            std::string::npos);
}

TEST_F(JsonlTest, AFileThatIsMissingOrEmptyIsAnError) {
  problems_.set_jsonl(scratch_.path("nowhere.jsonl"));
  EXPECT_EQ(ExitCode(MakeProblemSet(problems_, TaskSplit::kTrain).status()), kExitMissing);
  EXPECT_EQ(ExitCode(Read("\n\n", proto::Problems::MATH).status()), kExitDamaged);
  problems_.set_prompt("Solve it.");
  const auto set = Read(R"({"question": "a", "answer": "1"})", proto::Problems::MATH);
  EXPECT_EQ(ExitCode(set.status()), kExitUsage);
  EXPECT_TRUE(Contains(set.status(), "problems.prompt"));
  problems_.clear_prompt();
  problems_.set_held_out(1);
  EXPECT_TRUE(Contains(Read("", proto::Problems::MATH).status(), "problems.held_out"));
}

std::set<std::string> AskedBy(const ProblemSet& set) {
  std::set<std::string> asked;
  for (int64_t i = 0; i < set.size(); ++i) asked.insert(set.At(i).messages.back().content);
  return asked;
}

TEST_F(JsonlTest, SplitsByHashNeverOverlapWhateverTheWordsAroundTheQuestion) {
  std::string text;
  for (int copy = 0; copy < 2; ++copy)
    for (int i = 0; i < 300; ++i) text += Concat(R"({"question": "q)", i, R"(", "answer": )", copy, "}\n");
  problems_.set_held_out(0.2);
  const auto train = Read(text, proto::Problems::EXACT);
  ASSERT_TRUE(train.ok()) << train.status();
  const auto held_out = MakeProblemSet(problems_, TaskSplit::kHeldOut);
  ASSERT_TRUE(held_out.ok()) << held_out.status();
  EXPECT_EQ((*train)->size() + (*held_out)->size(), 600);
  EXPECT_GT((*held_out)->size(), 60);
  EXPECT_LT((*held_out)->size(), 180);
  const std::set<std::string> trained = AskedBy(**train);
  for (const std::string& asked : AskedBy(**held_out)) EXPECT_FALSE(trained.contains(asked)) << asked;
  problems_.set_prompt("Tell: {question}");
  EXPECT_EQ((*MakeProblemSet(problems_, TaskSplit::kHeldOut))->size(), (*held_out)->size());
  problems_.set_held_out(0);
  const auto none = MakeProblemSet(problems_, TaskSplit::kHeldOut);
  EXPECT_EQ(ExitCode(none.status()), kExitUsage);
  EXPECT_TRUE(Contains(none.status(), "problems.held_out")) << none.status();
}

TEST_F(JsonlTest, AHeldOutFileOfItsOwnIsKeptFromTraining) {
  problems_.set_held_out_jsonl(scratch_.path("test.jsonl"));
  WriteRaw(scratch_.path("test.jsonl"), R"({"question": "b", "answer": "2"})");
  const auto train =
      Read("{\"question\": \"a\", \"answer\": \"1\"}\n{\"question\": \"b\", \"answer\": \"9\"}\n",
           proto::Problems::EXACT);
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(AskedBy(**train), std::set<std::string>{"a"});
  const auto held_out = MakeProblemSet(problems_, TaskSplit::kHeldOut);
  ASSERT_TRUE(held_out.ok()) << held_out.status();
  EXPECT_EQ(AskedBy(**held_out), std::set<std::string>{"b"});
}

constexpr char kCode[] = R"json({"question": "Print the double.",
  "tests": {"kind": "stdin", "tests": [{"input": "2", "output": "4"}, {"input": "-3", "output": "-6"},
                                       {"input": "0", "output": "0"}]},
  "solution": "print(2 * int(input()))"})json";

std::string CodeLine() {
  std::string line = kCode;
  std::erase(line, '\n');
  return line;
}

TEST_F(JsonlTest, ProgramsAreJudgedByTheirTests) {
  // Isolation is the sandbox's own matter and tests; here it may run on any machine.
  const auto sandbox =
      sandbox::Sandbox::Start({.runner = {}, .recipe_allows_unsafe = true, .switch_allows_unsafe = true});
  ASSERT_TRUE(sandbox.ok()) << sandbox.status();
  const auto set = Read(CodeLine(), proto::Problems::CODE, sandbox->get());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE((*set)->has_dense());
  const Problem problem = (*set)->At(0);
  const std::string solution = (*set)->Demonstration(problem, 0).answer;
  for (const std::string& answer :
       {solution, "So:\n```python\nprint(3)\n```\nno,\n```python\n" + solution + "\n```\n"}) {
    const Judgement right = *(*set)->Judge(problem, answer);
    EXPECT_EQ(right.verdict, "OK") << answer;
    EXPECT_EQ(right.correct, 1);
    EXPECT_EQ(right.dense, 1);
    EXPECT_TRUE(right.depends_on_time);
  }
  const Judgement wrong = *(*set)->Judge(problem, "print(abs(2 * int(input())))");
  EXPECT_EQ(wrong.verdict, "WRONG");
  EXPECT_EQ(wrong.correct, 0);
  EXPECT_DOUBLE_EQ(*wrong.dense, 2.0 / 3);
  EXPECT_EQ((*(*set)->Judge(problem, "")).correct, 0);
  EXPECT_EQ(wrong.visible, std::nullopt) << "no test is marked";
}

// By which the journal tells whether a verdict was given by the same tests.
TEST_F(JsonlTest, FingerprintsAreOfTheLineWhereverItStands) {
  const auto sandbox =
      sandbox::Sandbox::Start({.runner = {}, .recipe_allows_unsafe = true, .switch_allows_unsafe = true});
  ASSERT_TRUE(sandbox.ok()) << sandbox.status();
  std::string other = CodeLine();
  other.replace(other.find("\"-6\""), 4, "\"-7\"");
  const auto set = Read(CodeLine() + "\n" + other + "\n" + CodeLine(), proto::Problems::CODE, sandbox->get());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_FALSE((*set)->At(0).fingerprint.empty());
  EXPECT_NE((*set)->At(0).fingerprint, (*set)->At(1).fingerprint);
  EXPECT_EQ((*set)->At(0).fingerprint, (*set)->At(2).fingerprint);
  const auto exact = Read(R"({"question": "a", "answer": "1"})", proto::Problems::EXACT);
  EXPECT_EQ((*exact)->At(0).fingerprint, "") << "judged the same at any time";
}

// Tests that the question shows are told apart where others are hidden.
TEST_F(JsonlTest, VisibleTestsHaveAnOutcomeOfTheirOwn) {
  const auto sandbox =
      sandbox::Sandbox::Start({.runner = {}, .recipe_allows_unsafe = true, .switch_allows_unsafe = true});
  ASSERT_TRUE(sandbox.ok()) << sandbox.status();
  const std::string all =
      R"({"question": "Print the double of 2, or of another number.", "tests": {"kind": "stdin",
      "tests": [{"input": "2", "output": "4", "visible": true}, {"input": "3", "output": "6", "visible": )";
  for (const bool other : {false, true}) {
    std::string line = all + (other ? "true" : "false") + "}]}}";
    std::erase(line, '\n');
    const auto set = Read(line, proto::Problems::CODE, sandbox->get());
    ASSERT_TRUE(set.ok()) << set.status();
    const Problem problem = (*set)->At(0);
    const Judgement gamed = *(*set)->Judge(problem, "print(4)");
    EXPECT_EQ(gamed.correct, 0);
    if (other) {
      EXPECT_EQ(gamed.visible, std::nullopt) << "nothing is hidden";
      continue;
    }
    EXPECT_EQ(gamed.visible, 1);
    EXPECT_EQ((*(*set)->Judge(problem, "print(6)")).visible, 0);
    EXPECT_EQ((*(*set)->Judge(problem, "print(2 * int(input()))")).visible, 1);
  }
}

TEST_F(JsonlTest, CodeWithoutTestsOrWithoutASandboxIsNeverAPass) {
  EXPECT_EQ(ExitCode(Read(CodeLine(), proto::Problems::CODE).status()), kExitUnavailable);
  for (
      const char* line :
      {R"({"question": "a"})", R"({"question": "a", "tests": {"kind": "stdin", "tests": []}})",
       R"({"question": "a", "tests": []})",
       R"({"question": "a", "language": "perl", "tests": {"kind": "stdin", "tests": [{"input": "", "output": ""}]}})"}) {
    const auto read = ReadJsonlProblem(line, JsonlKind::kCode, "file line 3");
    ASSERT_FALSE(read.ok()) << line;
    EXPECT_EQ(ExitCode(read.status()), kExitDamaged) << read.status();
    EXPECT_TRUE(Contains(read.status(), "file line 3")) << read.status();
  }
}

}  // namespace
}  // namespace moebius
