// Gradients of this rank's stages, in buckets that are summed over the ranks which hold the same parameters,
// while the backward of others still runs. ZeRO-1: each member of a group ends up with the sum of its own
// slice of every bucket, steps on it, and hands the new weights round.
//
// A bucket holds neighbouring parameters of one stage and of one group (experts, everything else, or the
// embedding table that first and last stage share). Its gradients lie in one piece of memory, so nothing is
// packed. A group of one owns whole parameters and communicates nothing.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/backend/context.h"
#include "core/model/model.h"
#include "parallel/mesh.h"

namespace moebius {

struct BucketOptions {
  int64_t bucket_bytes = int64_t{8} << 20;
  bool early = true;  // reduce a bucket as soon as it is complete; false: at Finish, in order of stages
};

class GradientBuckets {
 public:
  // models: of this rank's stages, with ParameterStorage::gradients false. shared_table: the embedding table
  // when first and last stage both use it, wherever they are; else null. All outlive the buckets.
  GradientBuckets(Mesh& mesh, Backend& backend, Stream& compute, const std::vector<Model*>& models,
                  Parameter* shared_table, const BucketOptions& options);

  // The gradients of parameters [first, last) of models[model] are complete on this rank.
  void Complete(int model, int first, int last);
  // All of models[model] are; but for a shared table.
  void Finish(int model);
  void FinishTied();
  // The compute stream goes on when every reduction is done.
  void Wait();

  // What this rank owns, once in the world: after Wait its grad() holds the sum over the group.
  const std::vector<ParameterSlice>& owned() const { return owned_; }
  // Hands the owned slices of weight() (or, for a checkpoint, of master()) round.
  enum class Share { kWeights, kMasters };
  void Gather(Share share);
  // All gradients = 0, those of other ranks' slices too.
  void Clear(const Context& context);

  int64_t bytes() const;

 private:
  struct Bucket {
    Communicator* group;
    int model;
    std::vector<Parameter*> parameters;
    std::vector<int64_t> starts;  // of each parameter in the bucket, and the end
    std::vector<int64_t> counts;  // [size of group] elements that each member owns
    Tensor memory;                // f32
    int missing = 0;              // parameters that are not complete yet
    bool posted = false;
  };
  void AddBucket(Communicator& group, int model, const std::vector<Parameter*>& parameters);
  void Post(Bucket& bucket);
  void Gather(const Bucket& bucket, Share share);
  std::vector<ParameterSlice> SlicesOf(const Bucket& bucket, int member) const;

  Mesh& mesh_;
  Backend& backend_;
  Stream& compute_;
  Stream& stream_;
  std::vector<Model*> models_;
  BucketOptions options_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::map<const Parameter*, Bucket*> bucket_of_;
  std::vector<ParameterSlice> owned_;
  std::unique_ptr<Event> ready_, done_;
};

}  // namespace moebius
