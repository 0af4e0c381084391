// A tiny model in training, for tests of optim/.
#pragma once

#include <memory>
#include <vector>

#include "optim/trainer.h"
#include "parallel/comm/solo_world.h"

namespace moebius {

// deepseek_v3 with groups, a selection bias, one dense layer and one MTP module; a few thousand parameters.
ModelConfig TinyConfig();

class Training {
 public:
  explicit Training(const TrainConfig& config, int threads = 2, uint64_t seed = 1, DType act = DType::kF32);

  // Step `index` of a fixed stream of random tokens: 4 sequences of 16.
  StepMetrics Step(int64_t index);
  std::vector<float> Weights() const;  // of all parameters, in order

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  SoloWorld world;
  std::unique_ptr<Trainer> trainer;
  Model* model;
};

}  // namespace moebius
