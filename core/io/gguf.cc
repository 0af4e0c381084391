#include "core/io/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/base/strings.h"
#include "core/io/gguf_cursor.h"
#include "core/io/git_lfs.h"
#include "core/tensor/dtype.h"

namespace moebius {
namespace {

// How elements lie in the file: `elements` of a row to a block of `bytes`.
struct GgufBlock {
  uint32_t type;
  std::string_view name;
  int64_t elements, bytes;  // 0: a type that we name but do not read
};
constexpr GgufBlock kGgufBlocks[] = {
    {0, "F32", 1, 4},     {1, "F16", 1, 2},    {2, "Q4_0", 32, 18}, {3, "Q4_1", 32, 20}, {8, "Q8_0", 32, 34},
    {30, "BF16", 1, 2},   {6, "Q5_0", 0, 0},   {7, "Q5_1", 0, 0},   {9, "Q8_1", 0, 0},   {10, "Q2_K", 0, 0},
    {11, "Q3_K", 0, 0},   {12, "Q4_K", 0, 0},  {13, "Q5_K", 0, 0},  {14, "Q6_K", 0, 0},  {15, "Q8_K", 0, 0},
    {20, "IQ4_NL", 0, 0}, {23, "IQ4_XS", 0, 0}};

const GgufBlock* FindBlock(uint32_t type) {
  const auto* found = std::find_if(std::begin(kGgufBlocks), std::end(kGgufBlocks),
                                   [&](const GgufBlock& b) { return b.type == type; });
  return found == std::end(kGgufBlocks) ? nullptr : found;
}

float HalfAt(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return F16ToFloat(bits);
}

// The block's low nibbles are its first half, the high ones its second.
void UnpackNibbles(const std::byte* packed, float scale, float offset, float* out) {
  for (int i = 0; i < 16; ++i) {
    const auto byte = std::to_integer<uint8_t>(packed[i]);
    out[i] = static_cast<float>(byte & 15) * scale + offset;
    out[i + 16] = static_cast<float>(byte >> 4) * scale + offset;
  }
}

void Dequantise(GgufType type, const std::byte* block, float* out) {
  switch (type) {
    case GgufType::kF32:
      std::memcpy(out, block, 4);
      return;
    case GgufType::kF16:
      *out = HalfAt(block);
      return;
    case GgufType::kBF16: {
      BF16 value;
      std::memcpy(&value.bits, block, 2);
      *out = value.ToFloat();
      return;
    }
    case GgufType::kQ4_0:
      return UnpackNibbles(block + 2, HalfAt(block), -8 * HalfAt(block), out);
    case GgufType::kQ4_1:
      return UnpackNibbles(block + 4, HalfAt(block), HalfAt(block + 2), out);
    case GgufType::kQ8_0:
      for (int i = 0; i < 32; ++i) {
        out[i] = HalfAt(block) * static_cast<float>(std::to_integer<int8_t>(block[2 + i]));
      }
      return;
  }
}

absl::StatusOr<GgufTensor> ParseGgufTensor(GgufCursor& cursor, const std::string& source) {
  GgufTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, cursor.String("name of a tensor"));
  const std::string where = Concat("tensor ", Printable(tensor.name), ": ");
  ASSIGN_OR_RETURN(const uint32_t num_dims, cursor.Number<uint32_t>(where + "number of dimensions"));
  if (num_dims < 1 || num_dims > 4) {
    return cursor.Damaged(where + "number of dimensions", Concat("is ", num_dims, ", not 1 to 4"));
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    ASSIGN_OR_RETURN(const uint64_t size, cursor.Number<uint64_t>(where + "dimensions"));
    if (size == 0 || size > (uint64_t{1} << 40) ||
        __builtin_mul_overflow(elements, static_cast<int64_t>(size), &elements)) {
      return cursor.Damaged(where + "dimensions", Concat("hold ", size, ", which no tensor of a file has"));
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>(where + "type"));
  const GgufBlock* block = FindBlock(type);
  if (block == nullptr || block->elements == 0) {
    return UsageError(Concat(source, ": ", where, "type ",
                             block == nullptr ? std::to_string(type) : std::string(block->name),
                             " is not supported; take a file of F32, F16, BF16, Q8_0, Q4_0 or Q4_1"));
  }
  tensor.type = GgufType{type};
  if (tensor.shape.back() % block->elements != 0) {
    return cursor.Damaged(where + "dimensions", Concat("have rows of ", tensor.shape.back(),
                                                       " elements, not whole blocks of ", block->elements));
  }
  if (__builtin_mul_overflow(elements / block->elements, block->bytes, &tensor.bytes)) {
    return cursor.Damaged(where + "dimensions", "ask for more bytes than a file can have");
  }
  ASSIGN_OR_RETURN(const uint64_t offset, cursor.Number<uint64_t>(where + "offset"));
  if (offset > (uint64_t{1} << 62)) return cursor.Damaged(where + "offset", Concat("is ", offset));
  tensor.begin = static_cast<int64_t>(offset);
  return tensor;
}

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

absl::StatusOr<GgufFile> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile map, MappedFile::Open(path));
  GgufFile file(std::move(map));
  RETURN_IF_ERROR(file.ParseHeader());
  RETURN_IF_ERROR(file.CheckCoverage());
  return file;
}

