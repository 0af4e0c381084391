// Where layers are tested: a backend, poisoned memory, random values, and tensors read back as numbers.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/layers/layer.h"
#include "core/layers/parameter.h"

namespace moebius {

// Fresh memory is NaN (all bits one: -1 as an integer), so that a value read before it was written shows.
class PoisonedAllocator final : public Allocator {
 public:
  explicit PoisonedAllocator(Allocator& allocator) : allocator_(allocator) {}
  void* Allocate(int64_t bytes) override {
    void* memory = allocator_.Allocate(bytes);
    std::memset(memory, 0xFF, bytes);
    return memory;
  }
  void Free(void* memory) override { allocator_.Free(memory); }

 private:
  Allocator& allocator_;
};

// NaN over everything that an arena has handed out and taken back: a view kept beyond its scope then shows.
// The arena must be empty and must have stayed within its first block.
void Poison(Arena& arena);

class Bench {
 public:
  Bench();
  explicit Bench(std::unique_ptr<Backend> backend);
  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  Allocator& memory() { return poisoned_; }
  Arena& scratch() { return scratch_; }
  const Context& context() const { return context_; }

  // Any strides, f32 or bf16 on the device; rows flattened, as f32.
  std::vector<float> Read(TensorView view);
  void Write(const std::vector<float>& values, TensorView view);
  std::vector<int32_t> ReadInts(TensorView view);
  Tensor Floats(DType dtype, Shape shape, const std::vector<float>& values);
  Tensor Ints(const std::vector<int32_t>& values);

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  PoisonedAllocator poisoned_;
  Arena scratch_;
  Context context_;
};

// Standard normal numbers times `scale`; a pure function of (name, count).
std::vector<float> Normals(const std::string& name, int64_t count, double scale = 1);
// The values as bfloat16 holds them.
std::vector<float> RoundedToBf16(std::vector<float> values);
// |a - b| / max(|b|, tiny), Euclidean.
double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b);

// Positions count inside sequences, whatever attention sees; attention defaults to the sequences.
struct OwnedLayout {
  Tensor positions;
  TokenLayout layout;
};
OwnedLayout MakeLayout(Bench& bench, std::vector<int32_t> sequence_starts,
                       std::vector<int32_t> attention_starts = {});

// A parameter that is not fused.
Parameter* AddParameter(ParameterSet& set, const std::string& name, Shape shape, Init init = Init::kNormal);
// Random values for all: matrices normal / sqrt(columns), gains 1 + 0.3 normal, biases 0.3 normal; each exact
// in bfloat16, so that every compute dtype works on the same numbers.
void Randomize(Bench& bench, ParameterSet& set, double matrix_scale = 1);

}  // namespace moebius
