// Flat, two-level and gathering token exchange over slow links: one MoE layer's four transfers (dispatch,
// combine and their backwards) without experts, V3-like in small: hidden 1024, 8 of 32 experts on at most 2
// nodes.
//   exchange_bench [GB/s between nodes] [GB/s within a node] [tokens a rank]
// Time is the median over rounds of the slowest rank; bytes are sent by all ranks in one round. Ranks are
// threads on one memory: links must be slow beside its copies (a few GB/s) to be what is measured.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "core/base/random.h"
#include "tests/parallel/exchange/exchanges.h"

namespace moebius {
namespace {

constexpr int kRounds = 9;

// 8 experts on 2 nodes drawn for each token, as node-limited routing leaves them.
std::vector<int32_t> Chosen(const ExchangeCase& c, int rank, int64_t token) {
  const RandomStream random(11, "bench/experts");
  uint64_t i = (static_cast<uint64_t>(rank) * 100000 + token) * 1024;
  const int64_t nodes = c.ranks / c.ranks_per_node, each = c.experts / nodes;
  const int64_t a = static_cast<int64_t>(random.Below(i++, nodes));
  const int64_t b = (a + 1 + static_cast<int64_t>(random.Below(i++, nodes - 1))) % nodes;
  std::vector<int32_t> out;
  while (static_cast<int64_t>(out.size()) < c.top_k) {
    const int64_t e = static_cast<int64_t>(random.Below(i++, 2 * each));
    const int32_t expert = static_cast<int32_t>((e < each ? a : b) * each + e % each);
    if (std::find(out.begin(), out.end(), expert) == out.end()) out.push_back(expert);
  }
  return out;
}

struct Figures {
  double ms[4] = {};
  int64_t bytes[kNumLinkClasses] = {};
};

Figures Measure(const ExchangeCase& c, ExchangeKind kind) {
  std::mutex mutex;
  std::vector<std::vector<double>> slowest(4, std::vector<double>(kRounds, 0.0));
  Figures out;
  const absl::Status status = OnExchangeRanks(c, kind, [&](ExchangeRank& r) -> absl::Status {
    const Context& context = r.context;
    const auto barrier = context.backend.NewStream(StreamKind::kExchange);
    const Arena::Mark mark = r.memory.mark();
    for (int round = -1; round < kRounds; ++round) {  // the first warms the buffers
      r.memory.Release(mark);
      const TrafficCounters before = r.world.traffic();
      const auto phase = [&](int i, const auto& work) {
        r.world.all().Barrier(*barrier, {"round"});
        barrier->Synchronize();
        const auto begin = std::chrono::steady_clock::now();
        work();
        const double ms =
            1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        const std::lock_guard lock(mutex);
        if (round >= 0) slowest[i][round] = std::max(slowest[i][round], ms);
      };
      std::unique_ptr<TokenExchange::Handle> handle;
      TokenExchange::Dispatched d;
      const TensorView y = r.memory.New(c.act, r.x.shape), dw = r.memory.New(DType::kF32, r.weights.shape);
      TensorView d_rows;
      phase(0, [&] {
        handle = r.exchange.PostDispatch(context, r.memory, r.x, r.experts, r.weights);
        d = r.exchange.WaitDispatch(context, *handle);
      });
      phase(1, [&] {
        r.exchange.PostCombine(context, *handle, d.rows);
        r.exchange.WaitCombine(context, *handle, TensorView(), y);
      });
      phase(2, [&] {
        r.exchange.PostCombineBackward(context, r.memory, *handle, r.dy);
        d_rows = r.exchange.WaitCombineBackward(context, *handle);
      });
      phase(3, [&] {
        r.exchange.PostDispatchBackward(context, *handle, d_rows, d.row_weights);
        r.exchange.WaitDispatchBackward(context, *handle, TensorView(), y, dw);
      });
      const TrafficCounters after = r.world.traffic();
      const std::lock_guard lock(mutex);
      for (int l = 0; round == 0 && l < kNumLinkClasses; ++l) {
        out.bytes[l] += after.links[l].sent_bytes - before.links[l].sent_bytes;
      }
    }
    return r.world.status();
  });
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::exit(1);
  }
  for (int i = 0; i < 4; ++i) {
    std::nth_element(slowest[i].begin(), slowest[i].begin() + kRounds / 2, slowest[i].end());
    out.ms[i] = slowest[i][kRounds / 2];
  }
  return out;
}

void Report(const ExchangeCase& c, const char* formats) {
  const std::pair<ExchangeKind, const char*> kinds[] = {{ExchangeKind::kFlat, "flat"},
                                                        {ExchangeKind::kTwoLevel, "two-level"},
                                                        {ExchangeKind::kGather, "gather"}};
  for (const auto& [kind, name] : kinds) {
    const bool rounds = c.options.dispatch != WireFormat::kAct || c.options.combine != WireFormat::kAct;
    if (rounds && kind == ExchangeKind::kGather) continue;  // sends rows as they are
    const Figures f = Measure(c, kind);
    std::printf(
        "%d x %d  %-10s %-9s %7.1f %7.1f %7.1f %7.1f %8.1f   %8.2f %8.2f %8.2f\n", c.ranks / c.ranks_per_node,
        c.ranks_per_node, formats, name, f.ms[0], f.ms[1], f.ms[2], f.ms[3],
        f.ms[0] + f.ms[1] + f.ms[2] + f.ms[3], static_cast<double>(f.bytes[kLinkBetweenNodes]) / 1e6,
        static_cast<double>(f.bytes[kLinkWithinNode]) / 1e6, static_cast<double>(f.bytes[kLinkSelf]) / 1e6);
  }
}

void Main(int argc, char** argv) {
  const auto argument = [&](int i, double otherwise) { return argc > i ? std::atof(argv[i]) : otherwise; };
  std::printf(
      "nodes  rows       exchange  dispatch combine  their backwards      all ms   MB between   within"
      "     self\n");
  for (const int ranks_per_node : {2, 4}) {
    ExchangeCase c;
    c.ranks = 8;
    c.ranks_per_node = ranks_per_node;
    c.experts = 32;
    c.top_k = 8;
    c.hidden = 1024;
    c.tokens = {static_cast<int64_t>(argument(3, 256))};
    c.act = DType::kBF16;
    c.links[kLinkBetweenNodes].bytes_per_s = 1e9 * argument(1, 0.1);
    c.links[kLinkWithinNode].bytes_per_s = 1e9 * argument(2, 0.8);
    const ExchangeCase shape = c;
    c.route = [shape](int rank, int64_t token) { return Chosen(shape, rank, token); };
    Report(c, "bf16");
    c.options.dispatch = WireFormat::kF8;
    Report(c, "fp8, bf16");
  }
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { moebius::Main(argc, argv); }
