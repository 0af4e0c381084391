// The checked entry points of the kernels: layers call these. Each checks shapes and dtypes once (a mismatch
// is a CHECK with both shapes), counts the call in the context's profile and hands over to the backend.
#pragma once

#include "core/backend/context.h"
#include "core/backend/kernel_args.h"

namespace moebius {

void Zero(const Context& context, TensorView x);
void Fill(const Context& context, TensorView x, float value);
void Cast(const Context& context, TensorView from, TensorView to);
void Accumulate(const Context& context, const AccumulateArgs& args);
void Round(const Context& context, const RoundArgs& args);
void MatMul(const Context& context, const MatMulArgs& args);
void GroupedMatMul(const Context& context, const GroupedMatMulArgs& args);
void PackInt8(const Context& context, const PackInt8Args& args);
void Int8MatMul(const Context& context, const Int8MatMulArgs& args);
void HeadMatMul(const Context& context, const HeadMatMulArgs& args);
void Embedding(const Context& context, const EmbeddingArgs& args);
void EmbeddingBackward(const Context& context, const EmbeddingBackwardArgs& args);
void RmsNorm(const Context& context, const RmsNormArgs& args);
void RmsNormBackward(const Context& context, const RmsNormBackwardArgs& args);
void Rope(const Context& context, const RopeArgs& args);
void Attention(const Context& context, const AttentionArgs& args);
void AttentionBackward(const Context& context, const AttentionBackwardArgs& args);
void DecodeAttention(const Context& context, const DecodeAttentionArgs& args);
void SwiGlu(const Context& context, const SwiGluArgs& args);
void SwiGluBackward(const Context& context, const SwiGluBackwardArgs& args);
void Router(const Context& context, const RouterArgs& args);
void RouterBackward(const Context& context, const RouterBackwardArgs& args);
void Balance(const Context& context, const BalanceArgs& args);
void RouterZ(const Context& context, const RouterZArgs& args);
void RouteSort(const Context& context, const RouteSortArgs& args);
void GatherRows(const Context& context, const GatherRowsArgs& args);
void ScatterRows(const Context& context, const ScatterRowsArgs& args);
void CombineRows(const Context& context, const CombineRowsArgs& args);
void CrossEntropy(const Context& context, const CrossEntropyArgs& args);
void Divergence(const Context& context, const DivergenceArgs& args);
void DrawTokens(const Context& context, const DrawTokensArgs& args);
void AdamW(const Context& context, const AdamWArgs& args);
void SumSquares(const Context& context, TensorView x, TensorView sum);

}  // namespace moebius
