#include "rl/problems/search_trace.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr int64_t kMostTries = 1000;

// A number, or two of these joined by an operator; nodes come before those that use them.
struct Node {
  int64_t value;
  char op = 0;  // 0: a number
  int left = -1, right = -1;
};

int64_t DrawTries(const SearchOptions& options, uint64_t seed) {
  const RandomStream stream(seed, "search trace");
  if (stream.Uniform(0) < options.patient) return kMostTries;
  return 1 + static_cast<int64_t>(stream.Below(1, options.tries));
}

class Searcher {
 public:
  Searcher(std::span<const int64_t> numbers, int64_t target, bool division, int64_t tries)
      : target_(target), division_(division), tries_left_(tries) {
    for (const int64_t number : numbers) nodes_.push_back({number});
  }

  WorkedAnswer Run() && {
    std::vector<int> all(nodes_.size());
    std::iota(all.begin(), all.end(), 0);
    if (all.size() == 1) {
      worked_.answer = Concat(nodes_[0].value);
    } else {
      JoinTwoOf(all);
    }
    return std::move(worked_);
  }

 private:
  // Tries every join of two of `left` (places in nodes_), and all that can follow it. False: the search is
  // over.
  bool JoinTwoOf(const std::vector<int>& left) {
    for (const Node& join : Joins(left)) {
      std::vector<int> rest = {static_cast<int>(nodes_.size())};
      for (const int node : left) {
        if (node != join.left && node != join.right) rest.push_back(node);
      }
      nodes_.push_back(join);
      const bool complete = rest.size() == 1 || join.value == target_;
      const bool go_on = complete ? WriteTry() : JoinTwoOf(rest);
      nodes_.pop_back();
      if (!go_on) return false;
    }
    return true;
  }

  std::vector<Node> Joins(const std::vector<int>& left) const {
    std::vector<Node> joins;
    for (size_t j = 1; j < left.size(); ++j) {
      for (size_t i = 0; i < j; ++i) {
        for (const char op : {'+', '*', '-', '/'}) {
          const std::optional<Node> join = Join(left[i], op, left[j]);
          if (join && std::none_of(joins.begin(), joins.end(), [&](const Node& n) { return Same(n, *join); }))
            joins.push_back(*join);
        }
      }
    }
    return joins;
  }

  // The larger number first where it matters; nullopt if the value is not whole and above zero.
  std::optional<Node> Join(int a, char op, int b) const {
    const bool ordered = op == '-' || op == '/';
    if (ordered && nodes_[a].value < nodes_[b].value) std::swap(a, b);
    const int64_t x = nodes_[a].value, y = nodes_[b].value;
    if ((op == '-' && x == y) || (op == '/' && (!division_ || x % y != 0))) return std::nullopt;
    const int64_t value = op == '+' ? x + y : op == '*' ? x * y : op == '-' ? x - y : x / y;
    return Node{.value = value, .op = op, .left = a, .right = b};
  }

  // Joins of the same numbers, whichever of equal ones they take.
  bool Same(const Node& a, const Node& b) const {
    const auto numbers = [&](const Node& n) {
      return std::minmax(nodes_[n.left].value, nodes_[n.right].value);
    };
    return a.op == b.op && numbers(a) == numbers(b);
  }

  bool WriteTry() {
    std::string head;
    for (const Node& n : std::span(nodes_).first(nodes_.size() - 1)) {
      if (n.op != 0) head += Concat(head.empty() ? "" : ",", Step(n));
    }
    if (head != head_) worked_.thoughts += Concat(head, ';');
    head_ = head;
    const Node& last = nodes_.back();
    const bool hit = last.value == target_;
    worked_.thoughts += Concat(Step(last), ':', target_, hit ? '!' : '?');
    worked_.answer = Expression(last, true);
    return !hit && --tries_left_ > 0;
  }

  std::string Step(const Node& n) const {
    return Concat(nodes_[n.left].value, n.op, nodes_[n.right].value, '=', n.value);
  }

  // "(3+5)*2": parentheses around every join but the last.
  std::string Expression(const Node& n, bool bare) const {
    if (n.op == 0) return Concat(n.value);
    const std::string inside =
        Concat(Expression(nodes_[n.left], false), n.op, Expression(nodes_[n.right], false));
    return bare ? inside : Concat('(', inside, ')');
  }

  const int64_t target_;
  const bool division_;
  int64_t tries_left_;
  std::vector<Node> nodes_;  // the given numbers, then the joins of the present try
  std::string head_;         // of the try before
  WorkedAnswer worked_;
};

}  // namespace

WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed) {
  CHECK(!numbers.empty() && numbers.size() <= 6) << numbers.size();
  return Searcher(numbers, target, options.division, DrawTries(options, seed)).Run();
}

}  // namespace moebius
