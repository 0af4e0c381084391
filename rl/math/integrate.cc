#include "rl/math/integrate.h"

#include <acb_calc.h>

namespace moebius::math {
namespace {

struct Call {
  const Integrand& integrand;
  Meter* meter;
  bool covered = true;
};

// The integrand as a holomorphic function: out = body(z). `analytic` asks for a result that is not finite
// where the function is not holomorphic on the whole ball z.
void Holomorphic(Call& call, int id, const Ball& z, bool analytic, slong prec, Ball* out) {
  const Tree& tree = call.integrand.tree;
  const Node& node = tree[id];
  const auto arg = [&](size_t i) {
    Ball value;
    Holomorphic(call, node.args[i], z, analytic, prec, &value);
    return value;
  };
  if (!call.meter->Spend(1)) call.covered = false;
  if (!call.covered) return acb_indeterminate(out->get());
  switch (node.op) {
    case Op::kNumber:
      arb_set_fmpq(out->re(), node.value.get(), prec);
      return;
    case Op::kPi:
      arb_const_pi(out->re(), prec);
      return;
    case Op::kEuler:
      arb_const_e(out->re(), prec);
      return;
    case Op::kSymbol: {
      if (node.text == call.integrand.variable) {
        *out = z;
        return;
      }
      const auto at = call.integrand.values.find(node.text);
      if (at == call.integrand.values.end()) break;
      arb_set_fmpq(out->re(), at->second.get(), prec);
      return;
    }
    case Op::kAdd:
    case Op::kMul: {
      *out = arg(0);
      for (size_t i = 1; i < node.args.size(); ++i) {
        const Ball next = arg(i);
        if (node.op == Op::kAdd) {
          acb_add(out->get(), out->get(), next.get(), prec);
        } else {
          acb_mul(out->get(), out->get(), next.get(), prec);
        }
      }
      return;
    }
    case Op::kNeg: {
      const Ball value = arg(0);
      return acb_neg(out->get(), value.get());
    }
    case Op::kDiv: {
      const Ball top = arg(0), bottom = arg(1);
      return acb_div(out->get(), top.get(), bottom.get(), prec);
    }
    case Op::kPow: {
      const Node& exponent = tree[node.args[1]];
      const slong n = exponent.op == Op::kNumber ? exponent.value.Small(-1) : -1;
      const Ball base = arg(0);
      if (n >= 0 && n <= 1000) return acb_pow_ui(out->get(), base.get(), static_cast<ulong>(n), prec);
      const Ball power = arg(1);
      if (tree.op(node.args[0]) == Op::kEuler) return acb_exp(out->get(), power.get(), prec);
      return acb_pow_analytic(out->get(), base.get(), power.get(), analytic, prec);
    }
    case Op::kRoot: {
      const Node& index = tree[node.args[1]];
      if (index.op != Op::kNumber || index.value.Small(0) != 2) break;
      const Ball value = arg(0);
      return acb_sqrt_analytic(out->get(), value.get(), analytic, prec);
    }
    case Op::kFunction: {
      if (node.args.size() != 1) break;
      const Ball value = arg(0);
      if (node.text == "sin") return acb_sin(out->get(), value.get(), prec);
      if (node.text == "cos") return acb_cos(out->get(), value.get(), prec);
      if (node.text == "tan") return acb_tan(out->get(), value.get(), prec);
      if (node.text == "sec") return acb_sec(out->get(), value.get(), prec);
      if (node.text == "sinh") return acb_sinh(out->get(), value.get(), prec);
      if (node.text == "cosh") return acb_cosh(out->get(), value.get(), prec);
      if (node.text == "ln") return acb_log_analytic(out->get(), value.get(), analytic, prec);
      break;
    }
    default:
      break;
  }
  call.covered = false;
  acb_indeterminate(out->get());
}

int Evaluate(acb_ptr out, const acb_t z, void* param, slong order, slong prec) {
  Call& call = *static_cast<Call*>(param);
  Ball point, value;
  acb_set(point.get(), z);
  Holomorphic(call, call.integrand.body, point, order != 0, prec, &value);
  acb_swap(out, value.get());
  return 0;
}

}  // namespace

bool Integrate(const Integrand& integrand, const Ball& lower, const Ball& upper, slong prec, Meter* meter,
               Ball* out, std::string* why) {
  Call call{.integrand = integrand, .meter = meter};
  acb_calc_integrate_opt_t options;
  acb_calc_integrate_opt_init(options);
  options->eval_limit = 1500;
  options->depth_limit = 64;
  mag_t tolerance;
  mag_init(tolerance);
  mag_set_ui_2exp_si(tolerance, 1, -prec);
  const int status = acb_calc_integrate(out->get(), Evaluate, &call, lower.get(), upper.get(), prec,
                                        tolerance, options, prec);
  mag_clear(tolerance);
  if (!call.covered)
    *why = meter->Exhausted() ? "the step budget is used up" : "an integrand that is not covered";
  if (call.covered && (status != ARB_CALC_SUCCESS || !out->IsFinite()))
    *why = "an integral that does not settle";
  return why->empty();
}

}  // namespace moebius::math
