#include "tests/core/layers/plain_backend.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "core/backend/host_event.h"
#include "tests/core/layers/moe_reference.h"

namespace moebius {
namespace {

double At(const TensorView& v, int64_t row, int64_t column) {
  const int64_t at = row * v.stride + column;
  if (v.dtype == DType::kBF16) return static_cast<const BF16*>(v.data)[at].ToFloat();
  CHECK(v.dtype == DType::kF32) << v;
  return static_cast<const float*>(v.data)[at];
}
void Put(const TensorView& v, int64_t row, int64_t column, double value) {
  const int64_t at = row * v.stride + column;
  if (v.dtype == DType::kBF16) {
    static_cast<BF16*>(v.data)[at] = BF16::FromFloat(static_cast<float>(value));
  } else {
    CHECK(v.dtype == DType::kF32) << v;
    static_cast<float*>(v.data)[at] = static_cast<float>(value);
  }
}
void Add(const TensorView& v, int64_t row, int64_t column, double value) {
  Put(v, row, column, At(v, row, column) + value);
}
int32_t IntAt(const TensorView& v, int64_t i) { return static_cast<const int32_t*>(v.data)[i]; }
// As an [rows, columns] matrix whatever its rank; contiguous views of one row included.
double Flat(const TensorView& v, int64_t i) { return At(v, i / v.cols(), i % v.cols()); }
void PutFlat(const TensorView& v, int64_t i, double value) { Put(v, i / v.cols(), i % v.cols(), value); }
double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

class PlainStream final : public Stream {
 public:
  StreamKind kind() const override { return StreamKind::kCompute; }
  void Enqueue(std::function<void()> work) override { work(); }
  void EnqueuePolled(std::function<bool()> poll) override {
    while (!poll()) std::this_thread::yield();
  }
  void Wake() override {}
  void Record(Event&) override {}
  void Wait(Event&) override {}
  void Synchronize() override {}
};

class PlainBackend final : public Backend {
 public:
  void* Allocate(int64_t bytes) override { return std::aligned_alloc(64, (bytes + 127) / 64 * 64); }
  void Free(void* memory) override { std::free(memory); }
  std::string Name() const override { return "plain"; }
  std::string InstructionSet() const override { return "plain"; }
  DType AutoCompute() const override { return DType::kF32; }
  bool batch_invariant() const override { return false; }
  int num_threads() const override { return 1; }
  int64_t piece_bytes() const override { return int64_t{16} << 20; }
  RouterLimits router_limits() const override { return {}; }
  int64_t free_bytes() const override { return 0; }
  std::unique_ptr<Stream> NewStream(StreamKind) override { return std::make_unique<PlainStream>(); }
  std::unique_ptr<Event> NewEvent() override { return std::make_unique<HostEvent>(); }
  std::unique_ptr<Recording> NewRecording(Stream&, const std::function<void()>&) override { return nullptr; }

  void CopyToDevice(Stream&, const void* host, TensorView to) override {
    const int64_t bytes = to.cols() * SizeOf(to.dtype);
    for (int64_t r = 0; r < to.rows(); ++r) {
      std::memcpy(RowOf(to, r), static_cast<const char*>(host) + r * bytes, bytes);
    }
  }
  void CopyToHost(Stream&, TensorView from, void* host) override {
    const int64_t bytes = from.cols() * SizeOf(from.dtype);
    for (int64_t r = 0; r < from.rows(); ++r)
      std::memcpy(static_cast<char*>(host) + r * bytes, RowOf(from, r), bytes);
  }
  void Zero(Stream&, TensorView x) override {
    for (int64_t r = 0; r < x.rows(); ++r) std::memset(RowOf(x, r), 0, x.cols() * SizeOf(x.dtype));
  }
  void Fill(Stream&, TensorView x, float value) override {
    for (int64_t i = 0; i < x.elements(); ++i) PutFlat(x, i, value);
  }
  void Cast(Stream&, TensorView from, TensorView to) override {
    for (int64_t i = 0; i < from.elements(); ++i) PutFlat(to, i, Flat(from, i));
  }
  void Accumulate(Stream&, const AccumulateArgs& a) override {
    for (int64_t i = 0; i < a.x.elements(); ++i) PutFlat(a.y, i, Flat(a.y, i) + a.alpha * Flat(a.x, i));
  }

