// {"verdict": ["OK"], "tests": {"kind": "function", "function": "isOk", "tests": [{"input": [9223372036854775807, true, "c"], "output": [true, "c", 9223372036854775807]}]}}
#include <tuple>
class Solution {
 public:
  std::tuple<bool, char, long long> isOk(long long n, bool b, char c) { return {b, c, n}; }
};
