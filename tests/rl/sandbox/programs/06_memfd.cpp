// {"verdict": ["DENIED"]}
#include <sys/mman.h>
#include <unistd.h>
#include <cstdio>
int main() {
  int fd = memfd_create("hidden", 0);
  static char block[1 << 20];
  for (int i = 0; fd >= 0 && i < 4096; ++i) if (write(fd, block, sizeof block) < 0) break;
  std::printf("%d\n", fd);
}
