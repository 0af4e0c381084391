// logic: every person is a knight, whose statements are all true, or a knave, whose statements are all false.
// An answer has one letter a person, T for a knight and L for a knave. Only puzzles with one solution are
// items.
#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <tuple>

#include "core/base/strings.h"
#include "rl/tasks/task_kind.h"

namespace moebius {
namespace {

enum class Claim { kKnight, kKnave, kSame, kDifferent, kSomeKnave, kImplies, kCount };

// x and y are persons; for kCount x is the number of knights and y is 0. Symmetric claims have x < y.
struct Statement {
  int speaker;
  Claim claim;
  int x, y;

  bool operator==(const Statement&) const = default;
  bool operator<(const Statement& other) const {
    return std::tie(speaker, claim, x, y) < std::tie(other.speaker, other.claim, other.x, other.y);
  }
};

// Bit p of `knights` says that person p is a knight.
bool ClaimHolds(const Statement& s, unsigned knights) {
  const bool x = knights >> s.x & 1, y = knights >> s.y & 1;
  switch (s.claim) {
    case Claim::kKnight:
      return x;
    case Claim::kKnave:
      return !x;
    case Claim::kSame:
      return x == y;
    case Claim::kDifferent:
      return x != y;
    case Claim::kSomeKnave:
      return !x || !y;
    case Claim::kImplies:
      return !x || y;
    case Claim::kCount:
      return std::popcount(knights) == s.x;
  }
  return false;
}

std::string ClaimText(const Statement& s) {
  const auto name = [](int person) { return static_cast<char>('A' + person); };
  const char x = name(s.x), y = name(s.y);
  switch (s.claim) {
    case Claim::kKnight:
      return Concat(x, " is a knight");
    case Claim::kKnave:
      return Concat(x, " is a knave");
    case Claim::kSame:
      return Concat(x, " and ", y, " are of the same kind");
    case Claim::kDifferent:
      return Concat(x, " and ", y, " are of different kinds");
    case Claim::kSomeKnave:
      return Concat(x, " or ", y, " is a knave");
    case Claim::kImplies:
      return Concat("if ", x, " is a knight, so is ", y);
    case Claim::kCount:
      return Concat("the number of knights is ", s.x);
  }
  return "";
}

class LogicKind final : public TaskKind {
 public:
  explicit LogicKind(const TaskOptions& options)
      : persons_(options.logic_persons), statements_(options.logic_statements), style_(options.style) {}

  std::optional<TaskCandidate> Draw(ItemDraws& draws) const override {
    std::vector<Statement> puzzle;
    for (int speaker = 0; speaker < persons_; ++speaker)
      for (int i = 0; i < statements_; ++i) puzzle.push_back(DrawStatement(speaker, draws));
    const std::optional<unsigned> knights = OnlySolution(puzzle);
    if (!knights) return std::nullopt;

    TaskCandidate out;
    for (int p = 0; p < persons_; ++p) out.item.gold += *knights >> p & 1 ? 'T' : 'L';
    if (style_ == PromptStyle::kSentence)
      out.item.prompt = "Knights only say what is true, knaves only what is false. ";
    for (const Statement& s : puzzle)
      out.item.prompt += Concat(static_cast<char>('A' + s.speaker), ": ", ClaimText(s), ". ");
    out.item.prompt +=
        style_ == PromptStyle::kTerse
            ? "kinds: "
            : "Write one letter for each person in the order of the alphabet, T for a knight and "
              "L for a knave, and nothing else.";
    out.canonical = Canonical(puzzle);
    return out;
  }

  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    return GradePlaces(item.gold, answer);
  }

 private:
  // What a person says of itself alone is never a statement: a knight and a knave would say the same.
  Statement DrawStatement(int speaker, ItemDraws& draws) const {
    const Claim claim = static_cast<Claim>(draws.Below(7));
    if (claim == Claim::kCount) return {speaker, claim, static_cast<int>(draws.Below(persons_ + 1)), 0};
    int x = draws.Below(persons_ - 1);
    if (claim == Claim::kKnight || claim == Claim::kKnave) return {speaker, claim, x + (x >= speaker), 0};
    x = draws.Below(persons_);
    int y = draws.Below(persons_ - 1);
    y += y >= x;
    if (claim != Claim::kImplies && x > y) std::swap(x, y);
    return {speaker, claim, x, y};
  }

  std::optional<unsigned> OnlySolution(const std::vector<Statement>& puzzle) const {
    std::optional<unsigned> found;
    for (unsigned knights = 0; knights < 1u << persons_; ++knights) {
      const bool fits = std::all_of(puzzle.begin(), puzzle.end(), [&](const Statement& s) {
        return ClaimHolds(s, knights) == static_cast<bool>(knights >> s.speaker & 1);
      });
      if (!fits) continue;
      if (found) return std::nullopt;
      found = knights;
    }
    return found;
  }

  // The least of the puzzle's sorted statements over all ways to rename persons.
  std::string Canonical(const std::vector<Statement>& puzzle) const {
    std::array<int, 4> name{0, 1, 2, 3};
    std::vector<Statement> least;
    do {
      std::vector<Statement> renamed = puzzle;
      for (Statement& s : renamed) {
        s.speaker = name[s.speaker];
        if (s.claim == Claim::kCount) continue;
        s.x = name[s.x];
        if (s.claim == Claim::kKnight || s.claim == Claim::kKnave) continue;
        s.y = name[s.y];
        if (s.claim != Claim::kImplies && s.x > s.y) std::swap(s.x, s.y);
      }
      std::sort(renamed.begin(), renamed.end());
      if (least.empty() || renamed < least) least = std::move(renamed);
    } while (std::next_permutation(name.begin(), name.begin() + persons_));
    std::string text = Concat(persons_);
    for (const Statement& s : least) text += Concat(" ", s.speaker, static_cast<int>(s.claim), s.x, s.y);
    return text;
  }

  int persons_, statements_;
  PromptStyle style_;
};

}  // namespace

std::unique_ptr<TaskKind> MakeLogic(const TaskOptions& options) {
  return std::make_unique<LogicKind>(options);
}

}  // namespace moebius
