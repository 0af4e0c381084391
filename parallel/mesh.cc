#include "parallel/mesh.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/comm/agree.h"

namespace moebius {

Mesh::Mesh(World& world, Backend& backend, const Layout& layout)
    : world_(world), backend_(backend), layout_(layout), at_(CoordinatesOf(layout, world.rank())) {}

Mesh::~Mesh() = default;

absl::StatusOr<std::unique_ptr<Mesh>> Mesh::New(World& world, Backend& backend, const Layout& layout,
                                                const Schedule& schedule) {
  CHECK_EQ(layout.ranks(), world.size());
  std::unique_ptr<Mesh> mesh(new Mesh(world, backend, layout));
  const Coordinates& at = mesh->at_;
  const int e = layout.expert, d = layout.data;
  // Pipeline ranks with the same stages are one family: replicas of each other.
  int family = 0;
  while (schedule.StagesOf(family) != schedule.StagesOf(at.pipeline)) ++family;
  Stream& stream = mesh->stream("control");
  RETURN_IF_ERROR(AgreeOnDevices(world.all(), stream, backend.Name()));
  const auto split = [&](const char* name, int color, int key) {
    return world.all().Split(stream, name, color, key);
  };
  ASSIGN_OR_RETURN(mesh->pipeline_, split("pipeline", at.data * e + at.expert, at.pipeline));
  ASSIGN_OR_RETURN(mesh->experts_, split("experts", at.pipeline * d + at.data, at.expert));
  ASSIGN_OR_RETURN(mesh->expert_replicas_, split("expert replicas", family * e + at.expert, world.rank()));
  ASSIGN_OR_RETURN(mesh->dense_replicas_, split("dense replicas", family, world.rank()));
  const std::vector<int> tied = schedule.TiedHolders();
  const bool member = std::find(tied.begin(), tied.end(), at.pipeline) != tied.end();
  ASSIGN_OR_RETURN(mesh->tied_replicas_, split("tied replicas", member ? 0 : -1, world.rank()));
  return mesh;
}

Stream& Mesh::stream(const std::string& use) {
  std::unique_ptr<Stream>& stream = streams_[use];
  if (stream == nullptr) stream = backend_.NewStream(StreamKind::kExchange);
  return *stream;
}

namespace {

template <typename T>
absl::Status Reduce(Communicator& all, Stream& stream, std::span<T> values, DType dtype, ReduceOp op) {
  if (all.size() == 1 || values.empty()) return absl::OkStatus();
  const TensorView view(values.data(), dtype, {static_cast<int64_t>(values.size())});
  all.AllReduce(stream, {.what = "metrics"}, view, op);
  stream.Synchronize();
  return all.status();
}

absl::Status Reduce(Communicator& all, Stream& stream, std::initializer_list<double*> values, ReduceOp op) {
  std::vector<double> together;
  for (const double* value : values) together.push_back(*value);
  RETURN_IF_ERROR(Reduce(all, stream, std::span<double>(together), DType::kF64, op));
  auto next = together.begin();
  for (double* value : values) *value = *next++;
  return absl::OkStatus();
}

}  // namespace

absl::Status Mesh::Sum(std::initializer_list<double*> values) {
  return Reduce(all(), stream("control"), values, ReduceOp::kSum);
}
absl::Status Mesh::Sum(std::span<int64_t> values) {
  return Reduce(all(), stream("control"), values, DType::kI64, ReduceOp::kSum);
}
absl::Status Mesh::Max(std::initializer_list<double*> values) {
  return Reduce(all(), stream("control"), values, ReduceOp::kMax);
}

absl::StatusOr<std::vector<std::string>> Mesh::GatherText(const std::string& text) {
  return moebius::GatherText(all(), stream("control"), text);
}

absl::Status Mesh::Agree(const absl::Status& mine) { return moebius::Agree(all(), stream("control"), mine); }

void Mesh::Drain() {
  for (auto& [use, stream] : streams_) stream->Synchronize();
}

absl::Status Mesh::Close() {
  Drain();
  for (Communicator* group : {pipeline_.get(), experts_.get(), expert_replicas_.get(), dense_replicas_.get(),
                              tied_replicas_.get()}) {
    if (group != nullptr) RETURN_IF_ERROR(group->Close(stream("control")));
  }
  return absl::OkStatus();
}

}  // namespace moebius