absl::Status GgufFile::ParseHeader() {
  GgufCursor cursor(map_.bytes(), path());
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.Number<uint32_t>("magic"));
  if (magic == 0x73726576) return GitLfsPointerError(path());  // "vers"
  if (magic != 0x46554747) {                                   // "GGUF"
    return DamagedError(
        Concat(path(), ": magic is not \"GGUF\"; this is another kind of file; name a .gguf file"));
  }
  ASSIGN_OR_RETURN(const uint32_t version, cursor.Number<uint32_t>("version"));
  if (version != 2 && version != 3) {
    const bool swapped = version != 0 && (version & 0xFFFF) == 0;
    return UsageError(Concat(path(), ": version ", version, swapped ? " (big-endian)" : "",
                             " is not supported; take a little-endian file of version 2 or 3"));
  }
  constexpr int64_t kLeastTensor = 8 + 4 + 8 + 4 + 8, kLeastValue = 8 + 4 + 1;
  ASSIGN_OR_RETURN(const int64_t num_tensors,
                   cursor.Count("number of tensors", kLeastTensor, kMaxGgufTensors));
  ASSIGN_OR_RETURN(const int64_t num_keys, cursor.Count("number of keys", kLeastValue, kMaxGgufKeys));
  for (int64_t i = 0; i < num_keys; ++i) {
    ASSIGN_OR_RETURN(const std::string_view key, cursor.String("name of a key"));
    const std::string field = Concat("key ", key);
    ASSIGN_OR_RETURN(GgufValue value, cursor.Value(field));
    if (!values_.emplace(key, std::move(value)).second) return cursor.Damaged(field, "is there twice");
  }
  ASSIGN_OR_RETURN(alignment_, GetIntOr("general.alignment", 32, 1, 1 << 20));
  if ((alignment_ & (alignment_ - 1)) != 0) {
    return cursor.Damaged("key general.alignment", Concat("is ", alignment_, ", not a power of two"));
  }
  for (int64_t i = 0; i < num_tensors; ++i) {
    ASSIGN_OR_RETURN(GgufTensor tensor, ParseGgufTensor(cursor, path()));
    tensors_.push_back(std::move(tensor));
  }
  data_start_ = (cursor.position() + alignment_ - 1) & -alignment_;
  return absl::OkStatus();
}

