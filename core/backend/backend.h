// The backend seam: memory, streams, events and kernels of one device. Code above this folder names no
// device.
//
// Contract. Every call takes the stream it is ordered on; a call may return before its work is done, and work
// on one stream happens in order. Arguments (kernel_args.h) are checked by ops.h, which is what layers call;
// an implementation holds only arithmetic. Views passed to a kernel stay valid until its stream has passed
// it. Results do not depend on the number of threads, and the same call twice gives the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/kernel_args.h"
#include "core/tensor/tensor.h"

namespace moebius {

// kCompute runs kernels (on the CPU: inline in the calling thread). kExchange runs host functions in order on
// the backend's communication thread, one for all of its exchange streams, which sleeps unless something is
// queued: work that waits for a peer is polled, so that one stream's wait never holds up another stream.
// Events order streams. A backend outlives its streams.
enum class StreamKind { kCompute, kExchange };

class DeviceLink;  // device_link.h

class Event {
 public:
  virtual ~Event() = default;
  // Whether its latest Record is done, or there was none; from any thread.
  virtual bool Done() = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual StreamKind kind() const = 0;
  // Runs `work` when everything before it on this stream is done.
  virtual void Enqueue(std::function<void()> work) = 0;
  // The same for work that has to wait for others: calls `poll`, which must not block, until it returns true;
  // later work on this stream starts then. Between two calls an exchange stream's thread serves the backend's
  // other exchange streams, or sleeps (the longer nothing has happened, the longer, at most 1 ms).
  virtual void EnqueuePolled(std::function<bool()> poll) = 0;
  // From any thread: what a polled function waits for may have happened; ends such a sleep.
  virtual void Wake() = 0;
  // Marks `event` done once everything before it is done.
  virtual void Record(Event& event) = 0;
  // Later work on this stream starts after the event's latest Record is done. A compute stream's caller waits
  // itself for what an exchange stream has recorded: what has arrived on the host is there when it goes on,
  // and no device ever waits for a host.
  virtual void Wait(Event& event) = 0;
  // Blocks the caller until the stream is empty.
  virtual void Synchronize() = 0;
  // Of an exchange stream whose backend has memory that host code cannot touch; else null.
  virtual DeviceLink* link() { return nullptr; }
};

// Calls that can be made again without the host that made them: a CUDA graph.
class Recording {
 public:
  virtual ~Recording() = default;
  // All of them, in order, on `stream`, with the arguments that they were recorded with.
  virtual void Replay(Stream& stream) = 0;
};

class Backend : public Allocator {
 public:
  virtual std::string Name() const = 0;  // "cpu (AVX3 with AMX, 2 threads)"
  // What results depend on bit for bit, beside the inputs: "AVX2", "AVX3 with AMX", "sm_90". Checkpoints
  // record it.
  virtual std::string InstructionSet() const = 0;
  // What `compute: AUTO` means here: kBF16 where the processor has instructions for it (AVX512-BF16, AMX,
  // GPUs).
  virtual DType AutoCompute() const = 0;
  // Whether the bits of a row of a forward kernel's result depend on that row's operands and on nothing else:
  // not on how many rows the call has, where among them the row is, or which sequences lie beside its own;
  // and DecodeAttention gives the bits that Attention gives the same query. DeviceOptions::batch_invariant.
  virtual bool batch_invariant() const = 0;
  virtual int num_threads() const = 0;
  // The size of the pieces in which large results that nobody keeps (logits) are best computed: near the
  // caches of a CPU, enough to fill all processors of a GPU.
  virtual int64_t piece_bytes() const = 0;
  virtual RouterLimits router_limits() const = 0;
  // What could still be allocated now; 0: nobody knows.
  virtual int64_t free_bytes() const = 0;
  virtual std::unique_ptr<Stream> NewStream(StreamKind kind) = 0;
  virtual std::unique_ptr<Event> NewEvent() = 0;
  // Runs `calls`, whose kernel calls on `stream` are recorded and not made: they copy nothing to or from the
  // host, wait for nothing, and each has been made before with the same shapes (so that no memory is asked
  // for now). What they read and write must live as long as the recording. Null where nothing can be
  // recorded; then `calls` has not been run.
  virtual std::unique_ptr<Recording> NewRecording(Stream& stream, const std::function<void()>& calls) = 0;

