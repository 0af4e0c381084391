#include "core/backend/cpu/products.h"

#include <omp.h>
#include <signal.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/memory.h"
#include "dnnl.hpp"

namespace moebius {

namespace {

// Tokens an expert change with every batch, so new shapes never end. A primitive is some ten kilobytes.
constexpr size_t kMaxPrimitives = 2048;

// oneDNN asks OpenMP how many threads there are, when a primitive is made and when it runs; with one it opens
// no parallel region. The setting belongs to the calling thread.
class OneOmpThread {
 public:
  OneOmpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOmpThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// oneDNN 2.6's generated code for fp32 leaves no room for a signal's frame on its stack: a handler that ran
// there overwrote its memory. Those installed with SA_ONSTACK (launch/signals.cc) run on this one instead.
class SignalStack {
 public:
  SignalStack() {
    stack_t now = {};
    if (sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return;  // there is another
    memory_ = std::make_unique<char[]>(kBytes);
    const stack_t ours = {.ss_sp = memory_.get(), .ss_flags = 0, .ss_size = kBytes};
    if (sigaltstack(&ours, nullptr) != 0) memory_ = nullptr;
  }
  ~SignalStack() {
    const stack_t none = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    if (memory_ != nullptr) sigaltstack(&none, nullptr);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  static constexpr size_t kBytes = 128 << 10;  // a frame with AMX's tiles has 11 KiB
  std::unique_ptr<char[]> memory_;
};

using Key = std::array<int64_t, 8>;
struct KeyHash {
  size_t operator()(const Key& key) const {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(key.data()), sizeof(Key)});
  }
};

Key KeyOf(const Product& p) {
  const int64_t flags = static_cast<int64_t>(p.a.dtype) | static_cast<int64_t>(p.b.dtype) << 8 |
                        static_cast<int64_t>(p.c.dtype) << 16 | int64_t{p.a.transposed} << 24 |
                        int64_t{p.b.transposed} << 25 | int64_t{p.c.accumulate} << 26 |
                        int64_t{p.c.bias != nullptr} << 27;
  return {p.m, p.n, p.k, p.a.stride, p.b.stride, p.c.stride, flags, 0};
}

dnnl::memory::data_type TypeOf(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  return dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::memory::desc Describe(const GemmOperand& x, int64_t rows, int64_t cols) {
  const dnnl::memory::dims strides =
      x.transposed ? dnnl::memory::dims{1, x.stride} : dnnl::memory::dims{x.stride, 1};
  return {{rows, cols}, TypeOf(x.dtype), strides};
}

struct Primitive {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul run;
};

Primitive Make(const Product& p, const dnnl::engine& engine) {
  const dnnl::memory::desc a = Describe(p.a, p.m, p.k), b = Describe(p.b, p.k, p.n);
  const dnnl::memory::desc c({p.m, p.n}, TypeOf(p.c.dtype), dnnl::memory::dims{p.c.stride, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(
      dnnl::scratchpad_mode::user);  // else a primitive is bound to the thread that made it
  if (p.c.accumulate) {
    dnnl::post_ops post;
    post.append_sum(1.0f);
    attr.set_post_ops(post);
  }
  const dnnl::memory::desc bias({1, p.n}, dnnl::memory::data_type::f32, dnnl::memory::dims{p.n, 1});
  const auto op = p.c.bias != nullptr ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  Primitive out;
  out.desc = dnnl::matmul::primitive_desc(op, attr, engine);
  out.run = dnnl::matmul(out.desc);
  return out;
}

struct Scratch {
  void* memory = nullptr;
  size_t bytes = 0;

  void* AtLeast(size_t wanted) {
    if (bytes < wanted) {
      std::free(memory);
      bytes = (wanted + 4095) / 4096 * 4096;
      memory = std::aligned_alloc(4096, bytes);
      if (memory == nullptr) OutOfMemory(static_cast<int64_t>(bytes));
    }
    return memory;
  }
};

}  // namespace

struct Products::State {
  // What a thread needs of its own; a stream keeps no state on the CPU, but is documented for one thread.
  struct PerThread {
    explicit PerThread(const dnnl::engine& engine) : stream(engine) {}
    dnnl::stream stream;
    Scratch scratch;
  };
  // Shared: an evicted primitive may still be running in another thread.
  using Shared = std::shared_ptr<const Primitive>;

  explicit State(int num_threads) : engine(dnnl::engine::kind::cpu, 0) {
    threads.reserve(num_threads);
    for (int i = 0; i < num_threads; ++i) threads.emplace_back(engine);
  }
  ~State() {
    for (PerThread& thread : threads) std::free(thread.scratch.memory);
  }

  Shared Find(const Product& p) {
    const Key key = KeyOf(p);
    {
      std::lock_guard lock(mutex);
      const auto found = by_key.find(key);
      if (found != by_key.end()) {
        by_use.splice(by_use.begin(), by_use, found->second);
        return found->second->second;
      }
    }
    Shared made = std::make_shared<const Primitive>(Make(p, engine));
    std::lock_guard lock(mutex);
    const auto [found, is_new] = by_key.try_emplace(key);
    if (!is_new) return found->second->second;  // another thread was faster
    by_use.emplace_front(key, made);
    found->second = by_use.begin();
    if (by_use.size() > kMaxPrimitives) {
      by_key.erase(by_use.back().first);
      by_use.pop_back();
    }
    return made;
  }

  dnnl::engine engine;
  std::vector<PerThread> threads;
  std::mutex mutex;
  std::list<std::pair<Key, Shared>> by_use;  // the latest first
  std::unordered_map<Key, std::list<std::pair<Key, Shared>>::iterator, KeyHash> by_key;
};

Products::Products(int num_threads) : state_(std::make_unique<State>(num_threads)) {}
Products::~Products() = default;

void Products::Run(const Product& p, int thread) {
  thread_local const SignalStack signal_stack;
  const OneOmpThread one;
  try {
    const State::Shared primitive = state_->Find(p);
    const dnnl::engine& engine = state_->engine;
    State::PerThread& own = state_->threads[thread];
    const auto memory = [&](const dnnl::memory::desc& desc, const void* data) {
      return dnnl::memory(desc, engine, const_cast<void*>(data));
    };
    const dnnl::matmul::primitive_desc& desc = primitive->desc;
    const dnnl::memory::desc scratch = desc.scratchpad_desc();
    std::unordered_map<int, dnnl::memory> args = {{DNNL_ARG_SRC, memory(desc.src_desc(), p.a.data)},
                                                  {DNNL_ARG_WEIGHTS, memory(desc.weights_desc(), p.b.data)},
                                                  {DNNL_ARG_DST, memory(desc.dst_desc(), p.c.data)}};
    args.emplace(DNNL_ARG_SCRATCHPAD, memory(scratch, own.scratch.AtLeast(scratch.get_size())));
    if (p.c.bias != nullptr) args.emplace(DNNL_ARG_BIAS, memory(desc.bias_desc(), p.c.bias));
    primitive->run.execute(own.stream, args);
  } catch (const dnnl::error& error) {
    CHECK(false) << "oneDNN: " << error.what() << " in a product of " << p.m << " x " << p.n << " x " << p.k
                 << ", " << p.a.dtype << " and " << p.b.dtype << " into " << p.c.dtype;
  }
}

}  // namespace moebius
