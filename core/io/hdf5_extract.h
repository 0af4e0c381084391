// What an HDF5 file holds, found out with the library once, so that reading needs the library no more.
// Internal to core/io.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/hdf5_file.h"
#include "core/tensor/dtype.h"

namespace moebius {

struct Hdf5Contents {
  struct Entry {
    std::string unreadable;  // why not, else empty
    DType dtype = DType::kU8;
    int64_t length = 0;
    bool decoded = false;  // extents lie in the file of decoded elements, else in the HDF5 file itself
    std::vector<Hdf5File::Extent> extents;
  };
  struct Attribute {
    enum class Kind { kInt, kDouble, kText, kOther };
    Kind kind = Kind::kOther;
    int64_t integer = 0;
    double number = 0;
    std::string text;
  };
  std::map<std::string, Entry> entries;  // by path without the leading '/'
  std::map<std::string, Attribute> attributes;
};

// Walks the file open as `fd`, and appends the elements of every dataset that cannot be used as it lies
// (compressed, big-endian, compact) to `decoded_fd`. A session must be held (hdf5_library.h). DamagedError as
// Hdf5File::Open says.
absl::StatusOr<Hdf5Contents> ExtractHdf5(const std::string& path, int fd, int64_t size, int decoded_fd);

// For the way from the child process that extracts.
std::string SerializeContents(const Hdf5Contents& contents);
absl::StatusOr<Hdf5Contents> ParseContents(const std::string& text, const std::string& path);

}  // namespace moebius
