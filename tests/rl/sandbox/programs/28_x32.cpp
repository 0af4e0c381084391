// {"verdict": ["DENIED"]}
#include <unistd.h>
#include <sys/syscall.h>
#include <cstdio>
int main() { std::printf("%ld\n", syscall(0x40000000L | 39)); }
