#include "rl/math/equivalence.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/strings.h"
#include "rl/math/clean.h"
#include "rl/math/compare.h"
#include "rl/math/extract.h"
#include "rl/math/family.h"
#include "rl/math/lexer.h"
#include "rl/math/parser.h"
#include "rl/math/solve.h"
#include "rl/math/special.h"

namespace moebius::math {
namespace {

// The answer's text: taken out of a longer text if that marks it, in ASCII, without wrappers.
std::string Prepare(std::string_view raw) {
  const bool marked = raw.find("\\boxed") != std::string_view::npos ||
                      raw.find("<answer>") != std::string_view::npos ||
                      raw.find("</think>") != std::string_view::npos;
  // "The answer is 5" is read behind the phrase.
  const std::string words = raw.size() < 200 ? PlainWords(raw) : "";
  bool phrase = false;
  for (std::string_view start :
       {"the answer is", "the final answer is", "so the answer is", "so the final answer is",
        "answer:", "final answer:", "the final answer:", "answer is", "final answer is"}) {
    phrase = phrase || (words.starts_with(start) &&
                        (words.substr(start.size(), 1) == " " || words.substr(start.size(), 1) == ":"));
  }
  if (marked || phrase) {
    const Extracted extracted = ExtractAnswer(raw);
    if (extracted.found && extracted.where == "answer tag" && extracted.answer.size() < raw.size())
      return Prepare(extracted.answer);
    if (extracted.found) return ReplaceKnownWords(StripWrappers(ToAscii(extracted.answer)));
  }
  return ReplaceKnownWords(StripWrappers(ToAscii(raw)));
}

struct Parsed {
  ParseResult result;
  bool words = false;  // the root is text only
};

Parsed ParseText(std::string_view text, bool comma_thousands, Work& work) {
  std::vector<Token> tokens;
  Parsed out;
  if (!Lex(text, {.comma_thousands = comma_thousands}, &tokens, &out.result.why)) return out;
  const ParseLimits limits{.max_depth = work.budget.max_depth,
                           .max_nodes = work.tree.size() + work.budget.max_nodes};
  out.result = Parse(tokens, limits, &work.tree);
  out.words = out.result.root >= 0 && work.tree.op(out.result.root) == Op::kText;
  return out;
}

Work NewWork(const GradeBudget& budget) {
  Work work;
  work.budget = budget;
  work.meter.max_steps = budget.max_steps;
  work.meter.max_exact_bits = budget.max_exact_bits;
  return work;
}

// But for those that part words or numbers.
std::string WithoutSpaces(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto beside = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at]));
    };
    if (text[i] != ' ' || (beside(i - 1) && beside(i + 1))) out += text[i];
  }
  return out;
}

// Texts that are no mathematics are the same if their words are.
GradeResult CompareWords(std::string_view gold, std::string_view answer, const Parsed& a, const Parsed& b) {
  const bool words = gold.find_first_of("\\^_{") == gold.npos && answer.find_first_of("\\^_{") == answer.npos;
  if (WithoutSpaces(gold) == WithoutSpaces(answer)) return Equal("the same text");
  // Without its braces, mathematics that cannot be read may be other mathematics.
  if (words && PlainWords(gold) == PlainWords(answer)) return Equal("the same words");
  if (a.result.over_budget || b.result.over_budget) {
    return Undecided(a.result.over_budget ? "gold: " + a.result.why : "answer: " + b.result.why);
  }
  if (a.result.root < 0 && b.result.root >= 0 && !b.words)
    return Undecided("the gold answer cannot be read: " + a.result.why);
  if (b.result.root < 0) return Different("the answer cannot be read: " + b.result.why);
  return Different("different words");
}

GradeResult GradeParsed(std::string_view gold, std::string_view answer, bool comma_thousands,
                        const GradeBudget& budget) {
  Work work = NewWork(budget);
  const Parsed a = ParseText(gold, comma_thousands, work), b = ParseText(answer, comma_thousands, work);
  if (a.result.root < 0 || b.result.root < 0) return CompareWords(gold, answer, a, b);
  return Comparer(work).Compare(a.result.root, b.result.root);
}

