// {"verdict": ["DENIED"]}
#include <cstdio>
int main() {
  long result;
  asm volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
  std::printf("%ld\n", result);
}
