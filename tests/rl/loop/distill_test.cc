// Distillation by probabilities: the loss against a plain computation, its gradient, layouts, the teacher's
// vocabulary.
#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/weights.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "gtest/gtest.h"
#include "optim/checkpoint.h"
#include "parallel/comm/solo_world.h"
#include "rl/loop/distill_source.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

constexpr const char* kTokenizer = "symbols:0123456789sort =";

// A wider, deeper model than TinyDense and TinyMoe, with other weights.
TinyRunOptions TeacherOptions() {
  ModelConfig c = TinyDense();
  c.hidden_size = 48;
  c.intermediate_size = 96;
  c.num_hidden_layers = 3;
  c.initializer_range = 0.3;
  TinyRunOptions o = SortTwo(c);
  o.seed = 9;
  return o;
}

std::string SaveTeacher(const Scratch& scratch, const TinyRunOptions& options = TeacherOptions()) {
  SoloWorld world;
  TinyRun run(*world, {}, options);
  const std::string folder = scratch.path("teacher");
  const absl::Status saved =
      SaveCheckpoint(folder, run.trainer(), {.tokenizer_json = MakeTokenizer(kTokenizer)->json()});
  EXPECT_TRUE(saved.ok()) << saved;
  return folder;
}

proto::Distill DistillOptions(const std::string& teacher, double temperature = 1, double hard_weight = 0,
                              proto::Distill::Divergence divergence = proto::Distill::FORWARD) {
  proto::Distill o;
  o.set_teacher(teacher);
  o.set_temperature(temperature);
  o.set_hard_weight(hard_weight);
  o.set_divergence(divergence);
  return o;
}

WorkedAnswers AnswersOf(TinyRun& run) { return {run.context(), run.problems(), run.scorer()}; }

// Logits [predictions][V] of a model for the groups.
std::vector<std::vector<double>> LogitsOf(const Model& model, const Context& context,
                                          const std::vector<AnswerGroup>& groups) {
  Microbatch mb(context.backend, model.num_slots());
  mb.LoadGroups(context.stream, groups);
  const Objective objective{.gradients = false, .predicts = false};
  model.Forward(context, objective, mb);
  const int64_t vocab = model.config().vocab_size;
  const Tensor logits(context.backend, DType::kF32, {mb.tokens(), vocab});
  model.head().Logits(context, mb.hidden, logits);
  const std::vector<float> values = ToHost(context.backend, context.stream, logits.view());
  std::vector<int32_t> rows(mb.predictions());
  context.backend.CopyToHost(context.stream, mb.prediction_rows, rows.data());
  context.stream.Synchronize();
  std::vector<std::vector<double>> out;
  for (const int32_t row : rows) {
    out.emplace_back(values.begin() + row * vocab, values.begin() + (row + 1) * vocab);
  }
  return out;
}

std::vector<double> LogSoftmax(std::vector<double> logits, double temperature) {
  double sum = 0;
  for (double& x : logits) sum += std::exp(x /= temperature);
  for (double& x : logits) x -= std::log(sum);
  return logits;
}

struct Plain {
  double loss = 0, kl = 0, cross_entropy = 0, agreement = 0;
};

