// The tiles of a grouped product's result, in the order in which blocks take them: block b takes tiles b,
// b + grid, b + 2 grid, ... (or a cluster of blocks does). Every warp that needs them walks for itself, from
// the offsets in device memory.
#pragma once

#include <cstdint>

#include "core/backend/cuda/grouped_problem.h"

namespace moebius::cuda {

constexpr int kTileRows = 128;
constexpr int kTileTerms = 64;  // of a sum, a pipeline stage
// Tiles of a group go down a panel of this many row tiles, then to the next columns: blocks that run at the
// same time share rows and columns in the second-level cache.
constexpr int kPanelTiles = 16;

// Rows [row, row + tile rows) and columns [column, column + tile columns) of a result; rows of x and y for
// the kinds that have a result a row, of w[group] for kBackwardWeight.
struct GroupedTile {
  int group = 0;
  int row = 0;
  int column = 0;
  int begin = 0;  // the group's rows of x and y
  int end = 0;
  int pieces = 0;  // of at most 128 rows, in the groups before
  int part = -1;   // fp8_wgmma.cuh: of the sums' terms, when a tile does not have all
};

template <GroupedProductKind kKind, int kTileColumns, int kRows = kTileRows>
class TileWalk {
 public:
  static constexpr bool kWeight = kKind == GroupedProductKind::kBackwardWeight;

  // Takes tiles first, first + step, ... Without offsets, one group has all `rows`.
  __device__ TileWalk(const int64_t* offsets, int groups, int rows, int rows_of_weight, int columns,
                      int first, int step)
      : offsets_(offsets),
        rows_(rows),
        groups_(groups),
        weight_tiles_((rows_of_weight + kRows - 1) / kRows),
        column_tiles_((columns + kTileColumns - 1) / kTileColumns),
        step_(step),
        next_(first) {
    Enter(0);
  }

  // False past the last tile.
  __device__ bool Next(GroupedTile* tile) {
    while (next_ >= first_ + row_tiles_ * column_tiles_) {
      if (group_ + 1 >= groups_) return false;
      first_ += row_tiles_ * column_tiles_;
      pieces_ += (end_ - begin_ + kTileRows - 1) / kTileRows;
      Enter(group_ + 1);
    }
    At(next_ - first_, tile);
    next_ += step_;
    return true;
  }

  // Tile i of the group that it is at.
  __device__ void At(int i, GroupedTile* tile) const {
    const int panel = i / (kPanelTiles * column_tiles_) * kPanelTiles;
    const int height = min(kPanelTiles, row_tiles_ - panel), rest = i - panel * column_tiles_;
    tile->group = group_;
    tile->row = (kWeight ? 0 : begin_) + (panel + rest % height) * kRows;
    tile->column = rest / height * kTileColumns;
    tile->begin = begin_;
    tile->end = end_;
    tile->pieces = pieces_;
  }

 private:
  __device__ void Enter(int group) {
    group_ = group;
    begin_ = offsets_ == nullptr ? 0 : static_cast<int>(offsets_[group]);
    end_ = offsets_ == nullptr ? rows_ : static_cast<int>(offsets_[group + 1]);
    const int rows = end_ - begin_;
    row_tiles_ = kWeight ? (rows == 0 ? 0 : weight_tiles_) : (rows + kRows - 1) / kRows;
  }

  const int64_t* offsets_;
  int rows_;
  int groups_;
  int weight_tiles_;
  int column_tiles_;
  int step_;
  int next_;
  int group_ = 0;
  int first_ = 0;  // number of the group's first tile
  int begin_ = 0;
  int end_ = 0;
  int row_tiles_ = 0;
  int pieces_ = 0;
};

}  // namespace moebius::cuda
