// What hdf5_file.cc and hdf5_writer.cc share: the lock, handles, error text and a file driver of our own. The
// only file that includes hdf5.h; no other header includes this one.
#pragma once

#define H5_USE_110_API
#include <hdf5.h>

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Held during every call into the library. HDF5 keeps global state (identifiers, property lists, error
// stacks), so the lock has to be global too. Silences the library's printing of errors and turns plug-in
// loading off.
class Hdf5Session {
 public:
  Hdf5Session();

 private:
  std::lock_guard<std::mutex> lock_;
};

// An HDF5 identifier with its close function.
class Hdf5Handle {
 public:
  using CloseFunction = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, CloseFunction close) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    if (this != &other) {
      (void)Close();
      id_ = std::exchange(other.id_, -1);
      close_ = other.close_;
    }
    return *this;
  }
  ~Hdf5Handle() { (void)Close(); }
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }
  // False when the library reports an error; writers must look.
  bool Close() { return id_ < 0 || close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_ = -1;
  CloseFunction close_ = nullptr;
};

// The innermost messages of the calling thread's HDF5 error stack, on one line.
std::string Hdf5ErrorText();

hid_t Hdf5NativeType(DType dtype);  // in memory
hid_t Hdf5FileType(DType dtype);    // little-endian, in the file

// One file under our driver. HDF5 1.10 crashes in H5Fclose when a write of metadata failed, and may report
// success when a write of data failed. So a failed write is noted in `error`, kept in memory (the rest of the
// file would otherwise read back as garbage) and reported to HDF5 as done: whoever closes the file must look
// at `error`. Reading beyond the end of a file opened for reading is an error instead of zeros.
struct Hdf5Driver {
  int fd = -1;
  bool writing = false;
  int64_t size = 0;  // of the file as HDF5 shall see it
  int error = 0;     // errno of the first failed write or truncate; set it to discard everything from here on
  std::map<uint64_t, std::array<unsigned char, 4096>> kept;  // page number -> content, once `error` is set
};

// A file access property list that uses `driver`, which must outlive every file opened with it.
Hdf5Handle Hdf5AccessFor(Hdf5Driver* driver);

}  // namespace moebius
