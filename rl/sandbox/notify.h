// Answers the system calls that the filter hands to the slot's first process: refuses what is forbidden,
// counts processes, and notices attempts to reach files outside. Only the verdict depends on what it notices:
// files are guarded by the mounts, whatever a path said while it was looked at.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace moebius::sandbox {

class Notifier {
 public:
  // `listener` comes from LoadSeccompFilter.
  Notifier(int listener, int max_tasks);

  int listener() const { return listener_; }

  // Answers one waiting call. False when the listener has no processes left.
  bool Answer();

  bool denied() const { return denied_; }
  bool refused_thread() const { return refused_thread_; }
  bool asked_memory() const { return asked_memory_; }

 private:
  int listener_;
  int max_tasks_;
  bool denied_ = false, refused_thread_ = false, asked_memory_ = false;
};

// A file that a call names, as the slot sees it.
struct NamedFile {
  std::string path;  // absolute and normal
  bool write = false;
  bool exists = false, parent_exists = false;
};

// Whether naming it is an attempt at something outside: to write anywhere but in the slot's own folders and
// devices, or to read what is not there and is none of the system's.
bool IsOutside(const NamedFile& file);

// "/a/c" from "/a/./b/../c".
std::string NormalPath(const std::string& path);

}  // namespace moebius::sandbox
