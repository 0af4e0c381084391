// {"verdict": ["DENIED"]}
#include <sys/socket.h>
#include <cstdio>
#include <initializer_list>
int main() {
  int open = 0;
  for (int family = 0; family < 46; ++family)
    for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_PACKET})
      for (int protocol : {0, 1, 6, 17})
        if (socket(family, type, protocol) >= 0) ++open;
  std::printf("%d sockets\n", open);
}