  int64_t RoundedBytes(const TensorView&, RoundedBy, int64_t) const override { return 0; }
  void Round(Stream&, const RoundArgs&) override { CHECK(false) << "nothing is kept rounded"; }
  void MatMul(Stream&, const MatMulArgs& a) override {
    CHECK(a.rounding == Rounding::kNone) << "tests of FP8 are for real backends";
    const bool ta = a.transpose_a == Transpose::kYes, tb = a.transpose_b == Transpose::kYes;
    const int64_t depth = ta ? a.a.rows() : a.a.cols();
    for (int64_t i = 0; i < a.c.rows(); ++i) {
      for (int64_t j = 0; j < a.c.cols(); ++j) {
        double sum = a.bias ? Flat(a.bias, j) : 0;
        for (int64_t k = 0; k < depth; ++k) {
          sum += (ta ? At(a.a, k, i) : At(a.a, i, k)) * (tb ? At(a.b, j, k) : At(a.b, k, j));
        }
        Put(a.c, i, j, sum + (a.accumulate ? At(a.c, i, j) : 0));
      }
    }
  }
  void GroupedMatMul(Stream& stream, const GroupedMatMulArgs& a) override {
    CHECK(a.rounding == Rounding::kNone) << "tests of FP8 are for real backends";
    const auto* offsets = static_cast<const int64_t*>(a.offsets.data);
    for (int64_t g = 0; g < a.w.shape[0]; ++g) {
      const int64_t begin = offsets[g], n = offsets[g + 1] - begin;
      const TensorView x = a.x.Rows(begin, n), y = a.y.Rows(begin, n), w = a.w.Index(g);
      if (a.kind == GroupedKind::kForward)
        MatMul(stream, {.a = x, .b = w, .c = y, .transpose_b = Transpose::kYes});
      if (a.kind == GroupedKind::kBackwardInput) MatMul(stream, {.a = y, .b = w, .c = x});
      if (a.kind == GroupedKind::kBackwardWeight) {
        MatMul(stream, {.a = y, .b = x, .c = w, .transpose_a = Transpose::kYes, .accumulate = true});
      }
    }
  }
  void HeadMatMul(Stream&, const HeadMatMulArgs&) override { CHECK(false) << "not used by layers"; }
  int64_t Int8Bytes(const Shape&) const override { return 0; }
  void PackInt8(Stream&, const PackInt8Args&) override { CHECK(false) << "not used by layers"; }
  void Int8MatMul(Stream&, const Int8MatMulArgs&) override { CHECK(false) << "not used by layers"; }

  void Embedding(Stream&, const EmbeddingArgs& a) override {
    for (int64_t t = 0; t < a.out.rows(); ++t) {
      for (int64_t c = 0; c < a.out.cols(); ++c) Put(a.out, t, c, At(a.table, IntAt(a.ids, t), c));
    }
  }
  void EmbeddingBackward(Stream&, const EmbeddingBackwardArgs& a) override {
    for (int64_t t = 0; t < a.dy.rows(); ++t) {
      for (int64_t c = 0; c < a.dy.cols(); ++c) Add(a.dtable, IntAt(a.ids, t), c, At(a.dy, t, c));
    }
  }

