// Speculative decoding: drafts change the number of steps and nothing else.
#include <gtest/gtest.h>

#include <bit>
#include <tuple>

#include "core/backend/device.h"
#include "core/generate/generate.h"
#include "tests/core/generate/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<Backend> Invariant() { return *MakeBackend({.threads = 2, .batch_invariant = true}); }

// Families without released MTP modules too, for their caches. In a small vocabulary the random module is
// right now and then.
ModelConfig WithModule(const std::string& name, int64_t vocab) {
  ModelConfig config = TinyConfig(name);
  config.num_nextn_predict_layers = 1;
  config.vocab_size = vocab;
  return config;
}

std::vector<uint32_t> Bits(std::span<const float> x) {
  std::vector<uint32_t> out;
  for (const float value : x) out.push_back(std::bit_cast<uint32_t>(value));
  return out;
}

// Groups of one to four samples of a prompt, some with top-k or top-p, some with stop tokens, of lengths from
// one on.
std::vector<GenerateRequest> Samples(double temperature, int32_t vocab) {
  std::vector<GenerateRequest> requests;
  const int64_t lengths[] = {1, 23, 7, 31, 2, 14};
  for (size_t p = 0; p < std::size(lengths); ++p) {
    for (size_t s = 0; s < 1 + p % 4; ++s) {
      requests.push_back({.prompt = RandomIds("draft" + std::to_string(p), lengths[p], vocab),
                          .max_new = static_cast<int64_t>(1 + (11 * p + 5 * s) % 24),
                          .sampling = {.temperature = temperature, .seed = 5},
                          .sequence = requests.size(),
                          .logprobs = LogProbs::kAsTrained});
      GenerateRequest& r = requests.back();
      if (p % 2 == 0) r.stop = {3};
      if (p == 3) r.sampling.top_k = 4;
      if (p == 5) r.sampling.top_p = 0.8;
      if (s == 2) r.logprobs = LogProbs::kYes;
    }
  }
  return requests;
}

std::vector<GenerateResult> Answer(Decoder& decoder, const std::vector<GenerateRequest>& requests,
                                   const GenerateOptions& options) {
  auto results = Generate(decoder, requests, options);
  CHECK(results.ok()) << results.status().ToString();
  return *std::move(results);
}

void ExpectSame(const std::vector<GenerateResult>& got, const std::vector<GenerateResult>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    EXPECT_EQ(got[i].reason, want[i].reason) << i;
    EXPECT_EQ(Bits(got[i].logprobs), Bits(want[i].logprobs)) << i;
    EXPECT_EQ(Bits(got[i].sampling_logprobs), Bits(want[i].sampling_logprobs)) << i;
  }
}

// Logits of the module for what follows `ids`, from the training forward.
std::vector<float> ModuleLogits(TinyModel& tiny, Ids ids) {
  const auto length = static_cast<int64_t>(ids.size());
  ids.push_back(0);  // only a label
  Microbatch mb(tiny.backend(), tiny.model().num_slots());
  Arena scratch(tiny.backend());
  const Context context{tiny.backend(), tiny.stream(), scratch};
  mb.Load(tiny.stream(), ids, 1, length, /*depths=*/1);
  tiny.model().Forward(context, {.mtp_scale = 1, .gradients = false}, mb);
  const TensorView output = mb.depths[0].output;
  Tensor logits(tiny.backend(), DType::kF32, {1, tiny.model().config().vocab_size});
  tiny.model().head().Logits(context, output.Rows(output.rows() - 1, 1), logits);
  return ToHost(tiny.backend(), tiny.stream(), logits);
}

