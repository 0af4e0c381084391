#include "core/backend/cuda/attention_plans.h"

#include <algorithm>
#include <bit>
#include <map>
#include <string>
#include <vector>

#include "core/backend/cuda/attention_graph.h"
#include "core/backend/cuda/attention_pack.h"
#include "core/backend/cuda/errors.h"
#include "core/base/log.h"
#include "core/base/strings.h"

namespace moebius::cuda {
namespace {

// The backward that gives the same bits every time holds scores of [heads, length, length] in bf16
// (cuDNN 9.19 on Hopper). A graph gets as many sequences, then heads, as keep them below the first limit; a
// single key head that is above the second is left to our own kernels.
constexpr int64_t kScoreBytes = int64_t{1} << 30;
constexpr int64_t kMaxScoreBytes = int64_t{4} << 30;
constexpr int64_t kShortest = 65;    // up to here our kernels need one tile a head
constexpr int64_t kPlainUnit = 128;  // lengths that are no multiple share plans, as ragged ones

// A part of a call that one graph computes: some sequences (equal or not), some key heads and their query
// heads.
struct Part {
  int64_t first;
  int64_t sequences;
  int64_t length;
  bool ragged;
  int64_t first_group;
  int64_t groups;
  const GraphPlan* plan = nullptr;
};

// The next length for which there are plans: an eighth of a power of two, at least 128.
int64_t PlanLength(int64_t length) {
  const int64_t unit =
      std::max<int64_t>(kPlainUnit, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length))) / 8);
  return (length + unit - 1) / unit * unit;
}

bool Takes(const TensorView& x) {
  return !x || (x.dtype == DType::kBF16 && x.cols() % 8 == 0 && x.cols() <= 256 && x.stride % 8 == 0 &&
                reinterpret_cast<uintptr_t>(x.data) % 16 == 0);
}

// Gives out parts of one block, each 256-byte aligned; first without memory, to learn the size.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}
  char* Take(int64_t bytes) {
    char* taken = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (bytes + 255) / 256 * 256;
    return taken;
  }
  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

// One call in numbers.
struct Call {
  Call(const AttentionArgs& args, bool is_backward)
      : tokens(args.q.shape[0]),
        heads(args.q.shape[1]),
        groups(args.k.shape[1]),
        dk(args.k.cols()),
        dr(args.k_shared ? args.k_shared.cols() : 0),
        backward(is_backward) {
    for (const int32_t start : args.sequence_starts) {
      if (starts.empty() || start != starts.back()) starts.push_back(start);
    }
  }
  int64_t sequences() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t LengthOf(int64_t s) const { return starts[s + 1] - starts[s]; }
  int64_t Longest(int64_t first, int64_t count) const {
    int64_t longest = 0;
    for (int64_t s = first; s < first + count; ++s) longest = std::max(longest, LengthOf(s));
    return longest;
  }

  int64_t tokens, heads, groups, dk, dr;
  bool backward;
  std::vector<int32_t> starts;  // of the sequences that are not empty, and the end
};

std::vector<Part> Parts(const Call& call) {
  const int64_t longest = call.Longest(0, call.sequences());
  bool ragged = longest % kPlainUnit != 0;
  for (int64_t s = 0; s < call.sequences(); ++s) ragged = ragged || call.LengthOf(s) != longest;
  const auto length_of = [&](int64_t first, int64_t count) {
    return ragged ? PlanLength(call.Longest(first, count)) : longest;
  };
  if (!call.backward) {
    const int64_t all = call.sequences();
    return {{.first = 0,
             .sequences = all,
             .length = length_of(0, all),
             .ragged = ragged,
             .first_group = 0,
             .groups = call.groups}};
  }
  std::vector<Part> parts;
  const int64_t per_group = call.heads / call.groups;
  for (int64_t first = 0; first < call.sequences();) {
    const auto score_bytes = [&](int64_t count, int64_t groups) {
      const int64_t length = length_of(first, count);
      return count * groups * per_group * length * length * 2;
    };
    int64_t count = 1;
    while (first + count < call.sequences() && score_bytes(count + 1, call.groups) <= kScoreBytes) ++count;
    int64_t groups = call.groups;
    while (groups > 1 && score_bytes(count, groups) > kScoreBytes) groups = (groups + 1) / 2;
    if (score_bytes(count, groups) > kMaxScoreBytes) return {};
    for (int64_t group = 0; group < call.groups; group += groups) {
      parts.push_back({.first = first,
                       .sequences = count,
                       .length = length_of(first, count),
                       .ragged = ragged,
                       .first_group = group,
                       .groups = std::min(groups, call.groups - group)});
    }
    first += count;
  }
  return parts;
}

