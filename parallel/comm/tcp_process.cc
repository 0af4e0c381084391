#include "parallel/comm/tcp_process.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr std::chrono::seconds kJoinWithin{60}, kHelloWithin{5};
constexpr uint64_t kHello = 0x3173756962656f6d;  // what a rank says first

// What a rank tells rank 0, and rank 0 tells all: where it listens.
struct Place {
  int32_t rank = 0;
  uint32_t address = 0;  // IPv4 and port in network order
  uint16_t port = 0;
  char host[250] = {};
};

bool WriteAll(int socket, const void* data, size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = send(socket, at, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    bytes -= n;
  }
  return true;
}
// errno is 0 where the other side has closed the connection.
bool ReadAll(int socket, void* data, size_t bytes) {
  for (char* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t n = recv(socket, at, bytes, MSG_WAITALL);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = 0;
    if (n <= 0) return false;
    at += n;
    bytes -= n;
  }
  return true;
}

int Listen(uint16_t port, sockaddr_in& at) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {INADDR_ANY}, .sin_zero = {}};
  socklen_t length = sizeof at;
  if (bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listener, 1024) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&at), &length) != 0) {
    const int error = errno;
    close(listener);
    errno = error;
    return -1;
  }
  return listener;
}

int ConnectTo(sockaddr_in to) {
  const auto give_up = std::chrono::steady_clock::now() + kJoinWithin;
  do {
    const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) return -1;
    if (connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 && WriteAll(s, &kHello, sizeof kHello))
      return s;
    close(s);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } while (std::chrono::steady_clock::now() < give_up);
  return -1;
}

void ReceiveWithin(int socket, std::chrono::seconds limit) {
  const timeval time{.tv_sec = limit.count(), .tv_usec = 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}

// The next rank that comes. Whoever else finds the port (a scanner, a browser) is sent away.
int Accept(int listener, sockaddr_in& from) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point give_up = Clock::now() + kJoinWithin;
  for (;;) {
    // At least a moment: a limit of 0 is none.
    const auto left = std::chrono::duration_cast<std::chrono::seconds>(give_up - Clock::now());
    ReceiveWithin(listener, std::max(left, std::chrono::seconds(1)));
    socklen_t length = sizeof from;
    const int accepted = accept4(listener, reinterpret_cast<sockaddr*>(&from), &length, SOCK_CLOEXEC);
    if (accepted < 0 && errno == EINTR) continue;  // a request to stop is heeded when all are there
    if (accepted < 0) return -1;
    ReceiveWithin(accepted, kHelloWithin);
    uint64_t hello = 0;
    if (ReadAll(accepted, &hello, sizeof hello) && hello == kHello) {
      ReceiveWithin(accepted, kJoinWithin);
      return accepted;
    }
    close(accepted);
    if (Clock::now() >= give_up) {
      errno = EAGAIN;
      return -1;
    }
  }
}

// A rank has a socket to every other and some files; shells mostly give 1024 of the many that are allowed.
rlim_t FilesFor(int ranks) { return ranks + 256; }
void AllowFilesFor(int ranks) {
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= FilesFor(ranks)) return;
  files.rlim_cur = std::min(files.rlim_max, FilesFor(ranks));
  setrlimit(RLIMIT_NOFILE, &files);
}

// By errno.
absl::Status Lost(int rank, const std::string& what, int ranks) {
  if (errno == EMFILE || errno == ENFILE) {
    return UnavailableError(Concat("rank ", rank, " cannot ", what, ": ", std::strerror(errno),
                                   "; it opens a connection to each of ", ranks,
                                   " ranks; raise the limit of open files (ulimit -n) to ", FilesFor(ranks),
                                   ", or start with mpirun"));
  }
  const std::string why = errno == 0 ? "the connection was closed there"
                          : errno == EAGAIN || errno == EWOULDBLOCK
                              ? Concat("nothing came within ", kJoinWithin.count(), " s")
                              : std::string(std::strerror(errno));
  return UnavailableError(Concat("rank ", rank, " cannot ", what, ": ", why,
                                 "; are all MOEBIUS_WORLD_SIZE processes started, and is MOEBIUS_MASTER the "
                                 "address of rank 0?"));
}

// The ranks from `first` on that have no link yet: "ranks 2, 5".
std::string Missing(const std::vector<TcpLink>& links, int first) {
  std::vector<std::string> ranks;
  for (int i = first; i < std::ssize(links); ++i) {
    if (links[i].socket < 0) ranks.push_back(Concat(i));
  }
  return Concat(ranks.size() == 1 ? "rank " : "ranks ", Join(ranks));
}

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// -1: no number.
int NumberOf(const std::string& text) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : -1;
}

}  // namespace

bool TcpProcess::Launched() { return !Setting("MOEBIUS_WORLD_SIZE").empty(); }

