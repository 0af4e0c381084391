#include "tests/parallel/exchange/exchanges.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "core/backend/ops.h"
#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/exchange/expert_exchange.h"
#include "parallel/exchange/gather_exchange.h"
#include "parallel/exchange/row_format.h"
#include "parallel/exchange/two_level_exchange.h"

namespace moebius {
namespace {

float Rounded(DType act, float x) { return act == DType::kBF16 ? BF16::FromFloat(x).ToFloat() : x; }

std::vector<float> Read(TensorView view) {
  std::vector<float> out(view.elements());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = view.dtype == DType::kBF16 ? view.as<BF16>()[i].ToFloat() : view.as<float>()[i];
  }
  return out;
}

void Write(const std::vector<float>& values, TensorView view) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (view.dtype == DType::kBF16) {
      view.as<BF16>()[i] = BF16::FromFloat(values[i]);
    } else {
      view.as<float>()[i] = values[i];
    }
  }
}

}  // namespace

ExchangeCase NewExchangeCase(const std::string& name, int ranks, int ranks_per_node) {
  ExchangeCase c;
  c.name = name;
  c.ranks = ranks;
  c.ranks_per_node = ranks_per_node;
  c.experts = 2 * ranks;
  c.tokens = {13, 7, 20, 1};
  return c;
}

Routing ExpertsFrom(int32_t first, int64_t top_k) {
  return [=](int, int64_t) {
    std::vector<int32_t> out;
    for (int64_t k = 0; k < top_k; ++k) out.push_back(first + static_cast<int32_t>(top_k - 1 - k));
    return out;
  };
}

std::vector<ExchangeCase> ExchangeCases() {
  std::vector<ExchangeCase> out;
  for (const auto& [ranks, each] : std::vector<std::pair<int, int>>{
           {2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}, {8, 2}, {8, 4}, {8, 1}, {6, 3}}) {
    out.push_back(NewExchangeCase(Concat("random_", ranks / each, "x", each), ranks, each));
  }
  const auto add = [&](const std::string& name, const std::function<void(ExchangeCase&)>& change) {
    ExchangeCase c = NewExchangeCase(name, 4, 2);
    change(c);
    out.push_back(c);
  };
  add("bf16", [](ExchangeCase& c) { c.act = DType::kBF16; });
  add("fp8_dispatch", [](ExchangeCase& c) {
    c.options.dispatch = WireFormat::kF8;
    c.hidden = 200;
  });
  add("fp8_dispatch_of_bf16", [](ExchangeCase& c) {
    c.options.dispatch = WireFormat::kF8;
    c.act = DType::kBF16;
    c.hidden = 130;
  });
  add("bf16_combine", [](ExchangeCase& c) { c.options.combine = WireFormat::kBF16; });
  add("bf16_both_ways",
      [](ExchangeCase& c) { c.options = {.dispatch = WireFormat::kBF16, .combine = WireFormat::kBF16}; });
  add("fp8_and_bf16",
      [](ExchangeCase& c) { c.options = {.dispatch = WireFormat::kF8, .combine = WireFormat::kBF16}; });
  add("one_expert_a_rank", [](ExchangeCase& c) { c.experts = 4; });
  add("more_choices_than_experts_of_a_node", [](ExchangeCase& c) {
    c.experts = 4;
    c.top_k = 4;
  });
  add("one_choice", [](ExchangeCase& c) { c.top_k = 1; });
  add("all_to_one_expert", [](ExchangeCase& c) {
    c.top_k = 1;
    c.route = ExpertsFrom(5, 1);
  });
  add("all_to_one_rank", [](ExchangeCase& c) {
    c.top_k = 2;
    c.route = ExpertsFrom(6, 2);
  });
  add("all_to_one_node", [](ExchangeCase& c) { c.route = ExpertsFrom(0, 3); });
  add("ranks_without_tokens", [](ExchangeCase& c) { c.tokens = {0, 5, 0, 9}; });
  add("one_rank_with_tokens", [](ExchangeCase& c) { c.tokens = {0, 0, 11, 0}; });
  add("no_tokens", [](ExchangeCase& c) { c.tokens = {0}; });
  return out;
}

std::vector<int32_t> ExchangeCase::ExpertsOf(int rank, int64_t token) const {
  if (route) return route(rank, token);
  const RandomStream random(7, "test/experts");
  std::vector<int32_t> out;
  for (uint64_t i = (rank * 100000 + token) * 256; static_cast<int64_t>(out.size()) < top_k; ++i) {
    const int32_t expert = static_cast<int32_t>(random.Below(i, experts));
    if (std::find(out.begin(), out.end(), expert) == out.end()) out.push_back(expert);
  }
  return out;
}

