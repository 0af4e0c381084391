#include "core/generate/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/backend/phantom.h"
#include "core/base/status.h"
#include "tests/core/generate/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

std::vector<float> Logits(Decoder& decoder) {
  const std::span<const float> x = decoder.CopyLogits();
  return {x.begin(), x.end()};
}

std::vector<float> Step(Decoder& decoder, std::span<const int32_t> tokens) {
  decoder.Step(tokens);
  return Logits(decoder);
}

void ExpectNear(std::span<const float> got, const std::vector<float>& want, double tolerance,
                const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << what << ", logit " << i;
}

std::vector<float> Prefill(Decoder& decoder, const std::vector<Ids>& prompts) {
  const std::vector<std::span<const int32_t>> spans(prompts.begin(), prompts.end());
  decoder.Prefill(spans);
  return Logits(decoder);
}

class DecoderOfEveryModel : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Models, DecoderOfEveryModel, testing::ValuesIn(TinyNames()),
                         [](const auto& info) { return info.param; });

TEST_P(DecoderOfEveryModel, StepsGiveTheLogitsOfTheWholeSequence) {
  TinyModel tiny(TinyConfig(GetParam()), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
  decoder.Reserve(1, 64);
  Ids ids = RandomIds("prompt", 19, 113);
  std::vector<float> logits = Prefill(decoder, {ids});
  for (const int32_t next : RandomIds("continuation", 25, 113)) {
    ExpectNear(logits, tiny.Logits(ids), 1e-4, "after " + std::to_string(ids.size()) + " tokens");
    ids.push_back(next);
    logits = Step(decoder, {&next, 1});
  }
}

TEST_P(DecoderOfEveryModel, SequencesOfDifferentLengthsDecodeTogetherAsAlone) {
  TinyModel tiny(TinyConfig(GetParam()), DType::kF32);
  // Prompts in several prefills, some too long for one.
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.prefill_tokens = 20});
  decoder.Reserve(12, 80);
  std::vector<Ids> sequences;
  for (const int64_t length : {7, 1, 33, 12, 2, 60, 5, 3, 9, 20, 21}) {
    sequences.push_back(RandomIds("prompt" + std::to_string(length), length, 113));
  }
  std::vector<float> logits = Prefill(decoder, sequences);
  for (int step = 0; step < 8; ++step) {
    const Ids next = RandomIds("step" + std::to_string(step), sequences.size(), 113);
    for (size_t s = 0; s < sequences.size(); ++s) {
      ExpectNear(std::span<const float>(logits).subspan(s * 113, 113), tiny.Logits(sequences[s]), 1e-4,
                 "sequence " + std::to_string(s) + " step " + std::to_string(step));
      sequences[s].push_back(next[s]);
    }
    logits = Step(decoder, next);
  }
}

// The median over positions of the logits' mean error, in parts of their mean size. Rounding flips near-ties
// of the router, which moves the logits at once: the median position must agree.
double MedianError(TinyModel& tiny, Decoder& decoder) {
  std::vector<double> errors;
  for (int s = 0; s < 4; ++s) {
    Ids ids = RandomIds("rounded" + std::to_string(s), 5 + s, 113);
    std::vector<float> logits = Prefill(decoder, {ids});
    for (const int32_t next : RandomIds("more" + std::to_string(s), 12, 113)) {
      const std::vector<float> want = tiny.Logits(ids);
      double sum = 0, size = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        sum += std::abs(logits[i] - want[i]);
        size += std::abs(want[i]);
      }
      errors.push_back(sum / size);
      ids.push_back(next);
      logits = Step(decoder, {&next, 1});
    }
    decoder.Drop(0);
  }
  std::sort(errors.begin(), errors.end());
  return errors[errors.size() / 2];
}

TEST_P(DecoderOfEveryModel, Bf16WeightsDecodeNearTheirTrainingForward) {
  TinyModel tiny(TinyConfig(GetParam()), DType::kBF16);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
  decoder.Reserve(4, 64);
  EXPECT_LT(MedianError(tiny, decoder), 0.03);
}