absl::Status GgufFile::CheckCoverage() {
  std::stable_sort(tensors_.begin(), tensors_.end(),
                   [](const GgufTensor& a, const GgufTensor& b) { return a.begin < b.begin; });
  const int64_t size = std::max<int64_t>(0, std::ssize(map_.bytes()) - data_start_);
  int64_t end = 0;
  for (const GgufTensor& tensor : tensors_) {
    const auto damaged = [&](const std::string& what) {
      return DamagedError(Concat(path(), ": tensor ", Printable(tensor.name), ": ", what,
                                 "; the file is damaged; fetch it again"));
    };
    if (!index_.emplace(tensor.name, &tensor - tensors_.data()).second) return damaged("name is there twice");
    if (tensor.begin % alignment_ != 0) {
      return damaged(Concat("offset ", tensor.begin, " is no multiple of the alignment ", alignment_));
    }
    if (tensor.bytes > size || tensor.begin > size - tensor.bytes) {
      return damaged(Concat("offset ", tensor.begin, " and ", tensor.bytes, " bytes go beyond the ", size,
                            " bytes of data"));
    }
    if (tensor.begin < end) return damaged("offset lies inside another tensor");
    end = tensor.begin + tensor.bytes;
  }
  return absl::OkStatus();
}

const GgufTensor* GgufFile::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::Value(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

template <typename T>
absl::StatusOr<T> GgufFile::Get(std::string_view key, std::string_view kind) const {
  const GgufValue* value = Value(key);
  if (value == nullptr) {
    return DamagedError(
        Concat(path(), ": key ", key, " is missing; the file is incomplete; take another one"));
  }
  if (const T* found = std::get_if<T>(value)) return *found;
  return DamagedError(
      Concat(path(), ": key ", key, " is not ", kind, "; the file is damaged; fetch it again"));
}

absl::StatusOr<int64_t> GgufFile::GetInt(std::string_view key, int64_t min, int64_t max) const {
  ASSIGN_OR_RETURN(const int64_t value, Get<int64_t>(key, "an integer"));
  if (value >= min && value <= max) return value;
  return DamagedError(Concat(path(), ": key ", key, " is ", value, ", outside ", min, " to ", max,
                             "; the file is damaged; fetch it again"));
}

absl::StatusOr<int64_t> GgufFile::GetIntOr(std::string_view key, int64_t otherwise, int64_t min,
                                           int64_t max) const {
  return Has(key) ? GetInt(key, min, max) : otherwise;
}

absl::StatusOr<double> GgufFile::GetDouble(std::string_view key) const {
  ASSIGN_OR_RETURN(const double value, Get<double>(key, "a float"));
  if (std::isfinite(value)) return value;
  return DamagedError(Concat(path(), ": key ", key, " is not finite; the file is damaged; fetch it again"));
}

absl::StatusOr<double> GgufFile::GetDoubleOr(std::string_view key, double otherwise) const {
  return Has(key) ? GetDouble(key) : otherwise;
}

absl::StatusOr<bool> GgufFile::GetBoolOr(std::string_view key, bool otherwise) const {
  return Has(key) ? Get<bool>(key, "a bool") : otherwise;
}

absl::StatusOr<std::string> GgufFile::GetString(std::string_view key) const {
  ASSIGN_OR_RETURN(const std::string_view text, Get<std::string_view>(key, "a string"));
  return std::string(text);
}

absl::StatusOr<std::string> GgufFile::GetStringOr(std::string_view key, const std::string& otherwise) const {
  return Has(key) ? GetString(key) : otherwise;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  return Get<std::vector<int64_t>>(key, "a list of integers");
}

absl::StatusOr<std::vector<std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  return Get<std::vector<std::string_view>>(key, "a list of strings");
}

std::vector<float> GgufFile::ReadF32(const GgufTensor& tensor) const {
  const GgufBlock& block = *FindBlock(static_cast<uint32_t>(tensor.type));
  std::vector<float> out(tensor.elements());
  const std::byte* data = map_.bytes().data() + data_start_ + tensor.begin;
  for (int64_t i = 0; i < std::ssize(out); i += block.elements, data += block.bytes) {
    Dequantise(tensor.type, data, out.data() + i);
  }
  return out;
}

}  // namespace moebius
