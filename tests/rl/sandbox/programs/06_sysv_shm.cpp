// {"verdict": ["DENIED"]}
#include <sys/shm.h>
#include <cstdio>
int main() {
  int id = shmget(IPC_PRIVATE, 1 << 30, IPC_CREAT | 0600);
  std::printf("%d\n", id);
}
