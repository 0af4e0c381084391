// {"verdict": ["OK"]}
#include <cstdio>
int f(volatile int n) { volatile int m = n; return m == 0 ? 0 : 1 + f(m - 1); }
int main() { std::puts(f(1000000) == 1000000 ? "right" : "wrong"); }
