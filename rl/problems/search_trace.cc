#include "rl/problems/search_trace.h"

#include <cstdlib>
#include <set>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// Draws that make no new try are given up at this many for each try asked for: then few tries are left.
constexpr int64_t kDrawsPerTry = 30;

// A number, or two of these joined by an operator; nodes come before those that use them.
struct Node {
  int64_t value;
  char op = 0;  // 0: a number
  int left = -1, right = -1;
};

struct Try {
  std::vector<Node> nodes;
  int root = 0;
  int64_t value() const { return nodes[root].value; }
};

// As text, joined nodes below `done` as their values; parentheses around every other one but the root.
std::string Text(const Try& made, int node, int done) {
  const Node& n = made.nodes[node];
  if (n.op == 0 || node < done) return Concat(n.value);
  const std::string inside = Concat(Text(made, n.left, done), n.op, Text(made, n.right, done));
  return node == made.root ? inside : Concat('(', inside, ')');
}

// The expression, and what becomes of it as one pair after the other is joined: "(3+5)*2=8*2=16".
std::string Written(const Try& made) {
  std::string text, last;
  for (int done = 0; done <= std::ssize(made.nodes); ++done) {
    std::string now = Text(made, made.root, done);
    if (now == last) continue;
    text += Concat(text.empty() ? "" : "=", now);
    last = std::move(now);
  }
  return text;
}

// The same whichever way round a sum or a product is written.
std::string Canonical(const Try& made, int node) {
  const Node& n = made.nodes[node];
  if (n.op == 0) return Concat(n.value);
  std::string left = Canonical(made, n.left), right = Canonical(made, n.right);
  if ((n.op == '+' || n.op == '*') && right < left) std::swap(left, right);
  return Concat('(', left, n.op, right, ')');
}

class Searcher {
 public:
  Searcher(std::span<const int64_t> numbers, int64_t target, bool division, uint64_t seed)
      : numbers_(numbers), target_(target), division_(division), stream_(seed, "search trace") {}

  Try Draw() {
    Try made;
    std::vector<int> left;
    for (const int64_t number : numbers_) {
      left.push_back(static_cast<int>(made.nodes.size()));
      made.nodes.push_back({number});
    }
    while (left.size() > 1 && (made.root == 0 || made.value() != target_)) {
      int a = Take(left), b = Take(left);
      const char op = DrawOperator(made, a, b);
      const int64_t x = made.nodes[a].value, y = made.nodes[b].value;
      const int64_t value = op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y;
      made.root = static_cast<int>(made.nodes.size());
      left.push_back(made.root);
      made.nodes.push_back({.value = value, .op = op, .left = a, .right = b});
    }
    return made;
  }

 private:
  int Take(std::vector<int>& terms) {
    const uint64_t at = stream_.Below(next_++, terms.size());
    const int term = terms[at];
    terms.erase(terms.begin() + at);
    return term;
  }

  // One of those whose value is whole and above zero; orders the terms for "-" and "/".
  char DrawOperator(const Try& made, int& a, int& b) {
    const int64_t x = made.nodes[a].value, y = made.nodes[b].value;
    std::string possible = "+*";
    if (x != y) possible += '-';
    if (division_ && (x % y == 0 || y % x == 0)) possible += '/';
    const char op = possible[stream_.Below(next_++, possible.size())];
    if ((op == '-' || op == '/') && x < y) std::swap(a, b);
    return op;
  }

  std::span<const int64_t> numbers_;
  int64_t target_;
  bool division_;
  RandomStream stream_;
  uint64_t next_ = 0;
};

}  // namespace

WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed) {
  CHECK(!numbers.empty() && numbers.size() <= 6) << numbers.size();
  Searcher searcher(numbers, target, options.division, seed);
  std::set<std::string> seen;
  WorkedAnswer worked;
  int64_t nearest = -1;
  for (int64_t draws = 0; draws < options.tries * kDrawsPerTry; ++draws) {
    const Try made = searcher.Draw();
    if (!seen.insert(Canonical(made, made.root)).second) continue;
    const int64_t distance = std::abs(made.value() - target);
    worked.thoughts += Concat(Written(made), distance == 0 ? '!' : '?');
    if (nearest < 0 || distance < nearest) {
      nearest = distance;
      worked.answer = Text(made, made.root, 0);
    }
    if (distance == 0 || static_cast<int64_t>(seen.size()) == options.tries) break;
  }
  return worked;
}

}  // namespace moebius