class Drafts : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  static std::string name() { return std::get<0>(GetParam()); }
  static DType act() { return std::get<1>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Models, Drafts,
                         testing::Combine(testing::Values("mla", "mla_plain_q_yarn", "qwen2", "qwen3_moe"),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::get<0>(info.param) +
                                  (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
                         });

TEST_P(Drafts, DoNotChangeAToken) {
  for (const int32_t vocab : {7, 113}) {
    TinyModel tiny(WithModule(name(), vocab), act(), Invariant());
    Decoder plain(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true, .routes = true});
    Decoder drafting(tiny.model(), tiny.backend(), tiny.stream(),
                     {.prefill_tokens = 50, .exact = true, .drafts = true, .routes = true});
    int64_t drafts = 0, accepted = 0;
    for (const double temperature : {0.0, 0.7, 1.0}) {
      const std::vector<GenerateRequest> requests = Samples(temperature, vocab);
      const std::vector<GenerateResult> want = Answer(plain, requests, {.max_batch = 6});
      for (const int64_t max_batch : {1, 5, 16}) {
        const std::vector<GenerateResult> got = Answer(drafting, requests, {.max_batch = max_batch});
        ExpectSame(got, want);
        for (size_t i = 0; i < got.size(); ++i) {
          drafts += got[i].drafts;
          accepted += got[i].accepted_drafts;
          // A step gives a token, and one more when its draft is kept; the last may be one too many.
          const int64_t most = 1 + got[i].drafts + got[i].accepted_drafts;
          const auto tokens = static_cast<int64_t>(got[i].tokens.size());
          EXPECT_TRUE(tokens == most || (tokens == most - 1 && got[i].accepted_drafts > 0)) << i;
          EXPECT_EQ(want[i].drafts, 0);
          ASSERT_EQ(got[i].routes.size(), want[i].routes.size()) << i;
          for (size_t k = 0; k < want[i].routes.size(); ++k) {
            if (want[i].routes[k] == kNoRoute) continue;
            EXPECT_EQ(got[i].routes[k], want[i].routes[k]) << i << " " << k;
          }
        }
      }
    }
    const double rate = static_cast<double>(accepted) / static_cast<double>(drafts);
    if (vocab == 7) {
      EXPECT_GT(rate, 0.02) << "or nothing was kept";
      EXPECT_LT(rate, 0.6);
    } else {
      EXPECT_LT(rate, 0.1) << "of a random module";
    }
  }
}

TEST_P(Drafts, ACallerMayEndARequestInTheMiddleOfAPair) {
  TinyModel tiny(WithModule(name(), 7), act(), Invariant());
  Decoder plain(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true});
  Decoder drafting(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true, .drafts = true});
  std::vector<GenerateRequest> requests = Samples(1, 7);
  for (GenerateRequest& r : requests) r.stop = {}, r.max_new = 20;
  const auto run = [&](Decoder& decoder) {
    std::vector<Ids> streamed(requests.size());
    const auto results =
        Answer(decoder, requests, {.max_batch = 7, .on_token = [&](size_t i, const SampledToken& token) {
                                     streamed[i].push_back(token.id);
                                     return streamed[i].size() < 2 + i;
                                   }});
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(streamed[i], results[i].tokens);
      EXPECT_EQ(results[i].tokens.size(), std::min<size_t>(20, 2 + i));
    }
    return results;
  };
  ExpectSame(run(drafting), run(plain));
}

