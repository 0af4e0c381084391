#include "core/backend/cuda/attention_plans.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <string>
#include <utility>
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
constexpr size_t kMostPlans = 1024;  // kept; then all go
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
bool Takes(const AttentionArgs& f, const AttentionBackwardArgs* b) {
  return Takes(f.q) && Takes(f.k) && Takes(f.k_shared) && Takes(f.v) && Takes(f.o) &&
         (b == nullptr ||
          (Takes(b->d_o) && Takes(b->dq) && Takes(b->dk) && Takes(b->dk_shared) && Takes(b->dv)));
}

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

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
  int64_t per_group() const { return heads / groups; }
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

// cuDNN's deterministic backward keeps a matrix of all scores of its heads, so it gets few at a time.
std::vector<Part> Parts(const Call& call, bool deterministic) {
  const int64_t longest = call.Longest(0, call.sequences());
  bool ragged = longest % kPlainUnit != 0;
  for (int64_t s = 0; s < call.sequences(); ++s) ragged = ragged || call.LengthOf(s) != longest;
  const auto length_of = [&](int64_t first, int64_t count) {
    return ragged ? PlanLength(call.Longest(first, count)) : longest;
  };
  if (!call.backward || !deterministic) {
    const int64_t all = call.sequences();
    return {{.first = 0,
             .sequences = all,
             .length = length_of(0, all),
             .ragged = ragged,
             .first_group = 0,
             .groups = call.groups}};
  }
  std::vector<Part> parts;
  for (int64_t first = 0; first < call.sequences();) {
    const auto score_bytes = [&](int64_t count, int64_t groups) {
      const int64_t length = length_of(first, count);
      return count * groups * call.per_group() * length * length * 2;
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

// The tensors of a call as its graphs see them: keys are whole keys, packed where k_shared is given, whose
// place is not known yet.
std::vector<GraphOperand> Operands(const Call& call, const AttentionArgs& f, const AttentionBackwardArgs* b) {
  const TensorView packed(nullptr, DType::kBF16, {call.tokens, call.groups, call.dk + call.dr});
  std::vector<GraphOperand> operands = {{kGraphQ, f.q, false},
                                        {kGraphK, call.dr > 0 ? packed : f.k, true},
                                        {kGraphV, f.v, true},
                                        {kGraphO, f.o, false}};
  if (b != nullptr) {
    operands.push_back({kGraphDO, b->d_o, false});
    operands.push_back({kGraphDQ, b->dq, false});
    operands.push_back({kGraphDK, call.dr > 0 ? packed : b->dk, true});
    operands.push_back({kGraphDV, b->dv, true});
  }
  return operands;
}

// What the device has to know of a part: where sequences start, their lengths, and each operand's offsets.
// All in one array, each on a 16-byte boundary.
class Integers {
 public:
  void Add(const Call& call, const Part& part, const std::vector<GraphOperand>& operands) {
    begins_.push_back(values_.size());
    const auto add = [&](int64_t count, auto value) {
      for (int64_t s = 0; s < count; ++s) values_.push_back(static_cast<int32_t>(value(part.first + s)));
      values_.resize(Padded(static_cast<int64_t>(values_.size())));
    };
    add(part.sequences + 1, [&](int64_t s) { return call.starts[s]; });
    add(part.sequences, [&](int64_t s) { return call.LengthOf(s); });
    if (!part.ragged) return;  // nobody reads offsets, which may not fit
    for (const GraphOperand& operand : operands) {
      add(part.sequences + 1, [&](int64_t s) { return call.starts[s] * TokenStride(operand); });
    }
  }
  static int64_t TokenStride(const GraphOperand& operand) {
    return operand.view.shape[1] * operand.view.stride;
  }

  // Of part i, in the copy at `base`.
  int32_t* StartsOf(int32_t* base, size_t i) const { return base + begins_[i]; }
  static int32_t* LengthsOf(int32_t* starts, const Part& part) { return starts + Padded(part.sequences + 1); }
  static int32_t* OffsetsOf(int32_t* starts, const Part& part, size_t operand) {
    return LengthsOf(starts, part) + Padded(part.sequences) +
           static_cast<int64_t>(operand) * Padded(part.sequences + 1);
  }

  const std::vector<int32_t>& values() const { return values_; }
  int64_t bytes() const { return static_cast<int64_t>(values_.size() * sizeof(int32_t)); }

 private:
  static int64_t Padded(int64_t count) { return (count + 3) / 4 * 4; }

  std::vector<int32_t> values_;
  std::vector<size_t> begins_;
};

}  // namespace

class AttentionPlans::Impl {
 public:
  Impl(const cudaDeviceProp& properties, bool deterministic)
      : is_hopper_(properties.major >= 9), deterministic_(deterministic) {}
  ~Impl() {
    plans_.clear();
    if (handle_ != nullptr) cudnnDestroy(handle_);
  }

  bool Run(cudaStream_t stream, const AttentionArgs& f, const AttentionBackwardArgs* b,
           const Allocate& allocate);

 private:
  bool FindPlans(const Call& call, float scale, const std::vector<GraphOperand>& operands,
                 std::vector<Part>& parts);
  const GraphPlan* PlanOf(const GraphShape& shape);
  // Says so, once for each reason.
  void LeaveToOwnKernels(const Call& call, const char* why);

  bool is_hopper_;
  bool deterministic_;
  cudnnHandle_t handle_ = nullptr;
  std::map<std::vector<int64_t>, std::unique_ptr<GraphPlan>> plans_;  // null: refused
  std::set<std::string> left_;                                        // reasons that have been said
};

void AttentionPlans::Impl::LeaveToOwnKernels(const Call& call, const char* why) {
  if (!left_.insert(why).second) return;
  LogLine(Concat("attention ", call.backward ? "backward " : "", "over ", call.tokens, " tokens of ",
                 call.heads, " heads, the longest sequence ", call.Longest(0, call.sequences()), ": ", why,
                 "; our own slower kernels compute it"));
}

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

// False where cuDNN has no plan for one of the parts.
bool AttentionPlans::Impl::FindPlans(const Call& call, float scale, const std::vector<GraphOperand>& operands,
                                     std::vector<Part>& parts) {
  for (Part& part : parts) {
    part.plan = PlanOf({.backward = call.backward,
                        .deterministic = deterministic_,
                        .ragged = part.ragged,
                        .batch = part.sequences,
                        .length = part.length,
                        .heads = part.groups * call.per_group(),
                        .groups = part.groups,
                        .scale = scale,
                        .operands = operands});
    if (part.plan == nullptr) return false;
  }
  return true;
}

bool AttentionPlans::Impl::Run(cudaStream_t stream, const AttentionArgs& f, const AttentionBackwardArgs* b,
                               const Allocate& allocate) {
  if (!is_hopper_ || !Takes(f, b)) return false;
  const Call call(f, b != nullptr);
  if (call.sequences() <= 0 || call.Longest(0, call.sequences()) < kShortest) return false;
  std::vector<GraphOperand> operands = Operands(call, f, b);
  std::vector<Part> parts = Parts(call, deterministic_);
  if (parts.empty()) {
    LeaveToOwnKernels(call,
                      "the scores of one key head, which cuDNN's deterministic backward holds, are too many "
                      "(precision { deterministic: false } needs none)");
    return false;
  }
  for (const GraphOperand& operand : operands) {
    if (parts[0].ragged && call.tokens * Integers::TokenStride(operand) > INT32_MAX) {
      LeaveToOwnKernels(call,
                        "sequences of several lengths have offsets that cuDNN counts in 32 bits (use smaller "
                        "microbatches)");
      return false;
    }
  }
  if (handle_ == nullptr) CUDA_OK(cudnnCreate(&handle_));
  CUDA_OK(cudnnSetStream(handle_, stream));
  // Documents come in other numbers with every microbatch, and each number has plans of its own.
  if (plans_.size() >= kMostPlans) {
    CUDA_OK(cudaStreamSynchronize(stream));
    std::erase_if(plans_, [](const auto& plan) { return plan.second != nullptr; });
  }
  if (!FindPlans(call, f.scale, operands, parts)) return false;

  int64_t workspace_bytes = 0, stats_bytes = 0;
  Integers integers;
  for (const Part& part : parts) {
    workspace_bytes = std::max(workspace_bytes, part.plan->workspace_bytes());
    stats_bytes = std::max(stats_bytes, part.sequences * part.groups * call.per_group() * part.length *
                                            static_cast<int64_t>(sizeof(float)));
    integers.Add(call, part, operands);
  }
  const bool packs = call.dr > 0;
  const int64_t packed_bytes = packs ? operands[1].view.bytes() : 0;
  const int64_t of_each[] = {integers.bytes(), stats_bytes, packed_bytes, call.backward ? packed_bytes : 0,
                             workspace_bytes};
  int64_t bytes = 0;
  for (const int64_t n : of_each) bytes += Aligned(n);
  char* memory = static_cast<char*>(allocate(bytes));
  const auto take = [&memory](int64_t n) { return std::exchange(memory, memory + Aligned(n)); };
  int32_t* uploaded = reinterpret_cast<int32_t*>(take(of_each[0]));
  float* stats = reinterpret_cast<float*>(take(of_each[1]));
  void* packed = take(of_each[2]);
  void* packed_gradient = take(of_each[3]);
  void* workspace = take(of_each[4]);

  CUDA_OK(
      cudaMemcpyAsync(uploaded, integers.values().data(), integers.bytes(), cudaMemcpyHostToDevice, stream));
  for (GraphOperand& operand : operands) {
    if (packs && operand.name == kGraphK) operand.view.data = packed;
    if (packs && operand.name == kGraphDK) operand.view.data = packed_gradient;
  }
  if (packs) PackKeys(stream, f.k, f.k_shared, operands[1].view);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    int32_t* starts = integers.StartsOf(uploaded, i);
    std::map<GraphTensor, void*> tensors{{kGraphStats, stats}};
    if (part.ragged) tensors[kGraphLengths] = Integers::LengthsOf(starts, part);
    for (size_t n = 0; n < operands.size(); ++n) {
      const GraphOperand& operand = operands[n];
      int64_t at = part.first_group * (operand.per_group ? 1 : call.per_group()) * operand.view.stride;
      if (!part.ragged) at += call.starts[part.first] * Integers::TokenStride(operand);
      tensors[operand.name] = static_cast<char*>(operand.view.data) + at * SizeOf(DType::kBF16);
      if (part.ragged) {
        tensors[static_cast<GraphTensor>(kGraphOffsets + operand.name)] =
            Integers::OffsetsOf(starts, part, n);
      }
    }
    const StatsLayout layout{.starts = starts,
                             .batch = part.sequences,
                             .length = part.length,
                             .heads = part.groups * call.per_group(),
                             .lse_stride = call.tokens};
    float* lse = static_cast<float*>(f.lse.data) + part.first_group * call.per_group() * call.tokens;
    if (call.backward) PackStats(stream, layout, lse, stats);
    part.plan->Run(handle_, tensors, workspace);
    if (!call.backward) UnpackStats(stream, layout, stats, lse);
  }
  if (packs && call.backward) SplitKeyGradient(stream, operands[6].view, b->dk, b->dk_shared);
  return true;
}

AttentionPlans::AttentionPlans(const cudaDeviceProp& properties, bool deterministic)
    : impl_(std::make_unique<Impl>(properties, deterministic)) {}
AttentionPlans::~AttentionPlans() = default;

bool AttentionPlans::Forward(cudaStream_t stream, const AttentionArgs& args, const Allocate& allocate) {
  return impl_->Run(stream, args, nullptr, allocate);
}
bool AttentionPlans::Backward(cudaStream_t stream, const AttentionBackwardArgs& args,
                              const Allocate& allocate) {
  return impl_->Run(stream, args.forward, &args, allocate);
}

}  // namespace moebius::cuda
