// A token exchange as its tests drive it: one layer of an expert group with experts that are easy to compute,
// each rank a thread, every result and every byte kept.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/layers/seams.h"
#include "parallel/comm/world.h"
#include "parallel/exchange/exchange_options.h"

namespace moebius {

using Routing = std::function<std::vector<int32_t>(int, int64_t)>;

struct ExchangeCase {
  std::string name;
  int ranks = 4;
  int ranks_per_node = 2;
  int64_t experts = 8;
  int64_t top_k = 3;
  int64_t hidden = 24;
  std::vector<int64_t> tokens = {13};  // of rank r: the entry r % size
  DType act = DType::kF32;
  ExchangeOptions options = {};
  LinkSpeeds links = {};
  // The experts of (rank, token), distinct; default: random ones.
  Routing route = nullptr;

  int64_t tokens_of(int rank) const { return tokens[rank % tokens.size()]; }
  std::vector<int32_t> ExpertsOf(int rank, int64_t token) const;
  int node_of(int rank) const { return rank / ranks_per_node; }
  int64_t experts_per_rank() const { return experts / ranks; }
};

ExchangeCase NewExchangeCase(const std::string& name, int ranks, int ranks_per_node);
// K experts from `first` on.
Routing ExpertsFrom(int32_t first, int64_t top_k);
// Groups of all kinds, formats, and every extreme of routing.
std::vector<ExchangeCase> ExchangeCases();

// What the pieces of the exchange have given one rank; rows as f32.
struct RankResult {
  std::vector<int64_t> offsets;
  std::vector<float> rows, row_weights, y, d_rows, dx, dweights;
  // Bytes that this rank has sent in each phase: dispatch, combine, combine backward, dispatch backward.
  using Bytes = std::array<int64_t, kNumLinkClasses>;
  std::array<Bytes, 4> bytes{};
  friend bool operator==(const RankResult& a, const RankResult& b) {
    return a.offsets == b.offsets && a.rows == b.rows && a.row_weights == b.row_weights && a.y == b.y &&
           a.d_rows == b.d_rows && a.dx == b.dx && a.dweights == b.dweights;
  }
};

// Values of (rank, token): [hidden], exact in the case's act.
std::vector<float> TokenOf(const ExchangeCase& c, int rank, int64_t token, const char* what);
float WeightOf(const ExchangeCase& c, int rank, int64_t token, int64_t k);
// What expert e makes of an element of a row: in act.
float ExpertOf(const ExchangeCase& c, float x, int64_t e, float weight);

// Runs the case by the flat, the two-level or the gathering exchange.
absl::StatusOr<std::vector<RankResult>> RunExchange(const ExchangeCase& c, ExchangeKind kind);

// `body` with a rank's exchange and what it needs; tests of failures stop wherever they like.
struct ExchangeRank {
  World& world;
  Context context;
  TokenExchange& exchange;
  Arena& memory;
  TensorView x, experts, weights, dy;
};
absl::Status OnExchangeRanks(const ExchangeCase& c, ExchangeKind kind,
                             const std::function<absl::Status(ExchangeRank&)>& body);

// The bytes of the formulas in expert_exchange.h, two_level_exchange.h and gather_exchange.h, summed over
// ranks.
std::array<RankResult::Bytes, 4> BytesByFormula(const ExchangeCase& c, ExchangeKind kind);

}  // namespace moebius