  void RmsNorm(Stream&, const RmsNormArgs& a) override {
    for (int64_t r = 0; r < a.x.rows(); ++r) {
      double squares = 0;
      std::vector<double> s(a.x.cols());
      for (int64_t c = 0; c < a.x.cols(); ++c) {
        s[c] = At(a.x, r, c) + (a.add ? At(a.add, r, c) : 0);
        if (a.sum) Put(a.sum, r, c, s[c]), s[c] = At(a.sum, r, c);
        squares += s[c] * s[c];
      }
      const double rstd = 1 / std::sqrt(squares / a.x.cols() + a.epsilon);
      PutFlat(a.rstd, r, rstd);
      for (int64_t c = 0; c < a.x.cols(); ++c) Put(a.y, r, c, s[c] * rstd * Flat(a.gain, c));
    }
  }
  void RmsNormBackward(Stream& stream, const RmsNormBackwardArgs& a) override {
    const int64_t n = a.x.cols();
    Zero(stream, a.dgain);
    for (int64_t r = 0; r < a.x.rows(); ++r) {
      const double rstd = Flat(a.rstd, r);
      double dot = 0;
      for (int64_t c = 0; c < n; ++c) {
        dot += At(a.dy, r, c) * Flat(a.gain, c) * At(a.x, r, c) * rstd;
        PutFlat(a.dgain, c, Flat(a.dgain, c) + At(a.dy, r, c) * At(a.x, r, c) * rstd);
      }
      for (int64_t c = 0; c < n; ++c) {
        const double d = rstd * (At(a.dy, r, c) * Flat(a.gain, c) - At(a.x, r, c) * rstd * dot / n);
        Put(a.dx, r, c, d + (a.residual ? At(a.residual, r, c) : 0));
      }
    }
  }

  void Rope(Stream&, const RopeArgs& a) override {
    const int64_t heads = a.x.shape[1], d = a.x.shape[2];
    for (int64_t row = 0; row < a.x.rows(); ++row) {
      const int32_t position = IntAt(a.positions, row / heads);
      for (int64_t i = 0; i < d / 2; ++i) {
        const int64_t p = a.style == RopeStyle::kInterleaved ? 2 * i : i;
        const int64_t q = a.style == RopeStyle::kInterleaved ? 2 * i + 1 : i + d / 2;
        const double cos = At(a.cos, position, i), sin = At(a.sin, position, i) * (a.inverse ? -1 : 1);
        const double x = At(a.x, row, p), y = At(a.x, row, q);
        Put(a.x, row, p, x * cos - y * sin);
        Put(a.x, row, q, x * sin + y * cos);
      }
    }
  }

