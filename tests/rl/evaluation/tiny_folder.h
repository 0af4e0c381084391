// A model folder for tests of evaluation: random weights, a byte tokenizer made by hand, a ChatML template.
#pragma once

#include <cstdint>
#include <string>

namespace moebius {

inline constexpr int64_t kTinyPositions = 640;

// Small files of every benchmark, written for these tests.
inline const std::string kEvalData = MOEBIUS_SOURCE_DIR "/tests/testdata/eval";

// Writes config.json, weights, tokenizer.json and, if wanted, chat_template.jinja.
enum class TinyChat { kNone, kChatMl };
void WriteTinyFolder(const std::string& folder, TinyChat chat);

}  // namespace moebius