TensorView WithData(TensorView view, void* data) {
  view.data = data;
  return view;
}

}  // namespace

class AttentionPlans::Impl {
 public:
  explicit Impl(const cudaDeviceProp& properties) : is_hopper_(properties.major >= 9) {}
  ~Impl() {
    plans_.clear();
    if (handle_ != nullptr) cudnnDestroy(handle_);
  }

  bool Run(cudaStream_t stream, const AttentionArgs& f, const AttentionBackwardArgs* b,
           const Allocate& allocate);

 private:
  const GraphPlan* PlanOf(const GraphShape& shape);

  bool is_hopper_;
  cudnnHandle_t handle_ = nullptr;
  std::map<std::vector<int64_t>, std::unique_ptr<GraphPlan>> plans_;  // null: refused
};

const GraphPlan* AttentionPlans::Impl::PlanOf(const GraphShape& shape) {
  const auto [at, is_new] = plans_.try_emplace(shape.Key());
  if (is_new) {
    std::string why;
    at->second = NewGraphPlan(handle_, shape, &why);
    if (at->second != nullptr && at->second->workspace_bytes() > kMaxScoreBytes + kMaxScoreBytes / 4) {
      why = Concat("its plan wants ", HumanBytes(static_cast<double>(at->second->workspace_bytes())));
      at->second = nullptr;
    }
    if (at->second == nullptr) {
      LogLine(
          Concat("cuDNN does not take ", shape.Text(), " (", why, "); our own slower kernels compute it"));
    }
  }
  return at->second.get();
}

