#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/build_options.h"
#include "data/data.pb.h"
#include "data/prefetcher.h"
#include "tests/core/io/scratch.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {
namespace {

// One file of `lengths` documents, tokens first, first + 1, ...
std::string WriteTokens(const std::string& path, const std::vector<int64_t>& lengths, int32_t first,
                        int64_t vocab_size, const std::string& tokenizer_json = "", int64_t bytes = 1000) {
  auto writer = TokenFileWriter::Create(path, vocab_size);
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const int64_t length : lengths) {
    std::vector<int32_t> tokens(length);
    std::iota(tokens.begin(), tokens.end(), first);
    first += static_cast<int32_t>(length);
    EXPECT_TRUE((*writer)->AddDocument(tokens).ok());
  }
  EXPECT_TRUE((*writer)
                  ->Finish({.vocab_size = vocab_size,
                            .bytes = bytes,
                            .tokenizer_sha256 = tokenizer_json.empty() ? "" : Sha256Hex(tokenizer_json),
                            .tokenizer_json = tokenizer_json})
                  .ok());
  return path;
}

struct Sequence {
  std::vector<int32_t> tokens, starts;
};
Sequence Get(const Loader& loader, int64_t sample) {
  Sequence sequence;
  sequence.tokens.resize(loader.sequence_length() + 1);
  const absl::Status status = loader.GetSequence(sample, sequence.tokens, &sequence.starts);
  EXPECT_TRUE(status.ok()) << status;
  return sequence;
}

TEST(Loader, ContiguousOrderIsThatOfTheContract) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {7, 13, 11}, 0, 100);
  const auto loader = Loader::Open({.parts = {{path}}, .sequence_length = 5, .shuffle = false});
  ASSERT_TRUE(loader.ok()) << loader.status();
  ASSERT_EQ((*loader)->sequences(0), 6);
  for (int64_t g = 0; g < 12; ++g) {
    const Sequence sequence = Get(**loader, g);
    for (int64_t j = 0; j <= 5; ++j) EXPECT_EQ(sequence.tokens[j], g % 6 * 5 + j) << g;
  }
  EXPECT_EQ(Get(**loader, 0).starts, (std::vector<int32_t>{0}));
  EXPECT_EQ(Get(**loader, 1).starts, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(Get(**loader, 3).starts, (std::vector<int32_t>{0}))
      << "a document that begins at the last label is the next one's";
  EXPECT_EQ(Get(**loader, 4).starts, (std::vector<int32_t>{0}));
  Batch batch;
  ASSERT_TRUE((*loader)->GetBatch(4, 3, &batch).ok());
  EXPECT_EQ(batch.tokens.size(), 18u);
  EXPECT_EQ(batch.tokens[6], 25);
  EXPECT_EQ(batch.tokens[12], 0) << "wraps at the end of the data";
  EXPECT_DOUBLE_EQ((*loader)->epochs(0, 9), 1.5);
}

TEST(Loader, ShufflingVisitsEverySequenceOnceAnEpochInAnotherOrder) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {1001}, 0, 2000);
  const auto loader = Loader::Open({.parts = {{path}}, .sequence_length = 10, .seed = 3});
  const auto other_seed = Loader::Open({.parts = {{path}}, .sequence_length = 10, .seed = 4});
  ASSERT_TRUE(loader.ok() && other_seed.ok());
  std::vector<std::vector<int32_t>> orders;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<int32_t> firsts;
    for (int64_t i = 0; i < 100; ++i) firsts.push_back(Get(**loader, epoch * 100 + i).tokens[0]);
    EXPECT_EQ(std::set<int32_t>(firsts.begin(), firsts.end()).size(), 100u);
    orders.push_back(firsts);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_FALSE(std::is_sorted(orders[0].begin(), orders[0].end()));
  int same = 0;
  for (int64_t i = 0; i < 100; ++i) same += Get(**other_seed, i).tokens[0] == orders[0][i];
  EXPECT_LT(same, 20);
}

TEST(Loader, MixturesDrawByWeightFromEachFilesOwnEpochs) {
  const Scratch scratch;
  const std::string a = WriteTokens(scratch.path("a.h5"), {401}, 0, 10000),
                    b = WriteTokens(scratch.path("b.h5"), {51}, 5000, 10000);
  const auto loader = Loader::Open({.parts = {{a, 3}, {b, 1}}, .sequence_length = 10});
  ASSERT_TRUE(loader.ok()) << loader.status();
  std::vector<int32_t> from_b;
  for (int64_t g = 0; g < 40; ++g) {
    const int32_t first = Get(**loader, g).tokens[0];
    if (first >= 5000) from_b.push_back(first);
  }
  ASSERT_EQ(from_b.size(), 10u);
  // Two epochs of b's five sequences.
  for (int epoch = 0; epoch < 2; ++epoch) {
    EXPECT_EQ(std::set<int32_t>(from_b.begin() + 5 * epoch, from_b.begin() + 5 * epoch + 5).size(), 5u);
  }
  EXPECT_DOUBLE_EQ((*loader)->epochs(1, 40), 2.0);
  EXPECT_DOUBLE_EQ((*loader)->epochs(1, MixturePattern::kPeriod + 40),
                   2.0 + MixturePattern::kPeriod / 4 / 5.0);
}

