// One attention graph of cuDNN: what it depends on, and its execution plan. Only attention_graph.cc sees
// cuDNN's C++ interface (cudnn-frontend, which throws and takes long to compile).
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace moebius::cuda {

// The tensors of a graph by name; lengths and offsets only where sequences are of several lengths.
enum GraphTensor : int64_t {
  kGraphQ = 1,
  kGraphK,
  kGraphV,
  kGraphO,
  kGraphStats,  // [batch, heads, length] f32, contiguous: log of the sum of exponentials
  kGraphDO,
  kGraphDQ,
  kGraphDK,
  kGraphDV,
  kGraphLengths,        // [batch] i32
  kGraphOffsets = 100,  // + operand: [batch + 1] i32, the element at which each sequence begins
};

// [tokens, heads, columns] bf16 of which a graph sees some heads.
struct GraphOperand {
  GraphTensor name;
  TensorView view;
  bool per_group;  // its heads are the key heads
};

struct GraphShape {
  bool backward;
  bool deterministic;
  bool ragged;     // sequences of up to `length` tokens, else of exactly that many
  int64_t batch;   // sequences
  int64_t length;  // tokens
  int64_t heads;   // query heads and key heads that the graph computes
  int64_t groups;
  float scale;
  std::vector<GraphOperand> operands;  // Q K V O, and DO DQ DK DV of a backward

  std::vector<int64_t> Key() const;  // equal for equal plans
  std::string Text() const;          // "backward of 8 sequences of 4096 tokens, 16 heads, ..."
};

class GraphPlan {
 public:
  virtual ~GraphPlan() = default;
  virtual int64_t workspace_bytes() const = 0;
  // The handle is on the stream to run on.
  virtual void Run(cudnnHandle_t handle, std::map<GraphTensor, void*> tensors, void* workspace) const = 0;
};

// Null with `why` where cuDNN has no plan that gives the same bits every time.
std::unique_ptr<GraphPlan> NewGraphPlan(cudnnHandle_t handle, const GraphShape& shape, std::string* why);

}  // namespace moebius::cuda
