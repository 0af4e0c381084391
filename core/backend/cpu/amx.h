// The matrix instructions of Intel's AMX on tiles of 16 rows of 64 bytes (Intel SDM volume 1, chapter 18).
// They are written out for the assembler, so every build holds them; HasAmx() says whether this process may
// run them.
#pragma once

#include <cstdint>

namespace moebius {

// AMX-BF16, and the system grants its registers to this process (Linux wants to be asked).
bool HasAmx();

// All eight tiles, 16 rows of 64 bytes each, for as long as this lives, on this thread. What was configured
// before comes back (oneDNN keeps a configuration of its own), but not what the tiles held.
class TilesInUse {
 public:
  TilesInUse();
  ~TilesInUse();
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;

 private:
  alignas(64) uint8_t before_[64];
};

// Rows `stride` bytes apart. The compiler knows nothing of tiles, so each instruction is a barrier for
// memory.
#if defined(__x86_64__)
template <int kTile>
inline void LoadTile(const void* rows, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void StoreTile(void* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile) : "memory");
}
// Tile kC [16 x 16 fp32] += kA [16 rows of 32 bf16] times kB [16 rows of 16 pairs of bf16 that follow each
// other in the reduction].
template <int kC, int kA, int kB>
inline void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB) : "memory");
}
#else
template <int>
inline void LoadTile(const void*, int64_t) {}
template <int>
inline void StoreTile(void*, int64_t) {}
template <int>
inline void ZeroTile() {}
template <int, int, int>
inline void MultiplyTiles() {}
#endif

}  // namespace moebius
