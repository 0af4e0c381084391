#include "tests/core/layers/gradient_check.h"

#include <algorithm>
#include <cmath>

#include "core/base/random.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

using Values = std::vector<float>;

struct Gradients {
  std::vector<Values> inputs;
  std::vector<Values> parameters;  // trainable ones, in order

  std::vector<Values> all() const {
    std::vector<Values> out = inputs;
    out.insert(out.end(), parameters.begin(), parameters.end());
    return out;
  }
};

// A tensor [T, width], by choice in the middle of wider rows whose rest must stay NaN.
class Rows {
 public:
  Rows(Bench& bench, DType dtype, int64_t tokens, int64_t width, bool padded)
      : memory_(bench.memory(), dtype, {tokens, width + (padded ? 2 * kPadding : 0)}),
        view_(padded ? memory_.view().Columns(kPadding, width) : memory_.view()),
        padded_(padded) {}

  TensorView view() const { return view_; }
  bool PaddingIsUntouched() const {
    if (!padded_) return true;
    const int64_t bytes = kPadding * SizeOf(view_.dtype), row = memory_.view().stride * SizeOf(view_.dtype);
    const auto* data = static_cast<const unsigned char*>(memory_.view().data);
    const auto untouched = [&](const unsigned char* begin) {
      return std::all_of(begin, begin + bytes, [](unsigned char byte) { return byte == 0xFF; });
    };
    for (int64_t r = 0; r < view_.rows(); ++r) {
      if (!untouched(data + r * row) || !untouched(data + (r + 1) * row - bytes)) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kPadding = 16;
  Tensor memory_;
  TensorView view_;
  bool padded_;
};

// One microbatch with everything that belongs to it.
struct Micro {
  Micro(Bench& bench, const Subject& subject, int slots, DType act, const std::vector<int32_t>& sequences,
        const std::vector<int32_t>& attention, const std::string& name, bool padded)
      : owned(MakeLayout(bench, sequences, attention)), saved(bench.memory(), slots) {
    const int64_t tokens = owned.layout.tokens();
    const auto fill = [&](const char* what, const std::vector<int64_t>& widths, std::vector<Rows>& rows,
                          std::vector<Rows>& gradients, std::vector<Values>& values, bool values_are_of_x) {
      for (size_t i = 0; i < widths.size(); ++i) {
        rows.emplace_back(bench, act, tokens, widths[i], padded);
        gradients.emplace_back(bench, act, tokens, widths[i], padded);
        values.push_back(RoundedToBf16(Normals(Concat(name, what, i), tokens * widths[i])));
        bench.Write(values.back(), (values_are_of_x ? rows : gradients).back().view());
      }
    };
    fill("/x", subject.input_widths(), x, dx, x_values, true);
    fill("/dy", subject.output_widths(), y, dy, w, false);
  }

  static std::vector<TensorView> Views(const std::vector<Rows>& rows) {
    std::vector<TensorView> out;
    for (const Rows& r : rows) out.push_back(r.view());
    return out;
  }

  OwnedLayout owned;
  Saved saved;
  std::vector<Rows> x, dx, y, dy;
  std::vector<Values> x_values;
  std::vector<Values> w;  // weights of the objective: dy
};

// A layer at one compute dtype, with parameters, and two microbatches to run through it.
class Harness {
 public:
  Harness(const SubjectFactory& make, const GradientCheckOptions& options, DType act)
      : options_(options), act_(act), subject_(make(bench_, parameters_, slots_)) {
    parameters_.Allocate(bench_.backend(), bench_.stream(), {.act = act});
    Randomize(bench_, parameters_, options.matrix_scale);
    for (const auto& parameter : parameters_.all()) {
      if (!parameter->spec().trainable) continue;
      trainable_.push_back(parameter.get());
      const int64_t n = parameter->shape().elements();
      initial_.push_back(GetParameter(bench_.backend(), bench_.stream(), *parameter, 0, n));
    }
    NewMicrobatches();
  }

  // Fresh, poisoned memory for what the layer keeps.
  void NewMicrobatches() {
    const GradientCheckOptions& o = options_;
    first_ = std::make_unique<Micro>(bench_, *subject_, slots_.count(), act_, o.sequence_starts,
                                     o.attention_starts, "first", o.padded_rows);
    second_ = std::make_unique<Micro>(bench_, *subject_, slots_.count(), act_, o.second_starts,
                                      o.second_starts, "second", o.padded_rows);
  }

  Micro& first() { return *first_; }
  Micro& second() { return *second_; }
  const std::vector<Parameter*>& trainable() const { return trainable_; }
  const std::vector<Values>& initial() const { return initial_; }
  RecomputePolicy recompute = {.norms = false, .mla_up = false, .swiglu = false};

  // The phases; what belongs to the caller only until a phase ends is destroyed after it.
  void Forward(Micro& m) {
    subject_->Forward(PassOf(m), Micro::Views(m.x), Micro::Views(m.y));
    EndPhase(m);
  }
  void BackwardInput(Micro& m) {
    for (const Rows& y : m.y) Destroy(y.view());
    subject_->BackwardInput(PassOf(m), Micro::Views(m.dy), Micro::Views(m.dx));
    EndPhase(m);
  }
  void BackwardWeight(Micro& m) {
    subject_->BackwardWeight(PassOf(m));
    EndPhase(m);
  }
  std::vector<Values> InputGradients(const Micro& m) {
    std::vector<Values> out;
    for (const Rows& dx : m.dx) out.push_back(bench_.Read(dx.view()));
    return out;
  }
  void DestroyInputGradients(const Micro& m) {
    for (const Rows& dx : m.dx) Destroy(dx.view());
  }
  std::vector<Values> ParameterGradients() {
    std::vector<Values> out;
    for (const Parameter* parameter : trainable_) out.push_back(bench_.Read(parameter->grad()));
    return out;
  }
  void ZeroGradients() {
    for (const Parameter* parameter : trainable_) bench_.backend().Zero(bench_.stream(), parameter->grad());
  }

  // F, I and W of one microbatch, one after the other.
  Gradients Alone(Micro& m) {
    ZeroGradients();
    m.saved.Reset();
    Forward(m);
    BackwardInput(m);
    Gradients out{.inputs = InputGradients(m), .parameters = {}};
    BackwardWeight(m);
    out.parameters = ParameterGradients();
    return out;
  }

  // The objective of the first microbatch, in double, and the choices that were made on the way.
  double Objective(std::vector<int32_t>* choices) {
    Micro& m = *first_;
    m.saved.Reset();
    Forward(m);
    double sum = subject_->Terms(PassOf(m));
    for (size_t i = 0; i < m.y.size(); ++i) {
      const Values y = bench_.Read(m.y[i].view());
      for (size_t j = 0; j < y.size(); ++j) sum += static_cast<double>(m.w[i][j]) * y[j];
    }
    choices->clear();
    if (subject_->experts() > 0) AppendChoices(m, choices);
    return sum;
  }
  double ObjectiveSize() {
    double squares = 0;
    for (size_t i = 0; i < first_->y.size(); ++i) {
      const Values y = bench_.Read(first_->y[i].view());
      for (size_t j = 0; j < y.size(); ++j)
        squares += std::pow(static_cast<double>(first_->w[i][j]) * y[j], 2);
    }
    return std::sqrt(squares);
  }

  // Sets one input or parameter of the first microbatch; returns the values after rounding.
  Values Set(size_t target, Values values) {
    const size_t inputs = first_->x.size();
    if (target < inputs) {
      if (act_ == DType::kBF16) values = RoundedToBf16(std::move(values));
      bench_.Write(values, first_->x[target].view());
    } else {
      Parameter& parameter = *trainable_[target - inputs];
      if (parameter.weight().dtype == DType::kBF16) values = RoundedToBf16(std::move(values));
      SetParameter(bench_.backend(), bench_.stream(), parameter, 0, values);
    }
    return values;
  }
  const Values& Base(size_t target) const {
    return target < first_->x.size() ? first_->x_values[target] : initial_[target - first_->x.size()];
  }
  std::string NameOf(size_t target) const {
    return target < first_->x.size() ? Concat("input ", target)
                                     : trainable_[target - first_->x.size()]->name();
  }

  void ExpectCallersTensorsUnchanged(Micro& m) {
    for (size_t i = 0; i < m.x.size(); ++i)
      EXPECT_EQ(bench_.Read(m.x[i].view()), m.x_values[i]) << "x was changed";
    for (size_t i = 0; i < m.dy.size(); ++i)
      EXPECT_EQ(bench_.Read(m.dy[i].view()), m.w[i]) << "dy was changed";
    for (const auto* rows : {&m.x, &m.dx, &m.y, &m.dy}) {
      for (const Rows& r : *rows) EXPECT_TRUE(r.PaddingIsUntouched()) << "wrote beside a column range";
    }
  }

 private:
  Pass PassOf(Micro& m) {
    return Pass{bench_.context(), m.owned.layout, m.saved, recompute, options_.balance};
  }
  void Destroy(TensorView view) { bench_.Write(Values(view.elements(), std::nanf("")), view); }
  void EndPhase(Micro& m) {
    bench_.stream().Synchronize();
    Poison(bench_.scratch());
    Poison(m.saved.transient());
  }
  // All integers that the layer kept (the chosen experts) and the counted shares of balance losses.
  void AppendChoices(Micro& m, std::vector<int32_t>* out) {
    for (int slot = 0; slot < slots_.count(); ++slot) {
      const TensorView view = m.saved[slot];
      if (view && view.dtype == DType::kI32) {
        const std::vector<int32_t> values = bench_.ReadInts(view);
        out->insert(out->end(), values.begin(), values.end());
      }
      if (view && view.dtype == DType::kF32 &&
          view.shape == Shape{m.owned.layout.sequences(), subject_->experts()}) {
        for (const float f : bench_.Read(view)) out->push_back(static_cast<int32_t>(std::lround(f * 1e4f)));
      }
    }
  }

  GradientCheckOptions options_;
  DType act_;
  Bench bench_;
  ParameterSet parameters_;
  SlotCounter slots_;
  std::unique_ptr<Subject> subject_;
  std::vector<Parameter*> trainable_;
  std::vector<Values> initial_;
  std::unique_ptr<Micro> first_, second_;
};

double Norm(const Values& values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

// +1 or -1 in every place.
Values Signs(const std::string& name, size_t count) {
  const RandomStream random(23, name);
  Values out(count);
  for (size_t i = 0; i < count; ++i) out[i] = random.Bits(i) & 1 ? 1.0f : -1.0f;
  return out;
}

Values Unit(size_t count, size_t at) {
  Values out(count, 0.0f);
  out[at] = 1;
  return out;
}

struct Difference {
  double numeric = 0;
  double analytic = 0;  // of the same points, with the gradient
  bool same_choices = true;
};

// A weighted sum of objectives along `direction` that tends to the derivative: fourth order in f32, second
// order in bf16, where rounding of the points is larger than the error that a longer formula removes.
Difference Differ(Harness& harness, size_t target, const Values& direction, const Values& gradient, double h,
                  DType act) {
  struct Point {
    double at, weight;
  };
  static const std::vector<Point> kFourth = {{1, 8.0 / 12}, {-1, -8.0 / 12}, {2, -1.0 / 12}, {-2, 1.0 / 12}};
  static const std::vector<Point> kSecond = {{1, 0.5}, {-1, -0.5}};
  const Values& base = harness.Base(target);
  Difference out;
  std::vector<int32_t> reference;
  harness.Objective(&reference);
  for (const Point& point : act == DType::kF32 ? kFourth : kSecond) {
    Values moved = base;
    for (size_t i = 0; i < moved.size(); ++i) moved[i] += static_cast<float>(point.at * h * direction[i]);
    const Values at = harness.Set(target, std::move(moved));
    std::vector<int32_t> choices;
    out.numeric += point.weight / h * harness.Objective(&choices);
    out.same_choices &= choices == reference;
    for (size_t i = 0; i < at.size(); ++i) {
      out.analytic += point.weight / h * gradient[i] * (static_cast<double>(at[i]) - base[i]);
    }
  }
  harness.Set(target, base);
  return out;
}

void CheckDifferences(Harness& harness, const Gradients& gradients, const GradientCheckOptions& options,
                      DType act) {
  const std::vector<Values> all = gradients.all();
  const double noise = act == DType::kF32 ? 3e-7 : 4e-3;
  const double tolerance = act == DType::kF32 ? options.tolerance : options.bf16_difference_tolerance;
  const double step = act == DType::kF32 ? options.step : 5 * options.step;
  std::vector<int32_t> choices;
  harness.Objective(&choices);
  const double objective_size = harness.ObjectiveSize();
  for (size_t target = 0; target < all.size(); ++target) {
    const Values& gradient = all[target];
    const Values& base = harness.Base(target);
    const size_t n = gradient.size();
    const double size = Norm(gradient), each = size / std::sqrt(static_cast<double>(n));
    const double unit = std::max(Norm(base) / std::sqrt(static_cast<double>(n)), 1e-2);
    struct Probe {
      Values direction;
      double expected;
      double step;
    };
    std::vector<Probe> probes;
    for (int d = 0; d < 3; ++d)
      probes.push_back({Signs(Concat("direction", target, d), n), size, step * unit});
    if (act == DType::kF32) {  // single elements drown in bf16's rounding
      const RandomStream random(29, Concat("element", target));
      for (int d = 0; d < 4; ++d) {
        const size_t at = random.Below(d, n);
        probes.push_back({Unit(n, at), std::abs(gradient[at]) + each, 4 * step * unit});
      }
    }
    int taken = 0;
    for (const Probe& probe : probes) {
      Difference difference;
      double h = probe.step;
      for (int halving = 0; halving < 5; ++halving, h /= 2) {
        difference = Differ(harness, target, probe.direction, gradient, h, act);
        if (difference.same_choices) break;
      }
      if (!difference.same_choices) continue;
      ++taken;
      const double allowed = tolerance * probe.expected + noise * objective_size / h;
      EXPECT_LE(std::abs(difference.numeric - difference.analytic), allowed)
          << harness.NameOf(target) << ", " << Name(act) << ": differences give " << difference.numeric
          << ", the backward " << difference.analytic << ", norm of the gradient " << size;
      EXPECT_TRUE(std::isfinite(difference.numeric) && std::isfinite(difference.analytic))
          << harness.NameOf(target);
    }
    EXPECT_GE(taken, act == DType::kF32 ? 4 : 1)
        << harness.NameOf(target) << ": choices changed along every direction";
  }
}

// Orders in which phases of two microbatches may cross; both end with W of the first, then W of the second.
Gradients Late(Harness& harness, bool second_starts_first, Gradients* both) {
  harness.NewMicrobatches();
  harness.ZeroGradients();
  Micro& a = harness.first();
  Micro& b = harness.second();
  if (second_starts_first) harness.Forward(b);
  harness.Forward(a);
  harness.BackwardInput(a);
  Gradients out{.inputs = harness.InputGradients(a), .parameters = {}};
  harness.DestroyInputGradients(a);
  if (!second_starts_first) harness.Forward(b);
  harness.BackwardInput(b);
  harness.BackwardWeight(a);
  out.parameters = harness.ParameterGradients();
  harness.BackwardWeight(b);
  both->parameters = harness.ParameterGradients();
  harness.ExpectCallersTensorsUnchanged(a);
  harness.ExpectCallersTensorsUnchanged(b);
  return out;
}

void ExpectSameBits(const Gradients& got, const Gradients& want, const Harness& harness,
                    const std::string& when) {
  const std::vector<Values> a = got.all(), b = want.all();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i], b[i]) << harness.NameOf(i) << ": the gradient differs " << when << ", relative distance "
                          << RelativeDistance(a[i], b[i]);
  }
}

