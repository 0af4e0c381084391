#include <array>
#include <utility>

#include "data/tokenizer/unicode_classes.h"
#include "rl/reward/text_reward.h"

namespace moebius {
namespace {

constexpr std::pair<std::string_view, Script> kScriptNames[] = {
    {"latin", Script::kLatin},      {"greek", Script::kGreek},   {"cyrillic", Script::kCyrillic},
    {"hebrew", Script::kHebrew},    {"arabic", Script::kArabic}, {"devanagari", Script::kDevanagari},
    {"thai", Script::kThai},        {"hangul", Script::kHangul}, {"han", Script::kHan},
    {"japanese", Script::kJapanese}};

struct ScriptRange {
  Script script;
  uint32_t first, last;
};
// The blocks of the Unicode standard that hold each script's letters; kana stands under kJapanese.
constexpr ScriptRange kScriptRanges[] = {
    {Script::kLatin, 'A', 0x024F},         {Script::kLatin, 0x1E00, 0x1EFF},
    {Script::kLatin, 0x2C60, 0x2C7F},      {Script::kLatin, 0xA722, 0xA7FF},
    {Script::kLatin, 0xFB00, 0xFB06},      {Script::kLatin, 0xFF21, 0xFF5A},
    {Script::kGreek, 0x0370, 0x03FF},      {Script::kGreek, 0x1F00, 0x1FFF},
    {Script::kCyrillic, 0x0400, 0x052F},   {Script::kCyrillic, 0x1C80, 0x1C8F},
    {Script::kCyrillic, 0x2DE0, 0x2DFF},   {Script::kCyrillic, 0xA640, 0xA69F},
    {Script::kHebrew, 0x0590, 0x05FF},     {Script::kHebrew, 0xFB1D, 0xFB4F},
    {Script::kArabic, 0x0600, 0x06FF},     {Script::kArabic, 0x0750, 0x077F},
    {Script::kArabic, 0x0870, 0x08FF},     {Script::kArabic, 0xFB50, 0xFDFF},
    {Script::kArabic, 0xFE70, 0xFEFC},     {Script::kDevanagari, 0x0900, 0x097F},
    {Script::kDevanagari, 0xA8E0, 0xA8FF}, {Script::kThai, 0x0E00, 0x0E7F},
    {Script::kHangul, 0x1100, 0x11FF},     {Script::kHangul, 0x3130, 0x318F},
    {Script::kHangul, 0xA960, 0xA97F},     {Script::kHangul, 0xAC00, 0xD7FF},
    {Script::kHan, 0x3005, 0x3007},        {Script::kHan, 0x3400, 0x4DBF},
    {Script::kHan, 0x4E00, 0x9FFF},        {Script::kHan, 0xF900, 0xFAFF},
    {Script::kHan, 0x20000, 0x323AF},      {Script::kJapanese, 0x3031, 0x30FF},
    {Script::kJapanese, 0x31F0, 0x31FF},   {Script::kJapanese, 0xFF66, 0xFF9F}};

bool IsOfScript(Script script, uint32_t code_point) {
  for (const ScriptRange& range : kScriptRanges) {
    if (code_point < range.first || code_point > range.last) continue;
    return range.script == script || (script == Script::kJapanese && range.script == Script::kHan);
  }
  return false;
}

}  // namespace

std::optional<Script> ScriptByName(std::string_view name) {
  for (const auto& [known, script] : kScriptNames)
    if (known == name) return script;
  return std::nullopt;
}

Reward LanguageConsistency(Script script, std::string_view text) {
  const UnicodeClasses& classes = GetUnicodeClasses();
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  int64_t letters = 0, expected = 0;
  while (p < end) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid) return std::nullopt;
    p += c.length;
    if ((classes.Of(c.code_point) & kLetter) == 0) continue;
    ++letters;
    expected += IsOfScript(script, c.code_point);
  }
  if (letters == 0) return std::nullopt;
  return static_cast<double>(expected) / letters;
}

}  // namespace moebius