bool AttentionPlans::Impl::Run(cudaStream_t stream, const AttentionArgs& f, const AttentionBackwardArgs* b,
                               const Allocate& allocate) {
  if (!is_hopper_ || f.q.cols() > 256) return false;
  for (const TensorView& x : {f.q, f.k, f.k_shared, f.v, f.o}) {
    if (!Takes(x)) return false;
  }
  if (b != nullptr) {
    for (const TensorView& x : {b->d_o, b->dq, b->dk, b->dk_shared, b->dv}) {
      if (!Takes(x)) return false;
    }
  }
  const Call call(f, b != nullptr);
  if (call.sequences() <= 0 || call.Longest(0, call.sequences()) < kShortest) return false;

  TensorView keys = f.k, d_keys = b != nullptr ? b->dk : TensorView();
  if (call.dr > 0) {
    keys = d_keys = TensorView(nullptr, DType::kBF16, {call.tokens, call.groups, call.dk + call.dr});
  }
  std::vector<GraphOperand> operands = {
      {kGraphQ, f.q, false}, {kGraphK, keys, true}, {kGraphV, f.v, true}, {kGraphO, f.o, false}};
  if (b != nullptr) {
    operands.insert(operands.end(), {{kGraphDO, b->d_o, false},
                                     {kGraphDQ, b->dq, false},
                                     {kGraphDK, d_keys, true},
                                     {kGraphDV, b->dv, true}});
  }
  for (const GraphOperand& operand : operands) {  // offsets are 32-bit
    if (operand.view.rows() * operand.view.stride > INT32_MAX) return false;
  }

  if (handle_ == nullptr) CUDA_OK(cudnnCreate(&handle_));
  CUDA_OK(cudnnSetStream(handle_, stream));
  std::vector<Part> parts = Parts(call);
  if (parts.empty()) return false;
  const int64_t per_group = call.heads / call.groups;
  int64_t workspace_bytes = 0, stats_floats = 0;
  for (Part& part : parts) {
    const GraphShape shape{.backward = call.backward,
                           .ragged = part.ragged,
                           .batch = part.sequences,
                           .length = part.length,
                           .heads = part.groups * per_group,
                           .groups = part.groups,
                           .scale = f.scale,
                           .operands = operands};
    part.plan = PlanOf(shape);
    if (part.plan == nullptr) return false;
    workspace_bytes = std::max(workspace_bytes, part.plan->workspace_bytes());
    stats_floats = std::max(stats_floats, shape.batch * shape.heads * shape.length);
  }

  // Per part, in one upload: starts, lengths, and each operand's offsets, each on a 16-byte boundary.
  std::vector<int32_t> integers;
  std::vector<size_t> integers_of;
  const auto align = [&] { integers.resize((integers.size() + 3) / 4 * 4); };
  const auto padded = [](int64_t count) { return (count + 3) / 4 * 4; };
  for (const Part& part : parts) {
    integers_of.push_back(integers.size());
    for (int64_t s = 0; s <= part.sequences; ++s) integers.push_back(call.starts[part.first + s]);
    align();
    for (int64_t s = 0; s < part.sequences; ++s)
      integers.push_back(static_cast<int32_t>(call.LengthOf(part.first + s)));
    align();
    for (const GraphOperand& operand : operands) {
      const int64_t token = operand.view.shape[1] * operand.view.stride;
      for (int64_t s = 0; s <= part.sequences; ++s)
        integers.push_back(static_cast<int32_t>(call.starts[part.first + s] * token));
      align();
    }
  }

  const auto carve = [&](void* memory, auto use) {
    Carver carver(memory);
    char* ints = carver.Take(static_cast<int64_t>(integers.size() * sizeof(int32_t)));
    char* stats = carver.Take(stats_floats * static_cast<int64_t>(sizeof(float)));
    char* packed = carver.Take(call.dr > 0 ? keys.bytes() : 0);
    char* packed_gradient = carver.Take(call.dr > 0 && call.backward ? keys.bytes() : 0);
    char* workspace = carver.Take(workspace_bytes);
    use(ints, stats, packed, packed_gradient, workspace);
    return carver.used();
  };
  const int64_t bytes = carve(nullptr, [](auto...) {});
  carve(allocate(bytes), [&](char* ints, char* stats, char* packed, char* packed_gradient, char* workspace) {
    CUDA_OK(cudaMemcpyAsync(ints, integers.data(), integers.size() * sizeof(int32_t), cudaMemcpyHostToDevice,
                            stream));
    if (call.dr > 0) {
      keys = WithData(keys, packed);
      d_keys = WithData(d_keys, packed_gradient);
      PackKeys(stream, f.k, f.k_shared, keys);
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      const Part& part = parts[i];
      int32_t* starts = reinterpret_cast<int32_t*>(ints) + integers_of[i];
      int32_t* lengths = starts + padded(part.sequences + 1);
      int32_t* offsets = lengths + padded(part.sequences);
      const StatsLayout layout{.starts = starts,
                               .batch = part.sequences,
                               .length = part.length,
                               .heads = part.groups * per_group,
                               .lse_stride = call.tokens};
      float* lse = static_cast<float*>(f.lse.data) + part.first_group * per_group * call.tokens;
      std::map<GraphTensor, void*> tensors{{kGraphStats, stats}};
      if (part.ragged) tensors[kGraphLengths] = lengths;
      for (GraphOperand& operand : operands) {
        if (operand.name == kGraphK) operand.view.data = keys.data;
        if (operand.name == kGraphDK) operand.view.data = d_keys.data;
        int64_t at = part.first_group * (operand.per_group ? 1 : per_group) * operand.view.stride;
        if (!part.ragged) at += call.starts[part.first] * operand.view.shape[1] * operand.view.stride;
        tensors[operand.name] = static_cast<char*>(operand.view.data) + at * SizeOf(DType::kBF16);
        if (part.ragged) {
          tensors[static_cast<GraphTensor>(kGraphOffsets + operand.name)] = offsets;
          offsets += padded(part.sequences + 1);
        }
      }
      if (call.backward) PackStats(stream, layout, lse, reinterpret_cast<float*>(stats));
      part.plan->Run(handle_, tensors, workspace);
      if (!call.backward) UnpackStats(stream, layout, reinterpret_cast<float*>(stats), lse);
    }
    if (call.dr > 0 && call.backward) SplitKeyGradient(stream, d_keys, b->dk, b->dk_shared);
  });
  return true;
}

AttentionPlans::AttentionPlans(const cudaDeviceProp& properties)
    : impl_(std::make_unique<Impl>(properties)) {}
AttentionPlans::~AttentionPlans() = default;

bool AttentionPlans::Forward(cudaStream_t stream, const AttentionArgs& args, const Allocate& allocate) {
  return impl_->Run(stream, args, nullptr, allocate);
}
bool AttentionPlans::Backward(cudaStream_t stream, const AttentionBackwardArgs& args,
                              const Allocate& allocate) {
  return impl_->Run(stream, args.forward, &args, allocate);
}

}  // namespace moebius::cuda
