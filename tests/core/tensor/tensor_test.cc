#include "core/tensor/tensor.h"

#include <cstdlib>
#include <sstream>

#include "gtest/gtest.h"

namespace moebius {
namespace {

class CountingAllocator final : public Allocator {
 public:
  void* Allocate(int64_t bytes) override {
    ++live;
    return std::aligned_alloc(64, (bytes + 127) / 64 * 64);
  }
  void Free(void* memory) override {
    --live;
    std::free(memory);
  }
  int live = 0;
};

TEST(ShapeTest, CountsElements) {
  EXPECT_EQ((Shape{3, 4, 5}).elements(), 60);
  EXPECT_EQ((Shape{3, 0}).elements(), 0);
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
}

TEST(TensorViewTest, ColumnsOfHeadsKeepTheRowStride) {
  float data[2 * 3 * 4] = {};
  const TensorView x(data, DType::kF32, {2, 3, 4});
  const TensorView rope = x.Columns(3, 1);
  EXPECT_EQ(rope.shape, (Shape{2, 3, 1}));
  EXPECT_EQ(rope.stride, 4);
  EXPECT_EQ(rope.data, data + 3);
  EXPECT_FALSE(rope.contiguous());
  EXPECT_EQ(rope.bytes(), 6 * 4);
  EXPECT_EQ(x.Columns(0, 4).contiguous(), true);
}

TEST(TensorViewTest, RowsSliceTheFirstDimension) {
  float data[24] = {};
  const TensorView matrix(data, DType::kF32, {6, 4});
  EXPECT_EQ(matrix.Rows(2, 3).data, data + 8);
  EXPECT_EQ(matrix.Columns(1, 2).Rows(2, 3).data, data + 9);
  const TensorView cube(data, DType::kF32, {2, 3, 4});
  EXPECT_EQ(cube.Rows(1, 1).data, data + 12);
  EXPECT_EQ(cube.Rows(1, 1).shape, (Shape{1, 3, 4}));
  EXPECT_EQ(cube.Index(1).shape, (Shape{3, 4}));
  EXPECT_EQ(cube.Index(1).data, data + 12);
  const TensorView vector(data, DType::kF32, {24});
  EXPECT_EQ(vector.Rows(5, 7).data, data + 5);
  EXPECT_EQ(vector.Rows(5, 7).shape, (Shape{7}));
  EXPECT_EQ(matrix.Rows(6, 0).rows(), 0);
}

TEST(TensorViewTest, ContiguousViewsTakeAnyShapeStridedOnesKeepTheirColumns) {
  float data[24] = {};
  const TensorView x(data, DType::kF32, {2, 3, 4});
  EXPECT_EQ(x.Reshape({24}).stride, 24);
  EXPECT_EQ(x.Reshape({2, 12}).stride, 12);
  EXPECT_EQ(x.Columns(0, 2).Reshape({6, 2}).stride, 4);
  EXPECT_DEATH(x.Columns(0, 2).Reshape({3, 4}), "strided");
  EXPECT_DEATH(x.Reshape({5, 5}), "24");
  EXPECT_DEATH(x.Columns(3, 2), "columns");
  EXPECT_DEATH(x.Rows(1, 2), "rows");
}

TEST(TensorViewTest, TypedPointersMustMatch) {
  float data[4] = {};
  const TensorView x(data, DType::kF32, {4});
  EXPECT_EQ(x.as<float>(), data);
  EXPECT_DEATH(x.as<int32_t>(), "F32");
}

TEST(TensorViewTest, PrintsTypeShapeAndStride) {
  BF16 data[24];
  std::ostringstream out;
  out << TensorView(data, DType::kBF16, {4, 6}).Columns(0, 3);
  EXPECT_EQ(out.str(), "BF16[4, 3] stride 6");
}

TEST(TensorTest, OwnsItsMemoryAndMoves) {
  CountingAllocator allocator;
  {
    Tensor a(allocator, DType::kBF16, {3, 5});
    EXPECT_EQ(a.view().bytes(), 30);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.view().data) % 64, 0u);
    void* memory = a.view().data;
    Tensor b = std::move(a);
    EXPECT_EQ(b.view().data, memory);
    Tensor c;
    EXPECT_FALSE(c);
    c = std::move(b);
    EXPECT_EQ(c.view().data, memory);
    EXPECT_EQ(allocator.live, 1);
  }
  EXPECT_EQ(allocator.live, 0);
}

}  // namespace
}  // namespace moebius
