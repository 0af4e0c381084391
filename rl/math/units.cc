#include "rl/math/units.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>
#include <vector>

namespace moebius::math {
namespace {

struct Row {
  const char* names;  // separated by spaces; a plural "s" is understood for names of three letters or more
  std::array<int8_t, Unit::kDimensions> powers;
  slong num;
  ulong den;
};

// International definitions: inch 0.0254 m, pound 0.45359237 kg, US gallon 231 cubic inches, litre 1 dm^3.
constexpr Row kRows[] = {
    {"m meter metre", {1}, 1, 1},
    {"km kilometer kilometre", {1}, 1000, 1},
    {"dm decimeter decimetre", {1}, 1, 10},
    {"cm centimeter centimetre", {1}, 1, 100},
    {"mm millimeter millimetre", {1}, 1, 1000},
    {"um micrometer micrometre micron", {1}, 1, 1000000},
    {"nm nanometer nanometre", {1}, 1, 1000000000},
    {"in inch inches", {1}, 254, 10000},
    {"ft foot feet", {1}, 3048, 10000},
    {"yd yard", {1}, 9144, 10000},
    {"mi mile", {1}, 1609344, 1000},
    {"kg kilogram", {0, 1}, 1, 1},
    {"g gram", {0, 1}, 1, 1000},
    {"mg milligram", {0, 1}, 1, 1000000},
    {"t ton tonne", {0, 1}, 1000, 1},
    {"lb lbs pound", {0, 1}, 45359237, 100000000},
    {"oz ounce", {0, 1}, 45359237, 1600000000},
    {"s sec second", {0, 0, 1}, 1, 1},
    {"ms millisecond", {0, 0, 1}, 1, 1000},
    {"min minute", {0, 0, 1}, 60, 1},
    {"h hr hour", {0, 0, 1}, 3600, 1},
    {"day", {0, 0, 1}, 86400, 1},
    {"week", {0, 0, 1}, 604800, 1},
    {"A amp ampere", {0, 0, 0, 1}, 1, 1},
    {"mA milliampere", {0, 0, 0, 1}, 1, 1000},
    {"C coulomb", {0, 0, 1, 1}, 1, 1},
    {"K kelvin", {0, 0, 0, 0, 1}, 1, 1},
    {"rad radian", {0, 0, 0, 0, 0, 1}, 1, 1},
    {"byte", {0, 0, 0, 0, 0, 0, 1}, 1, 1},
    {"bit", {0, 0, 0, 0, 0, 0, 1}, 1, 8},
    {"kB kilobyte", {0, 0, 0, 0, 0, 0, 1}, 1000, 1},
    {"MB megabyte", {0, 0, 0, 0, 0, 0, 1}, 1000000, 1},
    {"GB gigabyte", {0, 0, 0, 0, 0, 0, 1}, 1000000000, 1},
    {"Hz hertz", {0, 0, -1}, 1, 1},
    {"kHz kilohertz", {0, 0, -1}, 1000, 1},
    {"MHz megahertz", {0, 0, -1}, 1000000, 1},
    {"N newton", {1, 1, -2}, 1, 1},
    {"kN kilonewton", {1, 1, -2}, 1000, 1},
    {"J joule", {2, 1, -2}, 1, 1},
    {"kJ kilojoule", {2, 1, -2}, 1000, 1},
    {"W watt", {2, 1, -3}, 1, 1},
    {"kW kilowatt", {2, 1, -3}, 1000, 1},
    {"kWh", {2, 1, -2}, 3600000, 1},
    {"Pa pascal", {-1, 1, -2}, 1, 1},
    {"kPa kilopascal", {-1, 1, -2}, 1000, 1},
    {"V volt", {2, 1, -3, -1}, 1, 1},
    {"l L liter litre", {3}, 1, 1000},
    {"ml mL milliliter millilitre cc", {3}, 1, 1000000},
    {"cl cL centiliter centilitre", {3}, 1, 100000},
    {"dl dL deciliter decilitre", {3}, 1, 10000},
    {"gal gallon", {3}, 3785411784, 1000000000000},
    {"ha hectare", {2}, 10000, 1},
    {"acre", {2}, 40468564224, 10000000},
    {"mph", {1, 0, -1}, 1609344, 3600000},
    {"kph kmh", {1, 0, -1}, 1000, 3600},
};

// Words that are one noun whatever they are called; cents are a hundredth of a dollar.
constexpr Row kNouns[] = {
    {"dollar USD buck", {}, 1, 1},
    {"cent", {}, 1, 100},
};

// Beside a number these do not count things: the text says something else.
constexpr std::string_view kNotNouns[] = {
    "or",        "and",      "to",      "not",        "about",      "approximately", "around",    "between",
    "maybe",     "is",       "are",     "if",         "unless",     "when",          "for",       "than",
    "least",     "most",     "either",  "else",       "mod",        "but",           "another",   "also",
    "almost",    "nearly",   "where",   "with",       "except",     "plus",          "minus",     "times",
    "over",      "divided",  "both",    "neither",    "no",         "only",          "percent",   "million",
    "billion",   "thousand", "hundred", "dozen",      "squared",    "cubed",         "more",      "less",
    "false",     "true",     "wrong",   "incorrect",  "correct",    "yes",           "unknown",   "undefined",
    "error",     "none",     "nothing", "infinite",   "impossible", "fewer",         "millions",  "billions",
    "thousands", "hundreds", "dozens",  "halves",     "thirds",     "fourths",       "fifths",    "sixths",
    "sevenths",  "eighths",  "ninths",  "tenths",     "hundredths", "thousandths",   "factorial", "half",
    "quarter",   "third",    "fourth",  "fifth",      "sixth",      "seventh",       "eighth",    "ninth",
    "tenth",     "eleventh", "twelfth", "hundredth",  "thousandth", "elevenths",     "twelfths",  "tens",
    "zero",      "one",      "two",     "three",      "four",       "five",          "six",       "seven",
    "eight",     "nine",     "ten",     "eleven",     "twelve",     "lakh",          "crore",     "point",
    "negative",  "positive", "root",    "inverse",    "base",       "modulo",        "perhaps",   "possibly",
    "probably",  "cannot",   "can",     "could",      "might",      "may",           "would",     "should",
    "was",       "were",     "be",      "instead",    "then",       "rather",        "versus",    "vs",
    "below",     "above",    "under",   "multiplied", "added",      "subtracted",    "doubled",   "tripled",
    "halved",    "pi",       "infinity"};

// Twenty, fourteen, twentieth, quadrillion, ...
bool NamesNumber(std::string_view word) {
  for (const std::string_view tens : {"twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"}) {
    if (!word.starts_with(tens)) continue;
    const std::string_view rest = word.substr(tens.size());
    for (const std::string_view end : {"ty", "tieth", "tieths", "teen", "teenth", "teenths"})
      if (rest == end) return true;
  }
  return word.find("illion") != word.npos || word.starts_with("fourteen");
}

bool Matches(const Row& row, std::string_view word) {
  std::string_view names = row.names;
  while (!names.empty()) {
    const size_t end = std::min(names.find(' '), names.size());
    const std::string_view name = names.substr(0, end);
    if (word == name) return true;
    if (name.size() >= 3 && word.size() == name.size() + 1 && word.back() == 's' && word.starts_with(name))
      return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::optional<Unit> FindExactly(std::string_view word) {
  for (const Row& row : kRows) {
    if (Matches(row, word)) return Unit{.powers = row.powers, .factor = Rational(row.num, row.den)};
  }
  for (const Row& row : kNouns) {
    if (Matches(row, word)) return Unit{.factor = Rational(row.num, row.den), .noun = "dollar"};
  }
  return std::nullopt;
}

}  // namespace

bool Unit::IsAngle() const {
  return noun.empty() && powers == std::array<int8_t, kDimensions>{0, 0, 0, 0, 0, 1};
}

std::string Unit::Key() const {
  std::string key = "[" + noun + (times_pi ? "*" : "") + factor.Key();
  for (int power : powers) key += "," + std::to_string(power);
  return key + "]";
}

std::optional<Unit> FindUnit(std::string_view word) {
  if (word.empty()) return std::nullopt;
  if (auto unit = FindExactly(word)) return unit;
  const std::string lower = Lower(word);
  if (lower == "degree" || lower == "degrees" || lower == "deg") return DegreeUnit();
  // Long names in any case ("Meters"); short symbols as they are ("Mm" is not "mm").
  return word.size() >= 3 ? FindExactly(lower) : std::nullopt;
}

bool MayBeVariables(std::string_view word) {
  constexpr std::string_view kNames[] = {"hr", "mg", "gm", "in", "mi", "ft", "lb", "ha", "ms",
                                         "um", "nm", "mm", "dm", "cl", "dl", "kg", "kW", "Pa"};
  return std::find(std::begin(kNames), std::end(kNames), word) != std::end(kNames);
}

std::optional<Unit> ParseUnitText(std::string_view text) {
  Unit unit;
  bool any = false;
  int sign = 1, power = 1;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '/') {
      if (!any) return std::nullopt;
      sign = -1;
      ++i;
    } else if (std::isalpha(static_cast<unsigned char>(c))) {
      size_t end = i;
      while (end < text.size() && std::isalpha(static_cast<unsigned char>(text[end]))) ++end;
      const std::string word(text.substr(i, end - i)), lower = Lower(word);
      i = end;
      if (lower == "square" || lower == "sq" || lower == "cubic" || lower == "cu") {
        power = lower[0] == 's' ? 2 : 3;
        if (i < text.size() && text[i] == '.') ++i;
        continue;
      }
      if (lower == "per") {
        if (!any) return std::nullopt;
        sign = -1;
        continue;
      }
      if (lower == "squared" || lower == "cubed") return std::nullopt;
      const std::optional<Unit> part = FindUnit(word);
      if (!part) return std::nullopt;
      if (i < text.size() && text[i] == '.') ++i;
      while (i < text.size() && text[i] == ' ') ++i;
      if (i < text.size() && (text[i] == '^' || std::isdigit(static_cast<unsigned char>(text[i])))) {
        while (i < text.size() && (text[i] == '^' || text[i] == '{')) ++i;
        const bool minus = i < text.size() && text[i] == '-';
        if (minus) ++i;
        if (i >= text.size() || text[i] < '1' || text[i] > '9') return std::nullopt;
        power = (text[i] - '0') * (minus ? -1 : 1);
        ++i;
        while (i < text.size() && text[i] == '}') ++i;
      }
      unit = Times(unit, *part, sign * power);
      power = 1;
      any = true;
    } else if (c == ' ' || c == '*' || c == '.' || c == '\\' || c == '~' || c == ',' || c == '(' ||
               c == ')') {
      ++i;
    } else {
      return std::nullopt;
    }
  }
  return any && power == 1 ? std::optional<Unit>(unit) : std::nullopt;
}

std::optional<Unit> NounUnit(std::string_view text) {
  std::string noun;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    if (std::isalpha(static_cast<unsigned char>(c))) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (c == ' ' || c == '-' || c == '.') {
      if (word.empty()) continue;
      if (std::find(std::begin(kNotNouns), std::end(kNotNouns), word) != std::end(kNotNouns) ||
          NamesNumber(word))
        return std::nullopt;
      if (word.size() > 3 && word.back() == 's') word.pop_back();
      noun += (noun.empty() ? "" : " ") + word;
      word.clear();
    } else {
      return std::nullopt;
    }
  }
  if (noun.size() < 2 || noun.size() > 60) return std::nullopt;
  return Unit{.noun = noun};
}

