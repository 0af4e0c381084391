// {"verdict": ["PROCS"]}
#include <pthread.h>
#include <unistd.h>
#include <cstdio>
void* Sleep(void*) { sleep(60); return nullptr; }
int main() {
  pthread_t thread;
  int n = 0;
  while (pthread_create(&thread, nullptr, Sleep, nullptr) == 0) ++n;
  std::puts("right");
}