TEST_P(DecoderOfEveryModel, WeightsOf8BitsDecodeNearTheirTrainingForward) {
  for (const DType act : {DType::kF32, DType::kBF16}) {
    TinyModel tiny(TinyConfig(GetParam()), act);
    Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.int8 = true});
    decoder.Reserve(4, 64);
    const double error = MedianError(tiny, decoder);
    EXPECT_LT(error, 0.08);  // 0.033 to 0.052
    EXPECT_GT(error, 1e-3) << "nothing was rounded";
  }
}

// Else sampling with drafts, whose last layer runs all of a prompt, would draw from another distribution.
TEST_P(DecoderOfEveryModel, WeightsOf8BitsGiveATokenTheSameLogitsInAPromptAndInAStep) {
  TinyModel tiny(TinyConfig(GetParam()), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.int8 = true});
  decoder.Reserve(1, 64);
  for (int s = 0; s < 4; ++s) {
    Ids ids = RandomIds("prompt" + std::to_string(s), 9 + s, 113);
    const std::vector<float> whole = Prefill(decoder, {ids});
    decoder.Drop(0);
    const int32_t last = ids.back();
    ids.pop_back();
    Prefill(decoder, {ids});
    ExpectNear(Step(decoder, {&last, 1}), whole, 1e-4, std::to_string(s));
    decoder.Drop(0);
  }
}

TEST(DecoderTest, WeightsOf8BitsAreRefusedWhereThereAreNoProductsOfThem) {
  EXPECT_TRUE(DecodeWeights::CheckInt8(*MakeCpuBackend({.threads = 1})).ok());
  const absl::Status refused = DecodeWeights::CheckInt8(*MakePhantomBackend({}));
  EXPECT_EQ(ExitCode(refused), kExitUsage);
  EXPECT_NE(refused.message().find("--int8"), refused.message().npos) << refused;
}

TEST(DecoderTest, WeightsOf8BitsFollowTheModels) {
  TinyModel tiny(TinyConfig("qwen3_moe"), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.int8 = true});
  decoder.Reserve(1, 64);
  const Ids ids = RandomIds("prompt", 9, 113);
  const std::vector<float> before = Prefill(decoder, {ids});
  for (const auto& parameter : tiny.model().parameters().all()) {
    if (!parameter->decays()) continue;
    std::vector<float> w =
        GetParameter(tiny.backend(), tiny.stream(), *parameter, 0, parameter->shape().elements());
    for (float& v : w) v *= 2;
    SetParameter(tiny.backend(), tiny.stream(), *parameter, 0, w);
  }
  decoder.Refresh();
  const std::vector<float> after = Prefill(decoder, {ids});
  EXPECT_NE(after, before);
  Decoder anew(tiny.model(), tiny.backend(), tiny.stream(), {.int8 = true});
  anew.Reserve(1, 64);
  EXPECT_EQ(Prefill(anew, {ids}), after);
}

TEST(DecoderTest, NothingIn8BitsIsExact) {
  TinyModel tiny(TinyConfig("llama"), DType::kF32, MakeCpuBackend({.threads = 1, .batch_invariant = true}));
  EXPECT_DEATH(Decoder(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true, .int8 = true}),
               "nothing in 8 bits is exact");
}

