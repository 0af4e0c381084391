// The CUDA backend: cuBLASLt for products, cuDNN for attention, our own kernels for the rest. Its methods are
// spread over this folder's files by kernel: matmul.cc, grouped_matmul.cu, attention.cc, norm.cu, ...
//
// Everything runs on the stream that a call names. Host threads wait only in Synchronize, in CopyToHost (its
// target is pageable memory) and where an exchange is staged through the host.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/exchange_thread.h"
#include "core/backend/gpu.h"
#include "core/backend/kept_blocks.h"

namespace moebius {

namespace cuda {
class DenseProducts;               // matmul.cc
class GroupedProducts;             // grouped_matmul.cu
class Fp8Products;                 // fp8_products.cc
class AttentionPlans;              // attention.cc
class CudaLink;                    // device_link.cc
cudaStream_t Raw(Stream& stream);  // streams.cc: of a compute stream
}  // namespace cuda

class CudaBackend final : public Backend {
 public:
  // The device exists and is supported.
  CudaBackend(int device, const GpuOptions& options, const cudaDeviceProp& properties);
  ~CudaBackend() override;

  void* Allocate(int64_t bytes) override;
  void Free(void* memory) override;

  std::string Name() const override;
  std::string InstructionSet() const override;
  DType AutoCompute() const override { return DType::kBF16; }
  bool batch_invariant() const override { return false; }
  int num_threads() const override { return 1; }
  int64_t piece_bytes() const override { return int64_t{1} << 30; }
  RouterLimits router_limits() const override;  // router.cu
  int64_t free_bytes() const override;
  std::unique_ptr<Stream> NewStream(StreamKind kind) override;
  std::unique_ptr<Event> NewEvent() override;
  std::unique_ptr<Recording> NewRecording(Stream& stream, const std::function<void()>& calls) override;

  void CopyToDevice(Stream& stream, const void* host, TensorView to) override;
  void CopyToHost(Stream& stream, TensorView from, void* host) override;
  void Zero(Stream& stream, TensorView x) override;
  void Fill(Stream& stream, TensorView x, float value) override;
  void Cast(Stream& stream, TensorView from, TensorView to) override;
  void Accumulate(Stream& stream, const AccumulateArgs& args) override;
  int64_t RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const override;
  void Round(Stream& stream, const RoundArgs& args) override;
  void MatMul(Stream& stream, const MatMulArgs& args) override;
  void GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) override;
  void HeadMatMul(Stream& stream, const HeadMatMulArgs& args) override;
  int64_t Int8Bytes(const Shape&) const override { return 0; }
  void PackInt8(Stream&, const PackInt8Args&) override { CHECK(false) << "no products in 8 bits"; }
  void Int8MatMul(Stream&, const Int8MatMulArgs&) override { CHECK(false) << "no products in 8 bits"; }
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
  // Scratch of one call's launches, 256-byte aligned: valid until the next backend call on any compute stream
  // (there is one a rank).
  void* Scratch(int64_t bytes);

  int device_;
  GpuMemory memory_;
  cudaDeviceProp properties_;
  KeptBlocks blocks_;
  std::vector<void*> scratch_;  // of the device, the latest last; launches may still use the others
  int64_t scratch_bytes_ = 0;   // of the latest
  std::unique_ptr<cuda::CudaLink> link_;
  std::unique_ptr<ExchangeThread> exchange_;
  std::unique_ptr<cuda::DenseProducts> dense_;
  std::unique_ptr<cuda::GroupedProducts> grouped_;
  std::unique_ptr<cuda::Fp8Products> fp8_;
  std::unique_ptr<cuda::AttentionPlans> attention_;
};

}  // namespace moebius
