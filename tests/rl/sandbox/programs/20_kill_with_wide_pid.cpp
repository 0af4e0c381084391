// {"verdict": ["DENIED"]}
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cstdio>
int main() {
  std::printf("%ld\n", syscall(SYS_kill, 0x100000001L, SIGKILL));
  std::printf("%ld\n", syscall(SYS_tgkill, 1L, 1L, SIGSTOP));
}
