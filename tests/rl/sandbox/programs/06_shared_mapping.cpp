// {"verdict": ["MEM"]}
#include <sys/mman.h>
#include <cstring>
#include <cstdio>
int main() {
  for (int i = 0; i < 100; ++i) {
    void* p = mmap(nullptr, 16 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 1;
    std::memset(p, 1, 16 << 20);
  }
  std::puts("right");
}
