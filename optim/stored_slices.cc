#include "optim/stored_slices.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

absl::StatusOr<StoredSlices> StoredSlices::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(SafetensorsFolder opened, SafetensorsFolder::Open(folder, "optimizer"));
  StoredSlices stored(folder, std::move(opened));
  const SafetensorsFolder& files = stored.files_;
  for (const std::string& name : files.names()) {
    const auto bad = [&](const std::string& why) {
      return DamagedError(Concat(files.FileOf(name).path(), ": optimizer tensor ", Printable(name), " ", why,
                                 "; the checkpoint is damaged; go on from an earlier one"));
    };
    const int64_t elements = files.Find(name)->elements();
    const size_t bracket = name.ends_with(']') ? name.rfind('[') : std::string::npos;
    int64_t first = 0, last = elements;
    if (bracket != std::string::npos) {
      char* end = nullptr;
      first = std::strtoll(name.c_str() + bracket + 1, &end, 10);
      last = *end == ':' ? std::strtoll(end + 1, &end, 10) : -1;
      if (first < 0 || last <= first || std::string(end) != "]") return bad("is no slice NAME[FIRST:LAST]");
      if (last - first != elements) return bad(Concat("has ", elements, " elements"));
    }
    const auto [at, added] = stored.tensors_[name.substr(0, bracket)].emplace(first, Slice{last, name});
    if (!added) return bad(Concat("overlaps ", Printable(at->second.name)));
  }
  for (const auto& [tensor, slices] : stored.tensors_) {
    int64_t at = 0;
    for (const auto& [first, slice] : slices) {
      if (first != at) {
        return DamagedError(Concat(files.FileOf(slice.name).path(), ": optimizer tensor ",
                                   Printable(slice.name),
                                   first > at ? Concat(" comes after a hole from element ", at)
                                              : Concat(" overlaps the slice before it, which ends at ", at),
                                   "; the checkpoint is damaged; go on from an earlier one"));
      }
      at = slice.last;
    }
  }
  return stored;
}

bool StoredSlices::HasKind(const std::string& prefix) const {
  const auto at = tensors_.lower_bound(prefix);
  return at != tensors_.end() && at->first.starts_with(prefix);
}

int64_t StoredSlices::Elements(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  return found == tensors_.end() ? 0 : found->second.rbegin()->second.last;
}

absl::StatusOr<std::vector<float>> StoredSlices::Read(const std::string& tensor, int64_t elements,
                                                      int64_t first, int64_t last) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) {
    return DamagedError(
        Concat(folder_, ": optimizer tensor ", tensor,
               " is missing; the checkpoint belongs to another recipe (optimizer.ema_decay?) or model"));
  }
  const Slice& end = found->second.rbegin()->second;
  if (end.last != elements) {
    return DamagedError(Concat(files_.FileOf(end.name).path(), ": optimizer tensor ", Printable(end.name),
                               " ends at element ", end.last, ", the model's has ", elements,
                               "; the checkpoint belongs to another model"));
  }
  std::vector<float> values;
  values.reserve(last - first);
  for (int64_t at = first; at < last;) {
    const auto slice = std::prev(found->second.upper_bound(at));
    const int64_t until = std::min(slice->second.last, last);
    ASSIGN_OR_RETURN(const std::vector<float> part,
                     ReadElementsF32(files_, folder_, slice->second.name, at - slice->first, until - at));
    values.insert(values.end(), part.begin(), part.end());
    at = until;
  }
  return values;
}

absl::StatusOr<TensorReader> AveragedWeights(const std::string& folder) {
  const auto none = [&](const char* why) {
    return UsageError(Concat(folder, " has no averaged weights; ", why, "; export it without --average"));
  };
  absl::StatusOr<StoredSlices> opened = StoredSlices::Open(folder);
  if (ExitCode(opened.status()) == kExitMissing) return none("it has no optimizer's files");
  RETURN_IF_ERROR(opened.status());
  const auto stored = std::make_shared<const StoredSlices>(*std::move(opened));
  if (!stored->HasKind("ema.")) return none("its run was made without optimizer.ema_decay");
  return TensorReader([stored](const std::string& name) -> absl::StatusOr<std::vector<float>> {
    const std::string tensor = "ema." + name;
    const int64_t elements = stored->Elements(tensor);
    if (elements == 0) return std::vector<float>();
    return stored->Read(tensor, elements, 0, elements);
  });
}

}  // namespace moebius
