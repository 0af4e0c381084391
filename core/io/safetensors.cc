#include "core/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/git_lfs.h"
#include "core/io/json.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

// Every element type of the format (safetensors 0.8, `Dtype`).
struct ElementType {
  std::string_view name;
  int64_t bits;
};
constexpr ElementType kElementTypes[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

// Bytes of `shape` elements of `bits`; nothing when that overflows or does not fill whole bytes.
std::optional<int64_t> BytesOf(const std::vector<int64_t>& shape, int64_t bits) {
  // A zero makes the product zero whatever the rest would overflow to.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t total = bits;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(total, dim, &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

absl::StatusOr<TensorInfo> ParseTensor(const std::string& name, const Json& entry,
                                       const std::string& source) {
  TensorInfo tensor;
  tensor.name = name;
  ASSIGN_OR_RETURN(tensor.dtype_name, GetString(entry, "dtype", source));
  for (const auto& member : entry.items()) {
    if (member.key() != "dtype" && member.key() != "shape" && member.key() != "data_offsets") {
      return DamagedError(Concat(source, ": field \"", Printable(member.key()), "\" is unknown"));
    }
  }
  const auto* type = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                  [&](const ElementType& t) { return t.name == tensor.dtype_name; });
  if (type == std::end(kElementTypes)) {
    return DamagedError(Concat(source, ": field \"dtype\" is \"", Printable(tensor.dtype_name),
                               "\", which is no element type"));
  }
  tensor.dtype = DTypeFromName(tensor.dtype_name);
  ASSIGN_OR_RETURN(tensor.shape, GetIntArray(entry, "shape", source, 0));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, GetIntArray(entry, "data_offsets", source, 0));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return DamagedError(Concat(source, ": field \"data_offsets\" is not begin and end"));
  }
  tensor.begin = offsets[0];
  tensor.bytes = offsets[1] - offsets[0];
  const std::optional<int64_t> bytes = BytesOf(tensor.shape, type->bits);
  if (bytes != tensor.bytes) {
    return DamagedError(Concat(source, ": field \"data_offsets\" spans ", tensor.bytes,
                               " bytes, dtype and shape need ",
                               bytes.has_value() ? std::to_string(*bytes) : "an impossible number"));
  }
  return tensor;
}

}  // namespace

int64_t TensorInfo::elements() const {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;  // beside any other size
  int64_t product = 1;
  for (const int64_t dim : shape) product *= dim;
  return product;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(RandomAccessFile storage, RandomAccessFile::Open(path));
  ASSIGN_OR_RETURN(MappedFile map, MappedFile::Open(path));
  SafetensorsFile file(std::move(storage), std::move(map));
  const int64_t size = file.file_.size();
  if (size < 8)
    return DamagedError(Concat(path, ": has ", size, " bytes, too short for a safetensors header"));
  uint64_t header_bytes = 0;
  RETURN_IF_ERROR(file.file_.Read(0, std::as_writable_bytes(std::span(&header_bytes, 1))));
  if (header_bytes > kMaxSafetensorsHeader) {
    std::string begin(std::min<int64_t>(size, 64), '\0');
    RETURN_IF_ERROR(file.file_.Read(0, std::as_writable_bytes(std::span(begin))));
    if (IsGitLfsPointer(begin)) return GitLfsPointerError(path);
    return DamagedError(Concat(path, ": header length ", header_bytes, " is above ", kMaxSafetensorsHeader,
                               "; not a safetensors file, or damaged; fetch it again"));
  }
  if (static_cast<int64_t>(header_bytes) > size - 8) {
    return DamagedError(Concat(path, ": header of ", header_bytes, " bytes in a file of ", size,
                               "; it was cut short; fetch it again"));
  }
  std::string header(header_bytes, '\0');
  RETURN_IF_ERROR(file.file_.Read(8, std::as_writable_bytes(std::span(header))));
  file.data_start_ = 8 + static_cast<int64_t>(header_bytes);
  RETURN_IF_ERROR(file.ParseHeader(header));
  RETURN_IF_ERROR(file.CheckCoverage());
  return file;
}

absl::Status SafetensorsFile::ParseHeader(std::string_view text) {
  const std::string source = Concat(path(), ": header");
  if (!text.starts_with('{')) return DamagedError(Concat(source, ": does not start with '{'"));
  ASSIGN_OR_RETURN(const Json header, ParseJson(text, source));
  tensors_.reserve(header.size());
  for (const auto& item : header.items()) {
    if (item.key() != "__metadata__") {
      const std::string where = Concat(path(), ": tensor ", Printable(item.key()));
      ASSIGN_OR_RETURN(TensorInfo tensor, ParseTensor(item.key(), item.value(), where));
      tensors_.push_back(std::move(tensor));
      continue;
    }
    if (!item.value().is_object()) {
      return DamagedError(
          Concat(path(), ": __metadata__ is ", DescribeJson(item.value()), ", expected an object"));
    }
    for (const auto& entry : item.value().items()) {
      ASSIGN_OR_RETURN(metadata_[entry.key()],
                       GetString(item.value(), entry.key(), Concat(path(), ": __metadata__")));
    }
  }
  return absl::OkStatus();
}

// Sorts the tensors by place and proves that they tile the data part.
absl::Status SafetensorsFile::CheckCoverage() {
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.bytes, a.name) < std::tie(b.begin, b.bytes, b.name);
  });
  int64_t next = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorInfo& tensor = tensors_[i];
    if (tensor.begin != next) {
      return DamagedError(Concat(path(), ": tensor ", Printable(tensor.name), ": data begin at byte ",
                                 tensor.begin,
                                 tensor.begin < next ? ", inside the tensor before" : ", after a hole",
                                 " that ends at byte ", next));
    }
    if (__builtin_add_overflow(next, tensor.bytes, &next))
      return DamagedError(Concat(path(), ": data sizes overflow"));
    index_.emplace(tensor.name, i);
  }
  if (next != file_.size() - data_start_) {
    return DamagedError(Concat(path(), ": header describes ", next, " bytes of data, the file has ",
                               file_.size() - data_start_, "; it was cut short or changed; fetch it again"));
  }
  return absl::OkStatus();
}

const TensorInfo* SafetensorsFile::Find(std::string_view name) const {
  const auto at = index_.find(std::string(name));
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

absl::Status SafetensorsFile::Read(const TensorInfo& tensor, int64_t offset, std::span<std::byte> out) const {
  CHECK(offset >= 0 && offset <= tensor.bytes && static_cast<int64_t>(out.size()) <= tensor.bytes - offset)
      << path() << " tensor " << tensor.name << " of " << tensor.bytes << " bytes: asked for " << offset
      << " + " << out.size();
  return file_.Read(data_start_ + tensor.begin + offset, out);
}

std::span<const std::byte> SafetensorsFile::Mapped(const TensorInfo& tensor) const {
  return map_.bytes().subspan(data_start_ + tensor.begin, tensor.bytes);
}

}  // namespace moebius
