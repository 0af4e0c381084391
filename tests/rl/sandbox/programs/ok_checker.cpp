// {"verdict": ["OK"], "tests": {"kind": "checker", "checker": "import sys\nn = int(open(sys.argv[1]).read())\nassert open(sys.argv[2]).read() == 'any'\na, b = map(int, open(sys.argv[3]).read().split())\nsys.exit(0 if a + b == n else 1)\n", "tests": [{"input": "10", "output": "any"}, {"input": "-3", "output": "any"}]}}
#include <iostream>
int main() {
  int n;
  std::cin >> n;
  std::cout << n - 4 << "\n" << 4 << std::endl;
}
