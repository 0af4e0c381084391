// Token exchange on one rank that holds every expert: sorting rows by expert, and back.
#pragma once

#include "core/layers/seams.h"

namespace moebius {

class LocalExchange final : public TokenExchange {
 public:
  explicit LocalExchange(int64_t num_experts) : num_experts_(num_experts) {}

  std::unique_ptr<Handle> PostDispatch(const Context& context, Arena& memory, TensorView x,
                                       TensorView experts, TensorView weights) override;
  Dispatched WaitDispatch(const Context& context, Handle& handle) override;
  void PostCombine(const Context& context, Handle& handle, TensorView rows) override;
  void WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) override;
  void PostCombineBackward(const Context& context, Arena& memory, Handle& handle, TensorView dy) override;
  TensorView WaitCombineBackward(const Context& context, Handle& handle) override;
  void PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                            TensorView d_row_weights) override;
  void WaitDispatchBackward(const Context& context, Handle& handle, TensorView add, TensorView dx,
                            TensorView dweights) override;

 private:
  int64_t num_experts_;
};

}  // namespace moebius
