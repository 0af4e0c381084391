#include "tests/core/backend/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "tests/core/backend/arrays.h"

namespace moebius {

AttentionReference ReferenceAttention(const AttentionArgs& args, const std::vector<double>& d_o) {
  const int64_t tokens = args.q.shape[0], heads = args.q.shape[1], groups = args.k.shape[1];
  const int64_t dk = args.k.cols(), dr = args.k_shared ? args.k_shared.cols() : 0, dv = args.v.cols(),
                d = dk + dr;
  AttentionReference out;
  out.o.assign(tokens * heads * dv, 0);
  out.lse.assign(heads * tokens, 0);
  out.dq.assign(tokens * heads * d, 0);
  out.dk.assign(tokens * groups * dk, 0);
  out.dk_shared.assign(tokens * dr, 0);
  out.dv.assign(tokens * groups * dv, 0);
  const std::vector<double> q = Values(args.q), k = Values(args.k), v = Values(args.v);
  const std::vector<double> shared = dr > 0 ? Values(args.k_shared) : std::vector<double>();
  for (size_t s = 0; s + 1 < args.sequence_starts.size(); ++s) {
    const int64_t start = args.sequence_starts[s], end = args.sequence_starts[s + 1];
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t g = h / (heads / groups);
      for (int64_t i = start; i < end; ++i) {
        std::vector<double> p(i - start + 1);
        double max = -1e300;
        for (int64_t j = start; j <= i; ++j) {
          double score = 0;
          for (int64_t c = 0; c < dk; ++c) score += q[(i * heads + h) * d + c] * k[(j * groups + g) * dk + c];
          for (int64_t c = 0; c < dr; ++c) score += q[(i * heads + h) * d + dk + c] * shared[j * dr + c];
          p[j - start] = score * args.scale;
          max = std::max(max, p[j - start]);
        }
        double sum = 0;
        for (double& x : p) sum += (x = std::exp(x - max));
        out.lse[h * tokens + i] = max + std::log(sum);
        double* o = &out.o[(i * heads + h) * dv];
        for (int64_t j = start; j <= i; ++j) {
          p[j - start] /= sum;
          for (int64_t c = 0; c < dv; ++c) o[c] += p[j - start] * v[(j * groups + g) * dv + c];
        }
        if (d_o.empty()) continue;
        const double* go = &d_o[(i * heads + h) * dv];
        double delta = 0;
        for (int64_t c = 0; c < dv; ++c) delta += go[c] * o[c];
        for (int64_t j = start; j <= i; ++j) {
          double dp = 0;
          for (int64_t c = 0; c < dv; ++c) {
            dp += go[c] * v[(j * groups + g) * dv + c];
            out.dv[(j * groups + g) * dv + c] += p[j - start] * go[c];
          }
          const double ds = p[j - start] * (dp - delta) * args.scale;
          for (int64_t c = 0; c < d; ++c) {
            const double key = c < dk ? k[(j * groups + g) * dk + c] : shared[j * dr + c - dk];
            out.dq[(i * heads + h) * d + c] += ds * key;
            const double dkey = ds * q[(i * heads + h) * d + c];
            (c < dk ? out.dk[(j * groups + g) * dk + c] : out.dk_shared[j * dr + c - dk]) += dkey;
          }
        }
      }
    }
  }
  return out;
}

std::vector<double> ReferenceDecode(const DecodeAttentionArgs& args) {
  const int64_t batch = args.q.shape[0], heads = args.q.shape[1], d = args.q.cols(), dv = args.o.cols();
  const int64_t groups = args.k.cols() / d, capacity = args.k.shape[1];
  std::vector<double> out(batch * heads * dv, 0);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = args.lengths.as<int32_t>()[b];
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t g = h / (heads / groups);
      std::vector<double> p(length);
      double max = -1e300, sum = 0;
      for (int64_t j = 0; j < length; ++j) {
        for (int64_t c = 0; c < d; ++c) {
          p[j] +=
              ValueAt(args.q, b * heads + h, c) * ValueAt(args.k, b * capacity + j, g * d + c) * args.scale;
        }
        max = std::max(max, p[j]);
      }
      for (double& x : p) sum += (x = std::exp(x - max));
      for (int64_t j = 0; j < length; ++j) {
        for (int64_t c = 0; c < dv; ++c) {
          out[(b * heads + h) * dv + c] += p[j] / sum * ValueAt(args.v, b * capacity + j, g * dv + c);
        }
      }
    }
  }
  return out;
}

}  // namespace moebius
