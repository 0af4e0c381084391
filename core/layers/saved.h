// What one microbatch keeps between its phases: a slot for each tensor that a layer puts away, in arenas.
// Lifetimes of microbatches cross under a pipeline schedule, so each has a Saved of its own.
#pragma once

#include <memory>
#include <vector>

#include "core/layers/seams.h"
#include "core/tensor/arena.h"

namespace moebius {

// Hands out slot numbers while a model is built; every layer takes those it needs once.
class SlotCounter {
 public:
  int Take() { return next_++; }
  int count() const { return next_; }

 private:
  int next_ = 0;
};

class Saved {
 public:
  // From: Allocator, or BlockPool where several take turns.
  template <typename From>
  Saved(From& from, int num_slots)
      : activations_(from), gradients_(from), transient_(from), slots_(num_slots), exchanges_(num_slots) {}

  // Written by Forward, read by the backward phases.
  Arena& activations() { return activations_; }
  // Written by BackwardInput, read by BackwardWeight. Whoever runs the two back to back may release it
  // between.
  Arena& gradients() { return gradients_; }
  // Handed from one segment of a block to a later one of the same phase; released at the phase's end.
  Arena& transient() { return transient_; }

  TensorView& operator[](int slot) { return slots_[slot]; }
  std::unique_ptr<TokenExchange::Handle>& exchange(int slot) { return exchanges_[slot]; }

  // The microbatch is done.
  void Reset() {
    for (auto& handle : exchanges_) handle.reset();
    activations_.Reset();
    gradients_.Reset();
    transient_.Reset();
  }

 private:
  Arena activations_;
  Arena gradients_;
  Arena transient_;
  std::vector<TensorView> slots_;
  std::vector<std::unique_ptr<TokenExchange::Handle>> exchanges_;
};

}  // namespace moebius
