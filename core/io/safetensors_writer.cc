#include "core/io/safetensors_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace moebius {
namespace {

// Place in the reference writer's `Dtype`; tensors are stored by falling place, so by falling alignment.
int PlaceOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return 0;
    case DType::kU8:
      return 1;
    case DType::kI8:
      return 2;
    case DType::kF8E5M2:
      return 3;
    case DType::kF8E4M3:
      return 4;
    case DType::kI16:
      return 5;
    case DType::kU16:
      return 6;
    case DType::kF16:
      return 7;
    case DType::kBF16:
      return 8;
    case DType::kI32:
      return 9;
    case DType::kU32:
      return 10;
    case DType::kF32:
      return 11;
    case DType::kF64:
      return 12;
    case DType::kI64:
      return 13;
  }
  return 0;
}

// Written by hand: nlohmann's ordered object takes quadratic time for the 100,000 tensors of a large model.
std::string Header(const std::vector<TensorSpec>& order, const SafetensorsWriter::Metadata& metadata) {
  std::string out = "{";
  if (!metadata.empty()) out += Concat("\"__metadata__\":", DumpJson(nlohmann::json(metadata)));
  int64_t begin = 0;
  for (const TensorSpec& tensor : order) {
    if (out.size() > 1) out += ',';
    out += DumpJson(nlohmann::json(tensor.name));
    out +=
        Concat(":{\"dtype\":\"", Name(tensor.dtype), "\",\"shape\":", DumpJson(nlohmann::json(tensor.shape)),
               ",\"data_offsets\":[", begin, ",", begin + tensor.bytes(), "]}");
    begin += tensor.bytes();
  }
  out += '}';
  out.resize((out.size() + 7) / 8 * 8, ' ');
  return out;
}

}  // namespace

int64_t TensorSpec::bytes() const {
  int64_t total = SizeOf(dtype);
  for (const int64_t dim : shape) {
    CHECK_GE(dim, 0) << " in the shape of " << name;
    CHECK(!__builtin_mul_overflow(total, dim, &total)) << "size of " << name << " overflows";
  }
  return total;
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            std::vector<TensorSpec> tensors,
                                                            const Metadata& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const int place_a = PlaceOf(a.dtype), place_b = PlaceOf(b.dtype);
    return place_a != place_b ? place_a > place_b : a.name < b.name;
  });
  std::vector<std::string_view> names;
  for (const TensorSpec& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  CHECK(twice == names.end()) << "tensor " << *twice << " is planned twice for " << path;
  CHECK(!std::binary_search(names.begin(), names.end(), "__metadata__")) << path;

  const std::string header = Header(tensors, metadata);
  if (header.size() > kMaxSafetensorsHeader) {
    return CannotWriteError(Concat("cannot write ", path, "; its header would have ", header.size(),
                                   " bytes, the format allows ", kMaxSafetensorsHeader, "; use more shards"));
  }
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const uint64_t header_bytes = header.size();
  RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(&header_bytes, 1))));
  RETURN_IF_ERROR(file.Write(header));
  SafetensorsWriter writer(std::move(file), std::move(tensors));
  writer.SkipComplete();
  return writer;
}

// Moves to the next tensor that still lacks bytes (empty ones lack none).
void SafetensorsWriter::SkipComplete() {
  while (current_ < order_.size() && written_ == order_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
}

absl::Status SafetensorsWriter::Append(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  CHECK_LT(current_, order_.size()) << " all tensors are complete, yet more of " << name << " comes";
  const TensorSpec& tensor = order_[current_];
  CHECK_EQ(name, tensor.name) << " out of order in " << file_.path();
  CHECK_LE(static_cast<int64_t>(bytes.size()), tensor.bytes() - written_) << " bytes left in " << name;
  RETURN_IF_ERROR(file_.Write(bytes));
  written_ += static_cast<int64_t>(bytes.size());
  SkipComplete();
  return absl::OkStatus();
}

absl::StatusOr<FileHash> SafetensorsWriter::Commit() {
  CHECK_EQ(current_, order_.size()) << " tensors are complete in " << file_.path();
  return file_.Commit();
}

}  // namespace moebius
