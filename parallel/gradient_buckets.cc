#include "parallel/gradient_buckets.h"

#include <algorithm>

#include "core/backend/ops.h"

namespace moebius {
namespace {

constexpr int kTied = -1;  // Bucket::model of the shared table

// Even parts in whole cache lines.
std::vector<int64_t> Parts(int64_t elements, int members) {
  constexpr int64_t kLine = 16;
  const int64_t each = (elements / members + kLine - 1) / kLine * kLine;
  std::vector<int64_t> parts(members);
  for (int64_t& part : parts) {
    part = std::min(each, elements);
    elements -= part;
  }
  parts.back() += elements;
  return parts;
}

}  // namespace

GradientBuckets::GradientBuckets(Mesh& mesh, Backend& backend, Stream& compute,
                                 const std::vector<Model*>& models, Parameter* shared_table,
                                 const BucketOptions& options)
    : mesh_(mesh),
      backend_(backend),
      compute_(compute),
      stream_(mesh.stream("reduce")),
      models_(models),
      options_(options),
      ready_(backend.NewEvent()),
      done_(backend.NewEvent()) {
  for (int m = 0; m < static_cast<int>(models.size()); ++m) {
    // Backward completes later blocks first; what is outside blocks comes at the end.
    std::vector<Parameter*> dense, experts;
    int64_t dense_bytes = 0, expert_bytes = 0;
    const auto flush = [&](Communicator& group, std::vector<Parameter*>& list, int64_t& bytes) {
      if (!list.empty()) AddBucket(group, m, list);
      list.clear();
      bytes = 0;
    };
    const auto& all = models[m]->parameters().all();
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
      Parameter* p = it->get();
      if (!p->spec().trainable || p == shared_table) continue;
      const int64_t bytes = p->shape().elements() * int64_t{sizeof(float)};
      const bool expert = p->spec().expert;
      (expert ? experts : dense).push_back(p);
      int64_t& sum = expert ? expert_bytes : dense_bytes;
      sum += bytes;
      if (sum < options.bucket_bytes) continue;
      expert ? flush(mesh.expert_replicas(), experts, expert_bytes)
             : flush(mesh.dense_replicas(), dense, dense_bytes);
    }
    flush(mesh.dense_replicas(), dense, dense_bytes);
    flush(mesh.expert_replicas(), experts, expert_bytes);
  }
  if (shared_table != nullptr) {
    CHECK(mesh.tied_replicas() != nullptr);
    AddBucket(*mesh.tied_replicas(), kTied, {shared_table});
  }
}

void GradientBuckets::AddBucket(Communicator& group, int model, const std::vector<Parameter*>& parameters) {
  auto bucket = std::make_unique<Bucket>();
  bucket->group = &group;
  bucket->model = model;
  bucket->parameters = parameters;
  bucket->missing = static_cast<int>(parameters.size());
  int64_t total = 0;
  for (const Parameter* p : parameters) {
    bucket->starts.push_back(total);
    total += (p->shape().elements() + 15) / 16 * 16;  // keeps each gradient on a cache line of its own
    bucket_of_[p] = bucket.get();
  }
  bucket->starts.push_back(total);
  bucket->counts = Parts(total, group.size());
  bucket->memory = Tensor(backend_, DType::kF32, {total});
  backend_.Zero(compute_, bucket->memory);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Shape& shape = parameters[i]->shape();
    parameters[i]->AttachGrad(bucket->memory.view().Rows(bucket->starts[i], shape.elements()).Reshape(shape));
  }
  for (const ParameterSlice& slice : SlicesOf(*bucket, group.rank())) owned_.push_back(slice);
  buckets_.push_back(std::move(bucket));
}

