// {"verdict": ["DENIED"]}
#include <sys/socket.h>
#include <sys/un.h>
#include <cstddef>
#include <cstdio>
#include <cstring>
int main() {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const char name[] = "@ABSTRACT@";
  std::memcpy(address.sun_path + 1, name, sizeof name - 1);
  if (fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), offsetof(sockaddr_un, sun_path) + sizeof name) == 0)
    std::puts("connected");
  else
    std::puts("refused");
}
