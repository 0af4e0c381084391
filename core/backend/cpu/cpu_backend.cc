#include "core/backend/cpu/cpu_backend.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/backend/cpu/amx.h"
#include "core/backend/cpu/compute_stream.h"
#include "core/backend/cpu/instruction_set.h"
#include "core/backend/cpu/products.h"
#include "core/backend/exchange_thread.h"
#include "core/backend/host_event.h"
#include "core/base/check.h"
#include "core/base/memory.h"
#include "core/base/strings.h"

namespace moebius {

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

// All that chooses kernels of bf16 beside Highway's target.
const char* BF16Unit() {
  if (HasAmx()) return " with AMX";
  if (HasBF16Dots()) return " with AVX512-BF16";
  return HasBF16() ? " with slow AVX512-BF16" : "";
}

}  // namespace

struct CpuBackend::Scratch {
  struct Block {
    void* memory = nullptr;
    int64_t bytes = 0;

    void* AtLeast(CpuBackend& backend, int64_t wanted) {
      if (bytes < wanted) {
        backend.Free(memory);
        bytes = (wanted + 4095) / 4096 * 4096;
        memory = backend.Allocate(bytes);
      }
      return memory;
    }
  };
  explicit Scratch(int threads) : blocks(threads) {}
  ~Scratch() {
    for (Block& block : blocks) std::free(block.memory);
    std::free(shared.memory);
    std::free(rounded.memory);
  }
  std::vector<Block> blocks;  // one a thread
  Block shared;
  Block rounded;
};

CpuBackend::CpuBackend(const CpuOptions& options)
    : engine_(options.batch_invariant ? ProductEngine::kOurs : options.products),
      batch_invariant_(options.batch_invariant),
      pool_(options.threads > 0 ? options.threads : AvailableCores()),
      products_(std::make_unique<Products>(pool_.num_threads())),
      scratch_(std::make_unique<Scratch>(pool_.num_threads())),
      exchange_(std::make_unique<ExchangeThread>(options.link)) {}

CpuBackend::~CpuBackend() = default;

void* CpuBackend::Allocate(int64_t bytes) {
  // Large blocks lie on huge pages: fewer TLB misses, and one page fault for 512 pages.
  const int64_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const int64_t size = (std::max<int64_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, size);
  if (memory == nullptr) OutOfMemory(bytes);
  if (alignment == kHugePage) madvise(memory, size, MADV_HUGEPAGE);  // a hint: refusal is harmless
  return memory;
}

void CpuBackend::Free(void* memory) { std::free(memory); }

std::string CpuBackend::Name() const {
  return Concat("cpu (", InstructionSet(), ", ", num_threads(),
                num_threads() == 1 ? " thread)" : " threads)");
}

int64_t CpuBackend::free_bytes() const { return ReadMachineMemory().available; }

std::string CpuBackend::InstructionSet() const {
  return Concat(InstructionSetName(), BF16Unit(), batch_invariant_ ? " batch-invariant" : "");
}

DType CpuBackend::AutoCompute() const { return HasBF16() ? DType::kBF16 : DType::kF32; }

std::unique_ptr<Stream> CpuBackend::NewStream(StreamKind kind) {
  return kind == StreamKind::kExchange ? exchange_->NewStream() : NewCpuComputeStream();
}
std::unique_ptr<Event> CpuBackend::NewEvent() { return std::make_unique<HostEvent>(); }

void* CpuBackend::ThreadScratch(int thread, int64_t bytes) {
  return scratch_->blocks[thread].AtLeast(*this, bytes);
}
void* CpuBackend::SharedScratch(int64_t bytes) { return scratch_->shared.AtLeast(*this, bytes); }
float* CpuBackend::RoundedScratch(int64_t elements) {
  return static_cast<float*>(scratch_->rounded.AtLeast(*this, elements * SizeOf(DType::kF32)));
}

std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace moebius
