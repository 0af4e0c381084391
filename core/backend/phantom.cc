#include "core/backend/phantom.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "core/backend/host_event.h"

namespace moebius {
namespace {

// Everything runs inline, in the caller's thread: there is one rank, and nobody to wait for.
class PhantomStream final : public Stream {
 public:
  explicit PhantomStream(StreamKind kind) : kind_(kind) {}
  StreamKind kind() const override { return kind_; }
  void Enqueue(std::function<void()> work) override { work(); }
  void EnqueuePolled(std::function<bool()> poll) override {
    while (!poll()) {
    }
  }
  void Wake() override {}
  void Record(Event& event) override {
    HostEvent& e = static_cast<HostEvent&>(event);
    e.Finish(e.Issue());
  }
  void Wait(Event&) override {}
  void Synchronize() override {}

 private:
  StreamKind kind_;
};

class Phantom final : public PhantomBackend {
 public:
  explicit Phantom(const PhantomOptions& options) : like_(options.stands_for) {}

  // Distinct addresses that no processor maps: a read of one ends the process.
  void* Allocate(int64_t bytes) override {
    const int64_t size = (std::max<int64_t>(bytes, 1) + 63) / 64 * 64;
    void* memory = reinterpret_cast<void*>(next_);
    next_ += static_cast<uintptr_t>(size);
    sizes_[memory] = size;
    bytes_ += size;
    peak_bytes_ = std::max(peak_bytes_, bytes_);
    return memory;
  }
  void Free(void* memory) override {
    const auto found = sizes_.find(memory);
    if (found == sizes_.end()) return;
    bytes_ -= found->second;
    sizes_.erase(found);
  }
  int64_t peak_bytes() const override { return peak_bytes_; }

  std::string Name() const override { return "phantom"; }
  std::string InstructionSet() const override { return "none"; }
  DType AutoCompute() const override { return like_ != nullptr ? like_->AutoCompute() : DType::kBF16; }
  bool batch_invariant() const override { return like_ != nullptr && like_->batch_invariant(); }
  int num_threads() const override { return 1; }
  int64_t piece_bytes() const override { return like_ != nullptr ? like_->piece_bytes() : 0; }
  RouterLimits router_limits() const override { return {}; }
  int64_t free_bytes() const override { return 0; }
  std::unique_ptr<Stream> NewStream(StreamKind kind) override {
    return std::make_unique<PhantomStream>(kind);
  }
  std::unique_ptr<Event> NewEvent() override { return std::make_unique<HostEvent>(); }
  std::unique_ptr<Recording> NewRecording(Stream&, const std::function<void()>&) override { return nullptr; }

  void CopyToDevice(Stream&, const void*, TensorView) override {}
  void CopyToHost(Stream&, TensorView from, void* host) override { std::memset(host, 0, from.bytes()); }
  void Zero(Stream&, TensorView) override {}
  void Fill(Stream&, TensorView, float) override {}
  void Cast(Stream&, TensorView, TensorView) override {}
  void Accumulate(Stream&, const AccumulateArgs&) override {}
  int64_t RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const override {
    return like_ != nullptr ? like_->RoundedBytes(x, by, groups) : 0;
  }
  void Round(Stream&, const RoundArgs&) override {}
  void MatMul(Stream&, const MatMulArgs&) override {}
  void GroupedMatMul(Stream&, const GroupedMatMulArgs&) override {}
  void HeadMatMul(Stream&, const HeadMatMulArgs&) override {}
  int64_t Int8Bytes(const Shape& shape) const override {
    return like_ != nullptr ? like_->Int8Bytes(shape) : 0;
  }
  void PackInt8(Stream&, const PackInt8Args&) override {}
  void Int8MatMul(Stream&, const Int8MatMulArgs&) override {}
  void Embedding(Stream&, const EmbeddingArgs&) override {}
  void EmbeddingBackward(Stream&, const EmbeddingBackwardArgs&) override {}
  void RmsNorm(Stream&, const RmsNormArgs&) override {}
  void RmsNormBackward(Stream&, const RmsNormBackwardArgs&) override {}
  void Rope(Stream&, const RopeArgs&) override {}
  void Attention(Stream&, const AttentionArgs&) override {}
  void AttentionBackward(Stream&, const AttentionBackwardArgs&) override {}
  void DecodeAttention(Stream&, const DecodeAttentionArgs&) override {}
  void SwiGlu(Stream&, const SwiGluArgs&) override {}
  void SwiGluBackward(Stream&, const SwiGluBackwardArgs&) override {}
  void Router(Stream&, const RouterArgs&) override {}
  void RouterBackward(Stream&, const RouterBackwardArgs&) override {}
  void Balance(Stream&, const BalanceArgs&) override {}
  void RouterZ(Stream&, const RouterZArgs&) override {}
  void RouteSort(Stream&, const RouteSortArgs&) override {}
  void GatherRows(Stream&, const GatherRowsArgs&) override {}
  void ScatterRows(Stream&, const ScatterRowsArgs&) override {}
  void CombineRows(Stream&, const CombineRowsArgs&) override {}
  void CrossEntropy(Stream&, const CrossEntropyArgs&) override {}
  void Divergence(Stream&, const DivergenceArgs&) override {}
  void DrawTokens(Stream&, const DrawTokensArgs&) override {}
  void AdamW(Stream&, const AdamWArgs&) override {}
  void SumSquares(Stream&, TensorView, TensorView) override {}

 private:
  const Backend* like_;
  uintptr_t next_ = uintptr_t{1} << 63;
  std::map<void*, int64_t> sizes_;
  int64_t bytes_ = 0, peak_bytes_ = 0;
};

}  // namespace

std::unique_ptr<PhantomBackend> MakePhantomBackend(const PhantomOptions& options) {
  return std::make_unique<Phantom>(options);
}

}  // namespace moebius
