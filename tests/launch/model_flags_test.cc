// What verbs that ask a model look at before they do: the hashes of the files that they read.
#include "launch/model_flags.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <limits>
#include <sstream>
#include <tuple>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hash.h"
#include "core/model/weights.h"
#include "launch/terminal_text.h"
#include "launch/verb_chat.h"
#include "launch/verb_eval.h"
#include "launch/verb_generate.h"
#include "launch/verb_score.h"
#include "tests/launch/temp_folder.h"
#include "tests/rl/evaluation/tiny_folder.h"

namespace moebius {
namespace {

// A tiny model as a checkpoint has it: with the optimizer's state and a manifest.
class ModelFolder : public testing::Test {
 protected:
  ModelFolder() {
    WriteTinyFolder(model_, TinyChat::kChatMl);
    folder_.Write("model/optimizer.safetensors", std::string(100, 'o'));
    folder_.Write("model/trainer_state.json", "{}");
    std::string files;
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "trainer_state.json"}) {
      const absl::StatusOr<FileHash> hash = HashFile(folder_.File(Concat("model/", name)));
      CHECK(hash.ok()) << hash.status();
      files += Concat(files.empty() ? "" : ", ", "\"", name, "\": {\"sha256\": \"", hash->sha256,
                      "\", \"bytes\": ", hash->bytes, "}");
    }
    folder_.Write("model/manifest.json", Concat("{\"format_version\": 1, \"files\": {", files, "}}"));
    folder_.Write("ids.jsonl", "{\"ids\": [5, 6, 7]}\n");
  }

  void FlipLastByte(const std::string& name) {
    std::string bytes = folder_.Read("model/" + name);
    bytes.back() ^= 1;
    folder_.Write("model/" + name, bytes);
  }

  // Runs `verb` on the model with `flags`.
  int Run(const std::vector<Verb>& verbs, const std::string& verb, std::vector<std::string> flags) {
    flags.insert(flags.begin(), {verb, model_});
    std::istringstream nothing;
    std::streambuf* const before = std::cin.rdbuf(nothing.rdbuf());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunProgram(verbs, flags);
    out_ = testing::internal::GetCapturedStdout();
    error_ = testing::internal::GetCapturedStderr();
    std::cin.rdbuf(before);
    return code;
  }
  std::vector<int> RunAll() {
    std::vector<int> codes;
    codes.push_back(Run(GenerateVerbs(), "generate", {"--prompt", "a", "--max-new", "2", "--threads", "1"}));
    codes.push_back(Run(ScoreVerbs(), "score", {"--tokens", folder_.File("ids.jsonl"), "--threads", "1"}));
    codes.push_back(Run(EvalVerbs(), "eval", {"add", "--limit", "1", "--max-new", "2", "--threads", "1"}));
    codes.push_back(Run(ChatVerbs(), "chat", {"--threads", "1"}));
    return codes;
  }

  const TempFolder folder_;
  const std::string model_ = folder_.File("model");
  std::string out_, error_;
};

TEST_F(ModelFolder, IsRefusedWithTheNameOfADamagedFileThatIsRead) {
  EXPECT_EQ(RunAll(), std::vector<int>(4, 0)) << error_;
  FlipLastByte("model.safetensors");
  EXPECT_EQ(RunAll(), std::vector<int>(4, kExitDamaged));
  EXPECT_NE(error_.find("model/model.safetensors"), error_.npos) << error_;
}

TEST_F(ModelFolder, IsNotReadWhereOnlyTrainingReads) {
  FlipLastByte("optimizer.safetensors");
  FlipLastByte("trainer_state.json");
  EXPECT_EQ(RunAll(), std::vector<int>(4, 0)) << error_;
  std::filesystem::remove(folder_.File("model/optimizer.safetensors"));
  EXPECT_EQ(VerifiedModelFolder(model_).value_or("refused"), model_);
}

TEST_F(ModelFolder, AnswersWithWeightsOf8Bits) {
  const std::vector<std::string> flags = {
      "--batch", folder_.File("ids.jsonl"), "--logprobs", "--threads", "1", "--max-new", "3"};
  std::vector<std::string> rounded = flags;
  rounded.push_back("--int8");
  ASSERT_EQ(Run(GenerateVerbs(), "generate", flags), 0) << error_;
  const std::string own = out_;
  ASSERT_EQ(Run(GenerateVerbs(), "generate", rounded), 0) << error_;
  EXPECT_NE(out_, own) << "nothing was rounded";
  EXPECT_EQ(Run(ChatVerbs(), "chat", {"--int8", "--threads", "1"}), 0) << error_;
  for (const bool int8 : {false, true}) {
    std::vector<std::string> asked = {"sort", "--limit", "1", "--threads", "1", "--json"};
    if (int8) asked.push_back("--int8");
    ASSERT_EQ(Run(EvalVerbs(), "eval", asked), 0) << error_;
    EXPECT_EQ(out_.find("weights of 8 bits") != out_.npos, int8) << out_;
  }
}

