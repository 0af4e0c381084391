#include "data/tokenizer/unicode_classes.h"

#include <map>

namespace moebius {

UnicodeClasses::UnicodeClasses() {
  std::map<CharClass, uint16_t> uniform;  // blocks of one class are shared
  size_t run = 0;
  for (uint32_t block = 0; block < block_.size(); ++block) {
    const uint32_t first = block << 8;
    const auto starts = [&](size_t r) { return kUnicodeRuns[r] >> 9; };
    const auto ends = [&](size_t r) { return r + 1 < kUnicodeRunsSize ? starts(r + 1) : uint32_t{0x110000}; };
    while (ends(run) <= first) ++run;
    const auto class_of = [](size_t r) { return static_cast<CharClass>(kUnicodeRuns[r] & 511); };
    const uint16_t index = static_cast<uint16_t>(blocks_.size() >> 8);
    if (ends(run) >= first + 256) {
      const auto [found, added] = uniform.try_emplace(class_of(run), index);
      block_[block] = found->second;
      if (added) blocks_.resize(blocks_.size() + 256, class_of(run));
      continue;
    }
    block_[block] = index;
    for (uint32_t c = first; c < first + 256; ++c) {
      while (ends(run) <= c) ++run;
      blocks_.push_back(class_of(run));
    }
  }
  for (uint32_t c = 0; c < ascii_.size(); ++c) ascii_[c] = Of(c);
}

const UnicodeClasses& GetUnicodeClasses() {
  static const UnicodeClasses classes;
  return classes;
}

}  // namespace moebius
