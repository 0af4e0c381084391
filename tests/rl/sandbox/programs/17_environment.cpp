// {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "5"}]}}
#include <cstdio>
extern char** environ;
int main() {
  int n = 0;
  while (environ[n]) ++n;
  std::printf("%d\n", n);
}
