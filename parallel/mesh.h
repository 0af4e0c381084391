// The ranks of a run as a mesh, seen from one of them: its coordinates, and the groups it talks to.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "parallel/comm/world.h"
#include "parallel/layout.h"

namespace moebius {

class Mesh {
 public:
  // Collective. `schedule` (its holders) says which pipeline ranks share stages. Everything outlives the
  // mesh. kUnavailable for devices that cannot exchange their memory (AgreeOnDevices).
  static absl::StatusOr<std::unique_ptr<Mesh>> New(World& world, Backend& backend, const Layout& layout,
                                                   const Schedule& schedule);
  ~Mesh();

  const Layout& layout() const { return layout_; }
  const Coordinates& at() const { return at_; }
  World& world() const { return world_; }

  Communicator& all() const { return world_.all(); }
  Communicator& pipeline() const { return *pipeline_; }  // the stages of one microbatch, by pipeline rank
  Communicator& experts() const { return *experts_; }    // ranks that hold the other experts of my layers
  // What gradients are summed over: of experts, of everything else, and of an embedding table that the ranks
  // of the first and of the last stage hold (null on other ranks; alone in it is a rank that has both
  // stages).
  Communicator& expert_replicas() const { return *expert_replicas_; }
  Communicator& dense_replicas() const { return *dense_replicas_; }
  Communicator* tied_replicas() const { return tied_replicas_.get(); }

  // Exchange streams by use, so that no wait of one holds up another: "tokens", "reduce", "control", and one
  // for each neighbour and direction of the pipeline.
  Stream& stream(const std::string& use);

  // Collective sums and maxima of host values over all ranks, in rank order; wait for the result.
  absl::Status Sum(std::initializer_list<double*> values);
  absl::Status Sum(std::span<int64_t> values);
  absl::Status Max(std::initializer_list<double*> values);
  // As in comm/agree.h, over all ranks.
  absl::StatusOr<std::vector<std::string>> GatherText(const std::string& text);
  absl::Status Agree(const absl::Status& mine);

  // Waits for what is queued on all of these streams, in a failed world too.
  void Drain();
  // Collective: no more calls afterwards.
  absl::Status Close();

 private:
  Mesh(World& world, Backend& backend, const Layout& layout);

  World& world_;
  Backend& backend_;
  Layout layout_;
  Coordinates at_;
  std::map<std::string, std::unique_ptr<Stream>> streams_;
  std::unique_ptr<Communicator> pipeline_, experts_, expert_replicas_, dense_replicas_, tied_replicas_;
};

}  // namespace moebius