std::vector<ParameterSlice> GradientBuckets::SlicesOf(const Bucket& bucket, int member) const {
  int64_t first = 0;
  for (int i = 0; i < member; ++i) first += bucket.counts[i];
  const int64_t last = first + bucket.counts[member];
  std::vector<ParameterSlice> out;
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    const int64_t start = bucket.starts[i], end = start + bucket.parameters[i]->shape().elements();
    const int64_t from = std::max(first, start), to = std::min(last, end);
    if (from < to) out.push_back({bucket.parameters[i], from - start, to - from});
  }
  return out;
}

void GradientBuckets::Post(Bucket& bucket) {
  CHECK(!bucket.posted);
  bucket.posted = true;
  Communicator& group = *bucket.group;
  if (group.size() == 1) return;
  int64_t first = 0;
  for (int i = 0; i < group.rank(); ++i) first += bucket.counts[i];
  compute_.Record(*ready_);
  stream_.Wait(*ready_);
  group.ReduceScatterV(stream_, {.what = "gradients", .layer = bucket.model}, bucket.memory, bucket.counts,
                       bucket.memory.view().Rows(first, bucket.counts[group.rank()]));
}

void GradientBuckets::Complete(int model, int first, int last) {
  for (int i = first; i < last; ++i) {
    const auto found = bucket_of_.find(models_[model]->parameters().all()[i].get());
    if (found == bucket_of_.end()) continue;  // not trained, or the shared table
    Bucket& bucket = *found->second;
    if (bucket.model == model && --bucket.missing == 0 && options_.early) Post(bucket);
  }
}

void GradientBuckets::Finish(int model) {
  for (const auto& bucket : buckets_) {
    if (bucket->model == model && !bucket->posted) Post(*bucket);
  }
}

void GradientBuckets::FinishTied() { Finish(kTied); }

void GradientBuckets::Wait() {
  stream_.Record(*done_);
  compute_.Wait(*done_);
  for (const auto& bucket : buckets_) {
    CHECK(bucket->posted);
    bucket->posted = false;
    bucket->missing = static_cast<int>(bucket->parameters.size());
  }
}

void GradientBuckets::Gather(Share share) {
  compute_.Record(*ready_);
  stream_.Wait(*ready_);
  for (Communicator* group : {&mesh_.dense_replicas(), &mesh_.expert_replicas(), mesh_.tied_replicas()}) {
    if (group == nullptr || group->size() == 1) continue;
    for (const auto& bucket : buckets_) {
      if (bucket->group == group) Gather(*bucket, share);
    }
  }
  stream_.Record(*done_);
  compute_.Wait(*done_);
}

// A message a bucket: a GPU copies what a message has in several places together first.
void GradientBuckets::Gather(const Bucket& bucket, Share share) {
  Communicator* const group = bucket.group;
  group->AllToAllV(stream_, {.what = "weights"}, [this, &bucket, group, share] {
    const std::vector<std::vector<MemoryPiece>> none(group->size());
    PeerPieces pieces{.send = none, .receive = none};
    const auto add = [&](const ParameterSlice& slice, std::vector<MemoryPiece>& to) {
      const TensorView whole =
          share == Share::kWeights ? slice.parameter->weight() : slice.parameter->master();
      // Where the master is the weight, the step has handed it round already.
      if (share == Share::kMasters && whole.data == slice.parameter->weight().data) return;
      const TensorView part = slice.Of(whole);
      to.push_back({part.data, part.bytes()});
    };
    for (int member = 0; member < group->size(); ++member) {
      if (member == group->rank()) continue;
      for (const ParameterSlice& slice : SlicesOf(bucket, group->rank())) add(slice, pieces.send[member]);
      for (const ParameterSlice& slice : SlicesOf(bucket, member)) add(slice, pieces.receive[member]);
    }
    return pieces;
  });
}

void GradientBuckets::Clear(const Context& context) {
  for (const auto& bucket : buckets_) Zero(context, bucket->memory);
}

int64_t GradientBuckets::bytes() const {
  int64_t bytes = 0;
  for (const auto& bucket : buckets_) bytes += bucket->memory.view().bytes();
  return bytes;
}

}  // namespace moebius
