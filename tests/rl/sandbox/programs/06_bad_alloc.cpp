// {"verdict": ["MEM"]}
#include <vector>
#include <cstdio>
int main() {
  std::vector<std::vector<long>> all;
  while (true) all.emplace_back(1 << 20, 7);
}
