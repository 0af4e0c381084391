// What a token exchange is asked for: the way that tokens take, and what rows look like while they travel.
#pragma once

#include <cstdint>

namespace moebius {

// kAuto: two-level where the expert group lies on several nodes with equally many ranks each, else flat. Both
// give the same bits (row_sums.h), so the choice is one of speed.
enum class ExchangeKind : uint8_t { kAuto, kFlat, kTwoLevel };
// Of dispatched activations and of the gradients that a combine's backward sends (V3: before down-proj).
enum class DispatchFormat : uint8_t { kAct, kF8 };
// Of experts' outputs and of the gradients that a dispatch's backward returns.
enum class CombineFormat : uint8_t { kAct, kBF16 };

// Formats hold for all rows, also for those that stay on their rank, so that which rows are rounded does not
// depend on where an expert lies. A single rank (LocalExchange) exchanges nothing and rounds nothing.
struct ExchangeOptions {
  ExchangeKind kind = ExchangeKind::kAuto;
  DispatchFormat dispatch = DispatchFormat::kAct;
  CombineFormat combine = CombineFormat::kAct;
};

}  // namespace moebius
