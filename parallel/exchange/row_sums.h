// The order in which a token's rows are summed by the flat and the two-level exchange, so that both give the
// same bits in every format:
//
//   y_t = add + (terms of node 0) + (terms of node 1) + ...      one after another, in fp32, rounded to act
//
// The token's own node has a term for each choice, in choice order k. Another node has one term: the sum of
// its rows in choice order, in fp32, rounded once to the format that travels (that is what crosses). On one
// node this is the sum over k of CombineRows: what one rank computes.
#pragma once

#include <span>
#include <vector>

#include "core/tensor/tensor.h"
#include "parallel/exchange/row_format.h"

namespace moebius {

// Groups of rows of one buffer; group g is rows[begin[g]], ..., rows[begin[g + 1] - 1].
struct RowGroups {
  std::vector<int32_t> begin = {0};
  std::vector<int32_t> rows;

  int64_t size() const { return static_cast<int64_t>(begin.size()) - 1; }
  int32_t first(int64_t g) const { return rows[begin[g]]; }
  void Add(std::span<const int32_t> group) {
    rows.insert(rows.end(), group.begin(), group.end());
    begin.push_back(static_cast<int32_t>(rows.size()));
  }
};

// Each group's sum takes the place of its first row. wire: U8 [n, RowBytes] in kF32 or kBF16.
void SumInPlace(RowFormat format, int64_t hidden, const RowGroups& groups, TensorView wire);

}  // namespace moebius
