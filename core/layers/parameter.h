// Parameters: the tensors that training moves, how they are stored, and which checkpoint tensors they hold.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"

namespace moebius {

// A tensor of a Hugging Face checkpoint: elements [offset, offset + shape.elements()) of its parameter.
// Layers fuse matrices that are multiplied by the same input (gate and up, all experts); pieces undo that.
struct Piece {
  std::string name;
  Shape shape;
  int64_t offset = 0;
};

enum class Init { kNormal, kOnes, kZeros };

struct ParameterSpec {
  std::string name;  // ours, unique: "model.layers.3.mlp.experts.gate_up_proj"
  Shape shape;
  std::vector<Piece> pieces;  // in order, without holes, covering the parameter
  Init init = Init::kNormal;
  bool keep_f32 = false;  // gains, router: read in fp32 whatever the compute dtype
  bool trainable = true;  // false: no gradient (the selection bias)
  bool expert = false;    // lives on one expert rank
  bool mtp = false;       // of an MTP module: does not move while its loss has no weight
};

// What is kept of each parameter.
struct ParameterStorage {
  DType act = DType::kF32;  // compute dtype
  bool training = true;     // keep fp32 master and gradient; false: `weight` only
  bool gradients = true;    // false: with training, gradients get their memory from AttachGrad
};

class Parameter {
 public:
  explicit Parameter(ParameterSpec spec) : spec_(std::move(spec)) {}

  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  const Shape& shape() const { return spec_.shape; }
  // Weight decay applies to matrices only (contract: "decay: tensors of 2+ dimensions").
  bool decays() const { return spec_.shape.rank() >= 2; }

  TensorView weight() const { return weight_; }  // what layers multiply by: act dtype, or f32 with keep_f32
  TensorView master() const { return master_; }  // f32; the same memory as weight() where that is f32
  TensorView grad() const {
    return grad_;
  }  // f32, accumulated (+=) over microbatches; empty if not trainable

  void KeepF32() { spec_.keep_f32 = true; }  // before Allocate
  // f32 memory of the parameter's shape that somebody else owns, so that gradients which are reduced together
  // lie together.
  void AttachGrad(TensorView grad) { grad_ = grad; }
  void Allocate(Allocator& allocator, const ParameterStorage& storage);

 private:
  ParameterSpec spec_;
  Tensor weight_memory_;
  Tensor master_memory_;
  Tensor grad_memory_;
  TensorView weight_;
  TensorView master_;
  TensorView grad_;
};

// Elements [offset, offset + count) of a parameter: what one rank of a sharded optimizer owns of it.
struct ParameterSlice {
  Parameter* parameter = nullptr;
  int64_t offset = 0;
  int64_t count = 0;

  TensorView Of(TensorView whole) const { return whole.Reshape({whole.elements()}).Rows(offset, count); }
};

// Owns the parameters of a model or of one stage of it, in a fixed order.
class ParameterSet {
 public:
  Parameter* Add(ParameterSpec spec);
  // Allocates all; gradients start at zero, values are undefined until Initialize or a checkpoint fills them.
  void Allocate(Backend& backend, Stream& stream, const ParameterStorage& storage);
  // Fills every parameter from (seed, piece name): normal with deviation `sigma`, ones or zeros, so that
  // values depend neither on fusing nor on the layout of ranks.
  void Initialize(Backend& backend, Stream& stream, uint64_t seed, float sigma);

  const std::vector<std::unique_ptr<Parameter>>& all() const { return parameters_; }
  int64_t elements() const;

 private:
  std::vector<std::unique_ptr<Parameter>> parameters_;
};

// Copies f32 values into a parameter's master and weight (rounded) from `offset` on.
void SetParameter(Backend& backend, Stream& stream, Parameter& parameter, int64_t offset,
                  const std::vector<float>& values);
// The parameter's elements [offset, offset + count) as f32 (from the master where there is one).
std::vector<float> GetParameter(Backend& backend, Stream& stream, const Parameter& parameter, int64_t offset,
                                int64_t count);

}  // namespace moebius
