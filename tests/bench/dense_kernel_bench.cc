// Matrix products and memory-bound kernels at the bench model's shapes (hidden 512, 4096 tokens), as shares
// of what the machine does in the same run: dense_kernel_bench [THREADS [ours|onednn|amx]]. One thread is
// timed by its processor time, which a busy machine disturbs less; the limit of products is the best 1024^3
// of both engines.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/random.h"

namespace moebius {
namespace {

class Bench {
 public:
  Bench(int threads, ProductEngine engine)
      : clock_(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC),
        threads_(threads),
        engine_(engine),
        backend_(MakeCpuBackend({.threads = threads, .products = engine})),
        stream_(backend_->NewStream(StreamKind::kCompute)) {}

  void Run() {
    std::printf("%s\n", backend_->Name().c_str());
    PoolLatency();
    for (const DType act : {DType::kF32, DType::kBF16}) {
      std::printf("\n%s\n", std::string(Name(act)).c_str());
      Products(act);
      Memory(act);
    }
  }

 private:
  double Now() const {
    timespec t;
    clock_gettime(clock_, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
  }
  // Best of some tries of at least 2 ms each.
  double Best(const std::function<void()>& work) const {
    work();
    double begin = Now();
    work();
    const double once = std::max(Now() - begin, 1e-7);
    const int repeat = std::max(1, static_cast<int>(1e-3 / once));
    double best = 1e9;
    for (int i = 0; i < 6; ++i) {
      begin = Now();
      for (int r = 0; r < repeat; ++r) work();
      best = std::min(best, (Now() - begin) / repeat);
    }
    return best;
  }

  Tensor Random(DType dtype, Shape shape) {
    Tensor out(*backend_, dtype, shape);
    const RandomStream random(1, "bench");
    for (int64_t i = 0; i < out.view().elements(); ++i) {
      const float value = static_cast<float>(random.Uniform(i & 0xFFFF)) - 0.5f;
      if (dtype == DType::kF32) static_cast<float*>(out.view().data)[i] = value;
      if (dtype == DType::kBF16) static_cast<BF16*>(out.view().data)[i] = BF16::FromFloat(value);
    }
    return out;
  }

  void PoolLatency() {
    const Tensor x = Random(DType::kF32, {65536}), y = Random(DType::kF32, {32768});
    const double two = Best([&] { backend_->Zero(*stream_, x); }),
                 one = Best([&] { backend_->Zero(*stream_, y); });
    std::printf("two tasks of 128 KiB to zero: %.1f us; one: %.1f us\n", two * 1e6, one * 1e6);
  }

  double Peak(ProductEngine engine, DType act) {
    const auto backend = MakeCpuBackend({.threads = threads_, .products = engine});
    const Tensor a = Random(act, {1024, 1024}), b = Random(act, {1024, 1024}), c = Random(act, {1024, 1024});
    const auto stream = backend->NewStream(StreamKind::kCompute);
    return 2.0 * (1 << 30) /
           Best([&] { backend->MatMul(*stream, {.a = a, .b = b, .c = c, .transpose_b = Transpose::kYes}); });
  }

  struct Rates {
    double forward, input, weight;
  };

  Rates Product(DType act, int64_t tokens, int64_t out, int64_t in) {
    const Tensor x = Random(act, {tokens, in}), w = Random(act, {out, in}), y = Random(act, {tokens, out});
    const Tensor dw = Random(DType::kF32, {out, in});
    const double flops = 2.0 * tokens * out * in;
    const double forward =
        Best([&] { backend_->MatMul(*stream_, {.a = x, .b = w, .c = y, .transpose_b = Transpose::kYes}); });
    const double input = Best([&] { backend_->MatMul(*stream_, {.a = y, .b = w, .c = x}); });
    const double weight = Best([&] {
      backend_->MatMul(*stream_,
                       {.a = y, .b = x, .c = dw, .transpose_a = Transpose::kYes, .accumulate = true});
    });
    return {flops / forward, flops / input, flops / weight};
  }

  Rates Grouped(DType act, int64_t groups, int64_t rows, int64_t out, int64_t in) {
    const Tensor x = Random(act, {groups * rows, in}), w = Random(act, {groups, out, in});
    const Tensor y = Random(act, {groups * rows, out}), dw = Random(DType::kF32, {groups, out, in});
    const Tensor offsets(*backend_, DType::kI64, {groups + 1});
    for (int64_t g = 0; g <= groups; ++g) offsets.view().as<int64_t>()[g] = g * rows;
    const double flops = 2.0 * groups * rows * out * in;
    const auto time = [&](GroupedKind kind, const Tensor& weights) {
      const GroupedMatMulArgs args{.kind = kind, .x = x, .w = weights, .y = y, .offsets = offsets};
      return flops / Best([&] { backend_->GroupedMatMul(*stream_, args); });
    };
    return {time(GroupedKind::kForward, w), time(GroupedKind::kBackwardInput, w),
            time(GroupedKind::kBackwardWeight, dw)};
  }

  void Print(const char* name, const Rates& r, double peak) {
    std::printf("  %-28s %7.1f %7.1f %7.1f   %5.0f %% %5.0f %% %5.0f %%\n", name, r.forward / 1e9,
                r.input / 1e9, r.weight / 1e9, 100 * r.forward / peak, 100 * r.input / peak,
                100 * r.weight / peak);
  }

  void Products(DType act) {
    const double ours = Peak(ProductEngine::kOurs, act), auto_peak = Peak(ProductEngine::kAuto, act);
    const double onednn = act == DType::kF32 ? Peak(ProductEngine::kOneDnn, act) : 0;
    const double amx = act == DType::kBF16 && engine_ == ProductEngine::kAmx ? Peak(engine_, act) : 0;
    const double peak = std::max({ours, auto_peak, onednn, amx});
    std::printf("  1024^3 GFLOP/s: ours %.1f, oneDNN %.1f, auto %.1f, our AMX %.1f\n", ours / 1e9,
                onednn / 1e9, auto_peak / 1e9, amx / 1e9);
    std::printf("  %-28s %7s %7s %7s\n", "GFLOP/s", "forward", "input", "weight");
    Print("1024 x 1024 x 1024", Product(act, 1024, 1024, 1024), peak);
    Print("head 4096 x 8192 x 512", Product(act, 4096, 8192, 512), peak);
    Print("4096 x 512 x 512", Product(act, 4096, 512, 512), peak);
    Print("kv_a 4096 x 160 x 512", Product(act, 4096, 160, 512), peak);
    Print("kv_b 4096 x 1024 x 128", Product(act, 4096, 1024, 128), peak);
    Print("dense up 4096 x 2816 x 512", Product(act, 4096, 2816, 512), peak);
    Print("32 experts x 512: 512 x 512", Grouped(act, 32, 512, 512, 512), peak);
    Print("32 experts x 512: 512 x 256", Grouped(act, 32, 512, 512, 256), peak);
    Print("32 experts x 128: 512 x 512", Grouped(act, 32, 128, 512, 512), peak);
    Print("32 experts x 128: 512 x 256", Grouped(act, 32, 128, 512, 256), peak);
    Print("decode 64 x 512 x 512", Product(act, 64, 512, 512), peak);
    Print("router 4096 x 32 x 512", Product(act, 4096, 32, 512), peak);
  }

  void PrintBytes(const char* name, double bytes, double seconds) {
    std::printf("  %-28s %7.1f GB/s %5.0f %%   %8.0f us\n", name, bytes / seconds / 1e9,
                100 * bytes / seconds / bandwidth_, seconds * 1e6);
  }

  void Memory(DType act) {
    const int64_t n = int64_t{16} << 20;  // 64 MB in fp32: no cache holds it
    const Tensor big = Random(DType::kF32, {n}), sum(*backend_, DType::kF64, {1});
    const double read = Best([&] { backend_->SumSquares(*stream_, big, sum); });
    bandwidth_ = 4.0 * n / read;
    std::printf("  memory\n");
    PrintBytes("SumSquares (read)", 4.0 * n, read);
    const Tensor copy(*backend_, act, {n}), v = Random(DType::kF32, {n}), m = Random(DType::kF32, {n});
    PrintBytes("Zero", 4.0 * n, Best([&] { backend_->Zero(*stream_, v); }));
    PrintBytes("Cast f32 to act", (4.0 + SizeOf(act)) * n,
               Best([&] { backend_->Cast(*stream_, big, copy); }));
    PrintBytes("Accumulate act into f32", (8.0 + SizeOf(act)) * n,
               Best([&] { backend_->Accumulate(*stream_, {.x = copy, .y = m}); }));
    const Tensor grad = Random(DType::kF32, {n}), weight(*backend_, DType::kBF16, {n});
    AdamWArgs adamw{.master = big,
                    .m = m,
                    .v = v,
                    .grad = grad,
                    .lr = 1e-3f,
                    .beta1 = 0.9f,
                    .beta2 = 0.95f,
                    .epsilon = 1e-8f,
                    .weight_decay = 0.1f,
                    .step = 10};
    if (act == DType::kBF16) adamw.weight = weight;
    PrintBytes("AdamW", (32.0 + (act == DType::kBF16 ? 2 : 0)) * n,
               Best([&] { backend_->AdamW(*stream_, adamw); }));

    const int64_t tokens = 32768, hidden = 512, width = 256, size = SizeOf(act);
    const double elements = static_cast<double>(tokens * hidden);
    const Tensor x = Random(act, {tokens, hidden}), y = Random(act, {tokens, hidden}),
                 dx = Random(act, {tokens, hidden});
    const Tensor gain = Random(DType::kF32, {hidden}), rstd(*backend_, DType::kF32, {tokens}),
                 dgain(*backend_, DType::kF32, {hidden});
    PrintBytes("RmsNorm, add, sum", 4 * size * elements, Best([&] {
                 backend_->RmsNorm(
                     *stream_,
                     {.x = x, .add = dx, .sum = dx, .gain = gain, .y = y, .rstd = rstd, .epsilon = 1e-6f});
               }));
    PrintBytes("RmsNormBackward, residual", 4 * size * elements, Best([&] {
                 backend_->RmsNormBackward(
                     *stream_,
                     {.x = x, .rstd = rstd, .gain = gain, .dy = y, .residual = dx, .dx = dx, .dgain = dgain});
               }));
    const Tensor gate_up = Random(act, {tokens, 2 * width}), h = Random(act, {tokens, width}),
                 weights = Random(DType::kF32, {tokens});
    PrintBytes("SwiGlu", 3 * size * elements / 2, Best([&] {
                 backend_->SwiGlu(*stream_, {.gate_up = gate_up, .row_weights = weights, .h = h});
               }));
    const Tensor d_gate_up = Random(act, {tokens, 2 * width}), dw = Random(DType::kF32, {tokens}),
                 dh = Random(act, {tokens, width});
    PrintBytes("SwiGluBackward", 6 * size * elements / 2, Best([&] {
                 backend_->SwiGluBackward(*stream_, {.gate_up = gate_up,
                                                     .row_weights = weights,
                                                     .dh = dh,
                                                     .d_gate_up = d_gate_up,
                                                     .d_row_weights = dw,
                                                     .h = h});
               }));
    const Tensor positions(*backend_, DType::kI32, {tokens}), cos = Random(DType::kF32, {2048, 16}),
                                                              sin = Random(DType::kF32, {2048, 16});
    for (int64_t t = 0; t < tokens; ++t) positions.view().as<int32_t>()[t] = static_cast<int32_t>(t % 512);
    PrintBytes("Rope, 16 heads of 32", 2 * size * elements, Best([&] {
                 backend_->Rope(*stream_, {.x = x.view().Reshape({tokens, 16, 32}),
                                           .positions = positions,
                                           .cos = cos,
                                           .sin = sin,
                                           .style = RopeStyle::kInterleaved});
               }));
    const Tensor table = Random(act, {8192, hidden}), dtable = Random(DType::kF32, {8192, hidden}),
                 ids(*backend_, DType::kI32, {tokens});
    for (int64_t t = 0; t < tokens; ++t) ids.view().as<int32_t>()[t] = static_cast<int32_t>(t * 7919 % 8192);
    PrintBytes("Embedding", 2 * size * elements,
               Best([&] { backend_->Embedding(*stream_, {.table = table, .ids = ids, .out = y}); }));
    PrintBytes("EmbeddingBackward", (size + 8.0) * elements,
               Best([&] { backend_->EmbeddingBackward(*stream_, {.ids = ids, .dy = y, .dtable = dtable}); }));
  }

  clockid_t clock_;
  int threads_;
  ProductEngine engine_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  double bandwidth_ = 1;
};

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  using moebius::ProductEngine;
  const std::string engine = argc > 2 ? argv[2] : "";
  moebius::Bench(argc > 1 ? std::atoi(argv[1]) : 2, engine == "ours"     ? ProductEngine::kOurs
                                                    : engine == "onednn" ? ProductEngine::kOneDnn
                                                    : engine == "amx"    ? ProductEngine::kAmx
                                                                         : ProductEngine::kAuto)
      .Run();
  return 0;
}
