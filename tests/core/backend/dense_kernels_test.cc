// Elementwise kernels, embedding, SwiGLU and AdamW against double precision.
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/base/strings.h"
#include "tests/core/backend/arrays.h"
#include "tests/core/backend/reference.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

double KernelTolerance(DType act) { return ToleranceOf(act).elementwise; }

Tensor Copy(Backend& backend, const TensorView& x) {
  Tensor out(backend, x.dtype, x.shape);
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) SetAt(out, r, c, ValueAt(x, r, c));
  }
  return out;
}

class KernelTest : public testing::TestWithParam<DType> {
 protected:
  DType act() const { return GetParam(); }
  std::unique_ptr<Backend> backend = NewTestBackend();
  std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
};

class ElementwiseTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Act, ElementwiseTest, testing::Values(DType::kF32, DType::kBF16));

TEST_P(ElementwiseTest, ZeroAndFillKeepToTheView) {
  for (const int64_t rows : {1, 3, 700}) {
    for (const int64_t cols : {1, 9, 130}) {
      const Tensor x = RandomTensor(*backend, act(), {rows, cols + 3}, "x");
      const Doubles before = Values(x);
      const TensorView inner = x.view().Columns(1, cols);
      backend->Fill(*stream, inner, 1.5f);
      for (const double value : Values(inner)) ASSERT_EQ(value, 1.5);
      backend->Zero(*stream, inner);
      for (const double value : Values(inner)) ASSERT_EQ(value, 0);
      for (int64_t r = 0; r < rows; ++r) {
        ASSERT_EQ(ValueAt(x, r, 0), before[r * (cols + 3)]);
        ASSERT_EQ(ValueAt(x, r, cols + 1), before[r * (cols + 3) + cols + 1]);
      }
    }
  }
}

TEST_P(ElementwiseTest, CastMeetsTheScalarConversionBitForBit) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> values = {0.0f,    -0.0f,  1.0f,        inf,         -inf,     nan,
                               3.4e38f, 1e-40f, 1.00390625f, 1.01171875f, -65504.0f};
  const RandomStream random(3, "cast");
  for (int i = 0; i < 100000; ++i)
    values.push_back(static_cast<float>(random.Normal(i)) * std::exp2f(i % 40 - 20));
  const int64_t n = static_cast<int64_t>(values.size());
  const Tensor from(*backend, DType::kF32, {n}), to = DirtyTensor(*backend, act(), {n});
  backend->CopyToDevice(*stream, values.data(), from);
  backend->Cast(*stream, from, to);
  for (int64_t i = 0; i < n; ++i) {
    if (act() == DType::kBF16) {
      ASSERT_EQ(to.view().as<BF16>()[i].bits, BF16::FromFloat(values[i]).bits) << values[i];
    } else {
      ASSERT_EQ(std::memcmp(to.view().as<float>() + i, &values[i], 4), 0) << values[i];
    }
  }
  const Tensor back = DirtyTensor(*backend, DType::kF32, {n});
  backend->Cast(*stream, to, back);
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(values[i])) continue;
    ASSERT_EQ(ValueAt(back, 0, i), ValueAt(to, 0, i));
  }
}

TEST_P(ElementwiseTest, AccumulateAddsInEveryPairOfTypes) {
  for (const DType other : {DType::kF32, DType::kBF16}) {
    const Tensor x = RandomTensor(*backend, act(), {70, 31}, "x"),
                 y = RandomTensor(*backend, other, {70, 40}, "y");
    const TensorView inner = y.view().Columns(2, 31);
    Doubles want = Values(inner);
    for (size_t i = 0; i < want.size(); ++i) want[i] -= 0.75 * Values(x)[i];
    backend->Accumulate(*stream, {.x = x, .y = inner, .alpha = -0.75f});
    ExpectNear(Values(inner), want, KernelTolerance(other), "y");
  }
}

TEST_P(ElementwiseTest, CopiesGoThereAndBack) {
  const Tensor x = RandomTensor(*backend, act(), {5, 12}, "x"), y = DirtyTensor(*backend, act(), {5, 20});
  const TensorView inner = y.view().Columns(4, 12);
  backend->CopyToDevice(*stream, x.view().data, inner);
  EXPECT_EQ(Values(x), Values(inner));
  const Tensor z = DirtyTensor(*backend, act(), {5, 12});
  backend->CopyToHost(*stream, inner, z.view().data);
  stream->Synchronize();
  EXPECT_TRUE(SameBits(x, z));
}

TEST(ZeroTest, WorksOnEveryType) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const DType dtype : {DType::kF64, DType::kI64, DType::kI32, DType::kU8}) {
    const Tensor x = DirtyTensor(*backend, dtype, {100000});
    backend->Zero(*stream, x);
    const char* bytes = static_cast<const char*>(x.view().data);
    for (int64_t i = 0; i < x.view().bytes(); ++i) ASSERT_EQ(bytes[i], 0);
  }
}

class SwiGluTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Act, SwiGluTest, testing::Values(DType::kF32, DType::kBF16));

struct SwiGluProblem {
  SwiGluProblem(Backend& backend, DType act, int64_t rows, int64_t width)
      : gate_up(RandomTensor(backend, act, {rows, 2 * width}, "gate_up", 3)),
        weights(RandomTensor(backend, DType::kF32, {rows}, "weights")),
        dh(RandomTensor(backend, act, {rows, width}, "dh")) {
    SetAt(gate_up, 0, 0, 200.0);  // saturated gates
    SetAt(gate_up, rows - 1, width - 1, -200.0);
  }
  Tensor gate_up, weights, dh;
};

TEST_P(SwiGluTest, MeetsDoublePrecisionForwardAndBackward) {
  for (const int64_t rows : {1, 37}) {
    for (const int64_t width : {1, 16, 205}) {
      for (const bool weighted : {false, true}) {
        SwiGluProblem p(*backend, act(), rows, width);
        const Doubles weights = weighted ? Values(p.weights) : Doubles(rows, 1.0);
        const auto want = ReferenceSwiGlu(Values(p.gate_up), weights, Values(p.dh), rows, width);
        const Tensor h = DirtyTensor(*backend, act(), {rows, width + 2});
        const Tensor d_gate_up = DirtyTensor(*backend, act(), {rows, 2 * width});
        const Tensor d_weights = DirtyTensor(*backend, DType::kF32, {rows});
        SwiGluArgs forward{.gate_up = p.gate_up, .h = h.view().Columns(1, width)};
        SwiGluBackwardArgs backward{.gate_up = p.gate_up, .dh = p.dh, .d_gate_up = d_gate_up};
        if (weighted) {
          forward.row_weights = backward.row_weights = p.weights;
          backward.d_row_weights = d_weights;
        }
        backend->SwiGlu(*stream, forward);
        backend->SwiGluBackward(*stream, backward);
        ExpectNear(Values(forward.h), want.h, KernelTolerance(act()), "h");
        ExpectNear(Values(d_gate_up), want.d_gate_up, KernelTolerance(act()), "d_gate_up");
        if (weighted) ExpectNear(Values(d_weights), want.d_row_weights, 2e-6, "d_row_weights");
      }
    }
  }
}

TEST_P(SwiGluTest, TheBackwardMayOverwriteItsInputs) {
  constexpr int64_t kRows = 20, kWidth = 45;
  SwiGluProblem p(*backend, act(), kRows, kWidth);
  const Tensor h = DirtyTensor(*backend, act(), {kRows, kWidth});
  const Tensor d_gate_up = DirtyTensor(*backend, act(), {kRows, 2 * kWidth});
  const Tensor d_weights = DirtyTensor(*backend, DType::kF32, {kRows});
  SwiGluBackwardArgs args{.gate_up = p.gate_up,
                          .row_weights = p.weights,
                          .dh = p.dh,
                          .d_gate_up = d_gate_up,
                          .d_row_weights = d_weights,
                          .h = h};
  backend->SwiGluBackward(*stream, args);
  const Tensor forward = DirtyTensor(*backend, act(), {kRows, kWidth});
  backend->SwiGlu(*stream, {.gate_up = p.gate_up, .row_weights = p.weights, .h = forward});
  EXPECT_TRUE(SameBits(h, forward)) << "h made again has the forward's bits";
  args.d_gate_up = p.gate_up;
  args.h = p.dh;
  backend->SwiGluBackward(*stream, args);
  EXPECT_TRUE(SameBits(p.gate_up, d_gate_up));
  EXPECT_TRUE(SameBits(p.dh, h));
}

class EmbeddingTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Act, EmbeddingTest, testing::Values(DType::kF32, DType::kBF16));

TEST_P(EmbeddingTest, GathersRowsAndAddsGradientsInTokenOrder) {
  constexpr int64_t kVocab = 11, kHidden = 150, kTokens = 300;
  std::vector<int32_t> ids(kTokens);
  for (int64_t t = 0; t < kTokens; ++t) ids[t] = static_cast<int32_t>(t * t % kVocab);
  const Tensor id = Int32Tensor(*backend, ids);
  const Tensor table = RandomTensor(*backend, act(), {kVocab, kHidden}, "table");
  const Tensor out = DirtyTensor(*backend, act(), {kTokens, kHidden + 1});
  backend->Embedding(*stream, {.table = table, .ids = id, .out = out.view().Columns(1, kHidden)});
  const Tensor dy = RandomTensor(*backend, act(), {kTokens, kHidden}, "dy");
  std::vector<Tensor> grads;
  for (const auto& other : NewTestBackends()) {
    grads.push_back(RandomTensor(*backend, DType::kF32, {kVocab, kHidden}, "dtable"));
    Doubles want = Values(grads.back());
    other->EmbeddingBackward(*stream, {.ids = id, .dy = dy, .dtable = grads.back()});
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t i = 0; i < kHidden; ++i) {
        ASSERT_EQ(ValueAt(out, t, 1 + i), ValueAt(table, ids[t], i));
        want[ids[t] * kHidden + i] += ValueAt(dy, t, i);
      }
    }
    ExpectNear(Values(grads.back()), want, 2e-6, "dtable");
    EXPECT_TRUE(SameBits(grads.front(), grads.back()));
  }
}