Unit DegreeUnit() { return {.powers = {0, 0, 0, 0, 0, 1}, .factor = Rational(1, 180), .times_pi = true}; }

Unit NamedUnit(std::string_view noun) { return {.noun = std::string(noun)}; }

Unit Times(const Unit& a, const Unit& b, int power_of_b) {
  Unit out = a;
  for (int d = 0; d < Unit::kDimensions; ++d)
    out.powers[d] = static_cast<int8_t>(out.powers[d] + power_of_b * b.powers[d]);
  for (int i = 0; i < std::abs(power_of_b); ++i) {
    if (power_of_b > 0) {
      fmpq_mul(out.factor.get(), out.factor.get(), b.factor.get());
    } else {
      fmpq_div(out.factor.get(), out.factor.get(), b.factor.get());
    }
  }
  if (!b.noun.empty()) {
    out.noun +=
        (out.noun.empty() ? "" : "*") + b.noun + (power_of_b == 1 ? "" : "^" + std::to_string(power_of_b));
  }
  // Degrees count as such only alone; "degrees per second" keeps the rational factor and a name of its own.
  if (b.times_pi) {
    if (a.IsNothing() && power_of_b == 1) {
      out.times_pi = true;
    } else {
      out.noun += "deg";
    }
  }
  return out;
}

}  // namespace moebius::math