// The formula of distill_source.h in double precision.
Plain InDouble(const std::vector<std::vector<double>>& student,
               const std::vector<std::vector<double>>& teacher, const std::vector<int32_t>& targets,
               const proto::Distill& o) {
  Plain out;
  const double n = static_cast<double>(targets.size()), t = o.temperature();
  for (size_t i = 0; i < targets.size(); ++i) {
    const std::vector<double> p = LogSoftmax(student[i], t), q = LogSoftmax(teacher[i], t);
    for (size_t v = 0; v < p.size(); ++v) {
      out.kl += (o.divergence() == proto::Distill::FORWARD ? std::exp(q[v]) * (q[v] - p[v])
                                                           : std::exp(p[v]) * (p[v] - q[v])) /
                n;
    }
    out.cross_entropy -= LogSoftmax(student[i], 1)[targets[i]] / n;
    const auto best = [](const std::vector<double>& x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    out.agreement += (best(p) == best(q)) / n;
  }
  out.loss = (1 - o.hard_weight()) * t * t * out.kl + o.hard_weight() * out.cross_entropy;
  return out;
}

struct Batch {
  std::vector<AnswerGroup> groups;
  std::vector<int32_t> targets;
};

Batch FirstBatch(TinyRun& run) {
  Batch out;
  out.groups = AnswersOf(run).Next()->groups;
  for (const AnswerGroup& group : out.groups) {
    const std::vector<int32_t>& tokens = group.answers[0].tokens;
    out.targets.insert(out.targets.end(), tokens.begin(), tokens.end());
  }
  return out;
}

// The loss of the first batch under the present weights.
double LossNow(TinyRun& run, const Model& teacher, const Batch& batch, const proto::Distill& o) {
  const Context& context = run.trainer().context();
  return InDouble(LogitsOf(run.trainer().model(), context, batch.groups),
                  LogitsOf(teacher, context, batch.groups), batch.targets, o)
      .loss;
}

TEST(DistillSourceTest, TheLossIsTheFormula) {
  const Scratch scratch;
  const std::string folder = SaveTeacher(scratch);
  for (const proto::Distill& o :
       {DistillOptions(folder), DistillOptions(folder, 2.5), DistillOptions(folder, 2.5, 0.3),
        DistillOptions(folder, 1, 1), DistillOptions(folder, 1, 0, proto::Distill::REVERSE),
        DistillOptions(folder, 0.7, 0.2, proto::Distill::REVERSE)}) {
    SoloWorld world;
    TinyRun run(*world, {}, SortTwo(TinyMoe()));
    const Context& context = run.trainer().context();
    absl::StatusOr<LoadedModel> teacher =
        LoadModel(folder, context.backend, context.stream, {.storage = {.training = false}, .mtp = false});
    ASSERT_TRUE(teacher.ok()) << teacher.status();
    const Batch batch = FirstBatch(run);
    const Plain want = InDouble(LogitsOf(run.trainer().model(), context, batch.groups),
                                LogitsOf(*teacher->model, context, batch.groups), batch.targets, o);
    DistillSource source(run.context(), AnswersOf(run), o);
    ASSERT_TRUE(source.Start("").ok());
    const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(source, 1);
    ASSERT_TRUE(reports.ok()) << reports.status();
    const StepReport& report = reports->front();
    EXPECT_NEAR(report.metrics.loss, want.loss, 2e-6 * (1 + want.loss));
    EXPECT_NEAR(ValueOf(report, "distill/kl"), want.kl, 2e-6 * (1 + want.kl));
    EXPECT_NEAR(ValueOf(report, "distill/cross_entropy"), want.cross_entropy,
                2e-6 * (1 + want.cross_entropy));
    EXPECT_NEAR(ValueOf(report, "distill/agreement"), want.agreement, 1e-9);
    EXPECT_EQ(ValueOf(report, "sft/answer_tokens"), 16 * 3);
    EXPECT_GT(want.kl, 0.05);
    EXPECT_GT(want.agreement, 0);
    EXPECT_LT(want.agreement, 1);
  }
}

// The gradient of a step, by which gradient descent would move each weight.
struct Gradient {
  Parameter* parameter;
  std::vector<float> values;
};

std::vector<Gradient> GradientsOf(TinyRun& run, const std::vector<AnswerGroup>& groups, TeacherModel& teacher,
                                  const proto::Distill& o) {
  const double each = 1.0 / (3.0 * static_cast<double>(groups.size())), t = o.temperature();
  const GroupBatch batch{.groups = groups,
                         .predictions = static_cast<int64_t>(3 * groups.size()),
                         .scale = o.hard_weight() * each,
                         .teach = [&](int64_t first, int64_t count) {
                           HeadTeacher head =
                               teacher.Run(std::span<const AnswerGroup>(groups).subspan(first, count));
                           head.kind = o.divergence() == proto::Distill::REVERSE ? DivergenceKind::kReverse
                                                                                 : DivergenceKind::kForward;
                           head.inverse_temperature = static_cast<float>(1 / t);
                           head.scale = static_cast<float>((1 - o.hard_weight()) * t * t * each);
                           return head;
                         }};
  EXPECT_TRUE(run.trainer().ForwardBackward(batch).ok());
  const Context& context = run.trainer().context();
  std::vector<Gradient> out;
  for (const AdamWOptimizer::State& state : run.trainer().optimizer().states()) {
    out.push_back({state.slice.parameter,
                   ToHost(context.backend, context.stream, state.slice.Of(state.slice.parameter->grad()))});
  }
  run.trainer().ClearGradients();
  return out;
}

TEST(DistillSourceTest, TheGradientIsThatOfTheLoss) {
  const Scratch scratch;
  const std::string folder = SaveTeacher(scratch);
  for (const proto::Distill& o : {DistillOptions(folder), DistillOptions(folder, 2, 0.4),
                                  DistillOptions(folder, 1.5, 0, proto::Distill::REVERSE)}) {
    SoloWorld world;
    TinyRun run(*world, {}, SortTwo(TinyDense()));
    const Context& context = run.trainer().context();
    const absl::StatusOr<LoadedModel> plain =
        LoadModel(folder, context.backend, context.stream, {.storage = {.training = false}, .mtp = false});
    const auto teacher = *TeacherModel::Load(run.trainer(), folder, 24);
    const Batch batch = FirstBatch(run);
    for (const Gradient& gradient : GradientsOf(run, batch.groups, *teacher, o)) {
      // Along the gradient, where the difference is largest beside its rounding.
      double norm = 0;
      for (const float g : gradient.values) norm += g * static_cast<double>(g);
      norm = std::sqrt(norm);
      ASSERT_GT(norm, 1e-5);
      const std::vector<float> before =
          GetParameter(context.backend, context.stream, *gradient.parameter, 0, std::ssize(gradient.values));
      double sides[2], moved = 0;
      for (const int side : {0, 1}) {
        std::vector<float> there = before;
        const double step = (side == 0 ? 1 : -1) * 2e-2 / norm;
        for (size_t i = 0; i < there.size(); ++i) {
          there[i] += static_cast<float>(step * gradient.values[i]);
          moved += std::abs(step) / 2 * gradient.values[i] * gradient.values[i];
        }
        SetParameter(context.backend, context.stream, *gradient.parameter, 0, there);
        sides[side] = LossNow(run, *plain->model, batch, o);
      }
      SetParameter(context.backend, context.stream, *gradient.parameter, 0, before);
      EXPECT_NEAR((sides[0] - sides[1]) / 2, moved, 0.02 * moved) << gradient.parameter->name();
    }
  }
}

TEST(DistillSourceTest, AStudentThatIsItsTeacherStays) {
  for (const auto divergence : {proto::Distill::FORWARD, proto::Distill::REVERSE}) {
    const Scratch scratch;
    const TinyRunOptions same = SortTwo(TinyDense());  // experts would be balanced meanwhile
    const std::string folder = SaveTeacher(scratch, same);
    SoloWorld world;
    TinyRun run(*world, {}, same);
    const proto::Distill o = DistillOptions(folder, 2, 0, divergence);
    DistillSource source(run.context(), AnswersOf(run), o);
    ASSERT_TRUE(source.Start("").ok());
    const std::vector<float> before = run.Weights();
    const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(source, 2);
    ASSERT_TRUE(reports.ok()) << reports.status();
    EXPECT_EQ(reports->back().metrics.loss, 0);
    EXPECT_EQ(reports->back().metrics.grad_norm, 0);
    EXPECT_EQ(ValueOf(reports->back(), "distill/agreement"), 1);
    EXPECT_EQ(run.Weights(), before);
  }
}

TEST(DistillSourceTest, DrawsTheStudentToTheTeacher) {
  const Scratch scratch;
  const std::string folder = SaveTeacher(scratch);
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  const proto::Distill o = DistillOptions(folder, 2);
  DistillSource source(run.context(), AnswersOf(run), o);
  ASSERT_TRUE(source.Start("").ok());
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(source, 120);
  ASSERT_TRUE(reports.ok()) << reports.status();
  EXPECT_LT(reports->back().metrics.loss, 0.2 * reports->front().metrics.loss);
  EXPECT_GT(ValueOf(reports->back(), "distill/agreement"), 0.8);
  EXPECT_EQ(run.trainer().state().sequences, 120u * 16);
}

struct DistilledRun {
  std::vector<double> losses, norms, agreements;
};

DistilledRun RunOn(const Layout& layout, int64_t microbatch_sequences, const proto::Distill& options) {
  TinyRunOptions o = SortTwo(TinyMoe());
  o.model.num_hidden_layers = 4;
  o.microbatch_sequences = microbatch_sequences;
  DistilledRun out;
  const absl::Status status = OnRanks(layout, o, [&](TinyRun& run, int rank) -> absl::Status {
    DistillSource source(run.context(), AnswersOf(run), options);
    RETURN_IF_ERROR(source.Start(""));
    ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(source, 4));
    if (rank != layout.ranks() - 1) return absl::OkStatus();
    for (const StepReport& report : reports) {
      out.losses.push_back(report.metrics.loss);
      out.norms.push_back(report.metrics.grad_norm);
      out.agreements.push_back(ValueOf(report, "distill/agreement"));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << ToText(layout) << status;
  return out;
}

TEST(DistillSourceTest, LayoutsAndMicrobatchesChangeNothing) {
  const Scratch scratch;
  const proto::Distill options = DistillOptions(SaveTeacher(scratch), 2, 0.25);
  const DistilledRun want = RunOn({}, 0, options);
  for (const Layout& layout :
       {Layout{}, Layout{.data = 2}, Layout{.data = 4}, Layout{.expert = 2}, Layout{.pipeline = 2},
        Layout{.pipeline = 2, .data = 2}, Layout{.pipeline = 2, .schedule = "dualpipev"}}) {
    for (const int64_t each : {0, 3, 1}) {
      const DistilledRun got = RunOn(layout, each, options);
      ASSERT_EQ(got.losses.size(), want.losses.size());
      for (size_t i = 0; i < want.losses.size(); ++i) {
        const std::string where = Concat(ToText(layout), ", microbatches of ", each, ", step ", i);
        EXPECT_NEAR(got.losses[i], want.losses[i], 1e-5 * want.losses[i]) << where;
        EXPECT_NEAR(got.norms[i], want.norms[i], 1e-4 * want.norms[i]) << where;
        EXPECT_NEAR(got.agreements[i], want.agreements[i], 1.0 / 48 + 1e-9) << where;
      }
    }
  }
}

// Ids beyond the student's are padding: a teacher whose head is longer teaches as one without them does.
TEST(DistillSourceTest, ATeachersPaddingIsLeftOut) {
  const Scratch scratch;
  const std::string folder = SaveTeacher(scratch);
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  const int64_t vocab = run.trainer().model_config().vocab_size;
  const Tokenizer tokenizer = *MakeTokenizer(kTokenizer);
  EXPECT_TRUE(CheckTeacher(folder, tokenizer, vocab).ok());
  EXPECT_TRUE(CheckTeacher(folder, tokenizer, vocab - 1).ok());
  const absl::Status small = CheckTeacher(folder, tokenizer, vocab + 1);
  EXPECT_EQ(ExitCode(small), 64);
  EXPECT_TRUE(Contains(small, Concat("logits for ", vocab)) && Contains(small, Concat(vocab + 1))) << small;

  const Context& context = run.trainer().context();
  const absl::StatusOr<LoadedModel> teacher =
      LoadModel(folder, context.backend, context.stream, {.storage = {.training = false}, .mtp = false});
  const Batch batch = FirstBatch(run);
  Microbatch mb(context.backend, teacher->model->num_slots());
  mb.LoadGroups(context.stream, batch.groups);
  teacher->model->Forward(context, {.gradients = false, .predicts = false}, mb);
  const int64_t few = vocab - 5;
  const Tensor all(context.backend, DType::kF32, {mb.tokens(), vocab});
  const Tensor first(context.backend, DType::kF32, {mb.tokens(), few});
  teacher->model->head().Logits(context, mb.hidden, all);
  teacher->model->head().Logits(context, mb.hidden, first);
  const std::vector<float> whole = ToHost(context.backend, context.stream, all.view());
  const std::vector<float> part = ToHost(context.backend, context.stream, first.view());
  for (int64_t row = 0; row < mb.tokens(); ++row) {
    for (int64_t v = 0; v < few; ++v) ASSERT_NEAR(part[row * few + v], whole[row * vocab + v], 1e-5);
  }
}

TEST(CheckTeacherTest, RefusesOtherVocabularies) {
  const Scratch scratch;
  const std::string folder = SaveTeacher(scratch);
  for (const auto& [what, part] : {std::pair{"symbols:0123456789sort =+", "has a tokenizer of"},
                                   {"symbols:0123456789strd =", "token 11 is 'o'"}}) {
    const Tokenizer other = *MakeTokenizer(what);
    const absl::Status status = CheckTeacher(folder, other, other.vocab_size());
    EXPECT_EQ(ExitCode(status), 64) << status;
    EXPECT_TRUE(Contains(status, part) && Contains(status, folder)) << status;
  }
  EXPECT_EQ(ExitCode(CheckTeacher(scratch.path("none"), *MakeTokenizer(kTokenizer), 10)), 66);
}

}  // namespace
}  // namespace moebius
