// Recordings: a captured CUDA graph, one node a kernel, launched as a whole.
#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/errors.h"

namespace moebius {
namespace {

class Graph final : public Recording {
 public:
  explicit Graph(cudaGraphExec_t graph) : graph_(graph) {}
  ~Graph() override { cudaGraphExecDestroy(graph_); }
  void Replay(Stream& stream) override { CUDA_OK(cudaGraphLaunch(graph_, cuda::Raw(stream))); }

 private:
  cudaGraphExec_t graph_;
};

}  // namespace

// Relaxed: libraries may load a kernel or ask for memory meanwhile, which is no work on the stream.
std::unique_ptr<Recording> CudaBackend::NewRecording(Stream& stream, const std::function<void()>& calls) {
  const cudaStream_t raw = cuda::Raw(stream);
  CUDA_OK(cudaStreamBeginCapture(raw, cudaStreamCaptureModeRelaxed));
  calls();
  cudaGraph_t graph = nullptr;
  CUDA_OK(cudaStreamEndCapture(raw, &graph));
  cudaGraphExec_t executable = nullptr;
  CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
  CUDA_OK(cudaGraphDestroy(graph));
  return std::make_unique<Graph>(executable);
}

}  // namespace moebius
