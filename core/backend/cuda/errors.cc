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
  DeviceFailure(Concat(cudaGetErrorName(error), " (", cudaGetErrorString(error), ") from ", call));
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
