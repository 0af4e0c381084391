// {"verdict": ["WRONG", "RUNTIME"]}
#include <fcntl.h>
#include <unistd.h>
#include <cstdint>
#include <cstdio>
__attribute__((noinline)) int Check() { asm volatile(""); return 1; }
int main() {
  int fd = open("/proc/self/mem", O_RDWR);
  const unsigned char code[] = {0x31, 0xC0, 0xC3};
  pwrite(fd, code, sizeof code, static_cast<off_t>(reinterpret_cast<uintptr_t>(&Check)));
  std::printf("%d\n", Check());
}