double MomentTolerance(DType dtype) { return dtype == DType::kF32 ? 1e-6 : ToleranceOf(dtype).elementwise; }

class AdamWTest : public testing::TestWithParam<std::tuple<DType, DType>> {};

TEST_P(AdamWTest, MeetsDoublePrecisionOverSomeSteps) {
  const auto [m_type, v_type] = GetParam();
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  constexpr int64_t kN = 70003;
  const Tensor master = RandomTensor(*backend, DType::kF32, {kN}, "master");
  const Tensor m = RandomTensor(*backend, m_type, {kN}, "m", 0),
               v = RandomTensor(*backend, v_type, {kN}, "v", 0);
  const Tensor weight = DirtyTensor(*backend, DType::kBF16, {kN}), ema = Copy(*backend, master);
  AdamWReference want{.w = Values(master), .m = Values(m), .v = Values(v), .ema = Values(ema)};
  for (int64_t step = 1; step <= 4; ++step) {
    const Tensor grad =
        RandomTensor(*backend, DType::kF32, {kN}, Concat("grad", step), step == 2 ? 1e-3 : 1.0);
    const AdamWArgs args{.master = master,
                         .m = m,
                         .v = v,
                         .grad = grad,
                         .weight = weight,
                         .ema = ema,
                         .grad_scale = 0.5f,
                         .lr = 1e-2f,
                         .beta1 = 0.9f,
                         .beta2 = 0.95f,
                         .epsilon = 1e-8f,
                         .weight_decay = 0.1f,
                         .step = step,
                         .ema_decay = 0.9f};
    // What bf16 rounded away is gone for the reference too.
    want.m = Values(m);
    want.v = Values(v);
    ReferenceAdamW(args, Values(grad), want);
    backend->AdamW(*stream, args);
    for (const double g : Values(grad)) ASSERT_EQ(g, 0);
    ExpectNear(Values(m), want.m, MomentTolerance(m_type), "m");
    ExpectNear(Values(v), want.v, MomentTolerance(v_type), "v");
    ExpectNear(Values(master), want.w, 1e-6, "master");
    ExpectNear(Values(ema), want.ema, 1e-6, "ema");
    for (int64_t i = 0; i < kN; ++i) {
      ASSERT_EQ(weight.view().as<BF16>()[i].bits, BF16::FromFloat(master.view().as<float>()[i]).bits);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Moments, AdamWTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(DType::kF32, DType::kBF16)));

TEST(SumSquaresTest, MeetsDoublePrecisionWithTheSameBitsForAnyThreads) {
  for (const int64_t n : {0, 1, 7, 65536, 300001}) {
    std::vector<double> sums;
    for (const auto& backend : NewTestBackends()) {
      const auto stream = backend->NewStream(StreamKind::kCompute);
      const Tensor x = RandomTensor(*backend, DType::kF32, {n}, "x"), sum(*backend, DType::kF64, {1});
      backend->SumSquares(*stream, x, sum);
      sums.push_back(*sum.view().as<double>());
      double want = 0;
      for (const double value : Values(x)) want += value * value;
      EXPECT_NEAR(sums.back(), want, 1e-12 * want);
      EXPECT_EQ(sums.front(), sums.back());
    }
  }
}

TEST(SumSquaresTest, KeepsInfinityAndNaN) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor x = RandomTensor(*backend, DType::kF32, {1000}, "x"), sum(*backend, DType::kF64, {1});
  SetAt(x, 0, 500, 1e30);  // its square overflows fp32, not the sum
  backend->SumSquares(*stream, x, sum);
  EXPECT_NEAR(*sum.view().as<double>(), 1e60, 1e54);
  SetAt(x, 0, 500, std::numeric_limits<double>::infinity());
  backend->SumSquares(*stream, x, sum);
  EXPECT_TRUE(std::isinf(*sum.view().as<double>()));
  SetAt(x, 0, 3, std::numeric_limits<double>::quiet_NaN());
  backend->SumSquares(*stream, x, sum);
  EXPECT_TRUE(std::isnan(*sum.view().as<double>()));
}

}  // namespace
}  // namespace moebius
