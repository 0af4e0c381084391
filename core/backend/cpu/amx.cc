#include "core/backend/cpu/amx.h"

#include <cstring>

#include "core/base/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moebius {

#if defined(__x86_64__)
namespace {

// linux/arch/x86/include/uapi/asm/prctl.h; register state 18 are the tiles.
constexpr int kArchRequestPermission = 0x1023;
constexpr int kTileData = 18;

// The 64 bytes that ldtilecfg reads (SDM, "LDTILECFG").
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// Compilers differ in the names by which __builtin_cpu_supports asks for these, so CPUID is asked (SDM,
// "CPUID", leaf 7).
bool HasInstructions() {
  constexpr unsigned kBF16 = 1U << 22, kTile = 1U << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBF16) != 0 && (d & kTile) != 0;
}

void Configure(const void* config) { asm volatile("ldtilecfg (%0)" : : "r"(config) : "memory"); }

}  // namespace

bool HasAmx() {
  static const bool has =
      HasInstructions() && syscall(SYS_arch_prctl, kArchRequestPermission, kTileData) == 0;
  return has;
}

TilesInUse::TilesInUse() {
  asm volatile("sttilecfg (%0)" : : "r"(before_) : "memory");
  alignas(64) static constexpr TileConfig kConfig;
  Configure(&kConfig);
}

// Palette 0 means that nothing was configured; to load it releases the tiles.
TilesInUse::~TilesInUse() { Configure(before_); }

#else

bool HasAmx() { return false; }
TilesInUse::TilesInUse() { CHECK(false) << "AMX is of x86-64 alone"; }
TilesInUse::~TilesInUse() = default;

#endif

}  // namespace moebius