void CheckPhases(Harness& harness, const Gradients& alone, DType act) {
  const Gradients second = harness.Alone(harness.second());
  for (const bool second_starts_first : {false, true}) {
    Gradients both;
    const Gradients late = Late(harness, second_starts_first, &both);
    ExpectSameBits(late, alone, harness, "when W runs late");
    for (size_t i = 0; i < both.parameters.size(); ++i) {
      Values sum = alone.parameters[i];
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += second.parameters[i][j];
      EXPECT_LE(RelativeDistance(both.parameters[i], sum), 2e-6)
          << harness.trainable()[i]->name() << " does not add up over two microbatches";
    }
  }
  for (int bits = 1; bits < 8; ++bits) {
    harness.recompute = {.norms = (bits & 1) != 0, .mla_up = (bits & 2) != 0, .swiglu = (bits & 4) != 0};
    const std::string when = Concat("when recomputing (norms ", bits & 1, ", mla_up ", (bits & 2) / 2,
                                    ", swiglu ", (bits & 4) / 4, "), ", Name(act));
    Gradients both;
    ExpectSameBits(Late(harness, false, &both), alone, harness, when);
  }
  harness.recompute = {.norms = false, .mla_up = false, .swiglu = false};
}

}  // namespace

void CheckGradients(const SubjectFactory& make, const GradientCheckOptions& options) {
  Harness exact(make, options, DType::kF32);
  const Gradients gradients = exact.Alone(exact.first());
  for (const Values& gradient : gradients.all()) {
    for (const float value : gradient) ASSERT_TRUE(std::isfinite(value)) << "a gradient is not finite";
  }
  CheckPhases(exact, gradients, DType::kF32);
  CheckDifferences(exact, gradients, options, DType::kF32);

  Harness rounded(make, options, DType::kBF16);
  const Gradients coarse = rounded.Alone(rounded.first());
  const std::vector<Values> fine = gradients.all(), got = coarse.all();
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(RelativeDistance(got[i], fine[i]), options.bf16_tolerance)
        << rounded.NameOf(i) << ": the gradient in bf16 is far from that in f32";
  }
  CheckPhases(rounded, coarse, DType::kBF16);
  std::vector<int32_t> choices;
  rounded.Objective(&choices);
  // A step that bf16 resolves moves a router across its choices; the distance to f32 stands in for
  // differences.
  const bool differs = choices.empty() && options.bf16_difference_tolerance > 0;
  if (differs) CheckDifferences(rounded, coarse, options, DType::kBF16);
}

}  // namespace moebius
