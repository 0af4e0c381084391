// Golden lines of a tokenizer: text, ids and decoded text as Hugging Face `tokenizers` gave them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebius {

struct GoldenLine {
  std::string text, decoded;
  std::vector<int32_t> ids;
};

// Fails the running test and returns what it has when the file cannot be read.
std::vector<GoldenLine> ReadGolden(const std::string& path);

}  // namespace moebius