// Only who asks for a number of new tokens is told that there is no room for them.
TEST_F(ModelFolder, IsContinuedAsFarAsItHasRoom) {
  const absl::StatusOr<ModelConfig> config = LoadConfig(model_);
  ASSERT_TRUE(config.ok()) << config.status();
  const int64_t room = config->max_position_embeddings;
  std::string ids;
  for (int64_t i = 0; i < room - 4; ++i) ids += i > 0 ? ", 5" : "5";
  folder_.Write("long.jsonl", Concat("{\"ids\": [", ids, "]}\n"));
  const std::vector<std::string> flags = {"--batch", folder_.File("long.jsonl"), "--threads", "1",
                                          "--ignore-eos"};
  ASSERT_EQ(Run(GenerateVerbs(), "generate", flags), 0) << error_;
  EXPECT_EQ(std::count(out_.begin(), out_.end(), ','), 3 + 2) << "4 ids, the text and the reason: " << out_;
  std::vector<std::string> asked = flags;
  asked.insert(asked.end(), {"--max-new", "5"});
  EXPECT_EQ(Run(GenerateVerbs(), "generate", asked), kExitUsage);
  EXPECT_NE(error_.find("and 5 new ones exceed"), error_.npos) << error_;
  folder_.Write("full.jsonl", Concat("\n \n{\"ids\": [", ids, ", 5, 5, 5, 5, 5]}\n"));
  for (const auto& [verbs, verb, flag] :
       {std::tuple(GenerateVerbs(), "generate", "--batch"), std::tuple(ScoreVerbs(), "score", "--tokens")}) {
    // Room is what the flags of generate ask for; a line of score holds what it is.
    EXPECT_EQ(Run(verbs, verb, {flag, folder_.File("full.jsonl"), "--threads", "1"}),
              verb[0] == 's' ? kExitDamaged : kExitUsage);
    EXPECT_NE(error_.find("full.jsonl line 3: "), error_.npos) << "blank lines are none: " << error_;
    EXPECT_NE(error_.find(Concat(room + 1, verb[0] == 's' ? " tokens" : " prompt tokens leave no room")),
              error_.npos)
        << error_;
  }
  EXPECT_EQ(Run(GenerateVerbs(), "generate", {"--prompt", std::string(4 * room, 'q'), "--threads", "1"}),
            kExitUsage);
  EXPECT_NE(error_.find("error: --prompt: "), error_.npos) << error_;
}

TEST_F(ModelFolder, RefusesFlagsThatNothingReads) {
  for (const auto& [verbs, verb] : {std::pair(GenerateVerbs(), "generate"), std::pair(ChatVerbs(), "chat")}) {
    EXPECT_EQ(Run(verbs, verb, {"--top-p", "0.9", "--temperature", "0"}), kExitUsage) << verb;
    EXPECT_NE(error_.find("--top-p with --temperature 0"), error_.npos) << error_;
  }
  for (const char* flag : {"--max-new", "--seed", "--samples"}) {
    EXPECT_EQ(Run(EvalVerbs(), "eval", {"mmlu", flag, "3"}), kExitUsage);
    EXPECT_NE(error_.find(Concat(flag, " is given, and none of mmlu reads it")), error_.npos) << error_;
  }
}

TEST_F(ModelFolder, WithoutATokenizerStartsWhereTextsBegin) {
  ASSERT_EQ(Run(GenerateVerbs(), "generate", {"--max-new", "2", "--threads", "1", "--json"}), 0) << error_;
  const std::string with = out_.substr(0, out_.find(']'));
  std::filesystem::remove(folder_.File("model/tokenizer.json"));
  EXPECT_EQ(Run(GenerateVerbs(), "generate", {"--max-new", "2", "--threads", "1", "--json"}), 0) << error_;
  EXPECT_EQ(out_.substr(0, out_.find(']')), with);
  EXPECT_EQ(Run(GenerateVerbs(), "generate", {"--prompt", "a", "--threads", "1"}), kExitMissing);
}

TEST(TerminalText, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(TerminalText("a\n\tb \u00e9 \u4e2d"), "a\n\tb \u00e9 \u4e2d");
  EXPECT_EQ(TerminalText("\x1b[2J\x07\x7f\u009b\r"), "\\x1B[2J\\x07\\x7F\\x9B\\x0D");
}

TEST_F(ModelFolder, EndsScoreWith76WhereItsNumbersAreNone) {
  std::filesystem::remove(folder_.File("model/manifest.json"));
  std::string bytes = folder_.Read("model/model.safetensors");
  // The last tensor's last value; whichever it is, every sequence's numbers go through its layer.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + bytes.size() - sizeof nan, &nan, sizeof nan);
  folder_.Write("model/model.safetensors", bytes);
  EXPECT_EQ(Run(ScoreVerbs(), "score", {"--tokens", folder_.File("ids.jsonl"), "--threads", "1"}),
            kExitBadNumbers);
  EXPECT_NE(error_.find("is not finite"), error_.npos) << error_;
  EXPECT_EQ(out_.find("nan"), out_.npos) << "numbers that are none are not printed: " << out_;
}

}  // namespace
}  // namespace moebius
