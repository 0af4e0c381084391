#include "rl/math/clean.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <utility>

namespace moebius::math {
namespace {

struct Sign {
  const char* utf8;
  const char* ascii;
};

constexpr Sign kSigns[] = {
    {"−", "-"},
    {"–", "-"},
    {"—", "-"},
    {"‐", "-"},
    {"‑", "-"},
    {"×", "\\times "},
    {"⋅", "\\cdot "},
    {"·", "\\cdot "},
    {"∙", "\\cdot "},
    {"•", "\\cdot "},
    {"÷", "\\div "},
    {"∕", "/"},
    {"⁄", "/"},
    {"√", "\\sqrt "},
    {"∛", "\\sqrt[3]"},
    {"∜", "\\sqrt[4]"},
    {"∞", "\\infty "},
    {"≤", "\\le "},
    {"≥", "\\ge "},
    {"⩽", "\\le "},
    {"⩾", "\\ge "},
    {"≠", "\\ne "},
    {"≈", "\\approx "},
    {"≡", "\\equiv "},
    {"±", "\\pm "},
    {"∓", "\\mp "},
    {"∪", "\\cup "},
    {"∩", "\\cap "},
    {"∈", "\\in "},
    {"∉", "\\notin "},
    {"∅", "\\emptyset "},
    {"⌀", "\\emptyset "},
    {"ø", "\\emptyset "},
    {"∖", "\\setminus "},
    {"ℝ", "\\mathbb{R}"},
    {"ℤ", "\\mathbb{Z}"},
    {"ℕ", "\\mathbb{N}"},
    {"ℚ", "\\mathbb{Q}"},
    {"ℂ", "\\mathbb{C}"},
    {"°", "^\\circ "},
    {"º", "^\\circ "},
    {"′", "'"},
    {"’", "'"},
    {"‘", "'"},
    {"“", "\""},
    {"”", "\""},
    {"…", "\\ldots "},
    {"⋯", "\\cdots "},
    {"∑", "\\sum "},
    {"∏", "\\prod "},
    {"∫", "\\int "},
    {"⌊", "\\lfloor "},
    {"⌋", "\\rfloor "},
    {"⌈", "\\lceil "},
    {"⌉", "\\rceil "},
    {"⟨", "\\langle "},
    {"⟩", "\\rangle "},
    {"〈", "\\langle "},
    {"〉", "\\rangle "},
    {"∣", "|"},
    {"∧", "\\land "},
    {"∨", "\\lor "},
    {"½", "\\frac{1}{2}"},
    {"⅓", "\\frac{1}{3}"},
    {"⅔", "\\frac{2}{3}"},
    {"¼", "\\frac{1}{4}"},
    {"¾", "\\frac{3}{4}"},
    {"⅕", "\\frac{1}{5}"},
    {"⅖", "\\frac{2}{5}"},
    {"⅗", "\\frac{3}{5}"},
    {"⅘", "\\frac{4}{5}"},
    {"⅙", "\\frac{1}{6}"},
    {"⅚", "\\frac{5}{6}"},
    {"⅐", "\\frac{1}{7}"},
    {"⅛", "\\frac{1}{8}"},
    {"⅜", "\\frac{3}{8}"},
    {"⅝", "\\frac{5}{8}"},
    {"⅞", "\\frac{7}{8}"},
    {"⅑", "\\frac{1}{9}"},
    {"⅒", "\\frac{1}{10}"},
    {"α", "\\alpha "},
    {"β", "\\beta "},
    {"γ", "\\gamma "},
    {"δ", "\\delta "},
    {"ε", "\\epsilon "},
    {"θ", "\\theta "},
    {"λ", "\\lambda "},
    {"μ", "\\mu "},
    {"µ", "\\mu "},
    {"ν", "\\nu "},
    {"ξ", "\\xi "},
    {"π", "\\pi "},
    {"ρ", "\\rho "},
    {"σ", "\\sigma "},
    {"τ", "\\tau "},
    {"φ", "\\phi "},
    {"ϕ", "\\phi "},
    {"χ", "\\chi "},
    {"ψ", "\\psi "},
    {"ω", "\\omega "},
    {"κ", "\\kappa "},
    {"η", "\\eta "},
    {"ζ", "\\zeta "},
    {"Δ", "\\Delta "},
    {"Γ", "\\Gamma "},
    {"Σ", "\\Sigma "},
    {"Ω", "\\Omega "},
    {"Φ", "\\Phi "},
    {"Θ", "\\Theta "},
    {"Λ", "\\Lambda "},
    {"Π", "\\Pi "},
    {"₋", "_{-}"},
    {"€", "\\euro "},
    {"£", "\\pounds "},
    {"¥", "\\yen "},
    {"¢", "\\cent "},
    {"\xC2\xA0", " "},
    {"\xE2\x80\x89", "\\,"},
    {"\xE2\x80\xAF", "\\,"},
    {"\xE2\x80\x82", " "},
    {"\xE2\x80\x83", " "},
    {"\xE2\x80\x88", "\\,"},
    {"\xE2\x80\x8A", "\\,"},
    {"\xE3\x80\x80", " "},
    {"\xE2\x80\x8B", ""},
    {"\xE2\x81\xA0", ""},
    {"\xEF\xBB\xBF", ""},
    {"\xE2\x81\xA2", ""},
    {"，", ","},
    {"：", ":"},
    {"（", "("},
    {"）", ")"},
    {"％", "%"},
    {"＝", "="},
    {"＋", "+"},
    {"－", "-"},
};

constexpr Sign kSuperscripts[] = {{"⁰", "0"}, {"¹", "1"}, {"²", "2"}, {"³", "3"}, {"⁴", "4"},
                                  {"⁵", "5"}, {"⁶", "6"}, {"⁷", "7"}, {"⁸", "8"}, {"⁹", "9"},
                                  {"⁻", "-"}, {"⁺", "+"}, {"ⁿ", "n"}, {"ˣ", "x"}, {"ⁱ", "i"}};
constexpr Sign kSubscripts[] = {{"₀", "0"}, {"₁", "1"}, {"₂", "2"}, {"₃", "3"}, {"₄", "4"}, {"₅", "5"},
                                {"₆", "6"}, {"₇", "7"}, {"₈", "8"}, {"₉", "9"}, {"ₙ", "n"}, {"ₖ", "k"}};

const Sign* FindSign(std::string_view text, const Sign* begin, const Sign* end) {
  return std::find_if(begin, end, [&](const Sign& sign) { return text.starts_with(sign.utf8); });
}

// A run of raised or lowered signs as one group, so that x²³ is x^{23}.
bool TakeRun(std::string_view text, size_t* at, const Sign* begin, const Sign* end, char mark,
             std::string* out) {
  std::string run;
  while (true) {
    const Sign* sign = FindSign(text.substr(*at), begin, end);
    if (sign == end) break;
    run += sign->ascii;
    *at += std::string_view(sign->utf8).size();
  }
  if (run.empty()) return false;
  *out += std::string(1, mark) + "{" + run + "}";
  return true;
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  // A backslash before the last space makes a command of it: "\ ".
  while (!text.empty() && IsSpace(text.back()) && !(text.size() > 1 && text[text.size() - 2] == '\\'))
    text.remove_suffix(1);
  return text;
}

// Removes prefix and suffix if both are there and the suffix does not belong to an escape ("\$").
bool Unwrap(std::string_view* text, std::string_view prefix, std::string_view suffix) {
  if (text->size() < prefix.size() + suffix.size() || !text->starts_with(prefix) || !text->ends_with(suffix))
    return false;
  const std::string_view inner = text->substr(prefix.size(), text->size() - prefix.size() - suffix.size());
  if (!inner.empty() && inner.back() == '\\') return false;
  if (suffix != "}" && inner.find(suffix) != std::string_view::npos) return false;
  *text = inner;
  return true;
}

// "\boxed{...}" and the like, when the brace closes at the very end.
bool UnwrapCommand(std::string_view* text, std::string_view command) {
  if (!text->starts_with(command)) return false;
  if (MatchBrace(*text, command.size() - 1) != text->size()) return false;
  *text = text->substr(command.size(), text->size() - command.size() - 1);
  return true;
}

constexpr std::string_view kWrapperCommands[] = {
    "\\boxed{",        "\\fbox{",       "\\text{",   "\\textbf{",     "\\textit{",
    "\\mathrm{",       "\\mathbf{",     "\\textrm{", "\\mbox{",       "\\emph{",
    "\\displaystyle{", "\\ensuremath{", "\\bm{",     "\\boldsymbol{", "\\mathit{"};
constexpr std::string_view kPrefixes[] = {
    "\\displaystyle", "\\textstyle", "\\,", "\\;", "\\!", "\\ ", "\\:", "~", "\\quad", "\\qquad"};
constexpr std::string_view kSuffixes[] = {"\\\\", "\\,", "\\;",    "\\!",    "\\ ",
                                          "\\:",  "~",   "\\quad", "\\qquad"};

}  // namespace

size_t MatchBrace(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

std::string ToAscii(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = text[i];
    if (text.substr(i).starts_with("{\\rm ")) {
      out += "\\mathrm{";
      i += 5;
      continue;
    }
    if (c < 0x80) {
      out += (c < 0x20 || c == 0x7F) ? ' ' : static_cast<char>(c);
      ++i;
      continue;
    }
    if (TakeRun(text, &i, std::begin(kSuperscripts), std::end(kSuperscripts), '^', &out)) continue;
    if (TakeRun(text, &i, std::begin(kSubscripts), std::end(kSubscripts), '_', &out)) continue;
    const Sign* sign = FindSign(text.substr(i), std::begin(kSigns), std::end(kSigns));
    if (sign != std::end(kSigns)) {
      out += sign->ascii;
      i += std::string_view(sign->utf8).size();
      continue;
    }
    out += '?';
    ++i;
    while (i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) ++i;
  }
  return out;
}

std::string StripWrappers(std::string_view ascii) {
  constexpr int kMaxRounds = 32;  // each looks for closing brackets far away
  std::string_view text = ascii;
  bool again = true;
  for (int round = 0; again && round < kMaxRounds; ++round) {
    const size_t before = text.size();
    text = Trim(text);
    for (std::string_view prefix : kPrefixes) {
      const bool letters = std::isalpha(static_cast<unsigned char>(prefix.back())) != 0;
      if (!text.starts_with(prefix)) continue;
      if (letters && text.size() > prefix.size() &&
          std::isalpha(static_cast<unsigned char>(text[prefix.size()])))
        continue;
      text.remove_prefix(prefix.size());
    }
    for (std::string_view suffix : kSuffixes) {
      if (text.size() > suffix.size() && text.ends_with(suffix)) text.remove_suffix(suffix.size());
    }
    if (text.size() > 1 && text.back() == '.' && !text.ends_with("..")) text.remove_suffix(1);
    if (text.size() > 1 && (text.back() == ',' || text.back() == ';') && text[text.size() - 2] != '\\')
      text.remove_suffix(1);
    Unwrap(&text, "$$", "$$") || Unwrap(&text, "$", "$") || Unwrap(&text, "\\(", "\\)") ||
        Unwrap(&text, "\\[", "\\]") || Unwrap(&text, "**", "**") || Unwrap(&text, "`", "`") ||
        Unwrap(&text, "\"", "\"");
    for (std::string_view command : kWrapperCommands) UnwrapCommand(&text, command);
    again = text.size() != before;
  }
  return std::string(text);
}

std::string PlainText(std::string_view ascii) {
  std::string out;
  for (size_t i = 0; i < ascii.size(); ++i) {
    const char c = ascii[i];
    if (c == '\\' && i + 1 < ascii.size()) {
      size_t end = i + 1;
      while (end < ascii.size() && std::isalpha(static_cast<unsigned char>(ascii[end]))) ++end;
      const std::string_view name = ascii.substr(i + 1, end - i - 1);
      if (name.empty()) {
        if (ascii[i + 1] == '$' || ascii[i + 1] == '%' || ascii[i + 1] == '{' || ascii[i + 1] == '}') {
          out += ascii[i + 1];
        } else {
          out += ' ';
        }
        i += 1;
        continue;
      }
      // Formatting says nothing; any other command stays as a word.
      const bool format =
          (name.starts_with("text") || name.starts_with("math") || name == "mbox" || name == "boxed" ||
           name == "emph" || name == "left" || name == "right" || name == "quad" || name == "qquad") &&
          end < ascii.size();
      if (!format) out += "\\" + std::string(name);
      i = end - 1;
    } else if (c == '~' || IsSpace(c)) {
      out += ' ';
    } else if (c != '$' && c != '{' && c != '}' && c != '`' && c != '"' &&
               !(c == '*' && (ascii.substr(i + 1, 1) == "*" || (i > 0 && ascii[i - 1] == '*')))) {
      out += c;
    }
  }
  std::string single;
  for (char c : out) {
    if (c != ' ' || (!single.empty() && single.back() != ' ')) single += c;
  }
  while (!single.empty() && (single.back() == ' ' || single.back() == '.')) single.pop_back();
  return single;
}

std::string PlainWords(std::string_view ascii) {
  std::string out = PlainText(ascii);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace moebius::math
