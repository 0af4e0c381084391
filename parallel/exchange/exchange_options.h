// What a token exchange is asked for: the way that tokens take, and what rows look like while they travel.
#pragma once

#include <cstdint>

namespace moebius {

// kAuto: two-level where the expert group lies on several nodes with equally many ranks each, else flat. Both
// give the same bits (row_sums.h), so the choice is one of speed. kGather (gather_exchange.h) is only chosen
// by name.
enum class ExchangeKind : uint8_t { kAuto, kFlat, kTwoLevel, kGather };
// Rows as they are computed, rounded to bf16, or as FP8 tiles (fp8_tiles.h).
enum class WireFormat : uint8_t { kAct, kBF16, kF8 };

// Formats hold for all rows, also for those that stay on their rank, so that which rows are rounded does not
// depend on where an expert lies. A single rank (LocalExchange) exchanges nothing and rounds nothing.
struct ExchangeOptions {
  ExchangeKind kind = ExchangeKind::kAuto;
  // Of dispatched activations and of the gradients that a combine's backward sends (V3: before down-proj).
  WireFormat dispatch = WireFormat::kAct;
  // Of experts' outputs and of the gradients that a dispatch's backward returns; not kF8: sums would lose too
  // much.
  WireFormat combine = WireFormat::kAct;
};

}  // namespace moebius
