// Exact decoding: what the sampler sees is what training computes, to the bit.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <ostream>
#include <tuple>

#include "core/backend/device.h"
#include "core/generate/generate.h"
#include "tests/core/generate/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<Backend> Invariant() { return *MakeBackend({.threads = 2, .batch_invariant = true}); }

ModelConfig LongConfig(const std::string& name) {
  ModelConfig config = TinyConfig(name);
  config.max_position_embeddings = 1024;
  return config;
}

// Unlike ==, tells -0 from 0 and finds NaNs equal.
std::vector<uint32_t> Bits(std::span<const float> x) {
  std::vector<uint32_t> out;
  for (const float value : x) out.push_back(std::bit_cast<uint32_t>(value));
  return out;
}

// A request and its answer as one sequence.
Ids Whole(const GenerateRequest& request, const GenerateResult& result) {
  Ids ids = request.prompt;
  ids.insert(ids.end(), result.tokens.begin(), result.tokens.end());
  return ids;
}

class Exact {
 public:
  Exact(const std::string& name, DType act)
      : tiny_(LongConfig(name), act, Invariant()),
        decoder_(tiny_.model(), tiny_.backend(), tiny_.stream(), {.prefill_tokens = 50, .exact = true}) {}

  TinyModel& tiny() { return tiny_; }
  Decoder& decoder() { return decoder_; }

  std::vector<GenerateResult> Run(const std::vector<GenerateRequest>& requests, int64_t max_batch) {
    auto results = Generate(decoder_, requests, {.max_batch = max_batch});
    CHECK(results.ok()) << results.status().ToString();
    return *std::move(results);
  }

  // -cross-entropy of each token from the second on, by the training forward over all sequences at once.
  std::vector<std::vector<float>> Score(const std::vector<Ids>& sequences, double temperature) {
    Ids ids;
    std::vector<int32_t> starts{0};
    for (const Ids& sequence : sequences) {
      ids.insert(ids.end(), sequence.begin(), sequence.end());
      starts.push_back(static_cast<int32_t>(ids.size()));
    }
    Microbatch mb(tiny_.backend(), tiny_.model().num_slots());
    mb.LoadRagged(tiny_.stream(), ids, starts);
    const std::vector<float> losses = Losses(mb, temperature, false);
    std::vector<std::vector<float>> out;
    for (size_t s = 0; s < sequences.size(); ++s) {
      std::vector<float>& row = out.emplace_back();
      for (int32_t i = starts[s]; i + 1 < starts[s + 1]; ++i) row.push_back(-losses[i]);
    }
    return out;
  }

  // The same of answers alone, as training batches groups: prompts once, with entropies.
  std::vector<float> ScoreGroups(const std::vector<AnswerGroup>& groups, double temperature) {
    Microbatch mb(tiny_.backend(), tiny_.model().num_slots());
    mb.LoadGroups(tiny_.stream(), groups);
    std::vector<float> out = Losses(mb, temperature, true);
    for (float& loss : out) loss = -loss;
    return out;
  }

 private:
  std::vector<float> Losses(Microbatch& mb, double temperature, bool entropies) {
    Arena scratch(tiny_.backend());
    tiny_.model().Forward(
        {tiny_.backend(), tiny_.stream(), scratch},
        {.inverse_temperature = DrawScale(temperature), .entropies = entropies, .gradients = false}, mb);
    std::vector<float> losses(mb.losses.elements());
    tiny_.backend().CopyToHost(tiny_.stream(), mb.losses, losses.data());
    tiny_.stream().Synchronize();
    return losses;
  }

  TinyModel tiny_;
  Decoder decoder_;
};

class ExactDecode : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  Exact exact_{std::get<0>(GetParam()), std::get<1>(GetParam())};
};

