// NCCL, loaded when the first channel asks for it: ranks of one process, and runs on one GPU, need none.
#pragma once

#include <nccl.h>

namespace moebius::cuda {

struct Nccl {
  decltype(&ncclGetVersion) version = nullptr;
  decltype(&ncclGetUniqueId) unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclGetErrorString) error_text = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
};
// Null where there is no libnccl.so.2.
const Nccl* LoadNccl();

}  // namespace moebius::cuda
