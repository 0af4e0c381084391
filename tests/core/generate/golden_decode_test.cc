// Decoding token by token against log-probabilities of Hugging Face's models (golden data beside the
// checkout).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/generate/decoder.h"
#include "core/model/weights.h"

namespace moebius {
namespace {

const std::string kModels = std::string(MOEBIUS_SHARED_DIR) + "/golden/models/";

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

double LogProb(std::span<const float> logits, int32_t id) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  return logits[id] - std::log(sum);
}

class GoldenDecode : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Models, GoldenDecode,
                         testing::Values("deepseek_v3", "deepseek_v3_noq_yarn", "deepseek_v3_mtp",
                                         "deepseek_v3_fp8", "deepseek_v2_lite", "qwen3_moe", "mixtral",
                                         "llama3", "qwen2_tied", "qwen3"),
                         [](const auto& info) { return info.param; });

// Half of each sequence is prefilled, the rest goes token by token, all sequences at once.
TEST_P(GoldenDecode, LogProbabilitiesMatchTransformers) {
  const std::string folder = kModels + GetParam();
  const auto backend = MakeCpuBackend({.threads = 2});
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto loaded =
      LoadModel(folder + "/model", *backend, *stream, {.storage = {.training = false}, .mtp = false});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  Decoder decoder(*loaded->model, *backend, *stream, {});
  const std::vector<nlohmann::json> inputs = Lines(folder + "/score_input.jsonl");
  const std::vector<nlohmann::json> expected = Lines(folder + "/score_expected.jsonl");
  ASSERT_EQ(inputs.size(), expected.size());
  decoder.Reserve(inputs.size(), decoder.max_positions());

  struct Sequence {
    std::vector<int32_t> ids;
    std::vector<double> want;
    size_t next;  // token whose log-probability the latest logits give
  };
  std::vector<Sequence> live;
  std::vector<std::span<const int32_t>> prompts;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto ids = inputs[i]["ids"].get<std::vector<int32_t>>();
    if (ids.size() < 2) continue;
    live.push_back(
        {ids, expected[i]["logprobs"].get<std::vector<double>>(), std::max<size_t>(1, ids.size() / 2)});
  }
  for (const Sequence& s : live) prompts.push_back(std::span(s.ids).first(s.next));
  decoder.Prefill(prompts);
  const int64_t vocab = decoder.vocab_size();
  size_t compared = 0;
  while (!live.empty()) {
    const std::span<const float> logits = decoder.CopyLogits();
    for (size_t i = 0; i < live.size(); ++i) {
      Sequence& s = live[i];
      EXPECT_NEAR(LogProb(logits.subspan(i * vocab, vocab), s.ids[s.next]), s.want[s.next - 1], 2e-4)
          << "sequence " << i << " token " << s.next;
      ++s.next;
      ++compared;
    }
    for (size_t i = live.size(); i-- > 0;) {
      if (live[i].next < live[i].ids.size()) continue;
      decoder.Drop(i);
      live[i] = live.back();
      live.pop_back();
    }
    std::vector<int32_t> tokens;
    for (const Sequence& s : live) tokens.push_back(s.ids[s.next - 1]);
    decoder.Step(tokens);
  }
  EXPECT_GT(compared, 20u);
}

}  // namespace
}  // namespace moebius
