// What the tests of core/io share: scratch folders and bodies run in a child under a fault.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace moebius {

// A new empty folder, removed by the destructor.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

void WriteRaw(const std::string& path, const std::string& text);
std::string ReadRaw(const std::string& path);  // "" when absent

std::string TestData(const std::string& name);  // the path of a file in tests/core/io/testdata
bool Contains(const absl::Status& status, const std::string& part);
inline std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// What `body` returned in a child process; 128 + n when signal n ended it.
int InChild(const std::function<int()>& body);
// In a child with `folder` on a file system of 1 MiB; where no process may mount, under a file size limit of
// 512 KiB instead: both refuse to write a file of more than that.
int InChildWithFullDisk(const std::string& folder, const std::function<int()>& body);
// In a child for which `folder` is read-only (root becomes nobody).
int InChildWithReadOnlyFolder(const std::string& folder, const std::function<int()>& body);

// Standard output of a Python program run by the oracle interpreter (h5py, safetensors, numpy), or "" where
// that is not installed or the program fails.
inline constexpr char kOraclePython[] = "/opt/oracle/bin/python";
std::string RunPython(const std::string& program, const Scratch& scratch);

}  // namespace moebius
