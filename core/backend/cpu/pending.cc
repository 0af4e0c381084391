// Kernels that are still to be written: the build links, a call ends the process. Move a line out when its file exists.
#include "core/backend/cpu/cpu_backend.h"
#include "core/base/check.h"

namespace moebius {

void CpuBackend::CopyToDevice(Stream&, const void*, TensorView) { CHECK(false) << "CopyToDevice"; }
void CpuBackend::CopyToHost(Stream&, TensorView, void*) { CHECK(false) << "CopyToHost"; }
void CpuBackend::Zero(Stream&, TensorView) { CHECK(false) << "Zero"; }
void CpuBackend::Fill(Stream&, TensorView, float) { CHECK(false) << "Fill"; }
void CpuBackend::Cast(Stream&, TensorView, TensorView) { CHECK(false) << "Cast"; }
void CpuBackend::Accumulate(Stream&, const AccumulateArgs&) { CHECK(false) << "Accumulate"; }
void CpuBackend::Embedding(Stream&, const EmbeddingArgs&) { CHECK(false) << "Embedding"; }
void CpuBackend::EmbeddingBackward(Stream&, const EmbeddingBackwardArgs&) { CHECK(false) << "EmbeddingBackward"; }
void CpuBackend::RmsNorm(Stream&, const RmsNormArgs&) { CHECK(false) << "RmsNorm"; }
void CpuBackend::RmsNormBackward(Stream&, const RmsNormBackwardArgs&) { CHECK(false) << "RmsNormBackward"; }
void CpuBackend::Rope(Stream&, const RopeArgs&) { CHECK(false) << "Rope"; }
void CpuBackend::SwiGlu(Stream&, const SwiGluArgs&) { CHECK(false) << "SwiGlu"; }
void CpuBackend::SwiGluBackward(Stream&, const SwiGluBackwardArgs&) { CHECK(false) << "SwiGluBackward"; }
void CpuBackend::AdamW(Stream&, const AdamWArgs&) { CHECK(false) << "AdamW"; }
void CpuBackend::SumSquares(Stream&, TensorView, TensorView) { CHECK(false) << "SumSquares"; }

}  // namespace moebius
