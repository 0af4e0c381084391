// The routes that a decoder keeps are those that a training forward takes over the same tokens.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/backend/device.h"
#include "core/generate/generate.h"
#include "tests/core/generate/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

struct Replay {
  std::vector<float> losses;
  int64_t given = 0, changed = 0;
};

class RoutesTest : public testing::TestWithParam<std::string> {
 protected:
  std::vector<GenerateResult> Run(const std::vector<GenerateRequest>& requests, bool exact, bool routes,
                                  int64_t max_batch) {
    Decoder decoder(tiny_.model(), tiny_.backend(), tiny_.stream(),
                    {.prefill_tokens = 20, .exact = exact, .routes = routes});
    auto results = Generate(decoder, requests, {.max_batch = max_batch});
    CHECK(results.ok()) << results.status().ToString();
    return *std::move(results);
  }

  Replay Forward(const std::vector<AnswerGroup>& groups) {
    Microbatch mb(tiny_.backend(), tiny_.model().num_slots());
    Arena scratch(tiny_.backend());
    mb.LoadGroups(tiny_.stream(), groups);
    tiny_.model().Forward({tiny_.backend(), tiny_.stream(), scratch}, {.gradients = false}, mb);
    Replay out{.losses = ToHost(tiny_.backend(), tiny_.stream(), mb.losses)};
    for (const RoutingStatistics& layer : ReadRouting(tiny_.backend(), tiny_.stream(), mb)) {
      out.given += layer.routes_given;
      out.changed += layer.routes_changed;
    }
    return out;
  }

  const ModelConfig& config() { return tiny_.model().config(); }
  int64_t layers() { return config().NumMoe(config().num_hidden_layers); }
  int64_t size() { return layers() * config().num_experts_per_tok; }

  TinyModel tiny_{TinyConfig(GetParam()), DType::kF32, *MakeBackend({.threads = 2, .batch_invariant = true})};
};

INSTANTIATE_TEST_SUITE_P(Models, RoutesTest,
                         testing::Values("mla", "mla_plain_q_yarn", "v2_softmax", "qwen3_moe", "mixtral"),
                         [](const auto& info) { return info.param; });

// Pairs of answers to prompts of several lengths, which end at different times.
std::vector<GenerateRequest> Requests() {
  std::vector<GenerateRequest> requests;
  for (const int64_t length : {1, 9, 30, 4, 12}) {
    for (int64_t s = 0; s < 2; ++s) {
      requests.push_back({.prompt = RandomIds("routes" + std::to_string(length), length, 113),
                          .max_new = 1 + (length * 5 + s * 3) % 11,
                          .sampling = {.temperature = 1, .seed = 5},
                          .sequence = requests.size(),
                          .stop = {3, 17}});
    }
  }
  return requests;
}

TEST_P(RoutesTest, AreTheTrainingForwards) {
  const std::vector<GenerateRequest> requests = Requests();
  for (const int64_t max_batch : {3, 16}) {
    const std::vector<GenerateResult> results = Run(requests, true, true, max_batch);
    for (size_t i = 0; i < requests.size(); ++i) {
      const int64_t prompt = std::ssize(requests[i].prompt), answer = std::ssize(results[i].tokens);
      const std::span<const Route> routes = results[i].routes;
      ASSERT_EQ(std::ssize(routes), (prompt + answer - 1) * size()) << i;
      std::vector<AnswerGroup> groups = {
          {.prompt = requests[i].prompt, .answers = {{.tokens = results[i].tokens, .weights = {}}}}};
      const Replay live = Forward(groups);
      EXPECT_EQ(live.given, 0);
      groups[0].prompt_routes = routes.first(prompt * size());
      groups[0].answers[0].routes = routes.subspan(prompt * size());
      const Replay replayed = Forward(groups);
      // Prefill runs the last layer for the newest token alone.
      EXPECT_EQ(replayed.given, (prompt + answer - 1) * layers() - (prompt - 1)) << i;
      EXPECT_EQ(replayed.changed, 0) << i;
      EXPECT_EQ(replayed.losses, live.losses) << i << ": the same experts in the same order";

      // One choice of the last token but one that ran, replaced by an expert that was not chosen.
      std::vector<Route> other(routes.begin(), routes.end());
      const auto token = other.end() - size(), end = token + config().num_experts_per_tok;
      Route expert = 0;
      while (std::find(token, end, expert) != end) ++expert;
      *token = expert;
      groups[0].prompt_routes = std::span<const Route>(other).first(prompt * size());
      groups[0].answers[0].routes = std::span<const Route>(other).subspan(prompt * size());
      const Replay changed = Forward(groups);
      EXPECT_GE(changed.changed, 1);
      EXPECT_NE(changed.losses.back(), live.losses.back()) << i;
    }
  }
}

TEST_P(RoutesTest, KeepingThemChangesNothing) {
  const std::vector<GenerateRequest> requests = Requests();
  for (const bool exact : {false, true}) {
    const auto with = Run(requests, exact, true, 4), without = Run(requests, exact, false, 4);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(with[i].tokens, without[i].tokens);
      EXPECT_FALSE(with[i].routes.empty());
      EXPECT_TRUE(without[i].routes.empty());
    }
  }
}

TEST(DenseRoutesTest, AModelWithoutExpertsHasNone) {
  TinyModel tiny(TinyConfig("llama"), DType::kF32);
  Decoder decoder(tiny.model(), tiny.backend(), tiny.stream(), {.routes = true});
  const std::vector<GenerateRequest> requests = {{.prompt = {1, 2, 3}, .max_new = 4}};
  EXPECT_TRUE((*Generate(decoder, requests, {}))[0].routes.empty());
}

}  // namespace
}  // namespace moebius
