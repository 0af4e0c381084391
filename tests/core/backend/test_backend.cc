#include "tests/core/backend/test_backend.h"

#include <functional>
#include <utility>
#include <vector>

#include "core/backend/gpu.h"
#include "core/base/check.h"

namespace moebius {
namespace {

using Calls = std::vector<std::function<void()>>;

class RememberedCalls final : public Recording {
 public:
  RememberedCalls(Calls calls, const Stream& stream) : calls_(std::move(calls)), stream_(stream) {}
  void Replay(Stream& stream) override {
    CHECK(&stream == &stream_) << "recorded on another stream";
    for (const auto& call : calls_) call();
  }

 private:
  Calls calls_;
  const Stream& stream_;
};

// Passes every call on and waits until it is done. A recording remembers calls with their arguments, whatever
// becomes of the host's variables, and stands for a device's where there is none.
class WaitingBackend final : public Backend {
 public:
  explicit WaitingBackend(std::unique_ptr<Backend> backend) : to_(std::move(backend)) {}

  void* Allocate(int64_t bytes) override {
    CHECK(recorded_ == nullptr) << "memory is asked for in a recording";
    return to_->Allocate(bytes);
  }
  void Free(void* memory) override { to_->Free(memory); }
  std::string Name() const override { return to_->Name(); }
  std::string InstructionSet() const override { return to_->InstructionSet(); }
  DType AutoCompute() const override { return to_->AutoCompute(); }
  bool batch_invariant() const override { return to_->batch_invariant(); }
  int num_threads() const override { return to_->num_threads(); }
  int64_t piece_bytes() const override { return to_->piece_bytes(); }
  RouterLimits router_limits() const override { return to_->router_limits(); }
  int64_t free_bytes() const override { return to_->free_bytes(); }
  std::unique_ptr<Stream> NewStream(StreamKind kind) override { return to_->NewStream(kind); }
  std::unique_ptr<Event> NewEvent() override { return to_->NewEvent(); }
  std::unique_ptr<Recording> NewRecording(Stream& stream, const std::function<void()>& calls) override {
    Calls recorded;
    recorded_ = &recorded;
    calls();
    recorded_ = nullptr;
    return std::make_unique<RememberedCalls>(std::move(recorded), stream);
  }

