#include "rl/sandbox/slot_run.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
// The slot's own init ends it at its limits. Should that fail, this much later it is the harness's fault.
constexpr double kGraceSeconds = 10;

FileDescriptor ReadOnly(int fd) {
  fcntl(fd, F_ADD_SEALS, kSeals);
  return FileDescriptor(open(Concat("/proc/self/fd/", fd).c_str(), O_RDONLY | O_CLOEXEC));
}

// Both ends of a pipe; a program with another user id may open its end again through /dev/stdout.
bool MakePipe(FileDescriptor* read_end, FileDescriptor* write_end) {
  int pipe[2];
  if (pipe2(pipe, O_CLOEXEC) != 0) return false;
  *read_end = FileDescriptor(pipe[0]);
  *write_end = FileDescriptor(pipe[1]);
  return fchmod(pipe[1], 0622) == 0 && fcntl(pipe[0], F_SETFL, O_NONBLOCK) == 0;
}

bool MakeSocketPair(int type, FileDescriptor* ours, FileDescriptor* theirs) {
  int pair[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) != 0) return false;
  *ours = FileDescriptor(pair[0]);
  *theirs = FileDescriptor(pair[1]);
  return fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0;
}

class SlotRun {
 public:
  SlotRun(Runner& runner, const SlotProgram& program) : runner_(runner), program_(program) {}

  SlotResult Run() {
    const std::string error = Begin();
    if (error.empty()) {
      double waited_s = 0;
      while (!gone_ && result_.harness_error.empty()) {
        waited_s += Wait();
        if (waited_s > static_cast<double>(kMostWallFactor) * program_.limits.wall_s + kGraceSeconds)
          result_.harness_error = "the slot outlived its limits";
      }
    } else {
      result_.harness_error = error;
    }
    if (result_.harness_error == kRunnerGone) runner_.LookWhetherGone();
    control_ = FileDescriptor();
    Finish();
    return std::move(result_);
  }

 private:
  std::string Begin() {
    SlotRequest request;
    request.argv = program_.argv;
    request.limits = program_.limits;
    for (const SlotText& file : program_.files)
      request.files.push_back({file.name, false, MemoryFile(file.text)});
    if (program_.executable != nullptr)
      request.files.push_back(
          {"main", true, FileDescriptor(fcntl(program_.executable->get(), F_DUPFD_CLOEXEC, 0))});
    for (const SlotFile& file : request.files)
      if (file.content.get() < 0) return "no room for the program's files";
    request.input = MemoryFile(program_.input);
    if (request.input.get() < 0) return "no room for the input";
    if (!MakeSocketPair(SOCK_SEQPACKET, &control_, &request.control) ||
        !MakePipe(&output_, &request.output) || !MakePipe(&error_, &request.error) ||
        (program_.answer && !MakeSocketPair(SOCK_STREAM, &channel_, &request.channel)))
      return Concat("cannot make pipes: ", std::strerror(errno));
    if (program_.want_artifact) {
      result_.artifact = FileDescriptor(memfd_create("artifact", MFD_CLOEXEC | MFD_ALLOW_SEALING));
      request.artifact = FileDescriptor(fcntl(result_.artifact.get(), F_DUPFD_CLOEXEC, 0));
      if (request.artifact.get() < 0) return "no room for the compiler's result";
    }
    return std::string(runner_.Request(request).message());
  }

  // Takes what comes within a second. The time it took, of a judge that was stopped meanwhile (SIGSTOP) no
  // more than that.
  double Wait() {
    constexpr double kMost_s = 1;
    const auto began = Clock::now();
    const short channel_events = static_cast<short>(POLLIN | (to_send_.empty() ? 0 : POLLOUT));
    pollfd fds[] = {{control_.get(), POLLIN, 0},
                    {output_.get(), POLLIN, 0},
                    {error_.get(), POLLIN, 0},
                    {channel_.get(), channel_events, 0}};
    const int ready = poll(fds, 4, static_cast<int>(kMost_s * 1000));
    const double took = std::min(kMost_s, std::chrono::duration<double>(Clock::now() - began).count());
    if (ready < 0) return took;
    if (fds[1].revents) Read(&output_, &result_.output);
    if (fds[2].revents) Read(&error_, &result_.error);
    if (fds[3].revents & POLLOUT) Send();
    if (fds[3].revents & ~POLLOUT) ReadChannel();
    if (fds[0].revents) ReadReport();
    return took;
  }

  size_t Cap() const { return static_cast<size_t>(program_.limits.output_kb) * 1024; }

