// Warpgroup products (wgmma): d [64, n] f32 (= or +=) a [64, 16] bf16 · b [16, n] bf16, a and b in shared
// memory. Four adjacent warps, the first a multiple of 4, issue each together. Only for sm_90a code.
//
// Thread t of the four warps holds, in d[4 j + 2 h + e], the element of row 16 (t / 32) + (t % 32) / 4 + 8 h
// and column 8 j + 2 (t % 4) + e.
#pragma once

#include <cstdint>

namespace moebius::cuda {

// Which dimension of a tile lies along its 128-byte rows of shared memory: the terms of the sums (K), or the
// rows of a, columns of b (MN). The values are the instruction's.
enum class Major { kK = 0, kMN = 1 };

// Tiles lie in boxes of 128-byte rows as a tensor copy with a 128-byte swizzle leaves them: the 16-byte piece
// i of row r at piece i ^ (r % 8). A descriptor names the first element's address; 8 rows lie 1024 bytes
// apart from the next 8. A box holds 64 elements of a row, so with kMN further ones are in further boxes,
// box_bytes apart; with kK a product of 16 terms never leaves its box.
constexpr uint32_t kEightRowsBytes = 1024;
__device__ __forceinline__ uint64_t Descriptor(uint32_t address, uint32_t leading_bytes,
                                               uint32_t stride_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{stride_bytes >> 4} << 32 | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{(address & 0x3FFFF) >> 4};
}
template <Major kMajor>
__device__ __forceinline__ uint64_t TileDescriptor(uint32_t address, uint32_t box_bytes) {
  return Descriptor(address, kMajor == Major::kMN ? box_bytes : 16, kEightRowsBytes);
}
// What 16 terms further on adds to a descriptor: 32 bytes of every row, or 16 rows.
template <Major kMajor>
constexpr uint64_t kTermsStep = kMajor == Major::kMN ? 2 * kEightRowsBytes >> 4 : 32 >> 4;

// Before the first product after other code has touched d.
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kLeft of the committed groups are still running.
template <int kLeft>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from moving uses of d across a wait, which it does not know to concern d.
template <int kCount>
__device__ __forceinline__ void Pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// clang-format off
#define MOEBIUS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define MOEBIUS_16(i) MOEBIUS_4(i), MOEBIUS_4((i) + 4), MOEBIUS_4((i) + 8), MOEBIUS_4((i) + 12)

template <Major kA, Major kB>
__device__ __forceinline__ void Wgmma(float (&d)[128], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, p, 1, 1, %131, %132;\n"
      "}\n"
      :
      MOEBIUS_16(0),
      MOEBIUS_16(16),
      MOEBIUS_16(32),
      MOEBIUS_16(48),
      MOEBIUS_16(64),
      MOEBIUS_16(80),
      MOEBIUS_16(96),
      MOEBIUS_16(112)
      : "l"(a), "l"(b), "r"(add), "n"(static_cast<int>(kA)), "n"(static_cast<int>(kB)));
}

template <Major kA, Major kB>
__device__ __forceinline__ void Wgmma(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, %67, %68;\n"
      "}\n"
      :
      MOEBIUS_16(0),
      MOEBIUS_16(16),
      MOEBIUS_16(32),
      MOEBIUS_16(48)
      : "l"(a), "l"(b), "r"(add), "n"(static_cast<int>(kA)), "n"(static_cast<int>(kB)));
}

// d [64, 128] f32 (= or +=) a [64, 32] · b [32, 128] of E4M3, both with kK: 32 terms are 32 bytes of a row,
// so what leads to the next ones is kTermsStep<Major::kK> here too.
__device__ __forceinline__ void WgmmaE4M3(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1;\n"
      "}\n"
      :
      MOEBIUS_16(0),
      MOEBIUS_16(16),
      MOEBIUS_16(32),
      MOEBIUS_16(48)
      : "l"(a), "l"(b), "r"(add));
}

// The same with =: what d holds before does not matter.
#define MOEBIUS_OUT_4(i) "=f"(d[i]), "=f"(d[(i) + 1]), "=f"(d[(i) + 2]), "=f"(d[(i) + 3])
#define MOEBIUS_OUT_16(i) MOEBIUS_OUT_4(i), MOEBIUS_OUT_4((i) + 4), MOEBIUS_OUT_4((i) + 8), MOEBIUS_OUT_4((i) + 12)
__device__ __forceinline__ void FirstWgmmaE4M3(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1;\n"
      "}\n"
      :
      MOEBIUS_OUT_16(0),
      MOEBIUS_OUT_16(16),
      MOEBIUS_OUT_16(32),
      MOEBIUS_OUT_16(48)
      : "l"(a), "l"(b), "r"(0));
}

#undef MOEBIUS_OUT_16
#undef MOEBIUS_OUT_4
#undef MOEBIUS_16
#undef MOEBIUS_4
// clang-format on

}  // namespace moebius::cuda
