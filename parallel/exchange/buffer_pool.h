// Buffers that are used again and again, from two threads: what travels is allocated when its size is known,
// on the exchange stream, and fresh pages would cost more than the copy. A buffer that is given back is
// handed out again when the compute stream has passed that point: its kernels may still read it.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "core/backend/backend.h"

namespace moebius {

class BufferPool {
 public:
  BufferPool(Backend& backend, Stream& compute) : backend_(backend), compute_(compute) {}

  struct Memory {
    Tensor tensor;
    std::unique_ptr<Event> passed;  // by the compute stream, when it was given back
  };

  // Memory that goes back to its pool when it dies; the pool outlives it.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(BufferPool* pool, Memory memory) : pool_(pool), memory_(std::move(memory)) {}
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept;
    ~Buffer() { Release(); }
    void Release();
    explicit operator bool() const { return pool_ != nullptr; }

    // A view at `offset` bytes (64-byte aligned).
    TensorView View(DType dtype, Shape shape, int64_t offset = 0) const;

   private:
    BufferPool* pool_ = nullptr;
    Memory memory_;
  };

  Buffer Take(int64_t bytes);
  int64_t reserved_bytes() const;  // held from the allocator, in use or not

 private:
  void Give(Memory memory);

  Backend& backend_;
  Stream& compute_;
  mutable std::mutex mutex_;
  std::multimap<int64_t, Memory> free_;
  int64_t reserved_ = 0;
};

}  // namespace moebius
