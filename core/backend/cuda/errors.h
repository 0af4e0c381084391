// What happens when a CUDA call fails: the process ends with exit code 69, naming the call. A device that has
// failed once answers every later call with the same error, so there is nothing to go on with.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include <string>

namespace moebius::cuda {

[[noreturn]] void DeviceFailure(const std::string& what);
// `call` is its text; `what` is named in the message.
void Ok(cudaError_t error, const char* call);
void Ok(cublasStatus_t status, const char* call);
void Ok(cudnnStatus_t status, const char* call);
// After a launch: the error that the launch left.
void Launched(const char* kernel);

}  // namespace moebius::cuda

#define CUDA_OK(call) ::moebius::cuda::Ok((call), #call)
