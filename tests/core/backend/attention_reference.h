// Attention in double precision, written as its formula.
#pragma once

#include <vector>

#include "core/backend/kernel_args.h"

namespace moebius {

struct AttentionReference {
  std::vector<double> o;    // [T, H, dv]
  std::vector<double> lse;  // [H, T]
  std::vector<double> dq, dk, dk_shared, dv;
};

// The gradients are filled when d_o is given ([T, H, dv]).
AttentionReference ReferenceAttention(const AttentionArgs& args, const std::vector<double>& d_o);

std::vector<double> ReferenceDecode(const DecodeAttentionArgs& args);

}  // namespace moebius
