// Compares two parsed answers of any kind: chooses by what both are (relation, set, list, matrix, quantity,
// number).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rl/math/identity.h"

namespace moebius::math {

class Comparer {
 public:
  // A symbol `integer` stands for all integers in both (family.h).
  explicit Comparer(Work& work, std::string integer = "")
      : work_(work), tree_(work.tree), integer_(std::move(integer)) {}

  GradeResult Compare(int gold, int answer);

 private:
  // compare.cc
  GradeResult CompareLists(int gold, int answer);
  // Of assignments to different names, by these; else as it is.
  std::vector<int> ByName(const std::vector<int>& list);
  // Whether all are assignments, to symbols of different first letters.
  bool NamesDiffer(const std::vector<int>& list) const;
  GradeResult InOrder(const std::vector<int>& gold, const std::vector<int>& answer);
  GradeResult AnyOrder(const std::vector<int>& gold, const std::vector<int>& answer, bool repeats_count);
  // Of components that vary together: none may be shifted against the others by an integer of its own.
  template <typename Components>
  GradeResult Together(Components compare) {
    std::string integer = std::exchange(integer_, "");
    GradeResult result = compare();
    integer_ = std::move(integer);
    return result;
  }
  GradeResult CompareEllipses(int gold, int answer);
  GradeResult CompareMatrices(int gold, int answer);
  GradeResult CompareRatios(int gold, int answer);
  GradeResult CompareCongruences(int gold, int answer);
  // "2 hours and 30 minutes" is one time: parts of a kind, each in a smaller unit, become their sum.
  int AddParts(int id);
  int ExpandSigns(int id);
  int FoldMatrix(int id);

  // compare_relations.cc
  GradeResult CompareRelations(int gold, int answer);
  GradeResult CompareInequalities(int gold, int answer);
  // A relation read as "name = value", or as an equation.
  struct Reading {
    bool relation = false;
    bool named = false;     // value is stated for `name`
    bool equation = false;  // neither side is a name
    bool untrue = false;    // a chain of constants that is not true
    bool defines = false;   // the name is a function's: f(x), or y
    std::string name = {};
    int call = -1;  // the kCall node
    int value = -1;
    int rounded = -1;  // what stands behind an "approximately equal"
  };
  Reading Read(int id);
  // Whether `rounded` is `exact` with the digits that it has, cut or rounded; nullopt where that is not
  // known.
  std::optional<bool> Rounds(int exact, int rounded);
  // True if `equation` (= 0) is linear in the variable that `solved` states and fulfilled by its value.
  bool Solves(const Reading& solved, int equation);

  // compare_numbers.cc: units, percent, floating-point artefacts, then CompareScalars
  GradeResult CompareNumbers(int gold, int answer);
  GradeResult CompareQuantities(int gold, int answer);
  GradeResult ComparePercent(int gold, int answer);
  struct Quantity {
    int amount = -1;
    Unit unit = {};
    bool has_unit = false;
  };
  std::optional<Quantity> ToQuantity(int id, bool letters_are_units);
  int InBaseUnits(const Quantity& quantity);

  Work& work_;
  Tree& tree_;
  std::string integer_;
  int depth_ = 0;
};

}  // namespace moebius::math
