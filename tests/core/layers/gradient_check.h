// The one gradient checker that every layer passes, in every compute dtype: central differences of
// sum(w * y) (+ the layer's own terms, in double) against BackwardInput and BackwardWeight, the weight phase
// run late, with a second microbatch in between; recomputing must not change a bit.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/core/layers/bench.h"

namespace moebius {

// A layer as the checker drives it: T rows in, T rows out.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::vector<int64_t> input_widths() const = 0;   // [T, width] act each, all with a gradient
  virtual std::vector<int64_t> output_widths() const = 0;  // [T, width] act each
  virtual void Forward(const Pass& pass, std::span<const TensorView> x,
                       std::span<const TensorView> y) const = 0;
  virtual void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                             std::span<const TensorView> dx) const = 0;
  virtual void BackwardWeight(const Pass& pass) const = 0;
  // Terms of the objective beside sum(w * y), after Forward.
  virtual double Terms(const Pass&) const { return 0; }
  // > 0: the layer routes to this many experts; differences are only taken where no choice changes.
  virtual int64_t experts() const { return 0; }
};

// Adds the layer's parameters to the set and takes its slots.
using SubjectFactory = std::function<std::unique_ptr<Subject>(Bench&, ParameterSet&, SlotCounter&)>;

// A layer of one input and one output.
class LayerSubject : public Subject {
 public:
  LayerSubject(std::unique_ptr<Layer> layer, int64_t in, int64_t out)
      : layer_(std::move(layer)), in_(in), out_(out) {}
  std::vector<int64_t> input_widths() const override { return {in_}; }
  std::vector<int64_t> output_widths() const override { return {out_}; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    layer_->Forward(pass, x[0], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    layer_->BackwardInput(pass, dy[0], dx[0]);
  }
  void BackwardWeight(const Pass& pass) const override { layer_->BackwardWeight(pass); }

 private:
  std::unique_ptr<Layer> layer_;
  int64_t in_, out_;
};

struct GradientCheckOptions {
  // Two microbatches of several sequences, the first under a document mask.
  std::vector<int32_t> sequence_starts = {0, 5, 6, 17};
  std::vector<int32_t> attention_starts = {0, 3, 5, 6, 10, 17};
  std::vector<int32_t> second_starts = {0, 9};
  BalanceFactors balance = {};
  double matrix_scale = 1;
  double step = 0.02;            // of differences, relative to the size of what is moved
  double tolerance = 1e-3;       // of a derivative, relative to its expected size, in f32
  double bf16_tolerance = 0.04;  // of the gradients' distance from those in f32
  // Of a derivative in bf16; 0: the distance from f32 has to do (where roundings of many operations drown
  // differences).
  double bf16_difference_tolerance = 0.12;
  bool padded_rows = false;  // inputs and outputs are columns of wider tensors
};

void CheckGradients(const SubjectFactory& make, const GradientCheckOptions& options = {});

}  // namespace moebius
