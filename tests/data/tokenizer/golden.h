// Golden lines of a tokenizer: text, ids and decoded text as Hugging Face `tokenizers` gave them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebius {

struct GoldenLine {
  std::string text;  // absent in lines that are only decoded
  bool has_text = true;
  std::string decoded;
  std::vector<int32_t> ids;
};

// Fails the running test and returns what it has when the file cannot be read.
std::vector<GoldenLine> ReadGolden(const std::string& path);

}  // namespace moebius