INSTANTIATE_TEST_SUITE_P(Models, ExactDecode,
                         testing::Combine(testing::ValuesIn(TinyNames()),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::get<0>(info.param) +
                                  (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
                         });

// Groups of one to five samples of a prompt; they stop at different times.
std::vector<GenerateRequest> Samples(double temperature) {
  std::vector<GenerateRequest> requests;
  const int64_t lengths[] = {1, 23, 7, 61, 2, 14, 33, 48};
  for (size_t p = 0; p < std::size(lengths); ++p) {
    for (size_t s = 0; s < 1 + p % 5; ++s) {
      requests.push_back({.prompt = RandomIds("exact" + std::to_string(p), lengths[p], 113),
                          .max_new = static_cast<int64_t>(1 + (11 * p + 5 * s) % 24),
                          .sampling = {.temperature = temperature, .seed = 5},
                          .sequence = requests.size(),
                          .stop = {3, 17, 40, 71},
                          .logprobs = LogProbs::kAsTrained});
    }
  }
  return requests;
}

TEST_P(ExactDecode, LogProbsOfRolloutsAreThoseOfTrainingToTheBit) {
  for (const double temperature : {1.0, 0.7}) {
    const std::vector<GenerateRequest> requests = Samples(temperature);
    const std::vector<GenerateResult> results = exact_.Run(requests, 7);
    std::vector<Ids> sequences;
    for (size_t i = 0; i < requests.size(); ++i) sequences.push_back(Whole(requests[i], results[i]));
    const auto together = exact_.Score(sequences, temperature);
    std::vector<AnswerGroup> groups;
    std::vector<float> in_order;
    for (size_t i = 0; i < requests.size(); ++i) {
      const size_t before = requests[i].prompt.size();
      ASSERT_EQ(results[i].logprobs.size(), results[i].tokens.size());
      const std::vector<uint32_t> got = Bits(results[i].logprobs);
      EXPECT_EQ(got, Bits(std::span(together[i]).subspan(before - 1))) << "request " << i << " in one batch";
      const auto alone = exact_.Score({sequences[i]}, temperature);
      EXPECT_EQ(got, Bits(std::span(alone[0]).subspan(before - 1))) << "request " << i << " alone";
      if (i == 0 || requests[i].prompt != requests[i - 1].prompt)
        groups.push_back({.prompt = requests[i].prompt, .answers = {}});
      groups.back().answers.push_back({.tokens = results[i].tokens, .weights = {}});
      in_order.insert(in_order.end(), results[i].logprobs.begin(), results[i].logprobs.end());
    }
    EXPECT_EQ(Bits(in_order), Bits(exact_.ScoreGroups(groups, temperature))) << "prompts shared";
  }
}

TEST_P(ExactDecode, CompanyDoesNotChangeARollout) {
  const std::vector<GenerateRequest> requests = Samples(1);
  const std::vector<GenerateResult> together = exact_.Run(requests, 16);
  for (size_t i = 0; i < requests.size(); i += 3) {
    const std::vector<GenerateResult> alone = exact_.Run({requests[i]}, 1);
    EXPECT_EQ(together[i].tokens, alone[0].tokens) << i;
    EXPECT_EQ(Bits(together[i].logprobs), Bits(alone[0].logprobs)) << i;
    EXPECT_EQ(Bits(together[i].sampling_logprobs), Bits(alone[0].sampling_logprobs)) << i;
  }
}

TEST_P(ExactDecode, LogitsOfPrefillAndStepsAreThoseOfTraining) {
  Decoder& decoder = exact_.decoder();
  decoder.Reserve(4, 64);
  std::vector<Ids> sequences = {RandomIds("a", 9, 113), RandomIds("b", 30, 113)};
  const std::vector<std::span<const int32_t>> prompts(sequences.begin(), sequences.end());
  decoder.Prefill(prompts);
  decoder.Fork(1);
  sequences.push_back(sequences[1]);
  for (int step = 0; step < 5; ++step) {
    const Ids next = RandomIds("step" + std::to_string(step), 3, 113);
    for (size_t s = 0; s < 3; ++s) {
      if (step == 0 && s == 2) continue;  // the prefill's logits are of the two prompts
      const std::span<const float> row = decoder.CopyLogits().subspan(s * 113, 113);
      ASSERT_EQ(Bits(row), Bits(exact_.tiny().Logits(sequences[s]))) << "sequence " << s << ", step " << step;
    }
    for (size_t s = 0; s < 3; ++s) sequences[s].push_back(next[s]);
    decoder.Step(next);
  }
}

// Keys are read in blocks of 256, queries in chunks of 512.
TEST_P(ExactDecode, LongSequencesKeepTheirBits) {
  std::vector<GenerateRequest> requests;
  for (const int64_t length : {240, 3, 500, 20}) {
    requests.push_back({.prompt = RandomIds("long" + std::to_string(length), length, 113),
                        .max_new = length == 240 ? 360 : 40,
                        .sampling = {.temperature = 0.7},
                        .sequence = requests.size(),
                        .logprobs = LogProbs::kAsTrained});
  }
  const std::vector<GenerateResult> results = exact_.Run(requests, 3);
  std::vector<Ids> sequences;
  for (size_t i = 0; i < requests.size(); ++i) sequences.push_back(Whole(requests[i], results[i]));
  const auto scored = exact_.Score(sequences, 0.7);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(Bits(results[i].logprobs), Bits(std::span(scored[i]).subspan(requests[i].prompt.size() - 1)))
        << i;
  }
}

