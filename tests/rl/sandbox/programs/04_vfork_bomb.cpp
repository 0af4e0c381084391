// {"verdict": ["PROCS", "CPU", "WALL"]}
#include <unistd.h>
#include <sys/types.h>
int main() {
  while (true) {
    if (fork() == 0) while (true) fork();
  }
}
