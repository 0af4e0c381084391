#include "rl/problems/search_trace.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// A number, or two of these joined by an operator; nodes come before those that use them.
struct Node {
  int64_t value;
  char op = 0;  // 0: a number
  int left = -1, right = -1;
};

class Searcher {
 public:
  Searcher(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options, uint64_t seed)
      : target_(target), division_(options.division), stream_(seed, "search trace") {
    for (const int64_t number : numbers) nodes_.push_back({number});
    tries_left_ = 1 + static_cast<int64_t>(stream_.Below(next_++, options.tries));
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
  // Tries every join of two of `left` (places in nodes_), and all that can follow it, in an order drawn anew.
  // False: the search is over.
  bool JoinTwoOf(const std::vector<int>& left) {
    for (const Node& join : DrawOrder(left)) {
      std::vector<int> rest;
      for (const int node : left) {
        if (node != join.left && node != join.right) rest.push_back(node);
      }
      rest.push_back(static_cast<int>(nodes_.size()));
      nodes_.push_back(join);
      const bool complete = rest.size() == 1 || join.value == target_;
      const bool go_on = complete ? WriteTry() : JoinTwoOf(rest);
      nodes_.pop_back();
      if (!go_on) return false;
    }
    return true;
  }

  std::vector<Node> DrawOrder(const std::vector<int>& left) {
    std::vector<Node> joins;
    for (size_t i = 0; i < left.size(); ++i) {
      for (size_t j = 0; j < i; ++j) AddJoins(left[i], left[j], &joins);
    }
    for (size_t i = joins.size(); i > 1; --i) std::swap(joins[i - 1], joins[stream_.Below(next_++, i)]);
    return joins;
  }

  // Those whose value is whole and above zero; a sum or product one way round, whichever is drawn.
  void AddJoins(int a, int b, std::vector<Node>* joins) {
    if (stream_.Below(next_++, 2) == 1) std::swap(a, b);
    const int64_t x = nodes_[a].value, y = nodes_[b].value;
    joins->push_back({.value = x + y, .op = '+', .left = a, .right = b});
    joins->push_back({.value = x * y, .op = '*', .left = a, .right = b});
    if (x < y) std::swap(a, b);
    const int64_t high = std::max(x, y), low = std::min(x, y);
    if (x != y) joins->push_back({.value = high - low, .op = '-', .left = a, .right = b});
    if (division_ && high % low == 0)
      joins->push_back({.value = high / low, .op = '/', .left = a, .right = b});
  }

  bool WriteTry() {
    if (!seen_.insert(Steps(true)).second) return true;
    const bool hit = nodes_.back().value == target_;
    worked_.thoughts += Concat(Steps(false), ':', target_, hit ? '!' : '?');
    worked_.answer = Expression(nodes_.back(), true);
    return !hit && --tries_left_ > 0;
  }

  // "3+5=8,8*2=16": the joins in their order. `canonical`: the same whichever way round a sum or a product is
  // written.
  std::string Steps(bool canonical) const {
    std::string text;
    for (const Node& n : nodes_) {
      if (n.op == 0) continue;
      int64_t x = nodes_[n.left].value, y = nodes_[n.right].value;
      if (canonical && (n.op == '+' || n.op == '*') && y < x) std::swap(x, y);
      text += Concat(text.empty() ? "" : ",", x, n.op, y, "=", n.value);
    }
    return text;
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
  RandomStream stream_;
  uint64_t next_ = 0;
  int64_t tries_left_;
  std::vector<Node> nodes_;  // the given numbers, then the joins of the present try
  std::set<std::string> seen_;
  WorkedAnswer worked_;
};

}  // namespace

WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed) {
  CHECK(!numbers.empty() && numbers.size() <= 6) << numbers.size();
  return Searcher(numbers, target, options, seed).Run();
}

}  // namespace moebius
