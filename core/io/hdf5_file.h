// HDF5 files of one-dimensional arrays (token files, rollout archives, tables), serial HDF5 1.10.
//
// HDF5 reports success on many kinds of damage, follows links and external storage out of a file, and reads
// what was never written as zeros. So: a file is written whole through a temporary and its hash is returned;
// a file is opened after its hash was compared or, without one, after a child process survived reading all of
// it; and only plain data are accepted. All calls are thread-safe (one lock for the whole process).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/hash.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Datasets are named by path from the root ("tokens" and "/tokens" are one); element types are kU8, kU16,
// kU32, kI32, kI64, kF32 and kF64.

// Writes one file. After an error every further call returns it; without Commit no trace is left.
class Hdf5Writer {
 public:
  struct DatasetOptions {
    int64_t chunk_elements = 1 << 20;
    int gzip_level = 0;  // 0: stored as they are; 1-9: shuffled and deflated (slow: 0.04 GB/s)
  };
  static absl::StatusOr<Hdf5Writer> Create(const std::string& path);
  Hdf5Writer(Hdf5Writer&&) noexcept;
  Hdf5Writer& operator=(Hdf5Writer&&) noexcept;
  ~Hdf5Writer();

  // A dataset to append to. Up to a chunk of it is buffered; one that never fills a chunk is stored
  // contiguous.
  absl::Status CreateDataset(std::string_view name, DType dtype, const DatasetOptions& options);
  absl::Status CreateDataset(std::string_view name, DType dtype) { return CreateDataset(name, dtype, {}); }
  // Appends elements; T must be the dataset's type.
  absl::Status Append(std::string_view name, std::span<const uint8_t> values);
  absl::Status Append(std::string_view name, std::span<const uint16_t> values);
  absl::Status Append(std::string_view name, std::span<const uint32_t> values);
  absl::Status Append(std::string_view name, std::span<const int32_t> values);
  absl::Status Append(std::string_view name, std::span<const int64_t> values);
  absl::Status Append(std::string_view name, std::span<const float> values);
  absl::Status Append(std::string_view name, std::span<const double> values);
  // A whole uint8 dataset in one call.
  absl::Status WriteBytes(std::string_view name, std::string_view bytes);

  // Scalar attributes of the root; an existing one is replaced. Text is UTF-8 of at most 60,000 bytes.
  absl::Status SetAttribute(std::string_view name, int64_t value);
  absl::Status SetAttribute(std::string_view name, double value);
  absl::Status SetAttribute(std::string_view name, std::string_view value);
  absl::Status SetAttribute(std::string_view name, const char* value) {
    return SetAttribute(name, std::string_view(value));
  }
  absl::Status SetAttribute(std::string_view name, int value) { return SetAttribute(name, int64_t{value}); }

  // Flushes, closes, hashes, publishes (atomic_file.h). The same calls give the same bytes.
  absl::StatusOr<FileHash> Commit();

 private:
  struct State;
  explicit Hdf5Writer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// A file open for reading. Compressed, big-endian and compact datasets are unpacked into memory at Open (4
// GiB at most).
class Hdf5File {
 public:
  struct Options {
    // SHA-256 (hex) that the file must have; compared before HDF5 sees a byte. Empty: unknown.
    std::string expected_sha256 = "";
    // With no hash: let a forked child with limits of time and memory run the library. A file on which it
    // crashes, hangs or eats memory is then a DamagedError. Turn off only for files that this process has
    // written.
    bool isolate = true;
  };
  struct Dataset {
    std::string name;  // path from the root without the leading '/'
    DType dtype = DType::kU8;
    int64_t length = 0;
  };
  struct Extent {
    int64_t first = 0, count = 0;  // elements
    int64_t file_offset = 0;       // bytes
  };

  // MissingError; DamagedError for anything that is not a plain HDF5 file: hash, superblock, truncation,
  // links other than hard ones, external or virtual storage, datasets whose declared size is not all stored
  // in this file.
  static absl::StatusOr<Hdf5File> Open(const std::string& path, const Options& options);
  static absl::StatusOr<Hdf5File> Open(const std::string& path) { return Open(path, Options()); }
  Hdf5File(Hdf5File&&) noexcept;
  Hdf5File& operator=(Hdf5File&&) noexcept;
  ~Hdf5File();

  const std::string& path() const;
  // Readable datasets by name. Others (two-dimensional, text, compound, other filters) are left out here;
  // Find says of them what they are.
  const std::vector<Dataset>& datasets() const;
  absl::StatusOr<Dataset> Find(std::string_view name) const;
  bool Has(std::string_view name) const { return Find(name).ok(); }

  // Elements [first, first + out.size()). T must be the dataset's type; int32 also reads uint8, uint16 and
  // uint32 (values above 2^31 - 1 are a DamagedError), int64 reads every integer type, double reads float.
  absl::Status Read(std::string_view name, int64_t first, std::span<uint8_t> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<uint16_t> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<uint32_t> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<int32_t> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<int64_t> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<float> out) const;
  absl::Status Read(std::string_view name, int64_t first, std::span<double> out) const;
  // A whole uint8 dataset.
  absl::StatusOr<std::string> ReadBytes(std::string_view name, int64_t max_bytes = int64_t{1} << 30) const;

  // Where the elements of an unfiltered little-endian dataset lie in the file, in order and without gaps, for
  // mapping; UnavailableError when they are compressed or big-endian.
  absl::StatusOr<std::vector<Extent>> Extents(std::string_view name) const;

  // Scalar attributes of the root. MissingError when absent, DamagedError when of another kind.
  absl::StatusOr<int64_t> IntAttribute(std::string_view name) const;
  absl::StatusOr<double> DoubleAttribute(std::string_view name) const;
  absl::StatusOr<std::string> StringAttribute(std::string_view name) const;
  bool HasAttribute(std::string_view name) const;

 private:
  struct State;
  explicit Hdf5File(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace moebius
