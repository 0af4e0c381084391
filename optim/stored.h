// What a rank holds of a checkpoint, by logical tensor.
#pragma once

#include <vector>

#include "core/io/safetensors_writer.h"
#include "optim/trainer.h"

namespace moebius {

// A tensor of the checkpoint, or a slice of one, in this rank's memory.
struct Stored {
  TensorSpec spec;
  TensorView view;  // flat
};

std::vector<int64_t> Dims(const Shape& shape);

// The weights that this rank writes: those of a group of replicas are dealt to its members in turn, so that
// every tensor has one writer in the world.
std::vector<Stored> OwnedWeights(const Trainer& trainer);

}  // namespace moebius