TEST(Loader, DocumentPackingBeginsSequencesAtDocuments) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {6, 8, 3, 5}, 0, 100);
  const auto loader = Loader::Open(
      {.parts = {{path}}, .sequence_length = 10, .shuffle = false, .packing = Packing::kDocuments});
  ASSERT_TRUE(loader.ok()) << loader.status();
  ASSERT_EQ((*loader)->sequences(0), 2);
  const Sequence first = Get(**loader, 0);
  EXPECT_EQ(first.tokens, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 17, 18, 19, 20, 21}));
  EXPECT_EQ(first.starts, (std::vector<int32_t>{0, 6}));
  EXPECT_EQ(Get(**loader, 1).starts, (std::vector<int32_t>{0, 8}));
}

TEST(Loader, AVocabularyLargerThanTheModelsIsRefusedWithBothNumbers) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {50}, 0, 4096);
  const auto loader = Loader::Open({.parts = {{path}}, .sequence_length = 10, .vocab_size = 512});
  EXPECT_EQ(ExitCode(loader.status()), kExitUsage);
  EXPECT_NE(MessageOf(loader.status()).find("4096"), std::string::npos);
  EXPECT_NE(MessageOf(loader.status()).find("512"), std::string::npos);
  EXPECT_TRUE(Loader::Open({.parts = {{path}}, .sequence_length = 10, .vocab_size = 4096}).ok());
  EXPECT_EQ(ExitCode(EvaluationPass::Open(path, 10, 512).status()), kExitUsage);
}

TEST(Loader, WrongUsesSayWhatAndWhere) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {50}, 0, 100, "{\"a\":1}"),
                    other = WriteTokens(scratch.path("u.h5"), {50}, 0, 100, "{\"b\":1}");
  const auto message = [&](const LoaderOptions& options, int code) {
    const auto loader = Loader::Open(options);
    EXPECT_EQ(ExitCode(loader.status()), code) << loader.status();
    return MessageOf(loader.status());
  };
  EXPECT_NE(message({.parts = {{path}}, .sequence_length = 50}, kExitUsage).find("50 tokens are too few"),
            std::string::npos);
  EXPECT_NE(message({.parts = {{path}, {other}}, .sequence_length = 5}, kExitUsage).find("another tokenizer"),
            std::string::npos);
  EXPECT_NE(
      message({.parts = {{scratch.path("absent.h5")}}, .sequence_length = 5}, kExitMissing).find("absent.h5"),
      std::string::npos);
  EXPECT_NE(message({.parts = {}, .sequence_length = 5}, kExitUsage).find("data.train"), std::string::npos);
  EXPECT_NE(message({.parts = {{path, -1}}, .sequence_length = 5}, kExitUsage).find("weight"),
            std::string::npos);
  EXPECT_NE(message({.parts = {{path}}, .sequence_length = 5, .fim_rate = 2}, kExitUsage).find("fim_rate"),
            std::string::npos);
}

TEST(Loader, FillInTheMiddleNeedsItsTokens) {
  const Scratch scratch;
  const Tokenizer plain = SmallTokenizer({"<|endoftext|>"});
  const std::string without = WriteTokens(scratch.path("t.h5"), {50}, 0, 300, plain.json());
  const auto refused = Loader::Open({.parts = {{without}}, .sequence_length = 5, .fim_rate = 0.5});
  EXPECT_EQ(ExitCode(refused.status()), kExitUsage);
  EXPECT_NE(MessageOf(refused.status()).find("no fill-in-the-middle tokens"), std::string::npos)
      << refused.status();
  const std::string unknown = WriteTokens(scratch.path("u.h5"), {50}, 0, 300);
  EXPECT_EQ(ExitCode(Loader::Open({.parts = {{unknown}}, .sequence_length = 5, .fim_rate = 0.5}).status()),
            kExitUsage);
  const Tokenizer fim =
      SmallTokenizer({"<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"});
  const std::string with = WriteTokens(scratch.path("v.h5"), {20, 20, 20}, 0, 300, fim.json());
  const auto loader =
      Loader::Open({.parts = {{with}}, .sequence_length = 68, .shuffle = false, .fim_rate = 1});
  ASSERT_TRUE(loader.ok()) << loader.status();
  const Sequence sequence = Get(**loader, 0);
  EXPECT_EQ(sequence.tokens[0], kFirstSpecialId + 1);
  EXPECT_EQ(std::count(sequence.tokens.begin(), sequence.tokens.end(), kFirstSpecialId + 2), 3);
  EXPECT_EQ(sequence.starts, (std::vector<int32_t>{0, 23, 46}));
  // What is rearranged already would be twice.
  auto writer = TokenFileWriter::Create(scratch.path("w.h5"), 300);
  ASSERT_TRUE(writer.ok());
  std::vector<int32_t> document(70, 5);
  document[0] = kFirstSpecialId + 1;
  ASSERT_TRUE((*writer)->AddDocument(document).ok());
  ASSERT_TRUE(
      (*writer)
          ->Finish({.vocab_size = 300, .bytes = 70, .tokenizer_sha256 = "", .tokenizer_json = fim.json()})
          .ok());
  const LoaderOptions twice{.parts = {{scratch.path("w.h5")}}, .sequence_length = 20, .fim_rate = 0.1};
  EXPECT_EQ(ExitCode(Loader::Open(twice).status()), kExitUsage);
  EXPECT_NE(MessageOf(Loader::Open(twice).status()).find("rearranged already"), std::string::npos);
}

