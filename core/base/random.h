// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC'11). A number is a pure function of (seed, stream name, index), so every backend, rank and thread count
// draws the same ones.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace moebius {

// One block of the generator: 128 bits from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class RandomStream {
 public:
  // `name` separates streams of one seed: "init/model.layers.0.mlp.gate.weight", "shuffle", ...
  RandomStream(uint64_t seed, std::string_view name);

  uint64_t Bits(uint64_t index) const;
  // Uniform in [0, 1), 53 bits.
  double Uniform(uint64_t index) const;
  // Uniform in [0, n), n > 0, without bias beyond 2^-64.
  uint64_t Below(uint64_t index, uint64_t n) const;
  // Standard normal (Box-Muller over one block).
  double Normal(uint64_t index) const;

 private:
  std::array<uint32_t, 4> Block(uint64_t index) const;

  std::array<uint32_t, 2> key_;
  uint64_t stream_;
};

}  // namespace moebius
