#include "tests/core/backend/amx_anywhere.h"

#include "core/backend/cpu/amx.h"
#include "hwy/targets.h"

#if defined(__x86_64__)
#include <signal.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

namespace moebius {
namespace {

constexpr int kTiles = 8, kMaxRows = 16, kRowBytes = 64;

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  alignas(64) uint8_t data[kMaxRows][kRowBytes] = {};
};
struct Tiles {
  std::array<uint8_t, 64> config = {};
  Tile tile[kTiles];
};
thread_local Tiles tiles;
std::atomic<long> trapped = 0;
struct sigaction before;

// The fields of an instruction of AMX: VEX of three bytes, opcode, ModRM, and SIB where it addresses rows.
struct Instruction {
  explicit Instruction(const uint8_t* at) {
    is_vex = at[0] == 0xC4 && (at[1] & 0x1F) == 2 && (at[2] & 0x84) == 0;  // map 0F38, W0, 128 bits
    prefix = at[2] & 3;
    second = ~(at[2] >> 3) & 15;
    opcode = at[3];
    mode = at[4] >> 6;
    reg = at[4] >> 3 & 7;
    rm = at[4] & 7;
    base = rm;
    length = 5;
    if (mode != 3 && rm == 4) {
      base = at[5] & 7;
      index = (at[5] >> 3 & 7) | (at[1] & 0x40 ? 0 : 8);
      scale = at[5] >> 6;
      length = 6;
    }
    no_base = mode == 0 && base == 5;
    base |= at[1] & 0x20 ? 0 : 8;
    if (mode == 1) displacement = static_cast<int8_t>(at[length]);
    if (mode == 2) std::memcpy(&displacement, at + length, sizeof(displacement));
    length += mode == 1 ? 1 : mode == 2 ? 4 : 0;
  }
  bool is_vex, no_base;
  int prefix;  // 0, or 66, F3, F2 as 1, 2, 3
  int second;  // the register of VEX
  int opcode, mode, reg, rm, base, index = 4, scale = 0, length;
  int32_t displacement = 0;
};

uint64_t Register(const ucontext_t& context, int number) {
  constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context.uc_mcontext.gregs[kOrder[number]];
}

bool Configure(const uint8_t* config) {
  tiles = {};
  if (config[0] == 0) return true;
  if (config[0] != 1) return false;
  std::memcpy(tiles.config.data(), config, 64);
  for (int i = 0; i < kTiles; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, config + 16 + 2 * i, 2);
    if (row_bytes > kRowBytes || config[48 + i] > kMaxRows) return false;
    tiles.tile[i].row_bytes = row_bytes;
    tiles.tile[i].rows = config[48 + i];
  }
  return true;
}

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

// A product of two bf16 is exact in fp32, so that sums of rounded products are those of fused ones.
void MultiplyPairs(Tile& c, const Tile& a, const Tile& b) {
  constexpr int kWords = kRowBytes / 4;
  for (int m = 0; m < c.rows; ++m) {
    float even[kWords] = {}, odd[kWords] = {}, row[kWords];
    for (int k = 0; k < a.row_bytes / 4; ++k) {
      uint32_t pair, pairs[kWords];
      std::memcpy(&pair, &a.data[m][4 * k], sizeof(pair));
      std::memcpy(pairs, b.data[k], sizeof(pairs));
      for (int n = 0; n < kWords; ++n) {
        even[n] += FromBits(pair << 16) * FromBits(pairs[n] << 16);
        odd[n] += FromBits(pair & 0xFFFF0000) * FromBits(pairs[n] & 0xFFFF0000);
      }
    }
    std::memcpy(row, c.data[m], sizeof(row));
    for (int n = 0; n < c.row_bytes / 4; ++n) row[n] += even[n] + odd[n];
    std::memcpy(c.data[m], row, sizeof(row));
  }
}

// False: not an instruction of AMX that is known here, or one that would fault.
bool Do(const Instruction& i, const ucontext_t& context) {
  if (!i.is_vex) return false;
  const uint64_t address = (i.no_base ? 0 : Register(context, i.base)) + i.displacement;
  enum { kNone, k66, kF3, kF2 };
  if (i.opcode == 0x49 && i.mode != 3 && i.reg == 0 && i.prefix == kNone) {
    return Configure(reinterpret_cast<const uint8_t*>(address));
  }
  if (i.opcode == 0x49 && i.mode != 3 && i.reg == 0 && i.prefix == k66) {
    std::memcpy(reinterpret_cast<void*>(address), tiles.config.data(), 64);
    return true;
  }
  if (tiles.config[0] == 0) return false;  // the rest needs tiles
  Tile& tile = tiles.tile[i.reg];
  if (i.opcode == 0x49 && i.mode == 3 && i.prefix == kF2) {
    std::memset(tile.data, 0, sizeof(tile.data));
    return true;
  }
  if (i.opcode == 0x4B && i.mode != 3 && i.rm == 4 && (i.prefix == kF2 || i.prefix == kF3)) {
    const int64_t stride = i.index == 4 ? 0 : static_cast<int64_t>(Register(context, i.index)) << i.scale;
    if (i.prefix == kF2) std::memset(tile.data, 0, sizeof(tile.data));
    for (int r = 0; r < tile.rows; ++r) {
      uint8_t* const row = reinterpret_cast<uint8_t*>(address + r * stride);
      if (i.prefix == kF2) std::memcpy(tile.data[r], row, tile.row_bytes);
      if (i.prefix == kF3) std::memcpy(row, tile.data[r], tile.row_bytes);
    }
    return true;
  }
  if (i.opcode == 0x5C && i.mode == 3 && i.prefix == kF3) {
    const Tile& a = tiles.tile[i.rm];
    const Tile& b = tiles.tile[i.second];
    if (a.rows != tile.rows || b.row_bytes != tile.row_bytes || a.row_bytes != 4 * b.rows) return false;
    if (&a == &b || &a == &tile || &b == &tile) return false;
    MultiplyPairs(tile, a, b);
    return true;
  }
  return false;
}

void OnIllegalInstruction(int, siginfo_t*, void* context) {
  ucontext_t& state = *static_cast<ucontext_t*>(context);
  const Instruction instruction(reinterpret_cast<const uint8_t*>(state.uc_mcontext.gregs[REG_RIP]));
  if (!Do(instruction, state)) {
    sigaction(SIGILL, &before, nullptr);  // comes again, and ends the program
    return;
  }
  ++trapped;
  state.uc_mcontext.gregs[REG_RIP] += instruction.length;
}

}  // namespace

AmxAnywhere::AmxAnywhere() {
  if (HasAmx()) return;
  struct sigaction action = {};
  action.sa_sigaction = OnIllegalInstruction;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}
AmxAnywhere::~AmxAnywhere() {
  if (!HasAmx()) sigaction(SIGILL, &before, nullptr);
}
bool AmxAnywhere::Works() { return (hwy::SupportedTargets() & HWY_AVX2) != 0; }
long TrappedInstructions() { return trapped; }

}  // namespace moebius

#else

namespace moebius {

AmxAnywhere::AmxAnywhere() = default;
AmxAnywhere::~AmxAnywhere() = default;
bool AmxAnywhere::Works() { return false; }
long TrappedInstructions() { return 0; }

}  // namespace moebius

#endif
