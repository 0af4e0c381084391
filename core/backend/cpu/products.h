// Products by oneDNN, single-threaded, inside the pool's tasks. Primitives are kept by shape, a bounded
// number.
#pragma once

#include <memory>

#include "core/backend/cpu/gemm.h"

namespace moebius {

class Products {
 public:
  explicit Products(int num_threads);
  ~Products();

  // The product in the calling thread, which is number `thread` of the pool. k > 0. OpenMP threads are not
  // used.
  void Run(const Product& product, int thread);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moebius