TEST(DecoderTest, DroppingASequenceMovesTheLastIntoItsSlot) {
  TinyModel tiny(TinyConfig("mla"), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
  decoder.Reserve(4, 64);
  std::vector<Ids> sequences = {RandomIds("a", 6, 113), RandomIds("b", 11, 113), RandomIds("c", 3, 113),
                                RandomIds("d", 17, 113)};
  Prefill(decoder, sequences);
  decoder.Drop(1);
  sequences[1] = sequences[3];
  sequences.pop_back();
  ASSERT_EQ(decoder.live(), 3);
  EXPECT_EQ(decoder.length(1), 17);
  const Ids next = {5, 6, 7};
  const std::vector<float> logits = Step(decoder, next);
  for (size_t s = 0; s < 3; ++s) {
    sequences[s].push_back(next[s]);
    ExpectNear(std::span<const float>(logits).subspan(s * 113, 113), tiny.Logits(sequences[s]), 1e-4,
               std::to_string(s));
  }
  // The freed slot serves a new sequence.
  const Ids fresh = RandomIds("fresh", 9, 113);
  ExpectNear(Prefill(decoder, {fresh}), tiny.Logits(fresh), 1e-4, "fresh");
  EXPECT_EQ(decoder.live(), 4);
}

TEST(DecoderTest, AForkContinuesOnItsOwn) {
  for (const std::string name : {"mla", "qwen3"}) {
    TinyModel tiny(TinyConfig(name), DType::kF32);
    Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
    decoder.Reserve(2, 64);
    const Ids prompt = RandomIds("fork", 10, 113);
    Prefill(decoder, {prompt});
    decoder.Fork(0);
    std::vector<Ids> sequences = {prompt, prompt};
    for (int step = 0; step < 4; ++step) {
      const Ids next = RandomIds("fork" + std::to_string(step), 2, 113);
      const std::vector<float> logits = Step(decoder, next);
      for (size_t s = 0; s < 2; ++s) {
        sequences[s].push_back(next[s]);
        ExpectNear(std::span<const float>(logits).subspan(s * 113, 113), tiny.Logits(sequences[s]), 1e-4,
                   name);
      }
    }
  }
}

// Batches grow and shrink, and come again; the cache grows.
TEST(DecoderTest, RecordedStepsGiveTheBitsOfSteps) {
  for (const std::string name : {"mla", "qwen3_moe"}) {
    TinyModel tiny(TinyConfig(name), DType::kBF16);
    std::vector<std::vector<float>> of_each;
    for (const bool record : {false, true}) {
      Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.record = record});
      std::vector<float> all;
      for (int round = 0; round < 4; ++round) {
        decoder.Reserve(3, round < 2 ? 60 : 100);
        Prefill(decoder, {RandomIds("a", 6 + round, 113), RandomIds("b", 11, 113), RandomIds("c", 2, 113)});
        for (; decoder.live() > 0; decoder.Drop(0)) {
          for (int step = 0; step < 4; ++step) {
            const std::vector<float> logits = Step(decoder, RandomIds("step", decoder.live(), 113));
            all.insert(all.end(), logits.begin(), logits.end());
          }
        }
      }
      of_each.push_back(all);
    }
    ASSERT_EQ(of_each[0].size(), 4u * 4 * (3 + 2 + 1) * 113);
    EXPECT_TRUE(of_each[0] == of_each[1]) << name;
  }
}

TEST(DecoderTest, AStepTakesNoNewMemory) {
  TinyModel tiny(TinyConfig("mla"), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
  decoder.Reserve(2, 100);
  Prefill(decoder, {RandomIds("a", 6, 113), RandomIds("b", 11, 113)});
  const Ids next = {1, 2};
  const auto step = [&] {
    decoder.Step(next);
    return std::pair(decoder.logits().data, decoder.CopyLogits().data());
  };
  const auto where = step();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(step(), where);
}

TEST(DecoderTest, SaysThatACacheIsTooLarge) {
  TinyModel tiny(TinyConfig(TinyNames()[0]), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {});
  EXPECT_TRUE(decoder.CanReserve(4, 64).ok());
  const int64_t free = tiny.backend().free_bytes();
  ASSERT_GT(free, 0);
  const absl::Status much = decoder.CanReserve(1, 2 * free / decoder.cache_bytes_per_token());
  EXPECT_EQ(ExitCode(much), kExitUnavailable);
  EXPECT_NE(std::string(much.message()).find("free"), std::string::npos) << much;
  EXPECT_EQ(ExitCode(decoder.CanReserve(int64_t{1} << 20, int64_t{1} << 11)), kExitUnavailable);
  // Caches that would fit alone, but for their logits.
  const int64_t cache = decoder.cache_bytes_per_token(), logits = 4 * decoder.vocab_size();
  const int64_t slots = free / (cache + logits / 2);
  EXPECT_LT(slots * cache, free);
  EXPECT_EQ(ExitCode(decoder.CanReserve(slots, 1)), kExitUnavailable);
}

TEST(DecoderTest, CacheBytesAreThoseOfTheFormula) {
  TinyModel mla(TinyConfig("mla"), DType::kBF16);
  EXPECT_EQ(Decoder(mla.model(), mla.backend(), mla.stream(), {}).cache_bytes_per_token(), 3 * (24 + 6) * 2);
  TinyModel gqa(TinyConfig("llama"), DType::kF32);
  EXPECT_EQ(Decoder(gqa.model(), gqa.backend(), gqa.stream(), {}).cache_bytes_per_token(),
            3 * 2 * 2 * 14 * 4);
}

}  // namespace
}  // namespace moebius