// Prefill, a fork, a step whose drafts are kept by some sequences and refused by others, and another.
TEST_P(Drafts, LogitsOfModelAndModuleAreThoseOfTraining) {
  for (const bool exact : {true, false}) {
    if (!exact && act() == DType::kBF16) break;  // rounding may send a token to other experts
    TinyModel tiny(WithModule(name(), 113), act(), Invariant());
    Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.exact = exact, .drafts = true});
    const auto expect_row = [&](int64_t row, const std::vector<float>& want, const std::string& what) {
      const std::span<const float> got = decoder.CopyLogits().subspan(row * 113, 113);
      if (exact) {
        EXPECT_EQ(Bits(got), Bits(want)) << what;
        return;
      }
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << what;
    };
    decoder.Reserve(4, 64);
    std::vector<Ids> sequences = {RandomIds("a", 9, 113), RandomIds("b", 30, 113)};
    decoder.Prefill(std::vector<std::span<const int32_t>>(sequences.begin(), sequences.end()));
    for (int64_t s = 0; s < 2; ++s) expect_row(s, tiny.Logits(sequences[s]), "prompt");
    decoder.Fork(1);
    sequences.push_back(sequences[1]);
    std::vector<DraftPair> pairs;
    const Ids drawn = RandomIds("drawn", 3, 113);
    for (int32_t s = 0; s < 3; ++s) {
      pairs.push_back({s, std::min(s, 1), drawn[s]});
      sequences[s].push_back(drawn[s]);
    }
    for (int round = 0; round < 3; ++round) {
      const std::span<const int32_t> draft = decoder.Draft(0, pairs);
      Ids step;
      for (const Ids& sequence : sequences) step.push_back(sequence.back());
      step.insert(step.end(), draft.begin(), draft.end());
      for (int64_t s = 0; s < 3; ++s) {
        const std::vector<float> want = ModuleLogits(tiny, sequences[s]);
        expect_row(s, want, "module");
        if (exact) {
          EXPECT_EQ(step[3 + s], ArgMax(want));
        }
      }
      decoder.Step(step);
      pairs.clear();
      for (int32_t s = 0; s < 3; ++s) {
        const std::string what = "round " + std::to_string(round) + ", sequence " + std::to_string(s);
        expect_row(s, tiny.Logits(sequences[s]), what);
        Ids with_draft = sequences[s];
        with_draft.push_back(step[3 + s]);
        expect_row(3 + s, tiny.Logits(with_draft), what + " with its draft");
        const Ids next = RandomIds(what, 2, 113);
        if ((round + s) % 2 == 0) {  // kept
          sequences[s] = with_draft;
          pairs.push_back({s, s, step[3 + s]});
          pairs.push_back({s, 3 + s, next[1]});
          sequences[s].push_back(next[1]);
        } else {
          decoder.Truncate(s, decoder.length(s) - 1);
          pairs.push_back({s, s, next[0]});
          sequences[s].push_back(next[0]);
        }
      }
    }
  }
}

// Where drafts and single steps round differently: every token is still the best, or as good.
TEST(FastDrafts, GreedyTakesTheBestTokensOfTheTrainingForward) {
  int64_t accepted = 0;
  for (const std::string name : {"mla", "qwen3", "qwen2"}) {
    TinyModel tiny(WithModule(name, 3), DType::kF32);
    Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.drafts = true});
    std::vector<GenerateRequest> requests;
    for (int i = 0; i < 5; ++i) {
      requests.push_back({.prompt = RandomIds("fast" + std::to_string(i), 3 + 4 * i, 3),
                          .max_new = 20,
                          .sampling = {.temperature = 0}});
    }
    const std::vector<GenerateResult> results = Answer(decoder, requests, {.max_batch = 3});
    for (size_t i = 0; i < requests.size(); ++i) {
      Ids ids = requests[i].prompt;
      ASSERT_EQ(results[i].tokens.size(), 20u);
      accepted += results[i].accepted_drafts;
      for (const int32_t token : results[i].tokens) {
        const std::vector<float> logits = tiny.Logits(ids);
        EXPECT_GE(logits[token], logits[ArgMax(logits)] - 1e-4f) << name << " after " << ids.size();
        ids.push_back(token);
      }
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(DraftLimits, TheLastPositionOfTheModelIsReached) {
  TinyModel tiny(WithModule("mla", 7), DType::kF32, Invariant());
  Decoder plain(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true});
  Decoder drafting(tiny.model(), tiny.backend(), tiny.stream(), {.exact = true, .drafts = true});
  std::vector<GenerateRequest> requests;
  for (const int64_t length : {100, 101, 127}) {
    requests.push_back({.prompt = RandomIds("long", length, 7), .max_new = 128 - length});
  }
  ExpectSame(Answer(drafting, requests, {}), Answer(plain, requests, {}));
}

TEST(DraftLimits, AModelWithoutAModuleCannotDraft) {
  TinyModel tiny(TinyConfig("mla"), DType::kF32);
  EXPECT_DEATH(Decoder(tiny.model(), tiny.backend(), tiny.stream(), {.drafts = true}), "MTP module");
}

}  // namespace
}  // namespace moebius
