#include "data/tokenizer/add_tokens.h"

#include <gtest/gtest.h>

#include "core/base/status.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/core/io/scratch.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {
namespace {

absl::StatusOr<Tokenizer> With(const Tokenizer& tokenizer, const std::vector<std::string>& names) {
  ASSIGN_OR_RETURN(std::string json, AddTokens(tokenizer.json(), names, "small"));
  return Tokenizer::FromJson(std::move(json), "small and more");
}

TEST(AddTokens, NewOnesFollowTheHighestId) {
  const Tokenizer before = SmallTokenizer({"<|endoftext|>"});
  const auto after = With(before, {"<think>", "</think>"});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->vocab_size(), before.vocab_size() + 2);
  EXPECT_EQ(after->TokenToId("<|endoftext|>"), kFirstSpecialId);
  EXPECT_EQ(after->TokenToId("<think>"), kFirstSpecialId + 1);
  EXPECT_EQ(after->TokenToId("</think>"), kFirstSpecialId + 2);
  EXPECT_TRUE(after->IsSpecial(kFirstSpecialId + 1));
  const std::string text = "the other <|endoftext|> thing";
  EXPECT_EQ(after->Encode(text), before.Encode(text));
  EXPECT_EQ(after->Encode("the<think>"), (std::vector<int32_t>{257, kFirstSpecialId + 1}));
}

TEST(AddTokens, ThoseThatAreThereKeepTheirIds) {
  const Tokenizer before = SmallTokenizer({"<|endoftext|>", "<think>"});
  const auto after = With(before, {"<think>", "the", "<x>", "<|endoftext|>"});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->vocab_size(), before.vocab_size() + 1);
  EXPECT_EQ(after->TokenToId("<think>"), kFirstSpecialId + 1);
  EXPECT_EQ(after->TokenToId("the"), 257);
  EXPECT_TRUE(after->IsSpecial(257));
  EXPECT_EQ(after->TokenToId("<x>"), kFirstSpecialId + 2);
}

TEST(AddTokens, RefusesNamesAndFilesThatAreNone) {
  const Tokenizer before = SmallTokenizer({});
  for (const std::vector<std::string>& names :
       std::vector<std::vector<std::string>>{{""}, {"<a>", "<a>"}, {"\xFF"}}) {
    EXPECT_EQ(ExitCode(AddTokens(before.json(), names, "small").status()), kExitUsage);
  }
  const auto damaged = AddTokens("{", {"<a>"}, "small");
  EXPECT_EQ(ExitCode(damaged.status()), kExitDamaged);
  EXPECT_TRUE(Contains(damaged.status(), "small"));
}

}  // namespace
}  // namespace moebius