  // One byte more than the cap is asked for: only then is it known to be passed. False when nothing more is
  // there.
  bool Read(FileDescriptor* from, std::string* into) {
    char block[65536];
    const size_t room = Cap() + 1 - std::min(Cap() + 1, into->size());
    const ssize_t length = read(from->get(), block, std::min(sizeof block, room));
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return errno == EINTR;
    if (length > 0) into->append(block, length);
    if (into->size() > Cap()) {
      result_.facts.output = true;
      EndSlot();
    }
    if (length <= 0 || result_.facts.output) *from = FileDescriptor();
    return from->get() >= 0;
  }

  // Tells the slot's init to end everything.
  void EndSlot() { shutdown(control_.get(), SHUT_WR); }

  bool ReadChannel() {
    const bool more = Read(&channel_, &received_);
    while (received_.size() - answered_ >= 4) {
      uint32_t length;
      std::memcpy(&length, received_.data() + answered_, 4);
      if (received_.size() - answered_ - 4 < length) break;
      const std::string answer = program_.answer(received_.substr(answered_ + 4, length));
      answered_ += 4 + static_cast<size_t>(length);
      if (!answer.empty()) to_send_ += Frame(answer);
      Send();
    }
    return more;
  }

  void Send() {
    if (channel_.get() < 0 || to_send_.empty()) return;
    const ssize_t sent = send(channel_.get(), to_send_.data(), to_send_.size(), MSG_NOSIGNAL);
    if (sent > 0) to_send_.erase(0, sent);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) to_send_.clear();
  }

  void ReadReport() {
    SlotReport report;
    const ssize_t length = recv(control_.get(), &report, sizeof report, 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length != sizeof report) {
      result_.harness_error = kRunnerGone;
      return;
    }
    RunFacts& facts = result_.facts;
    facts.mem |= report.mem;
    facts.cpu |= report.cpu;
    facts.wall |= report.wall;
    facts.procs |= report.procs;
    facts.disk |= report.disk;
    facts.denied |= report.denied;
    facts.asked_memory |= report.asked_memory;
    result_.memory_kb = std::max(result_.memory_kb, report.memory_kb);
    if (report.kind == SlotReport::kInit) {
      reported_ = true;
      result_.wait_status = report.wait_status;
      result_.cpu_us = report.cpu_us;
      result_.wall_us = report.wall_us;
      report.error[sizeof report.error - 1] = '\0';
      result_.harness_error = report.error;
      return;
    }
    gone_ = true;
    if (report.left_behind) result_.harness_error = "a control group of the slot could not be removed";
    if (!reported_ && !facts.output) result_.harness_error = "the slot ended without a report";
  }

  void Finish() {
    // What was written before the end is still in the pipes, and nobody is left to write more.
    if (result_.harness_error.empty()) {
      while (output_.get() >= 0 && Read(&output_, &result_.output)) {
      }
      while (error_.get() >= 0 && Read(&error_, &result_.error)) {
      }
      while (channel_.get() >= 0 && ReadChannel()) {
      }
    }
    result_.facts.harness = !result_.harness_error.empty();
    result_.facts.clean_exit =
        reported_ && WIFEXITED(result_.wait_status) && WEXITSTATUS(result_.wait_status) == 0;
    if (result_.artifact.get() >= 0) result_.artifact = ReadOnly(result_.artifact.get());
  }

  Runner& runner_;
  const SlotProgram& program_;
  FileDescriptor control_, output_, error_, channel_;
  std::string received_, to_send_;
  size_t answered_ = 0;  // bytes of received_: all of them count for its cap
  bool gone_ = false, reported_ = false;
  SlotResult result_;
};

}  // namespace

SlotResult RunInSlot(Runner& runner, const SlotProgram& program) {
  const Runner::Turn turn(runner);
  return SlotRun(runner, program).Run();
}

std::string Frame(std::string_view bytes) {
  const auto length = static_cast<uint32_t>(bytes.size());
  std::string frame(4, '\0');
  std::memcpy(frame.data(), &length, 4);
  return frame.append(bytes);
}

FileDescriptor MemoryFile(std::string_view text) {
  const FileDescriptor file(memfd_create("text", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.get() < 0) return FileDescriptor();
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = write(file.get(), text.data() + at, text.size() - at);
    if (written <= 0 && errno != EINTR) return FileDescriptor();
    if (written > 0) at += written;
  }
  fchmod(file.get(), 0444);
  return ReadOnly(file.get());
}

}  // namespace moebius::sandbox