  void Attention(Stream&, const AttentionArgs& a) override {
    ForEachQuery(a, [&](int64_t head, int64_t t, int64_t begin) {
      const std::vector<double> scores = Scores(a, head, t, begin);
      const double top = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (const double score : scores) sum += std::exp(score - top);
      const double lse = top + std::log(sum);
      PutFlat(a.lse, head * a.q.shape[0] + t, lse);
      for (int64_t c = 0; c < a.v.cols(); ++c) {
        double o = 0;
        for (size_t j = 0; j < scores.size(); ++j)
          o += std::exp(scores[j] - lse) * At(a.v, KeyRow(a, head, begin + j), c);
        Put(a.o, t * a.q.shape[1] + head, c, o);
      }
    });
  }
  void AttentionBackward(Stream& stream, const AttentionBackwardArgs& b) override {
    const AttentionArgs& a = b.forward;
    // Sums over queries and heads are kept in double and rounded once.
    std::vector<double> dk(a.k.elements(), 0.0), dv(a.v.elements(), 0.0),
        shared(a.k_shared ? a.k_shared.elements() : 0);
    Zero(stream, b.dq);
    const int64_t dk_cols = a.k.cols(), dv_cols = a.v.cols(), dr = a.k_shared ? a.k_shared.cols() : 0;
    ForEachQuery(a, [&](int64_t head, int64_t t, int64_t begin) {
      const std::vector<double> scores = Scores(a, head, t, begin);
      const double lse = Flat(a.lse, head * a.q.shape[0] + t);
      const int64_t row = t * a.q.shape[1] + head;
      double delta = 0;
      for (int64_t c = 0; c < dv_cols; ++c) delta += At(b.d_o, row, c) * At(a.o, row, c);
      std::vector<double> dq(a.q.cols(), 0.0);
      for (size_t j = 0; j < scores.size(); ++j) {
        const int64_t key = KeyRow(a, head, begin + j);
        const double p = std::exp(scores[j] - lse);
        double dp = 0;
        for (int64_t c = 0; c < dv_cols; ++c) {
          dp += At(b.d_o, row, c) * At(a.v, key, c);
          dv[key * dv_cols + c] += p * At(b.d_o, row, c);
        }
        const double ds = p * (dp - delta) * a.scale;
        for (int64_t c = 0; c < dk_cols; ++c) {
          dq[c] += ds * At(a.k, key, c);
          dk[key * dk_cols + c] += ds * At(a.q, row, c);
        }
        for (int64_t c = 0; c < dr; ++c) {
          dq[dk_cols + c] += ds * At(a.k_shared, begin + j, c);
          shared[(begin + j) * dr + c] += ds * At(a.q, row, dk_cols + c);
        }
      }
      for (size_t c = 0; c < dq.size(); ++c) Put(b.dq, row, c, dq[c]);
    });
    for (size_t i = 0; i < dk.size(); ++i) PutFlat(b.dk, i, dk[i]);
    for (size_t i = 0; i < dv.size(); ++i) PutFlat(b.dv, i, dv[i]);
    for (size_t i = 0; i < shared.size(); ++i) PutFlat(b.dk_shared, i, shared[i]);
  }
  void DecodeAttention(Stream&, const DecodeAttentionArgs&) override { CHECK(false) << "not used by layers"; }

  void SwiGlu(Stream&, const SwiGluArgs& a) override {
    const int64_t width = a.h.cols();
    for (int64_t r = 0; r < a.h.rows(); ++r) {
      const double weight = a.row_weights ? Flat(a.row_weights, r) : 1;
      for (int64_t c = 0; c < width; ++c) {
        const double gate = At(a.gate_up, r, c);
        Put(a.h, r, c, gate * Sigmoid(gate) * At(a.gate_up, r, width + c) * weight);
      }
    }
  }
  void SwiGluBackward(Stream&, const SwiGluBackwardArgs& a) override {
    const int64_t width = a.dh.cols();
    for (int64_t r = 0; r < a.dh.rows(); ++r) {
      const double weight = a.row_weights ? Flat(a.row_weights, r) : 1;
      double dweight = 0;
      for (int64_t c = 0; c < width; ++c) {
        const double gate = At(a.gate_up, r, c), up = At(a.gate_up, r, width + c), dh = At(a.dh, r, c);
        const double sigmoid = Sigmoid(gate), silu = gate * sigmoid;
        dweight += dh * silu * up;
        Put(a.d_gate_up, r, c, dh * weight * up * sigmoid * (1 + gate * (1 - sigmoid)));
        Put(a.d_gate_up, r, width + c, dh * weight * silu);
        if (a.h) Put(a.h, r, c, silu * up * weight);
      }
      if (a.d_row_weights) PutFlat(a.d_row_weights, r, dweight);
    }
  }