std::vector<float> TokenOf(const ExchangeCase& c, int rank, int64_t token, const char* what) {
  const RandomStream random(7, what);
  std::vector<float> out(c.hidden);
  for (int64_t i = 0; i < c.hidden; ++i) {
    const uint64_t number = random.Below((rank * 100000 + token) * 4096 + i, 1 << 20);
    out[i] = Rounded(c.act, (static_cast<float>(number) - (1 << 19)) * 0x1.3p-18f);
  }
  return out;
}

float WeightOf(const ExchangeCase&, int rank, int64_t token, int64_t k) {
  return 0.1f + 0.07f * static_cast<float>((rank * 31 + token * 7 + k * 3) % 11);
}

float ExpertOf(const ExchangeCase& c, float x, int64_t e, float weight) {
  return Rounded(c.act, x * (1.0f + 0.3f * static_cast<float>(e)) * weight);
}

absl::Status OnExchangeRanks(const ExchangeCase& c, ExchangeKind kind,
                             const std::function<absl::Status(ExchangeRank&)>& body) {
  return RunRanks(
      c.ranks, {.ranks_per_node = c.ranks_per_node, .links = c.links}, [&](World& world) -> absl::Status {
        const auto backend = MakeCpuBackend({.threads = 1});
        const auto compute = backend->NewStream(StreamKind::kCompute);
        const auto stream = backend->NewStream(StreamKind::kExchange);
        BufferPool pool(*backend, *compute);
        Arena scratch(*backend), memory(*backend);
        const Context context{*backend, *compute, scratch};
        const NodeMap nodes = NodesOf(world.all(), world.node_of_rank());
        std::unique_ptr<TwoLevelGroups> groups;
        std::unique_ptr<TokenExchange> exchange;
        WorldGuard guard(&world);
        if (kind == ExchangeKind::kTwoLevel) {
          ASSIGN_OR_RETURN(TwoLevelGroups split, SplitByNode(world.all(), *stream, nodes));
          groups = std::make_unique<TwoLevelGroups>(std::move(split));
          exchange = std::make_unique<TwoLevelExchange>(*groups, *stream, pool, c.experts, 0, c.options);
        } else if (kind == ExchangeKind::kGather) {
          exchange = std::make_unique<GatherExchange>(world.all(), *stream, pool, c.experts, 0);
        } else {
          exchange =
              std::make_unique<ExpertExchange>(world.all(), nodes, *stream, pool, c.experts, 0, c.options);
        }
        const int64_t tokens = c.tokens_of(world.rank());
        const TensorView x = memory.New(c.act, {tokens, c.hidden}),
                         dy = memory.New(c.act, {tokens, c.hidden});
        const TensorView experts = memory.New(DType::kI32, {tokens, c.top_k});
        const TensorView weights = memory.New(DType::kF32, {tokens, c.top_k});
        for (int64_t t = 0; t < tokens; ++t) {
          Write(TokenOf(c, world.rank(), t, "x"), x.Rows(t, 1));
          Write(TokenOf(c, world.rank(), t, "dy"), dy.Rows(t, 1));
          const std::vector<int32_t> chosen = c.ExpertsOf(world.rank(), t);
          for (int64_t k = 0; k < c.top_k; ++k) {
            experts.as<int32_t>()[t * c.top_k + k] = chosen[k];
            weights.as<float>()[t * c.top_k + k] = WeightOf(c, world.rank(), t, k);
          }
        }
        ExchangeRank rank{world, context, *exchange, memory, x, experts, weights, dy};
        RETURN_IF_ERROR(body(rank));
        guard.Dismiss();
        return world.Close(*stream);
      });
}

