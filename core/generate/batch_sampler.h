// Tokens for a whole batch: those drawn among the whole vocabulary by the device that has the logits, so that
// nothing but tokens comes to the host; those of top-k and top-p on the host, from a copy of the logits.
#pragma once

#include <span>
#include <vector>

#include "core/generate/decoder.h"
#include "core/generate/sampler.h"

namespace moebius {

class BatchSampler {
 public:
  struct Item {
    Sampler* sampler;
    int32_t row;  // of the decoder's latest logits
    int64_t position;
  };

  // What each item's Sampler::Sample gives, in order, valid until the next call. Waits for the device.
  std::span<const absl::StatusOr<SampledToken>> Sample(Decoder& decoder, std::span<const Item> items);

 private:
  void DrawOnDevice(Decoder& decoder, std::span<const Item> items);
  void DrawOnHost(Decoder& decoder, std::span<const Item> items);
  // Replaces the logarithms of those that want them as trained.
  void ScoreAsTrained(Decoder& decoder, std::span<const Item> items);
  void ScoreSome(Decoder& decoder, std::span<const Item> items, std::span<const size_t> some);

  std::vector<absl::StatusOr<SampledToken>> results_;
  std::vector<size_t> chosen_;  // items of the call in progress
  // What goes to the device, [n] f64 random numbers, [n] i32 rows and [n] f32 scales, and what comes back,
  // [n] i32 tokens and twice [n] f32 logarithms; kept for their memory.
  std::vector<double> host_in_;
  std::vector<int32_t> host_out_;
  Tensor in_;
  Tensor out_;
  Tensor scored_;  // [3n]: rows and targets, i32, and losses, f32
};

}  // namespace moebius