  void Router(Stream&, const RouterArgs& a) override {
    const int64_t experts = a.logits.cols();
    std::vector<float> identity(experts * experts, 0.0f), bias;
    for (int64_t e = 0; e < experts; ++e) identity[e * experts + e] = 1;
    for (int64_t e = 0; a.bias && e < experts; ++e) bias.push_back(static_cast<float>(Flat(a.bias, e)));
    for (int64_t t = 0; t < a.logits.rows(); ++t) {
      const RoutedToken token = RouteInDouble(a.spec, Row(a.logits, t).data(), experts, identity, bias);
      for (int64_t e = 0; e < experts; ++e) Put(a.scores, t, e, token.scores[e]);
      for (int64_t k = 0; k < a.spec.top_k; ++k) {
        static_cast<int32_t*>(a.experts.data)[t * a.spec.top_k + k] = token.experts[k];
        Put(a.weights, t, k, token.weights[k]);
      }
    }
  }
  void RouterBackward(Stream&, const RouterBackwardArgs& a) override {
    const int64_t experts = a.logits.cols(), k_count = a.spec.top_k;
    for (size_t s = 0; s + 1 < std::max<size_t>(a.sequence_starts.size(), 2); ++s) {
      const bool balanced = static_cast<bool>(a.balance_coefficients);
      const int64_t begin = balanced ? a.sequence_starts[s] : 0;
      const int64_t end = balanced ? a.sequence_starts[s + 1] : a.logits.rows();
      for (int64_t t = begin; t < end; ++t) {
        std::vector<double> dscores(experts, 0.0);
        double chosen = 0, weighted = 0, total = 0, mean = 0;
        for (int64_t k = 0; k < k_count; ++k) chosen += At(a.scores, t, IntAt(a.experts, t * k_count + k));
        for (int64_t k = 0; k < k_count; ++k) {
          weighted += At(a.dweights, t, k) * At(a.scores, t, IntAt(a.experts, t * k_count + k)) / chosen;
        }
        for (int64_t k = 0; k < k_count; ++k) {
          double& d = dscores[IntAt(a.experts, t * k_count + k)];
          d += a.spec.normalize ? a.spec.scale * (At(a.dweights, t, k) - weighted) / chosen
                                : a.spec.scale * At(a.dweights, t, k);
        }
        for (int64_t e = 0; balanced && e < experts; ++e) total += At(a.scores, t, e);
        for (int64_t e = 0; balanced && e < experts; ++e) {
          mean += At(a.balance_coefficients, s, e) * At(a.scores, t, e) / total;
        }
        for (int64_t e = 0; balanced && e < experts; ++e) {
          dscores[e] += (At(a.balance_coefficients, s, e) - mean) / total;
        }
        const double lse = LogSumExp(Row(a.logits, t));
        double dot = 0;
        for (int64_t e = 0; e < experts; ++e) dot += dscores[e] * At(a.scores, t, e);
        for (int64_t e = 0; e < experts; ++e) {
          const double score = At(a.scores, t, e);
          const double d = a.spec.scoring == Scoring::kSigmoid ? dscores[e] * score * (1 - score)
                                                               : score * (dscores[e] - dot);
          Put(a.dlogits, t, e, d + a.z_coefficient * 2 * lse * std::exp(At(a.logits, t, e) - lse));
        }
      }
    }
  }
  void Balance(Stream& stream, const BalanceArgs& a) override {
    const int64_t experts = a.scores.cols();
    Zero(stream, a.f);
    for (size_t s = 0; s + 1 < a.sequence_starts.size(); ++s) {
      std::vector<double> counts(experts, 0.0), p(experts, 0.0);
      const double length = a.sequence_starts[s + 1] - a.sequence_starts[s];
      for (int64_t t = a.sequence_starts[s]; t < a.sequence_starts[s + 1]; ++t) {
        std::vector<int32_t> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int32_t x, int32_t y) { return At(a.scores, t, x) > At(a.scores, t, y); });
        double total = 0;
        for (int64_t e = 0; e < experts; ++e) total += At(a.scores, t, e);
        for (int64_t k = 0; k < a.top_k; ++k)
          ++counts[a.experts ? IntAt(a.experts, t * a.top_k + k) : order[k]];
        for (int64_t e = 0; e < experts; ++e) p[e] += At(a.scores, t, e) / total / length;
      }
      double loss = 0;
      for (int64_t e = 0; length > 0 && e < experts; ++e) {
        const double f = experts / (a.top_k * length) * counts[e];
        Put(a.f, s, e, f);
        loss += f * p[e];
      }
      PutFlat(a.losses, s, loss);
    }
  }
  void RouterZ(Stream&, const RouterZArgs& a) override {
    double z = 0;
    for (int64_t t = 0; t < a.logits.rows(); ++t) z += std::pow(LogSumExp(Row(a.logits, t)), 2);
    PutFlat(a.z, 0, z);
  }
  void RouteSort(Stream&, const RouteSortArgs& a) override {
    const int64_t choices = a.experts.elements(), experts = a.offsets.elements() - 1;
    std::vector<int32_t> order(choices);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t x, int32_t y) { return IntAt(a.experts, x) < IntAt(a.experts, y); });
    auto* offsets = static_cast<int64_t*>(a.offsets.data);
    std::fill(offsets, offsets + experts + 1, 0);
    for (int64_t row = 0; row < choices; ++row) {
      static_cast<int32_t*>(a.choice_of.data)[row] = order[row];
      static_cast<int32_t*>(a.row_of.data)[order[row]] = static_cast<int32_t>(row);
      ++offsets[IntAt(a.experts, order[row]) + 1];
    }
    for (int64_t e = 0; e < experts; ++e) offsets[e + 1] += offsets[e];
  }
  void GatherRows(Stream&, const GatherRowsArgs& a) override {
    for (int64_t i = 0; i < a.out.rows(); ++i) {
      for (int64_t c = 0; c < a.out.cols(); ++c) Put(a.out, i, c, At(a.x, IntAt(a.index, i) / a.divisor, c));
    }
  }
  void ScatterRows(Stream&, const ScatterRowsArgs& a) override {
    for (int64_t i = 0; i < a.x.rows(); ++i) {
      for (int64_t c = 0; c < a.x.cols(); ++c) Put(a.out, IntAt(a.index, i), c, At(a.x, i, c));
    }
  }
  void CombineRows(Stream&, const CombineRowsArgs& a) override {
    const int64_t k_count = a.row_of.cols();
    for (int64_t t = 0; t < a.out.rows(); ++t) {
      for (int64_t c = 0; c < a.out.cols(); ++c) {
        double sum = a.add ? At(a.add, t, c) : 0;
        for (int64_t k = 0; k < k_count; ++k) {
          const int32_t row = IntAt(a.row_of, t * k_count + k);
          if (row != kNoRow) sum += At(a.rows, row, c);
        }
        Put(a.out, t, c, sum);
      }
    }
  }

  void CrossEntropy(Stream&, const CrossEntropyArgs& a) override {
    for (int64_t t = 0; t < a.logits.rows(); ++t) {
      std::vector<float> logits = Row(a.logits, t);
      for (float& x : logits) x *= a.inverse_temperature;
      const double lse = LogSumExp(logits);
      const int32_t target = IntAt(a.targets, t);
      const bool counts = target >= 0;
      double entropy = 0;
      for (const float x : logits) entropy -= std::exp(x - lse) * (x - lse);
      PutFlat(a.losses, t, counts ? lse - logits[target] : 0);
      if (a.entropies) PutFlat(a.entropies, t, counts ? entropy : 0);
      const double weight = a.scale * (a.weights ? Flat(a.weights, t) : 1);
      for (int64_t v = 0; a.dlogits && v < a.logits.cols(); ++v) {
        const double log_p = logits[v] - lse, p = std::exp(log_p);
        const double d = weight * (p - (v == target ? 1 : 0)) + a.entropy_scale * p * (log_p + entropy);
        Put(a.dlogits, t, v, counts ? d * a.inverse_temperature : 0);
      }
    }
  }
  void Divergence(Stream&, const DivergenceArgs& a) override {
    for (int64_t t = 0; t < a.logits.rows(); ++t) {
      std::vector<float> of[] = {Row(a.logits, t), Row(a.teacher, t)};
      for (std::vector<float>& row : of) {
        for (float& x : row) x *= a.inverse_temperature;
      }
      const double lse[] = {LogSumExp(of[0]), LogSumExp(of[1])};
      const bool forward = a.kind == DivergenceKind::kForward, counts = IntAt(a.targets, t) >= 0;
      const auto log_p = [&](int64_t v) { return of[0][v] - lse[0]; };
      const auto log_q = [&](int64_t v) { return of[1][v] - lse[1]; };
      double sum = 0;
      for (int64_t v = 0; v < a.logits.cols(); ++v) {
        const double difference = log_q(v) - log_p(v);
        sum += forward ? std::exp(log_q(v)) * difference : -std::exp(log_p(v)) * difference;
      }
      const auto best = std::max_element(of[1].begin(), of[1].end()) - of[1].begin();
      PutFlat(a.divergences, t, counts ? sum : 0);
      PutFlat(a.agreements, t, counts && of[0][best] == *std::max_element(of[0].begin(), of[0].end()));
      const double weight = a.scale * a.inverse_temperature * (a.weights ? Flat(a.weights, t) : 1);
      for (int64_t v = 0; a.gradient && v < a.logits.cols(); ++v) {
        const double p = std::exp(log_p(v));
        const double d = forward ? p - std::exp(log_q(v)) : p * (log_p(v) - log_q(v) - sum);
        Put(a.gradient, t, v, counts ? weight * d : 0);
      }
    }
  }
  void DrawTokens(Stream&, const DrawTokensArgs&) override { CHECK(false) << "not used by layers"; }
  void AdamW(Stream&, const AdamWArgs&) override { CHECK(false) << "not used by layers"; }
  void SumSquares(Stream&, TensorView x, TensorView sum) override {
    double total = 0;
    for (int64_t i = 0; i < x.elements(); ++i) total += Flat(x, i) * Flat(x, i);
    *static_cast<double*>(sum.data) = total;
  }

 private:
  static char* RowOf(const TensorView& v, int64_t row) {
    return static_cast<char*>(v.data) + row * v.stride * SizeOf(v.dtype);
  }
  static std::vector<float> Row(const TensorView& v, int64_t row) {
    std::vector<float> out(v.cols());
    for (int64_t c = 0; c < v.cols(); ++c) out[c] = static_cast<float>(At(v, row, c));
    return out;
  }
  static double LogSumExp(const std::vector<float>& values) {
    const double top = *std::max_element(values.begin(), values.end());
    double sum = 0;
    for (const float value : values) sum += std::exp(value - top);
    return top + std::log(sum);
  }
  static int64_t KeyRow(const AttentionArgs& a, int64_t head, int64_t t) {
    const int64_t groups = a.k.shape[1];
    return t * groups + head / (a.q.shape[1] / groups);
  }
  template <typename Visit>
  static void ForEachQuery(const AttentionArgs& a, const Visit& visit) {
    for (size_t s = 0; s + 1 < a.sequence_starts.size(); ++s) {
      for (int64_t t = a.sequence_starts[s]; t < a.sequence_starts[s + 1]; ++t) {
        for (int64_t head = 0; head < a.q.shape[1]; ++head) visit(head, t, a.sequence_starts[s]);
      }
    }
  }
  // Of query t with keys begin..t.
  static std::vector<double> Scores(const AttentionArgs& a, int64_t head, int64_t t, int64_t begin) {
    std::vector<double> out;
    for (int64_t j = begin; j <= t; ++j) {
      double score = 0;
      const int64_t row = t * a.q.shape[1] + head, key = KeyRow(a, head, j);
      for (int64_t c = 0; c < a.k.cols(); ++c) score += At(a.q, row, c) * At(a.k, key, c);
      for (int64_t c = 0; a.k_shared && c < a.k_shared.cols(); ++c) {
        score += At(a.q, row, a.k.cols() + c) * At(a.k_shared, j, c);
      }
      out.push_back(score * a.scale);
    }
    return out;
  }
};

}  // namespace

std::unique_ptr<Backend> MakePlainBackend() { return std::make_unique<PlainBackend>(); }

}  // namespace moebius