  // `host` may be used again when the call returns.
  virtual void CopyToDevice(Stream& stream, const void* host, TensorView to) = 0;
  virtual void CopyToHost(Stream& stream, TensorView from, void* host) = 0;  // done after Synchronize
  virtual void Zero(Stream& stream, TensorView x) = 0;                       // any dtype
  virtual void Fill(Stream& stream, TensorView x, float value) = 0;          // f32 or bf16
  virtual void Cast(Stream& stream, TensorView from,
                    TensorView to) = 0;  // same shape, f32 and bf16 in any pair
  virtual void Accumulate(Stream& stream, const AccumulateArgs& args) = 0;

  // Bytes of x rounded for FP8 products, by rows or by columns of `groups` groups. 0: x is better
  // left to each product, which rounds what it multiplies; then Round is not called.
  virtual int64_t RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const = 0;
  virtual void Round(Stream& stream, const RoundArgs& args) = 0;

  virtual void MatMul(Stream& stream, const MatMulArgs& args) = 0;
  virtual void GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) = 0;
  virtual void HeadMatMul(Stream& stream, const HeadMatMulArgs& args) = 0;

  // Bytes of a weight [groups, out, in] packed for products in 8 bits. 0: this backend has none; then the
  // other two are not called.
  virtual int64_t Int8Bytes(const Shape& shape) const = 0;
  virtual void PackInt8(Stream& stream, const PackInt8Args& args) = 0;
  virtual void Int8MatMul(Stream& stream, const Int8MatMulArgs& args) = 0;

  virtual void Embedding(Stream& stream, const EmbeddingArgs& args) = 0;
  virtual void EmbeddingBackward(Stream& stream, const EmbeddingBackwardArgs& args) = 0;
  virtual void RmsNorm(Stream& stream, const RmsNormArgs& args) = 0;
  virtual void RmsNormBackward(Stream& stream, const RmsNormBackwardArgs& args) = 0;
  virtual void Rope(Stream& stream, const RopeArgs& args) = 0;
  virtual void Attention(Stream& stream, const AttentionArgs& args) = 0;
  virtual void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) = 0;
  virtual void DecodeAttention(Stream& stream, const DecodeAttentionArgs& args) = 0;
  virtual void SwiGlu(Stream& stream, const SwiGluArgs& args) = 0;
  virtual void SwiGluBackward(Stream& stream, const SwiGluBackwardArgs& args) = 0;

  virtual void Router(Stream& stream, const RouterArgs& args) = 0;
  virtual void RouterBackward(Stream& stream, const RouterBackwardArgs& args) = 0;
  virtual void Balance(Stream& stream, const BalanceArgs& args) = 0;
  virtual void RouterZ(Stream& stream, const RouterZArgs& args) = 0;
  virtual void RouteSort(Stream& stream, const RouteSortArgs& args) = 0;
  virtual void GatherRows(Stream& stream, const GatherRowsArgs& args) = 0;
  virtual void ScatterRows(Stream& stream, const ScatterRowsArgs& args) = 0;
  virtual void CombineRows(Stream& stream, const CombineRowsArgs& args) = 0;

  virtual void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) = 0;
  virtual void Divergence(Stream& stream, const DivergenceArgs& args) = 0;
  virtual void DrawTokens(Stream& stream, const DrawTokensArgs& args) = 0;
  virtual void AdamW(Stream& stream, const AdamWArgs& args) = 0;
  // sum [1] f64 = sum of squares of x (f32), in a fixed order.
  virtual void SumSquares(Stream& stream, TensorView x, TensorView sum) = 0;
};

// What makes matrix products on the CPU. kAuto: oneDNN where the processor has AVX-512 (for bf16: AMX, or
// AVX512-BF16 that outruns fp32), our own kernel elsewhere. kOneDnn: oneDNN for all that it can do here, for
// tests and comparison. kAmx: our own tiles for bf16, which the processor must have, kAuto for the rest.
enum class ProductEngine { kAuto, kOneDnn, kOurs, kAmx };
struct CpuOptions {
  int threads = 0;  // 0: the cores this process may use
  ProductEngine products = ProductEngine::kAuto;
  bool batch_invariant = false;  // see Backend; products are then ours, with AVX-512 too
  DeviceLink* link = nullptr;    // of its exchange streams: tests pretend a device
};
std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options);

}  // namespace moebius
