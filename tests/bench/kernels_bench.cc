// Attention, decoding, matrix-vector products, the loss and combined rows against what the machine can do,
// measured in the same run: kernels_bench [THREADS]. One thread is timed by its processor time, which a busy
// machine disturbs less.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/random.h"

namespace moebius {
namespace {

class Bench {
 public:
  explicit Bench(int threads)
      : clock_(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC),
        backend_(MakeCpuBackend({.threads = threads})),
        stream_(backend_->NewStream(StreamKind::kCompute)) {}

  void Run() {
    std::printf("%s\n", backend_->Name().c_str());
    for (const DType act : {DType::kF32, DType::kBF16}) {
      std::printf("%s\n", std::string(Name(act)).c_str());
      peak_ = ProductPeak(act);
      bandwidth_ = ReadBandwidth();
      std::printf("  product 1024^3   %8.1f GFLOP/s    reading %6.1f GB/s\n", peak_ / 1e9, bandwidth_ / 1e9);
      Attention(act, 8, 512);
      Attention(act, 1, 2048);
      for (const int64_t m : {1, 2, 4, 8}) MatVec(act, m, 8192, 2048);
      MatVec(act, 1, 65536, 512);
      Decode(act, 32, 1000, 8, 1, 160, 128);
      Decode(act, 2, 4000, 128, 1, 576, 512);
      Decode(act, 16, 4000, 9, 3, 64, 64);
      CrossEntropy(act);
      Combine(act);
    }
  }

 private:
  double Now() const {
    timespec t;
    clock_gettime(clock_, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
  }
  double Best(int tries, const std::function<void()>& work) const {
    double best = 1e9;
    for (int i = 0; i < tries; ++i) {
      const double begin = Now();
      work();
      best = std::min(best, Now() - begin);
    }
    return best;
  }
  Tensor Random(DType dtype, Shape shape) {
    Tensor tensor(*backend_, dtype, shape);
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor.view().elements(); ++i) {
      state =
          state * 1664525u + 1013904223u;  // cheap numbers in [-0.5, 0.5): hundreds of millions are wanted
      const float value = static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
      if (dtype == DType::kF32) {
        static_cast<float*>(tensor.view().data)[i] = value;
      } else {
        static_cast<BF16*>(tensor.view().data)[i] = BF16::FromFloat(value);
      }
    }
    return tensor;
  }
  void Report(const std::string& what, double seconds, double flops, double bytes) const {
    std::printf("  %-42s %9.3f ms %8.1f GFLOP/s %3.0f %% of product %7.1f GB/s %3.0f %% of reading\n",
                what.c_str(), seconds * 1e3, flops / seconds / 1e9, 100 * flops / seconds / peak_,
                bytes / seconds / 1e9, 100 * bytes / seconds / bandwidth_);
  }

  double ProductPeak(DType act) {
    const Tensor a = Random(act, {1024, 1024}), b = Random(act, {1024, 1024}),
                 c(*backend_, act, {1024, 1024});
    return 2.0 * (1 << 30) / Best(9, [&] {
             backend_->MatMul(*stream_, {.a = a, .b = b, .c = c, .transpose_b = Transpose::kYes});
           });
  }
  // Summing a buffer that no cache holds, through the backend's own vectors.
  double ReadBandwidth() {
    const Tensor x(*backend_, DType::kF32, {64 << 20}), sum(*backend_, DType::kF64, {1});
    backend_->Zero(*stream_, x);
    return x.view().bytes() / Best(5, [&] { backend_->SumSquares(*stream_, x, sum); });
  }

  void Attention(DType act, int64_t sequences, int64_t n) {
    const int64_t heads = 8, dk = 64, dr = 32, dv = 64, tokens = sequences * n;
    const Tensor q = Random(act, {tokens, heads, dk + dr}), kv = Random(act, {tokens, heads, dk + dv});
    const Tensor shared = Random(act, {tokens, 1, dr}), d_o = Random(act, {tokens, heads, dv});
    const Tensor o(*backend_, act, {tokens, heads, dv}), lse(*backend_, DType::kF32, {heads, tokens});
    const Tensor dq(*backend_, act, {tokens, heads, dk + dr}), dkv(*backend_, act, {tokens, heads, dk + dv});
    const Tensor d_shared(*backend_, act, {tokens, 1, dr});
    std::vector<int32_t> starts;
    for (int64_t i = 0; i <= sequences; ++i) starts.push_back(static_cast<int32_t>(i * n));
    const AttentionArgs forward{.q = q,
                                .k = kv.view().Columns(0, dk),
                                .k_shared = shared,
                                .v = kv.view().Columns(dk, dv),
                                .sequence_starts = starts,
                                .scale = 0.1f,
                                .o = o,
                                .lse = lse};
    const double flops = 2.0 * (dk + dr + dv) * n * n / 2 * heads * sequences;
    const std::string shape = std::to_string(sequences) + " x " + std::to_string(n);
    Report("attention " + shape, Best(5, [&] { backend_->Attention(*stream_, forward); }), flops, 0);
    const AttentionBackwardArgs backward{.forward = forward,
                                         .d_o = d_o,
                                         .dq = dq,
                                         .dk = dkv.view().Columns(0, dk),
                                         .dk_shared = d_shared,
                                         .dv = dkv.view().Columns(dk, dv)};
    Report("attention backward " + shape, Best(5, [&] { backend_->AttentionBackward(*stream_, backward); }),
           2.5 * flops, 0);
  }

