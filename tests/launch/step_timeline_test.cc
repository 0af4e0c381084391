// A timeline that ends early, because its step failed.
#include "launch/train/step_timeline.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "gtest/gtest.h"
#include "optim/trainer.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

ModelConfig DenseConfig() {
  ModelConfig c;
  c.model_type = "qwen3";
  c.attention = AttentionKind::kGqa;
  c.vocab_size = 20;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_hidden_layers = 1;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 8;
  c.max_position_embeddings = 16;
  return c;
}

TEST(StepTimelineTest, LeavesNothingBehindThatLaterStepsWriteTo) {
  SoloWorld world;
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  const ModelOptions options{.storage = {.act = DType::kF32, .training = true}, .max_positions = 16};
  absl::StatusOr<std::unique_ptr<Trainer>> trainer =
      Trainer::New(*world, *backend, *stream, DenseConfig(), options, {}, {});
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  (*trainer)->InitializeWeights(1);
  // Where it was, anything that a later step writes is seen.
  alignas(StepTimeline) std::byte memory[sizeof(StepTimeline)];
  StepTimeline* const timeline = new (memory) StepTimeline(**trainer);
  ASSERT_TRUE(timeline->Begin().ok());
  timeline->~StepTimeline();
  std::memset(memory, 0, sizeof memory);
  const std::vector<int32_t> tokens(2 * 9, 3);
  ASSERT_TRUE((*trainer)->Step({.tokens = tokens, .sequences = 2, .length = 8, .document_starts = {}}).ok());
  EXPECT_TRUE(
      std::all_of(std::begin(memory), std::end(memory), [](std::byte b) { return b == std::byte(0); }));
}

}  // namespace
}  // namespace moebius
