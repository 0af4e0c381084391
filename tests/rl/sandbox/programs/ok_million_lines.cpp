// {"verdict": ["OK"], "input_lines": 1000000}
#include <iostream>
int main() {
  long long n, sum = 0;
  while (std::cin >> n) sum += n;
  std::cout << sum << "\n";
}