  void CopyToDevice(Stream& s, const void* host, TensorView to) override {
    CHECK(recorded_ == nullptr) << "a copy from the host in a recording";
    to_->CopyToDevice(s, host, to);
    s.Synchronize();
  }
  void CopyToHost(Stream& s, TensorView from, void* host) override {
    CHECK(recorded_ == nullptr) << "a copy to the host in a recording";
    to_->CopyToHost(s, from, host);
    s.Synchronize();
  }
  void Zero(Stream& s, TensorView x) override { Call(&Backend::Zero, s, x); }
  void Fill(Stream& s, TensorView x, float value) override { Call(&Backend::Fill, s, x, value); }
  void Cast(Stream& s, TensorView from, TensorView to) override { Call(&Backend::Cast, s, from, to); }
  void Accumulate(Stream& s, const AccumulateArgs& a) override { Call(&Backend::Accumulate, s, a); }
  int64_t RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const override {
    return to_->RoundedBytes(x, by, groups);
  }
  void Round(Stream& s, const RoundArgs& a) override { Call(&Backend::Round, s, a); }
  void MatMul(Stream& s, const MatMulArgs& a) override { Call(&Backend::MatMul, s, a); }
  void GroupedMatMul(Stream& s, const GroupedMatMulArgs& a) override { Call(&Backend::GroupedMatMul, s, a); }
  int64_t Int8Bytes(const Shape& shape) const override { return to_->Int8Bytes(shape); }
  void PackInt8(Stream& s, const PackInt8Args& a) override { Call(&Backend::PackInt8, s, a); }
  void Int8MatMul(Stream& s, const Int8MatMulArgs& a) override { Call(&Backend::Int8MatMul, s, a); }
  void HeadMatMul(Stream& s, const HeadMatMulArgs& a) override { Call(&Backend::HeadMatMul, s, a); }
  void Embedding(Stream& s, const EmbeddingArgs& a) override { Call(&Backend::Embedding, s, a); }
  void EmbeddingBackward(Stream& s, const EmbeddingBackwardArgs& a) override {
    Call(&Backend::EmbeddingBackward, s, a);
  }
  void RmsNorm(Stream& s, const RmsNormArgs& a) override { Call(&Backend::RmsNorm, s, a); }
  void RmsNormBackward(Stream& s, const RmsNormBackwardArgs& a) override {
    Call(&Backend::RmsNormBackward, s, a);
  }
  void Rope(Stream& s, const RopeArgs& a) override { Call(&Backend::Rope, s, a); }
  void Attention(Stream& s, const AttentionArgs& a) override { Call(&Backend::Attention, s, a); }
  void AttentionBackward(Stream& s, const AttentionBackwardArgs& a) override {
    Call(&Backend::AttentionBackward, s, a);
  }
  void DecodeAttention(Stream& s, const DecodeAttentionArgs& a) override {
    Call(&Backend::DecodeAttention, s, a);
  }
  void SwiGlu(Stream& s, const SwiGluArgs& a) override { Call(&Backend::SwiGlu, s, a); }
  void SwiGluBackward(Stream& s, const SwiGluBackwardArgs& a) override {
    Call(&Backend::SwiGluBackward, s, a);
  }
  void Router(Stream& s, const RouterArgs& a) override { Call(&Backend::Router, s, a); }
  void RouterBackward(Stream& s, const RouterBackwardArgs& a) override {
    Call(&Backend::RouterBackward, s, a);
  }
  void Balance(Stream& s, const BalanceArgs& a) override { Call(&Backend::Balance, s, a); }
  void RouterZ(Stream& s, const RouterZArgs& a) override { Call(&Backend::RouterZ, s, a); }
  void RouteSort(Stream& s, const RouteSortArgs& a) override { Call(&Backend::RouteSort, s, a); }
  void GatherRows(Stream& s, const GatherRowsArgs& a) override { Call(&Backend::GatherRows, s, a); }
  void ScatterRows(Stream& s, const ScatterRowsArgs& a) override { Call(&Backend::ScatterRows, s, a); }
  void CombineRows(Stream& s, const CombineRowsArgs& a) override { Call(&Backend::CombineRows, s, a); }
  void CrossEntropy(Stream& s, const CrossEntropyArgs& a) override { Call(&Backend::CrossEntropy, s, a); }
  void Divergence(Stream& s, const DivergenceArgs& a) override { Call(&Backend::Divergence, s, a); }
  void DrawTokens(Stream& s, const DrawTokensArgs& a) override { Call(&Backend::DrawTokens, s, a); }
  void AdamW(Stream& s, const AdamWArgs& a) override { Call(&Backend::AdamW, s, a); }
  void SumSquares(Stream& s, TensorView x, TensorView sum) override { Call(&Backend::SumSquares, s, x, sum); }

 private:
  template <typename... Parameters, typename... Arguments>
  void Call(void (Backend::*method)(Stream&, Parameters...), Stream& stream, const Arguments&... arguments) {
    const auto call = [this, method, &stream, arguments...] {
      (to_.get()->*method)(stream, arguments...);
      stream.Synchronize();
    };
    if (recorded_ != nullptr) {
      recorded_->push_back(call);
    } else {
      call();
    }
  }

  std::unique_ptr<Backend> to_;
  Calls* recorded_ = nullptr;  // where calls go meanwhile
};

std::unique_ptr<Backend> NewGpu(GpuMemory memory) {
  absl::StatusOr<std::unique_ptr<Backend>> gpu = MakeGpuBackend({.memory = memory});
  CHECK(gpu.ok()) << gpu.status().message();
  return *std::move(gpu);
}

}  // namespace

std::unique_ptr<Backend> NewTestBackend(ProductEngine products) {
  if (!kTestsGpu) return MakeCpuBackend({.threads = 2, .products = products});
  return std::make_unique<WaitingBackend>(NewGpu(GpuMemory::kHostMapped));
}

std::unique_ptr<Backend> NewDeviceBackend() {
  if (kTestsGpu) return NewGpu(GpuMemory::kDevice);
  return std::make_unique<WaitingBackend>(MakeCpuBackend({.threads = 2}));
}

std::vector<std::unique_ptr<Backend>> NewTestBackends(ProductEngine products) {
  std::vector<std::unique_ptr<Backend>> backends;
  if (kTestsGpu) {
    for (int i = 0; i < 2; ++i) backends.push_back(NewTestBackend(products));
  } else {
    for (const int threads : {1, 2, 3}) {
      backends.push_back(MakeCpuBackend({.threads = threads, .products = products}));
    }
  }
  return backends;
}

}  // namespace moebius
