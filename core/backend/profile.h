// Where the time of a step goes, kernel by kernel: what `moebius bench` prints.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace moebius {

class KernelProfile {
 public:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0;
    double flops = 0;
    double bytes = 0;
  };
  void Add(std::string_view name, double seconds, double flops, double bytes);
  void Clear() { entries_.clear(); }
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

 private:
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace moebius