absl::StatusOr<std::unique_ptr<TcpProcess>> TcpProcess::Start() {
  std::unique_ptr<TcpProcess> process(new TcpProcess());
  const std::string master = Setting("MOEBIUS_MASTER");
  const int size = NumberOf(Setting("MOEBIUS_WORLD_SIZE")),
            port = NumberOf(master.substr(master.rfind(':') + 1));
  process->rank_ = NumberOf(Setting("MOEBIUS_RANK"));
  if (size < 1 || process->rank_ < 0 || process->rank_ >= size || master.find(':') == std::string::npos ||
      port < 1 || port > 65535) {
    return UsageError(
        "MOEBIUS_WORLD_SIZE is set; it is a number, MOEBIUS_RANK has to be in 0 .. size - 1 and "
        "MOEBIUS_MASTER rank 0's "
        "host:port; set all three for every process, or none");
  }
  AllowFilesFor(size);
  process->links_.resize(size);
  process->node_of_rank_.assign(size, 0);
  RETURN_IF_ERROR(process->Connect(master));
  return process;
}

absl::Status TcpProcess::Connect(const std::string& master) {
  const size_t colon = master.rfind(':');
  const auto port = static_cast<uint16_t>(NumberOf(master.substr(colon + 1)));
  sockaddr_in mine;
  const int listener = Listen(rank_ == 0 ? port : 0, mine);
  if (listener < 0 && rank_ == 0) {
    return UnavailableError(Concat("rank 0 cannot listen at port ", port,
                                   " of MOEBIUS_MASTER: ", std::strerror(errno),
                                   "; is another process rank 0 too? take a free port"));
  }
  if (listener < 0) return Lost(rank_, "listen", size());
  std::vector<Place> places(size());
  Place& own = places[rank_];
  own.rank = rank_;
  own.port = mine.sin_port;
  gethostname(own.host, sizeof own.host - 1);
  const size_t table = places.size() * sizeof(Place);
  if (rank_ == 0) {
    for (int i = 1; i < size(); ++i) {
      sockaddr_in from;
      Place place;
      const int s = Accept(listener, from);
      if (s < 0 || !ReadAll(s, &place, sizeof place))
        return Lost(rank_, "hear from " + Missing(links_, 1), size());
      if (place.rank < 1 || place.rank >= size() || links_[place.rank].socket >= 0) {
        return UsageError(
            Concat("two processes say that they are rank ", place.rank,
                   ", or one that it is outside the world; give each a MOEBIUS_RANK of its own"));
      }
      place.address = from.sin_addr.s_addr;
      places[place.rank] = place;
      links_[place.rank].socket = s;
    }
    for (int i = 1; i < size(); ++i) {
      if (!WriteAll(links_[i].socket, places.data(), table)) return Lost(rank_, "answer a rank", size());
    }
  } else {
    addrinfo hints{}, *found = nullptr;
    hints.ai_family = AF_INET;
    const std::string host = master.substr(0, colon);
    if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
      return UnavailableError(Concat("rank ", rank_, " cannot find ", Printable(host),
                                     ", the host of MOEBIUS_MASTER: ", gai_strerror(error),
                                     "; write the name or address of rank 0's machine"));
    }
    sockaddr_in to = *reinterpret_cast<sockaddr_in*>(found->ai_addr);
    freeaddrinfo(found);
    to.sin_port = htons(port);
    links_[0].socket = ConnectTo(to);
    if (links_[0].socket < 0 || !WriteAll(links_[0].socket, &own, sizeof own) ||
        !ReadAll(links_[0].socket, places.data(), table)) {
      return Lost(rank_, "reach rank 0", size());
    }
    // To the ranks below, then from those above.
    for (int i = 1; i < rank_; ++i) {
      // One that has reached rank 0 by its loopback lives where rank 0 does.
      const bool beside_0 = ntohl(places[i].address) >> 24 == 127;
      sockaddr_in peer{.sin_family = AF_INET,
                       .sin_port = places[i].port,
                       .sin_addr = {beside_0 ? to.sin_addr.s_addr : places[i].address},
                       .sin_zero = {}};
      const int32_t me = rank_;
      links_[i].socket = ConnectTo(peer);
      if (links_[i].socket < 0 || !WriteAll(links_[i].socket, &me, sizeof me))
        return Lost(rank_, Concat("reach rank ", i), size());
    }
    for (int i = rank_ + 1; i < size(); ++i) {
      sockaddr_in from;
      int32_t peer = 0;
      const int s = Accept(listener, from);
      if (s < 0 || !ReadAll(s, &peer, sizeof peer))
        return Lost(rank_, "hear from " + Missing(links_, rank_ + 1), size());
      if (peer <= rank_ || peer >= size() || links_[peer].socket >= 0)
        return UnavailableError(Concat("a process says to rank ", rank_, " that it is rank ", peer,
                                       "; is another job at this port?"));
      links_[peer].socket = s;
    }
  }
  close(listener);
  std::vector<std::string> hosts;
  for (int i = 0; i < size(); ++i) {
    const auto known = std::find(hosts.begin(), hosts.end(), places[i].host);
    node_of_rank_[i] = static_cast<int>(known - hosts.begin());
    if (known == hosts.end()) hosts.emplace_back(places[i].host);
  }
  const int on = 1;
  for (const TcpLink& link : links_) {
    if (link.socket >= 0) setsockopt(link.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return absl::OkStatus();
}

TcpProcess::~TcpProcess() {
  for (const TcpLink& link : links_) {
    if (link.socket >= 0) close(link.socket);
  }
}

std::unique_ptr<Transport> TcpProcess::NewTransport() { return NewTcpTransport(rank_, links_); }

// The others see their connections end.
void TcpProcess::Exit(int code) {
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace moebius
