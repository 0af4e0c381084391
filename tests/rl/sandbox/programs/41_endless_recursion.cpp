// {"verdict": ["RUNTIME", "MEM"]}
#include <cstdio>
int f(volatile int n) { volatile char room[1000]; room[0] = n; return f(n + 1) + room[0]; }
int main() { std::printf("%d\n", f(0)); }