// Temperatures mixed in one call; greedy, top-k and top-p too.
TEST(AsTrainedTest, LogProbsAreOfTheWholeVocabularyAtEachRequestsTemperature) {
  Exact exact("mla", DType::kBF16);
  std::vector<GenerateRequest> requests;
  for (const SamplingParams& sampling : {SamplingParams{.temperature = 1},
                                         {.temperature = 0},
                                         {.temperature = 0.5},
                                         {.temperature = 1.3, .top_k = 5},
                                         {.temperature = 0.5, .top_p = 0.4},
                                         {.temperature = 0, .top_k = 5}}) {
    requests.push_back({.prompt = RandomIds("mixed", 12, 113),
                        .max_new = 10,
                        .sampling = sampling,
                        .sequence = requests.size(),
                        .logprobs = LogProbs::kAsTrained});
  }
  requests[4].logprobs = LogProbs::kYes;
  const std::vector<GenerateResult> results = exact.Run(requests, 6);
  for (size_t i = 0; i < requests.size(); ++i) {
    const double temperature = requests[i].sampling.temperature;
    const auto at_its_own = exact.Score({Whole(requests[i], results[i])}, temperature == 0 ? 1 : temperature);
    const auto want = std::span<const float>(at_its_own[0]).subspan(11);
    if (i == 4) {
      EXPECT_NE(Bits(results[i].logprobs), Bits(want)) << "kYes is of temperature 1";
    } else {
      EXPECT_EQ(Bits(results[i].logprobs), Bits(want)) << i;
    }
    for (size_t t = 0; t < 10; ++t) {
      const float truncated = results[i].sampling_logprobs[t];
      if (i == 0 || i == 2) {
        EXPECT_NEAR(truncated, want[t], 1e-5) << i;
      }
      if (i == 3) {
        EXPECT_GE(truncated, want[t]) << "of fewer tokens";
      }
    }
  }
}

void Perturb(TinyModel& tiny) {
  for (const auto& parameter : tiny.model().parameters().all()) {
    std::vector<float> values =
        GetParameter(tiny.backend(), tiny.stream(), *parameter, 0, parameter->shape().elements());
    for (float& value : values) value *= 1.03f;
    SetParameter(tiny.backend(), tiny.stream(), *parameter, 0, values);
  }
}

// As between the steps of reinforcement: one decoder for all of them.
TEST(RefreshTest, ARefreshedDecoderIsAsGoodAsNew) {
  for (const std::string name : {"mla", "qwen3_moe"}) {
    for (const bool exact : {false, true}) {
      TinyModel tiny(TinyConfig(name), DType::kF32, Invariant());
      Decoder kept(tiny.model(), tiny.backend(), tiny.stream(), {.exact = exact});
      const std::vector<GenerateRequest> requests = {
          {.prompt = RandomIds("refresh", 9, 113), .max_new = 12, .logprobs = LogProbs::kYes}};
      const auto before = *Generate(kept, requests, {});
      Perturb(tiny);
      kept.Refresh();
      EXPECT_EQ(kept.live(), 0);
      const auto after = *Generate(kept, requests, {});
      Decoder fresh(tiny.model(), tiny.backend(), tiny.stream(), {.exact = exact});
      const auto want = *Generate(fresh, requests, {});
      EXPECT_EQ(Bits(after[0].logprobs), Bits(want[0].logprobs)) << name;
      EXPECT_NE(Bits(after[0].logprobs), Bits(before[0].logprobs)) << name;
    }
  }
}

TEST(ExactDecoderTest, NeedsABatchInvariantBackend) {
  TinyModel tiny(TinyConfig("llama"), DType::kF32, *MakeBackend({.threads = 1}));
  EXPECT_DEATH(Decoder(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true}), "batch-invariant");
}

}  // namespace
}  // namespace moebius