TEST(EvaluationPass, PredictsEveryTokenButTheFirstOnceWithTheTail) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {7, 15}, 0, 100, "", 1234);
  const auto pass = EvaluationPass::Open(path, 5, 100);
  ASSERT_TRUE(pass.ok()) << pass.status();
  EXPECT_EQ(pass->num_sequences(), 5);
  EXPECT_EQ(pass->bytes(), 1234);
  std::vector<int32_t> labels, tokens, starts;
  for (int64_t i = 0; i < pass->num_sequences(); ++i) {
    ASSERT_TRUE(pass->GetSequence(i, &tokens, &starts).ok());
    EXPECT_EQ(tokens[0], i * 5);
    if (i == 1) {
      EXPECT_EQ(starts, (std::vector<int32_t>{0, 2}));
    }
    labels.insert(labels.end(), tokens.begin() + 1, tokens.end());
  }
  std::vector<int32_t> expected(21);
  std::iota(expected.begin(), expected.end(), 1);
  EXPECT_EQ(labels, expected);
  EXPECT_EQ(tokens.size(), 2u) << "the tail";
  EXPECT_EQ(ExitCode(EvaluationPass::Open(WriteTokens(scratch.path("one.h5"), {1}, 0, 10), 5, 10).status()),
            kExitUsage);
}

TEST(Prefetcher, GivesTheLoadersBatchesInOrderUnderARamp) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {1001}, 0, 2000);
  const auto loader = Loader::Open({.parts = {{path}}, .sequence_length = 10});
  ASSERT_TRUE(loader.ok());
  // Batches of 1, 2, 3, ... sequences; sample indices count on.
  const auto range = [](int64_t b) { return Prefetcher::Range{b * (b + 1) / 2, b + 1}; };
  Prefetcher prefetcher(loader->get(), 3, range);
  for (int64_t b = 0; b < 20; ++b) {
    Batch batch, expected;
    ASSERT_TRUE(prefetcher.Next(&batch).ok());
    ASSERT_TRUE((*loader)->GetBatch(range(b).first, range(b).count, &expected).ok());
    EXPECT_EQ(batch.first_sample, expected.first_sample);
    EXPECT_EQ(batch.tokens, expected.tokens);
    EXPECT_EQ(batch.document_starts, expected.document_starts);
  }
}

TEST(Prefetcher, ShutsDownWhileFullAndWhileNobodyAsked) {
  const Scratch scratch;
  const std::string path = WriteTokens(scratch.path("t.h5"), {1001}, 0, 2000);
  const auto loader = Loader::Open({.parts = {{path}}, .sequence_length = 10});
  ASSERT_TRUE(loader.ok());
  for (int round = 0; round < 50; ++round) {
    Prefetcher prefetcher(loader->get(), 1 + round % 3, [](int64_t b) { return Prefetcher::Range{b, 1}; });
    Batch batch;
    for (int take = 0; take < round % 4; ++take) ASSERT_TRUE(prefetcher.Next(&batch).ok());
  }
}

TEST(LoaderOptionsFrom, ReadsTheRecipeAndNamesItsMistakes) {
  proto::Data data;
  EXPECT_NE(MessageOf(LoaderOptionsFrom(data, 8, 0, 1).status()).find("data.train"), std::string::npos);
  data.set_train("a.h5");
  auto options = LoaderOptionsFrom(data, 8, 100, 9);
  ASSERT_TRUE(options.ok());
  EXPECT_TRUE(options->shuffle);
  EXPECT_EQ(options->packing, Packing::kContiguous);
  EXPECT_EQ(options->seed, 9u);
  EXPECT_EQ(options->vocab_size, 100);
  data.add_mixture()->set_path("b.h5");
  EXPECT_EQ(ExitCode(LoaderOptionsFrom(data, 8, 0, 1).status()), kExitUsage);
  data.clear_train();
  data.set_pack(proto::Data::DOCUMENTS);
  data.set_shuffle(false);
  options = LoaderOptionsFrom(data, 8, 0, 1);
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->parts.size(), 1u);
  EXPECT_EQ(options->parts[0].weight, 1);
  EXPECT_EQ(options->packing, Packing::kDocuments);
  data.mutable_mixture(0)->clear_path();
  EXPECT_NE(MessageOf(LoaderOptionsFrom(data, 8, 0, 1).status()).find("data.mixture[0].path"),
            std::string::npos);
}

}  // namespace
}  // namespace moebius