// Values for all integers. `a` and `b`: what the texts say of that; one that says nothing means them by the
// other's letter, or by the only one that the other does not use.
GradeResult GradeFamilies(std::string_view gold, std::string_view answer, const std::optional<Family>& a,
                          const std::optional<Family>& b, const GradeBudget& budget) {
  Work work = NewWork(budget);
  Tree& tree = work.tree;
  const Parsed x = ParseText(a ? a->text : gold, false, work),
               y = ParseText(b ? b->text : answer, false, work);
  if (x.result.root < 0 || y.result.root < 0) return CompareWords(gold, answer, x, y);
  const auto symbols_of = [&](int root) {
    const bool named = tree.op(root) == Op::kRelation && tree.op(tree.args(root)[0]) == Op::kSymbol;
    std::vector<std::string> symbols = tree.Symbols(root);
    if (named) std::erase(symbols, tree[tree.args(root)[0]].text);
    return symbols;
  };
  const std::vector<std::string> in_x = symbols_of(x.result.root), in_y = symbols_of(y.result.root);
  const auto has = [](const std::vector<std::string>& symbols, const std::string& letter) {
    return std::ranges::count(symbols, letter) > 0;
  };
  const auto letter_of = [&](const std::optional<Family>& family, const std::vector<std::string>& symbols,
                             const std::string& others, const std::vector<std::string>& in_other) {
    if (family) return family->letter;
    if (has(symbols, others)) return others;
    std::vector<std::string> own;
    std::ranges::copy_if(symbols, std::back_inserter(own),
                         [&](const std::string& symbol) { return !has(in_other, symbol); });
    return own.size() == 1 ? own[0] : "";
  };
  const std::string letter_x = letter_of(a, in_x, b ? b->letter : "", in_y),
                    letter_y = letter_of(b, in_y, a ? a->letter : "", in_x);
  int other = y.result.root;
  if (letter_x.empty() || letter_y.empty() || (letter_x != letter_y && has(in_y, letter_x)))
    return Comparer(work).Compare(x.result.root, other);
  other = Substitute(tree, other, letter_y, tree.Make(Op::kSymbol, {}, letter_x));
  GradeResult result = Comparer(work, letter_x).Compare(x.result.root, other);
  const auto several = [&](int root) {
    return tree.Contains(root, {Op::kSequence, Op::kMatrix, Op::kUnion, Op::kIntersection, Op::kDifference,
                                Op::kBuilder}) ||
           (tree.op(root) == Op::kRelation && tree[root].text != "=");
  };
  if (result.outcome == Outcome::kDifferent && (several(x.result.root) || several(other)))
    return Undecided("values for all integers, which may be told in other parts");
  return result;
}

// "100,200" may be one number or two.
bool HasCommaThousands(std::string_view text) {
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    const bool digits = text[i - 1] >= '0' && text[i - 1] <= '9' && text[i + 1] >= '1' && text[i + 1] <= '9';
    if (text[i] == ',' && digits) return true;
  }
  return false;
}

std::optional<GradeResult> GradeChoice(std::string_view gold, std::string_view answer,
                                       const GradeBudget& budget) {
  const std::optional<Choice> a = ReadChoice(gold), b = ReadChoice(answer);
  if (!a || a->hedged) return std::nullopt;
  if (b && b->hedged) return Different("several choices");
  if (b && (a->marked || b->marked || (a->content.empty() && b->content.empty()))) {
    if (a->letter != b->letter) return Different("different choices");
    const bool contents = !a->content.empty() && !b->content.empty();
    if (!contents || Grade(a->content, b->content, budget).outcome == Outcome::kEqual)
      return Equal("the same choice");
    if (!a->certain && !b->certain) return std::nullopt;
    return Undecided("the same letter before different contents");
  }
  // "(B) 12" as gold: the value alone is an answer, too.
  if (!b && !a->content.empty()) return Grade(a->content, answer, budget);
  return a->marked ? std::optional<GradeResult>(Different("no choice was made")) : std::nullopt;
}

GradeResult GradeTexts(const std::string& gold, const std::string& answer, const GradeBudget& budget) {
  if (gold.empty()) return Undecided("the gold answer is empty");
  if (answer.empty()) return Different("the answer is empty");
  if (gold == answer) return Equal("the same text");
  if (const auto choice = GradeChoice(gold, answer, budget)) return *choice;
  const std::optional<Clock> a = ReadClock(gold), b = ReadClock(answer);
  if (a && b) return CompareClocks(*a, *b);
  if ((a && a->certain) || (b && b->certain)) return Different("a time of day against what is none");
  const std::optional<Family> family_a = ReadFamily(gold), family_b = ReadFamily(answer);
  if (family_a || family_b) return GradeFamilies(gold, answer, family_a, family_b, budget);
  GradeResult result = GradeParsed(gold, answer, true, budget);
  if (result.outcome != Outcome::kEqual && (HasCommaThousands(gold) || HasCommaThousands(answer))) {
    GradeResult lists = GradeParsed(gold, answer, false, budget);
    if (lists.outcome == Outcome::kEqual) return lists;
  }
  return result;
}

}  // namespace

std::string_view OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kEqual:
      return "equal";
    case Outcome::kDifferent:
      return "different";
    case Outcome::kUndecided:
      break;
  }
  return "undecided";
}

GradeResult Grade(std::string_view gold, std::string_view answer, const GradeBudget& budget) {
  const auto too_long = [&](std::string_view text, int64_t max_bytes) {
    return static_cast<int64_t>(text.size()) > max_bytes;
  };
  const auto refuse = [](std::string_view text, int64_t max_bytes) {
    return Undecided(Concat("a text of ", text.size(), " bytes; the size budget is ", max_bytes));
  };
  for (std::string_view text : {gold, answer}) {
    if (too_long(text, budget.max_text_bytes)) return refuse(text, budget.max_text_bytes);
  }
  const std::string a = Prepare(gold), b = Prepare(answer);
  for (const std::string& text : {a, b}) {
    if (too_long(text, budget.max_bytes)) return refuse(text, budget.max_bytes);
  }
  return GradeTexts(a, b, budget);
}

GradeResult Grade(std::string_view gold, std::string_view answer) {
  return Grade(gold, answer, GradeBudget());
}

}  // namespace moebius::math
