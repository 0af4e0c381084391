#include "core/backend/cuda/attention_graph.h"

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <unordered_map>
#include <utility>

#include "core/backend/cuda/errors.h"
#include "core/base/check.h"
#include "core/base/strings.h"

namespace moebius::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using GraphTensorPtr = std::shared_ptr<Attributes>;

class Plan final : public GraphPlan {
 public:
  explicit Plan(const GraphShape& shape) : shape_(shape) {
    graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    shape_.backward ? AddBackward() : AddForward();
  }

  fe::error_t Build(cudnnHandle_t handle) {
    fe::error_t status = graph_.build(handle, {fe::HeurMode_t::A});
    if (status.is_good()) status = graph_.get_workspace_size(workspace_bytes_);
    return status;
  }

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void Run(cudnnHandle_t handle, std::map<GraphTensor, void*> tensors, void* workspace) const override {
    std::unordered_map<int64_t, void*> pointers;
    for (const auto& [name, pointer] : tensors) pointers.emplace(name, pointer);
    fe::error_t status = graph_.execute(handle, pointers, workspace);
    if (status.is_bad()) DeviceFailure(Concat("cuDNN: ", status.get_message(), " from ", shape_.Text()));
  }

 private:
  // Describes an operand to `to`: [batch, heads, length, columns] over rows of (token, head).
  void Describe(GraphTensor name, Attributes& to) {
    const auto operand = std::find_if(shape_.operands.begin(), shape_.operands.end(),
                                      [&](const GraphOperand& o) { return o.name == name; });
    CHECK(operand != shape_.operands.end()) << "operand " << name;
    const int64_t row = operand->view.stride, token = operand->view.shape[1] * row;
    const int64_t heads = operand->per_group ? shape_.groups : shape_.heads;
    to.set_uid(name)
        .set_name(Concat("operand_", static_cast<int64_t>(name)))
        .set_dim({shape_.batch, heads, shape_.length, operand->view.cols()})
        .set_stride({shape_.length * token, row, token, 1})
        .set_data_type(fe::DataType_t::BFLOAT16);
    if (shape_.ragged) to.set_ragged_offset(Integers(kGraphOffsets + name, shape_.batch + 1));
  }
  GraphTensorPtr Input(GraphTensor name) {
    Attributes attributes;
    Describe(name, attributes);
    return graph_.tensor(attributes);
  }
  void Output(GraphTensor name, const GraphTensorPtr& tensor) {
    Describe(name, *tensor);
    tensor->set_output(true);
  }
  GraphTensorPtr Integers(int64_t uid, int64_t count) {
    return graph_.tensor(Attributes()
                             .set_uid(uid)
                             .set_name(Concat("integers_", uid))
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  }
  void DescribeStats(Attributes& to) const {
    to.set_uid(kGraphStats)
        .set_name("stats")
        .set_dim({shape_.batch, shape_.heads, shape_.length, 1})
        .set_stride({shape_.heads * shape_.length, shape_.length, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  // What forward and backward say alike.
  template <typename Options>
  void Mask(Options& options) {
    options.set_attn_scale(shape_.scale)
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (!shape_.ragged) return;
    const GraphTensorPtr lengths = Integers(kGraphLengths, shape_.batch);
    options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
  }

  void AddForward() {
    fe::graph::SDPA_attributes options;
    options.set_name("attention").set_generate_stats(true);
    Mask(options);
    const auto [o, stats] = graph_.sdpa(Input(kGraphQ), Input(kGraphK), Input(kGraphV), options);
    Output(kGraphO, o);
    DescribeStats(*stats);
    stats->set_output(true);
  }

  void AddBackward() {
    fe::graph::SDPA_backward_attributes options;
    options.set_name("attention_backward").set_deterministic_algorithm(shape_.deterministic);
    Mask(options);
    Attributes stats;
    DescribeStats(stats);
    const auto [dq, dk, dv] =
        graph_.sdpa_backward(Input(kGraphQ), Input(kGraphK), Input(kGraphV), Input(kGraphO), Input(kGraphDO),
                             graph_.tensor(stats), options);
    Output(kGraphDQ, dq);
    Output(kGraphDK, dk);
    Output(kGraphDV, dv);
  }

  GraphShape shape_;
  fe::graph::Graph graph_;
  int64_t workspace_bytes_ = 0;
};

}  // namespace

std::vector<int64_t> GraphShape::Key() const {
  std::vector<int64_t> key{backward, deterministic, ragged, batch,
                           length,   heads,         groups, std::bit_cast<int32_t>(scale)};
  for (const GraphOperand& operand : operands) {
    key.insert(key.end(), {operand.view.cols(), operand.view.stride, operand.view.shape[1]});
  }
  return key;
}

std::string GraphShape::Text() const {
  return Concat(backward ? "attention backward of " : "attention of ", batch, " sequences of ",
                ragged ? "up to " : "", length, " tokens, ", heads, " heads, ", groups, " key heads, widths ",
                operands[0].view.cols(), " and ", operands[2].view.cols());
}

std::unique_ptr<GraphPlan> NewGraphPlan(cudnnHandle_t handle, const GraphShape& shape, std::string* why) {
  try {
    auto plan = std::make_unique<Plan>(shape);
    fe::error_t status = plan->Build(handle);
    if (status.is_good()) return plan;
    *why = status.get_message();
  } catch (const std::exception& error) {
    *why = error.what();
  }
  return nullptr;
}

}  // namespace moebius::cuda
