// Small MoE layers and whole blocks for the tests of layers.
#pragma once

#include <memory>
#include <string>

#include "core/layers/block.h"
#include "core/layers/gqa_attention.h"
#include "core/layers/local_exchange.h"
#include "core/layers/mla_attention.h"
#include "tests/core/layers/bench.h"

namespace moebius {

struct MoeChoices {
  RouterSpec spec;
  int64_t experts = 8;
  int64_t hidden = 24;
  int64_t intermediate = 12;
  bool bias = false;
  int64_t shared = 0;  // width of the shared expert; 0: none
};
MoeParameters AddMoe(ParameterSet& set, const std::string& prefix, const MoeChoices& choices);

// A block and what it borrows. Its attention is MLA (with query compression) before an MoE, GQA before a
// dense MLP.
class OwnedBlock {
 public:
  OwnedBlock(Bench& bench, ParameterSet& set, SlotCounter& slots, const std::string& prefix, int64_t hidden,
             const MoeChoices* moe);
  const Block& block() const { return *block_; }
  std::unique_ptr<Block> Take() { return std::move(block_); }  // still borrows from this

 private:
  RotaryTable rotary_;
  std::unique_ptr<LocalExchange> exchange_;
  std::unique_ptr<Block> block_;
};

// The balance terms of the objective that a layer counted itself.
RoutingStatistics StatisticsOf(const Pass& pass, const MoeMlp& moe);  // after Route
double TermsOf(const Pass& pass, const MoeMlp& moe);

}  // namespace moebius
