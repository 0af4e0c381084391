// The two large parts of a tokenizer.json, vocabulary and merges, streamed into flat memory while parsing (a
// tree of half a million nodes takes a second to build, search and free), and the rest as a JSON value.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace moebius {

// Strings one behind the other.
class StringPool {
 public:
  void Add(std::string_view text) {
    bytes_ += text;
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

struct VocabAndMerges {
  bool has_vocab = false, has_merges = false;  // objects and lists of these names were there
  StringPool tokens;
  std::vector<int32_t> ids;  // of tokens: 0 to kMaxTokenId
  StringPool merge_parts;    // left, right, left, right, ...
};

// `rest` is the file without model.vocab and model.merges. DamagedError as ParseJson of core/io/json.h has
// it, and for a vocabulary that is not {token: id} or merges that are not pairs ("a b" or ["a", "b"]).
absl::Status ReadTokenizerJson(std::string_view json, const std::string& source, nlohmann::json* rest,
                               VocabAndMerges* model);

}  // namespace moebius
