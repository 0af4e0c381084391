// Some documents at a time, so that several threads have work while memory stays bounded.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace moebius {

struct DocumentBatch {
  static constexpr size_t kBytes = size_t{16} << 20;

  // True when the batch is full: use it, then Clear it.
  bool Add(std::string text) {
    bytes += text.size();
    texts.push_back(std::move(text));
    return bytes >= kBytes;
  }
  void Clear() {
    texts.clear();
    bytes = 0;
  }

  std::vector<std::string> texts;
  size_t bytes = 0;
};

}  // namespace moebius
