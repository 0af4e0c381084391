// The CPU backend: oneDNN for matrix products, Highway for the rest, a pool of its own. Its methods are
// spread over this folder's files by kernel: matmul.cc, attention.cc, norm.cc, ...
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/cpu/thread_pool.h"

namespace moebius {

class ExchangeThread;  // core/backend/exchange_thread.h
class Products;        // products.h
struct Product;        // gemm.h

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options);
  ~CpuBackend() override;

  void* Allocate(int64_t bytes) override;
  void Free(void* memory) override;

  std::string Name() const override;
  std::string InstructionSet() const override;
  DType AutoCompute() const override;
  bool batch_invariant() const override { return batch_invariant_; }
  int num_threads() const override { return pool_.num_threads(); }
  int64_t piece_bytes() const override { return int64_t{16} << 20; }
  RouterLimits router_limits() const override { return {}; }
  int64_t free_bytes() const override;
  std::unique_ptr<Stream> NewStream(StreamKind kind) override;
  std::unique_ptr<Event> NewEvent() override;
  // Every call is made by the host: nothing to record.
  std::unique_ptr<Recording> NewRecording(Stream&, const std::function<void()>&) override { return nullptr; }

  void CopyToDevice(Stream& stream, const void* host, TensorView to) override;
  void CopyToHost(Stream& stream, TensorView from, void* host) override;
  void Zero(Stream& stream, TensorView x) override;
  void Fill(Stream& stream, TensorView x, float value) override;
  void Cast(Stream& stream, TensorView from, TensorView to) override;
  void Accumulate(Stream& stream, const AccumulateArgs& args) override;
  // The emulation of FP8 rounds in every product.
  int64_t RoundedBytes(const TensorView&, RoundedBy, int64_t) const override { return 0; }
  void Round(Stream&, const RoundArgs&) override { CHECK(false) << "nothing is kept rounded"; }
  void MatMul(Stream& stream, const MatMulArgs& args) override;
  void GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) override;
  void HeadMatMul(Stream& stream, const HeadMatMulArgs& args) override;
  int64_t Int8Bytes(const Shape& shape) const override;
  void PackInt8(Stream& stream, const PackInt8Args& args) override;
  void Int8MatMul(Stream& stream, const Int8MatMulArgs& args) override;
  void Embedding(Stream& stream, const EmbeddingArgs& args) override;
  void EmbeddingBackward(Stream& stream, const EmbeddingBackwardArgs& args) override;
  void RmsNorm(Stream& stream, const RmsNormArgs& args) override;
  void RmsNormBackward(Stream& stream, const RmsNormBackwardArgs& args) override;
  void Rope(Stream& stream, const RopeArgs& args) override;
  void Attention(Stream& stream, const AttentionArgs& args) override;
  void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) override;
  void DecodeAttention(Stream& stream, const DecodeAttentionArgs& args) override;
  void SwiGlu(Stream& stream, const SwiGluArgs& args) override;
  void SwiGluBackward(Stream& stream, const SwiGluBackwardArgs& args) override;
  void Router(Stream& stream, const RouterArgs& args) override;
  void RouterBackward(Stream& stream, const RouterBackwardArgs& args) override;
  void Balance(Stream& stream, const BalanceArgs& args) override;
  void RouterZ(Stream& stream, const RouterZArgs& args) override;
  void RouteSort(Stream& stream, const RouteSortArgs& args) override;
  void GatherRows(Stream& stream, const GatherRowsArgs& args) override;
  void ScatterRows(Stream& stream, const ScatterRowsArgs& args) override;
  void CombineRows(Stream& stream, const CombineRowsArgs& args) override;
  void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) override;
  void Divergence(Stream& stream, const DivergenceArgs& args) override;
  void DrawTokens(Stream& stream, const DrawTokensArgs& args) override;
  void AdamW(Stream& stream, const AdamWArgs& args) override;
  void SumSquares(Stream& stream, TensorView x, TensorView sum) override;

 private:
  // Scratch of one pool thread, at least `bytes`, 64-byte aligned, valid until the thread's next call; for
  // the panels and tiles of one task.
  void* ThreadScratch(int thread, int64_t bytes);
  // Scratch of a whole kernel, for what its tasks share; valid until the next call.
  void* SharedScratch(int64_t bytes);
  // Scratch for operands that were rounded, beside that of their product; valid until the next call.
  float* RoundedScratch(int64_t elements);

  // matmul.cc
  bool UsesMatVec(const Product& product) const;
  bool UsesAmx(const Product& product) const;
  bool UsesFewRows(const Product& product) const;
  bool UsesOneDnn(const Product& product) const;
  const struct PackedKernel& KernelOf(const Product& product) const;
  void WidenRows(std::span<Product> products);
  void RunFewRows(const Product& product);
  void RunProduct(const Product& product, int thread);
  void RunProducts(const std::vector<Product>& tasks);
  void RunParts(std::vector<Product> parts, int64_t rows);
  void RunLargeProduct(const Product& product);

  // attention.cc: DecodeAttention with the bits of Attention
  void DecodeAsAttention(const DecodeAttentionArgs& args);

  // fp8.cc: with Rounding::kFp8
  void MatMulFp8(Stream& stream, const MatMulArgs& args);
  void GroupedMatMulFp8(Stream& stream, const GroupedMatMulArgs& args);

  ProductEngine engine_;
  bool batch_invariant_;
  ThreadPool pool_;
  std::unique_ptr<Products> products_;
  struct Scratch;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<ExchangeThread> exchange_;
};

}  // namespace moebius
