#include "core/backend/cuda/errors.h"

#include <unistd.h>

#include <cstdio>

#include "core/base/log.h"
#include "core/base/strings.h"

namespace moebius::cuda {

void DeviceFailure(const std::string& what) {
  std::fprintf(stderr, "moebius: GPU failure on rank %d: %s\n", LogRank(), what.c_str());
  std::fflush(nullptr);
  _exit(69);
}

void Ok(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  // What a kernel's trap, and an access beyond its tensors, come back as; some later call meets it.
  const bool refused = error == cudaErrorIllegalInstruction || error == cudaErrorLaunchFailure ||
                       error == cudaErrorAssert || error == cudaErrorIllegalAddress;
  DeviceFailure(Concat(cudaGetErrorName(error), " (", cudaGetErrorString(error), ") from ", call,
                       refused ? "; a kernel before this call refused its input (a token id, position or "
                                 "expert beyond its table) or failed; check the data's ids against "
                                 "vocab_size, or run with device: CPU, which names the value"
                               : ""));
}

void Ok(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  DeviceFailure(Concat("cuBLAS status ", static_cast<int>(status), " from ", call));
}

void Ok(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char detail[512] = "";
  cudnnGetLastErrorString(detail, sizeof detail);
  DeviceFailure(Concat(cudnnGetErrorString(status), " from ", call, ": ", detail));
}

void Launched(const char* kernel) { Ok(cudaGetLastError(), kernel); }

}  // namespace moebius::cuda
