// Reading GGUF files, versions 2 and 3, little-endian (ggml-org/ggml, docs/gguf.md). Layout: magic, version,
// counts, metadata (key, type, value), tensor descriptions, then the data of all tensors, each aligned.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/status.h"
#include "core/io/file.h"

namespace moebius {

inline constexpr int64_t kMaxGgufKeys = 65'536;
inline constexpr int64_t kMaxGgufTensors = 1'048'576;

// Element types that we read; the numbers are the file's. The Q types hold blocks of 32 elements of a row.
enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;  // outermost first, as elsewhere here (the file has it the other way round)
  int64_t begin = 0;           // bytes from the start of the data part
  int64_t bytes = 0;

  int64_t elements() const;  // product of the shape
};

// A metadata value. Integers of every width are int64_t (larger ones are refused), both floats double.
// Strings are views into the mapped file and live as long as it.
using GgufValue = std::variant<int64_t, double, bool, std::string_view, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string_view>>;

// One open file, checked: counts within the limits above and the file's size, no key or tensor twice, shapes
// without overflow, every tensor aligned, inside the file and on bytes of its own. Reading is thread-safe.
class GgufFile {
 public:
  // MissingError; DamagedError naming file and field; UsageError for a version, a byte order or an element
  // type that this reader does not have.
  static absl::StatusOr<GgufFile> Open(const std::string& path);

  const std::string& path() const { return map_.path(); }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the order of their data
  const GgufTensor* Find(std::string_view name) const;                 // null when absent
  const GgufValue* Value(std::string_view key) const;                  // null when absent
  bool Has(std::string_view key) const { return Value(key) != nullptr; }

  // Values of metadata. DamagedError naming file and key when it is absent, of another kind or outside the
  // limits. The ...Or forms give `otherwise` for an absent key.
  absl::StatusOr<int64_t> GetInt(std::string_view key, int64_t min = 0,
                                 int64_t max = std::numeric_limits<int64_t>::max()) const;
  absl::StatusOr<int64_t> GetIntOr(std::string_view key, int64_t otherwise, int64_t min = 0,
                                   int64_t max = std::numeric_limits<int64_t>::max()) const;
  absl::StatusOr<double> GetDouble(std::string_view key) const;
  absl::StatusOr<double> GetDoubleOr(std::string_view key, double otherwise) const;
  absl::StatusOr<bool> GetBoolOr(std::string_view key, bool otherwise) const;
  absl::StatusOr<std::string> GetString(std::string_view key) const;
  absl::StatusOr<std::string> GetStringOr(std::string_view key, const std::string& otherwise) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;

  // All elements of a tensor of this file, row-major, dequantised: Q4_0 is (q - 8) d, Q4_1 is q d + m, Q8_0
  // is q d, with d and m of each block.
  std::vector<float> ReadF32(const GgufTensor& tensor) const;

 private:
  explicit GgufFile(MappedFile map) : map_(std::move(map)) {}
  absl::Status ParseHeader();
  absl::Status CheckCoverage();
  template <typename T>
  absl::StatusOr<T> Get(std::string_view key, std::string_view kind) const;

  MappedFile map_;
  int64_t data_start_ = 0;
  int64_t alignment_ = 32;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;  // name -> position in tensors_
};

}  // namespace moebius
