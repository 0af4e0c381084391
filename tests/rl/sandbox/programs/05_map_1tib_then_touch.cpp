// {"verdict": ["MEM"]}
#include <sys/mman.h>
#include <cstdio>
int main() {
  const size_t size = size_t{1} << 40;
  char* p = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (p == MAP_FAILED) return 1;
  for (size_t i = 0; i < size; i += 4096) p[i] = 1;
  std::puts("right");
}
