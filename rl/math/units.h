// Units of measure with exact conversion factors, money, and counted nouns ("5 apples").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rl/math/number.h"

namespace moebius::math {

// A product of powers of base units (metre, kilogram, second, ampere, kelvin, radian, byte) times an exact
// factor. What has no such base (a currency, apples, degrees Celsius) is a noun: it equals only itself.
struct Unit {
  enum Dimension { kLength, kMass, kTime, kCurrent, kTemperature, kAngle, kInformation, kDimensions };
  std::array<int8_t, kDimensions> powers = {};
  Rational factor = Rational(1, 1);
  std::string noun = {};
  bool times_pi = false;  // the factor is also multiplied by pi: degrees in radians

  bool SameKind(const Unit& other) const { return powers == other.powers && noun == other.noun; }
  bool IsAngle() const;
  bool IsNothing() const { return noun.empty() && powers == std::array<int8_t, kDimensions>{}; }
  std::string Key() const;
};

// One word: "cm", "miles", "dollars". Single letters (m, g, s, h, l, N, ...) are units too; whether a letter
// is meant as one is the caller's question.
std::optional<Unit> FindUnit(std::string_view word);
// Whether a unit's name is as likely two variables side by side: hr, mg.
bool MayBeVariables(std::string_view word);
// "km/h", "square feet", "m^2", "meters per second", "kg m/s^2". None if a word is no unit.
std::optional<Unit> ParseUnitText(std::string_view text);
// A unit for a counted noun; plural and singular are the same noun. None for words that state no count ("or",
// "not").
std::optional<Unit> NounUnit(std::string_view text);

Unit DegreeUnit();
Unit NamedUnit(std::string_view noun);
Unit Times(const Unit& a, const Unit& b, int power_of_b);

}  // namespace moebius::math
