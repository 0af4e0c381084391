#include "rl/sandbox/canaries.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "core/base/strings.h"
#include "rl/sandbox/slot_run.h"

namespace moebius::sandbox {
namespace {

constexpr Limits kProbeLimits = {.cpu_s = 2, .wall_s = 5, .memory_mb = 48, .processes = 8, .disk_mb = 4};

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

socklen_t Abstract(const std::string& name, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  name.copy(address->sun_path + 1, sizeof address->sun_path - 2);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// --- Inside the slot. Every line printed is something that must not have worked. ---

void Say(const std::string& what) {
  const std::string line = what + "\n";
  [[maybe_unused]] const ssize_t written = write(1, line.data(), line.size());
}

void TryNetwork(int port, const std::string& abstract) {
  const sockaddr_in tcp = Loopback(port);
  const int inet = socket(AF_INET, SOCK_STREAM, 0);
  if (inet >= 0 && connect(inet, reinterpret_cast<const sockaddr*>(&tcp), sizeof tcp) == 0)
    Say("network: loopback");
  sockaddr_un local;
  const socklen_t size = Abstract(abstract, &local);
  const int unix_socket = socket(AF_UNIX, SOCK_STREAM, 0);
  if (unix_socket >= 0 && connect(unix_socket, reinterpret_cast<const sockaddr*>(&local), size) == 0)
    Say("network: abstract socket");
}

void TryFiles(const std::string& folder) {
  if (open((folder + "/secret").c_str(), O_RDONLY) >= 0) Say("secret: planted file");
  if (open("/etc/shadow", O_RDONLY) >= 0) Say("secret: /etc/shadow");
  for (const std::string& place :
       {folder, std::string("/usr"), std::string("/etc"), std::string("/prog"), std::string("/")})
    if (open((place + "/written").c_str(), O_WRONLY | O_CREAT, 0600) >= 0) Say("outside: " + place);
}

void TryProcesses(pid_t supervisor) {
  for (const pid_t pid : {supervisor, getppid(), 1}) {
    if (kill(pid, 0) == 0) Say(Concat("signal: process ", pid));
    if (ptrace(PTRACE_ATTACH, pid, nullptr, nullptr) == 0) Say(Concat("ptrace: process ", pid));
  }
  if (unshare(CLONE_NEWUSER) == 0) Say("ptrace: a user namespace of its own");
}

void TryForks() {
  for (int i = 1; i <= kProbeLimits.processes + 4; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    if (child < 0) return;
    if (i > kProbeLimits.processes) Say(Concat("fork: ", i + 1, " processes"));
  }
}

void TryMemory() {
  const size_t bytes = size_t{2} * kProbeLimits.memory_mb << 20;
  void* room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return;
  for (size_t at = 0; at < bytes; at += 4096) {
    static_cast<volatile char*>(room)[at] = 1;
    // Slow enough that a watcher that looks every few milliseconds decides, as with a program that does
    // something.
    if (at % (1 << 20) == 0) usleep(100);
  }
  usleep(50000);
  Say("memory: twice the limit");
}

// --- Outside. ---

struct Plant {
  std::string folder;
  FileDescriptor tcp, local;
  int port = 0;
  std::string abstract;
};

// A folder with a secret, and two listeners. False when the machine has no loopback or no room.
bool MakePlant(Plant* plant) {
  char path[] = "/tmp/moebius-canary-XXXXXX";
  if (mkdtemp(path) == nullptr || chmod(path, 0755) != 0) return false;
  plant->folder = path;
  const FileDescriptor secret(
      open((plant->folder + "/secret").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (secret.get() < 0) return false;
  plant->tcp = FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  if (bind(plant->tcp.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(plant->tcp.get(), 4) != 0 ||
      getsockname(plant->tcp.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return false;
  plant->port = ntohs(address.sin_port);
  plant->abstract = Concat("moebius-canary-", getpid(), "-", plant->port);
  plant->local = FileDescriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un local;
  size = Abstract(plant->abstract, &local);
  return bind(plant->local.get(), reinterpret_cast<sockaddr*>(&local), size) == 0 &&
         listen(plant->local.get(), 4) == 0;
}

bool Connected(const FileDescriptor& listener) {
  pollfd fd = {listener.get(), POLLIN, 0};
  return poll(&fd, 1, 0) > 0;
}

std::string LayerNames(const std::vector<std::pair<bool, std::string>>& layers) {
  std::vector<std::string> names;
  for (const auto& [there, name] : layers)
    if (there) names.push_back(name);
  return names.empty() ? "none" : Join(names);
}

// Lines that begin with "NAME: ", joined.
std::string Found(const std::string& output, const std::string& name) {
  std::vector<std::string> found;
  for (size_t begin = 0; begin < output.size();) {
    const size_t end = std::min(output.find('\n', begin), output.size());
    if (output.compare(begin, name.size() + 2, name + ": ") == 0)
      found.push_back(output.substr(begin + name.size() + 2, end - begin - name.size() - 2));
    begin = end + 1;
  }
  return Join(found);
}

}  // namespace

void RunCanaryProbe(const std::vector<std::string>& argv) {
  if (argv.size() == 5) {
    TryFiles(argv[1]);
    TryNetwork(std::atoi(argv[2].c_str()), argv[3]);
    TryProcesses(std::atoi(argv[4].c_str()));
    TryForks();
  } else {
    TryMemory();
  }
  _exit(0);
}

std::vector<Canary> TryCanaries(Runner& runner) {
  Plant plant;
  if (!MakePlant(&plant)) return {{"slot", false, "none", "no loopback and no temporary folder to try with"}};
  SlotProgram probe;
  probe.limits = kProbeLimits;
  probe.argv = {"", plant.folder, Concat(plant.port), plant.abstract, Concat(getpid())};
  const SlotResult tried = RunInSlot(runner, probe);
  probe.argv = {""};
  const SlotResult memory = RunInSlot(runner, probe);
  const bool written = FileExists(plant.folder + "/written");
  const absl::Status removed = RemoveTree(plant.folder);

  const Layers& layers = runner.layers();
  const std::string cgroups = Concat("control groups v", runner.cgroup_version());
  std::vector<Canary> canaries;
  const bool built = !tried.facts.harness && !memory.facts.harness;
  canaries.push_back({"slot", built,
                      LayerNames({{layers.user_namespace, "user namespace"},
                                  {layers.namespaces, "namespaces"},
                                  {layers.landlock, Concat("Landlock ", runner.landlock_version())},
                                  {layers.seccomp, "seccomp"},
                                  {layers.cgroups, cgroups},
                                  {layers.root, "own user ids"}}),
                      tried.facts.harness ? tried.harness_error : memory.harness_error});
  const auto add = [&](const std::string& name, const std::string& by, std::string seen) {
    canaries.push_back({name, built && seen.empty(), by, built ? std::move(seen) : "not tried"});
  };
  const std::string files =
      LayerNames({{layers.namespaces, "mount namespace"}, {layers.landlock, "Landlock"}});
  add("secret", LayerNames({{layers.namespaces, "mount namespace"}}), Found(tried.output, "secret"));
  add("outside", files, Found(tried.output, "outside") + (written ? " a file was written" : ""));
  add("network", LayerNames({{layers.namespaces, "net namespace"}, {layers.seccomp, "seccomp"}}),
      Found(tried.output, "network") +
          (Connected(plant.tcp) || Connected(plant.local) ? " a connection came" : ""));
  const std::string processes =
      LayerNames({{layers.namespaces, "pid namespace"}, {layers.seccomp, "seccomp"}});
  add("signal", processes, Found(tried.output, "signal"));
  add("ptrace", processes, Found(tried.output, "ptrace"));
  add("fork", LayerNames({{layers.cgroups, cgroups}, {layers.seccomp, "seccomp"}, {true, "rlimit"}}),
      Found(tried.output, "fork"));
  add("memory", LayerNames({{layers.cgroups, cgroups}, {!layers.cgroups, "watcher, rlimit"}}),
      memory.facts.mem ? "" : "the slot went on; " + memory.output);
  return canaries;
}

}  // namespace moebius::sandbox
