// {"verdict": ["DISK"]}
#include <fcntl.h>
#include <unistd.h>
#include <cstdio>
int main() {
  int fd = open("sparse", O_CREAT | O_RDWR, 0600);
  if (ftruncate(fd, off_t{1} << 40) != 0) return 1;
  std::puts("right");
}