absl::StatusOr<std::vector<RankResult>> RunExchange(const ExchangeCase& c, ExchangeKind kind) {
  std::vector<RankResult> results(c.ranks);
  RETURN_IF_ERROR(OnExchangeRanks(c, kind, [&](ExchangeRank& r) -> absl::Status {
    RankResult& out = results[r.world.rank()];
    TrafficCounters before = r.world.traffic();
    const auto count = [&](int phase) {
      const TrafficCounters now = r.world.traffic();
      for (int l = 0; l < kNumLinkClasses; ++l) {
        out.bytes[phase][l] = now.links[l].sent_bytes - before.links[l].sent_bytes;
      }
      before = now;
    };
    const Context& context = r.context;
    const auto handle = r.exchange.PostDispatch(context, r.memory, r.x, r.experts, r.weights);
    const TokenExchange::Dispatched d = r.exchange.WaitDispatch(context, *handle);
    count(0);
    out.offsets.assign(d.offsets.as<int64_t>(), d.offsets.as<int64_t>() + d.offsets.elements());
    // What lies behind the last row belongs to nobody and may be anything.
    const int64_t rows = out.offsets.back();
    out.rows = Read(d.rows.Rows(0, rows));
    out.row_weights = Read(d.row_weights.Rows(0, rows));
    const TensorView made = r.memory.New(c.act, d.rows.shape);
    const TensorView d_row_weights = r.memory.New(DType::kF32, d.row_weights.shape);
    Fill(context, made, std::numeric_limits<float>::quiet_NaN());
    Fill(context, d_row_weights, std::numeric_limits<float>::quiet_NaN());
    const auto apply = [&](const std::vector<float>& rows) {
      std::vector<float> values(rows.size());
      for (int64_t e = 0; e + 1 < d.offsets.elements(); ++e) {
        for (int64_t i = out.offsets[e] * c.hidden; i < out.offsets[e + 1] * c.hidden; ++i) {
          values[i] =
              ExpertOf(c, rows[i], r.world.rank() * c.experts_per_rank() + e, out.row_weights[i / c.hidden]);
        }
      }
      Write(values, made);
    };
    apply(out.rows);
    const TensorView y = r.memory.New(c.act, r.x.shape);
    r.exchange.PostCombine(context, *handle, made);
    r.exchange.WaitCombine(context, *handle, r.x, y);
    count(1);
    out.y = Read(y);
    r.exchange.PostCombineBackward(context, r.memory, *handle, r.dy);
    out.d_rows = Read(r.exchange.WaitCombineBackward(context, *handle).Rows(0, rows));
    count(2);
    apply(out.d_rows);
    for (int64_t i = 0; i < rows; ++i) {
      d_row_weights.as<float>()[i] = out.d_rows[i * c.hidden] * out.row_weights[i];
    }
    const TensorView dx = r.memory.New(c.act, r.x.shape);
    const TensorView dweights = r.memory.New(DType::kF32, r.weights.shape);
    r.exchange.PostDispatchBackward(context, *handle, made, d_row_weights);
    r.exchange.WaitDispatchBackward(context, *handle, TensorView(), dx, dweights);
    count(3);
    out.dx = Read(dx);
    out.dweights = Read(dweights);
    return r.world.status();
  }));
  return results;
}

std::array<RankResult::Bytes, 4> BytesByFormula(const ExchangeCase& c, ExchangeKind kind) {
  const int64_t d = RowBytes(FormatOf(c.options.dispatch, c.act), c.hidden);
  const int64_t m = RowBytes(FormatOf(c.options.combine, c.act), c.hidden);
  const int64_t p = c.ranks, l = c.ranks_per_node, n = p / l, e = c.experts_per_rank();
  int64_t crossings = 0, across = 0, inside = 0, self = 0, stay = 0, leave = 0;
  for (int rank = 0; rank < c.ranks; ++rank) {
    for (int64_t t = 0; t < c.tokens_of(rank); ++t) {
      std::set<int> nodes;
      for (const int32_t expert : c.ExpertsOf(rank, t)) {
        const int to = static_cast<int>(expert / e);
        if (c.node_of(to) != c.node_of(rank)) {
          ++across;
          nodes.insert(c.node_of(to));
        } else {
          ++(to == rank ? self : inside);
        }
        ++(to % l == rank % l ? stay : leave);
      }
      crossings += static_cast<int64_t>(nodes.size());
    }
  }
  if (kind == ExchangeKind::kGather) {
    const int64_t h = c.hidden * SizeOf(c.act);
    std::array<RankResult::Bytes, 4> out{};
    for (int rank = 0; rank < c.ranks; ++rank) {
      for (int peer = 0; peer < c.ranks; ++peer) {
        const int link = peer == rank ? 0 : c.node_of(peer) == c.node_of(rank) ? 1 : 2;
        const int64_t own = c.tokens_of(rank), theirs = peer == rank ? 0 : c.tokens_of(peer);
        out[0][link] += 8 + own * (h + 8 * c.top_k);
        out[1][link] += theirs * h;
        out[2][link] += own * h;
        out[3][link] += theirs * (h + 4 * c.top_k);
      }
    }
    return out;
  }
  if (kind == ExchangeKind::kFlat) {
    const auto of = [&](int64_t rows, int64_t pairs) {
      return std::array{8 * e * pairs + rows * (d + 4), rows * m, rows * d, rows * (m + 4)};
    };
    const auto s = of(self, p), w = of(inside, p * (l - 1)), b = of(across, p * (p - l));
    std::array<RankResult::Bytes, 4> out;
    for (int phase = 0; phase < 4; ++phase) out[phase] = {s[phase], w[phase], b[phase]};
    return out;
  }
  return {{{8 * e * n * p + stay * (d + 4), 8 * e * n * p * (l - 1) + leave * (d + 4),
            16 * p * (n - 1) + crossings * d + 8 * across},
           {stay * m, leave * m, crossings * m},
           {stay * d, leave * d, crossings * d},
           {stay * (m + 4), leave * (m + 4), crossings * m + 4 * across}}};
}

}  // namespace moebius
