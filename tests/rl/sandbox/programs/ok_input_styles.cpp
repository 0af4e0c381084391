// {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "5\n1 2 3\nrest of line\n", "output": "11 rest of line"}]}}
#include <cstdio>
#include <iostream>
#include <string>
int main() {
  int n, a;
  if (std::scanf("%d", &n) != 1) return 1;
  std::FILE* again = std::fopen("/dev/stdin", "r");
  if (!again) return 2;
  for (int i = 0; i < 3 && std::scanf("%d", &a) == 1; ++i) n += a;
  std::getchar();
  char line[100];
  if (!std::fgets(line, sizeof line, stdin)) return 3;
  std::cout << n << " " << line;
}
