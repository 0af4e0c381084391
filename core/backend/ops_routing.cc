// Checked entry points: the router and the movement of rows to experts and back.
#include "core/backend/ops.h"
#include "core/backend/ops_checks.h"

namespace moebius {

using ops::Bytes;
using ops::CheckFlat;
using ops::CheckMatrix;
using ops::CheckSequences;
using ops::IsAct;
using ops::Run;

namespace {

void CheckSpec(const RouterSpec& spec, int64_t experts) {
  CHECK(spec.top_k >= 1 && spec.top_k <= experts) << "top " << spec.top_k << " of " << experts << " experts";
  CHECK(spec.num_groups >= 1 && experts % spec.num_groups == 0)
      << experts << " experts in " << spec.num_groups << " groups";
  CHECK(spec.top_groups >= 1 && spec.top_groups <= spec.num_groups)
      << spec.top_groups << " of " << spec.num_groups << " groups";
  CHECK_LE(spec.top_k, experts / spec.num_groups * spec.top_groups)
      << "the chosen groups hold too few experts";
}

}  // namespace

void Router(const Context& context, const RouterArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols(), k = args.spec.top_k;
  CheckSpec(args.spec, experts);
  CheckMatrix(args.logits, "logits", DType::kF32, tokens, experts);
  if (args.bias) CheckFlat(args.bias, "bias", DType::kF32, experts);
  if (args.given) CheckMatrix(args.given, "given", DType::kI32, tokens, k);
  CheckMatrix(args.scores, "scores", DType::kF32, tokens, experts);
  CheckMatrix(args.experts, "experts", DType::kI32, tokens, k);
  CheckMatrix(args.weights, "weights", DType::kF32, tokens, k);
  Run(context, "Router", 10.0 * tokens * experts, Bytes(args.logits, args.scores, args.experts, args.weights),
      [&] { context.backend.Router(context.stream, args); });
}

void RouterBackward(const Context& context, const RouterBackwardArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols(), k = args.spec.top_k;
  CheckSpec(args.spec, experts);
  CheckMatrix(args.logits, "logits", DType::kF32, tokens, experts);
  CheckMatrix(args.scores, "scores", DType::kF32, tokens, experts);
  CheckMatrix(args.experts, "experts", DType::kI32, tokens, k);
  CheckMatrix(args.dweights, "dweights", DType::kF32, tokens, k);
  if (args.balance_coefficients) {
    CheckSequences(args.sequence_starts, tokens);
    CheckMatrix(args.balance_coefficients, "balance_coefficients", DType::kF32,
                static_cast<int64_t>(args.sequence_starts.size()) - 1, experts);
  }
  CheckMatrix(args.dlogits, "dlogits", DType::kF32, tokens, experts);
  Run(context, "RouterBackward", 10.0 * tokens * experts, Bytes(args.logits, args.scores, args.dlogits),
      [&] { context.backend.RouterBackward(context.stream, args); });
}

void Balance(const Context& context, const BalanceArgs& args) {
  const int64_t tokens = args.scores.rows(), experts = args.scores.cols();
  CheckMatrix(args.scores, "scores", DType::kF32, tokens, experts);
  CHECK(args.top_k >= 1 && args.top_k <= experts) << "top " << args.top_k << " of " << experts << " experts";
  if (args.experts) CheckMatrix(args.experts, "experts", DType::kI32, tokens, args.top_k);
  CheckSequences(args.sequence_starts, tokens);
  const int64_t sequences = static_cast<int64_t>(args.sequence_starts.size()) - 1;
  CheckMatrix(args.f, "f", DType::kF32, sequences, experts);
  CheckFlat(args.losses, "losses", DType::kF32, sequences);
  Run(context, "Balance", 10.0 * tokens * experts, Bytes(args.scores, args.experts),
      [&] { context.backend.Balance(context.stream, args); });
}

void RouterZ(const Context& context, const RouterZArgs& args) {
  CheckMatrix(args.logits, "logits", DType::kF32, args.logits.rows(), args.logits.cols());
  CheckFlat(args.z, "z", DType::kF32, 1);
  Run(context, "RouterZ", 3.0 * args.logits.elements(), Bytes(args.logits),
      [&] { context.backend.RouterZ(context.stream, args); });
}

void RouteSort(const Context& context, const RouteSortArgs& args) {
  const int64_t tokens = args.experts.rows(), k = args.experts.cols();
  CheckMatrix(args.experts, "experts", DType::kI32, tokens, k);
  CHECK_GE(args.offsets.elements(), 1) << "offsets is " << args.offsets;
  CheckFlat(args.offsets, "offsets", DType::kI64, args.offsets.elements());
  CheckMatrix(args.row_of, "row_of", DType::kI32, tokens, k);
  CheckFlat(args.choice_of, "choice_of", DType::kI32, args.others ? args.choice_of.elements() : tokens * k);
  CHECK(args.first == 0 || args.others) << "first expert " << args.first;
  Run(context, "RouteSort", 0, 2 * Bytes(args.experts) + Bytes(args.row_of, args.choice_of),
      [&] { context.backend.RouteSort(context.stream, args); });
}

void GatherRows(const Context& context, const GatherRowsArgs& args) {
  const int64_t n = args.index.elements(), hidden = args.x.cols();
  CHECK(IsAct(args.x.dtype)) << "x is " << args.x;
  CHECK_GE(args.divisor, 1);
  CheckMatrix(args.x, "x", args.x.dtype, args.x.rows(), hidden);
  CheckFlat(args.index, "index", DType::kI32, n);
  CheckMatrix(args.out, "out", args.x.dtype, n, hidden);
  Run(context, "GatherRows", 0, Bytes(args.index, args.out, args.out),
      [&] { context.backend.GatherRows(context.stream, args); });
}

void ScatterRows(const Context& context, const ScatterRowsArgs& args) {
  const int64_t n = args.index.elements(), hidden = args.x.cols();
  CHECK(IsAct(args.x.dtype)) << "x is " << args.x;
  CheckMatrix(args.x, "x", args.x.dtype, n, hidden);
  CheckFlat(args.index, "index", DType::kI32, n);
  CheckMatrix(args.out, "out", args.x.dtype, args.out.rows(), hidden);
  Run(context, "ScatterRows", 0, Bytes(args.index, args.x, args.x),
      [&] { context.backend.ScatterRows(context.stream, args); });
}

void CombineRows(const Context& context, const CombineRowsArgs& args) {
  const int64_t tokens = args.out.rows(), hidden = args.out.cols(), k = args.row_of.cols();
  const DType act = args.out.dtype;
  CHECK(IsAct(act)) << "out is " << args.out;
  CheckMatrix(args.rows, "rows", act, args.rows.rows(), hidden);
  CheckMatrix(args.row_of, "row_of", DType::kI32, tokens, k);
  if (args.add) CheckMatrix(args.add, "add", act, tokens, hidden);
  CheckMatrix(args.out, "out", act, tokens, hidden);
  Run(context, "CombineRows", 1.0 * tokens * k * hidden,
      Bytes(args.row_of, args.add, args.out) + k * Bytes(args.out),
      [&] { context.backend.CombineRows(context.stream, args); });
}

}  // namespace moebius
