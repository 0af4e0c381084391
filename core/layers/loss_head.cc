#include "core/layers/loss_head.h"

#include <algorithm>

#include "core/backend/ops.h"

namespace moebius {
namespace {

// Smaller ones make the product dlogitsᵀ · x (whose depth is a chunk) inefficient, and re-read dW often.
constexpr int64_t kMinChunk = 64;

TensorView Part(TensorView view, int64_t begin, int64_t n) { return view ? view.Rows(begin, n) : view; }

// args of predictions [begin, begin + n); x of all where rows are gathered.
HeadArgs OfChunk(const HeadArgs& args, int64_t begin, int64_t n, TensorView dx) {
  HeadArgs out = args;
  if (!args.rows) {
    out.x = Part(args.x, begin, n);
    out.teacher.x = Part(args.teacher.x, begin, n);
  }
  out.rows = Part(args.rows, begin, n);
  out.targets = Part(args.targets, begin, n);
  out.losses = Part(args.losses, begin, n);
  out.weights = Part(args.weights, begin, n);
  out.entropies = Part(args.entropies, begin, n);
  out.divergences = Part(args.divergences, begin, n);
  out.agreements = Part(args.agreements, begin, n);
  out.dx = Part(dx, begin, n);
  return out;
}

}  // namespace

LossHead::Room LossHead::Room::Rows(int64_t n) const {
  return {Part(logits, 0, n), Part(teacher, 0, n), Part(dlogits, 0, n), Part(x, 0, n), Part(teacher_x, 0, n)};
}

void LossHead::Logits(const Context& context, TensorView x, TensorView logits) const {
  MatMul(
      context,
      {.a = x, .b = weight_->weight().Rows(0, logits.cols()), .c = logits, .transpose_b = Transpose::kYes});
}

void LossHead::RunChunk(const Context& context, const HeadArgs& args, const Room& room) const {
  TensorView x = args.x;
  if (args.rows) {
    GatherRows(context, {.x = args.x, .index = args.rows, .out = room.x});
    x = room.x;
  }
  Logits(context, x, room.logits);
  const HeadTeacher& teacher = args.teacher;
  if (teacher.head != nullptr) {
    TensorView its_x = teacher.x;
    if (args.rows) {
      GatherRows(context, {.x = teacher.x, .index = args.rows, .out = room.teacher_x});
      its_x = room.teacher_x;
    }
    teacher.head->Logits(context, its_x, room.teacher);
    Divergence(context, {.kind = teacher.kind,
                         .logits = room.logits,
                         .teacher = room.teacher,
                         .targets = args.targets,
                         .scale = teacher.scale,
                         .weights = args.weights,
                         .inverse_temperature = teacher.inverse_temperature,
                         .divergences = args.divergences,
                         .agreements = args.agreements,
                         .gradient = room.dlogits ? room.teacher : TensorView()});
  }
  CrossEntropy(context, {.logits = room.logits,
                         .targets = args.targets,
                         .losses = args.losses,
                         .scale = args.scale,
                         .weights = args.weights,
                         .inverse_temperature = args.inverse_temperature,
                         .entropies = args.entropies,
                         .entropy_scale = args.entropy_scale,
                         .dlogits = room.dlogits});
  if (!room.dlogits) return;
  if (teacher.head != nullptr) Accumulate(context, {.x = room.teacher, .y = room.dlogits});
  MatMul(context, {.a = room.dlogits, .b = weight_->weight(), .c = args.dx});
  MatMul(
      context,
      {.a = room.dlogits, .b = x, .c = weight_->grad(), .transpose_a = Transpose::kYes, .accumulate = true});
}

void LossHead::Run(const Context& context, const HeadArgs& args) const {
  const int64_t predictions = args.targets.elements(), hidden = args.x.cols(), vocab = vocab_size();
  const int64_t fitting = context.backend.piece_bytes() / (4 * vocab) / kMinChunk * kMinChunk;
  const int64_t chunk = std::min(predictions, std::max(kMinChunk, fitting));
  const DType act = args.x.dtype;
  const bool backward = static_cast<bool>(args.dx), gathers = static_cast<bool>(args.rows);
  const bool taught = args.teacher.head != nullptr;
  ArenaScope scope(context.scratch);
  Room room;
  room.logits = context.scratch.New(DType::kF32, {chunk, vocab});
  if (taught) room.teacher = context.scratch.New(DType::kF32, {chunk, vocab});
  if (backward) room.dlogits = act == DType::kF32 ? room.logits : context.scratch.New(act, {chunk, vocab});
  if (gathers) room.x = context.scratch.New(act, {chunk, hidden});
  if (gathers && taught) room.teacher_x = context.scratch.New(act, {chunk, args.teacher.x.cols()});
  const TensorView dx = gathers && backward ? context.scratch.New(act, {predictions, hidden}) : args.dx;
  for (int64_t begin = 0; begin < predictions; begin += chunk) {
    const int64_t n = std::min(chunk, predictions - begin);
    RunChunk(context, OfChunk(args, begin, n, dx), room.Rows(n));
  }
  if (!gathers || !backward) return;
  // Several predictions may come from one row: the first tokens of answers to a shared prompt.
  const TensorView sums = context.scratch.New(DType::kF32, args.x.shape);
  Zero(context, sums);
  EmbeddingBackward(context, {.ids = args.rows, .dy = dx, .dtable = sums});
  Cast(context, sums, args.dx);
}

}  // namespace moebius