  void MatVec(DType act, int64_t m, int64_t n, int64_t k) {
    const int64_t layers = 6;  // different weights in turn, so that no cache holds them
    const Tensor x = Random(act, {m, k}), w = Random(act, {layers, n, k}), y(*backend_, act, {m, n});
    const double seconds = Best(5, [&] {
      for (int64_t i = 0; i < layers; ++i) {
        backend_->MatMul(*stream_, {.a = x, .b = w.view().Index(i), .c = y, .transpose_b = Transpose::kYes});
      }
    });
    const std::string shape = std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k);
    Report("matrix-vector " + shape, seconds, 2.0 * layers * m * n * k,
           static_cast<double>(w.view().bytes()));
  }

  void Decode(DType act, int64_t batch, int64_t length, int64_t heads, int64_t groups, int64_t d,
              int64_t dv) {
    const bool latent = groups == 1;
    const int64_t width = groups * (latent ? d : d + dv);
    const Tensor q = Random(act, {batch, heads, d}), rows = Random(act, {batch, length, width});
    const Tensor o(*backend_, act, {batch, heads, dv}), lengths(*backend_, DType::kI32, {batch});
    std::fill_n(lengths.view().as<int32_t>(), batch, static_cast<int32_t>(length));
    const DecodeAttentionArgs args{.q = q,
                                   .k = rows.view().Columns(0, groups * d),
                                   .v = rows.view().Columns(latent ? 0 : groups * d, groups * dv),
                                   .lengths = lengths,
                                   .scale = 0.1f,
                                   .o = o};
    const std::string shape = std::to_string(batch) + " x " + std::to_string(length) + ", " +
                              std::to_string(heads) + "/" + std::to_string(groups) + " heads of " +
                              std::to_string(d);
    Report("decode " + shape, Best(5, [&] { backend_->DecodeAttention(*stream_, args); }),
           2.0 * batch * length * heads * (d + dv), static_cast<double>(rows.view().bytes()));
  }

  void CrossEntropy(DType act) {
    const int64_t n = 1024, vocabulary = 8192;
    const Tensor logits = Random(DType::kF32, {n, vocabulary}), dlogits(*backend_, act, {n, vocabulary});
    const Tensor targets(*backend_, DType::kI32, {n}), losses(*backend_, DType::kF32, {n});
    std::fill_n(targets.view().as<int32_t>(), n, 5);
    Report(
        "cross-entropy 1024 x 8192",
        Best(5,
             [&] {
               backend_->CrossEntropy(
                   *stream_,
                   {.logits = logits, .targets = targets, .losses = losses, .scale = 1, .dlogits = dlogits});
             }),
        0, static_cast<double>(logits.view().bytes() + dlogits.view().bytes()));
  }

  void Combine(DType act) {
    const int64_t tokens = 16384, k = 4, hidden = 512;
    const Tensor rows = Random(act, {tokens * k, hidden}), add = Random(act, {tokens, hidden});
    const Tensor out(*backend_, act, {tokens, hidden}), row_of(*backend_, DType::kI32, {tokens, k});
    const RandomStream random(1, "rows");
    for (int64_t i = 0; i < tokens * k; ++i)
      row_of.view().as<int32_t>()[i] = static_cast<int32_t>(random.Below(i, tokens * k));
    Report("combine 16384 x 4 rows of 512",
           Best(5,
                [&] {
                  backend_->CombineRows(*stream_, {.rows = rows, .row_of = row_of, .add = add, .out = out});
                }),
           0, static_cast<double>(rows.view().bytes() + 2 * out.view().bytes()));
  }

  clockid_t clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  double peak_ = 0, bandwidth_ = 0;
};

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  moebius::Bench(argc > 1 ? std::atoi(argv[1]) : 1).Run();
  return 0;
}
