// {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [[3, 1, 2], "x\u00e9", {"k": [1.5]}], "output": {"x\u00e9": [1, 2, 3], "k": [3]}}]}}
#include <algorithm>
#include <map>
#include <string>
#include <vector>
using namespace std;
map<string, vector<double>> f(vector<int>& numbers, const string& name, map<string, vector<double>> table) {
  sort(numbers.begin(), numbers.end());
  for (auto& [key, values] : table) for (double& value : values) value *= 2;
  table[name] = vector<double>(numbers.begin(), numbers.end());
  return table;
}
