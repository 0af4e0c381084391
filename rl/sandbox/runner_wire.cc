#include "rl/sandbox/runner_wire.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"

namespace moebius::sandbox {
namespace {

constexpr size_t kMaxMessageBytes = 32768;
constexpr int kMaxDescriptors = 16;

absl::StatusOr<Limits> ReadLimits(const nlohmann::json& json) {
  Limits limits;
  ASSIGN_OR_RETURN(limits.cpu_s, GetDouble(json, "cpu_s", "request"));
  ASSIGN_OR_RETURN(limits.wall_s, GetDouble(json, "wall_s", "request"));
  ASSIGN_OR_RETURN(limits.memory_mb, GetInt(json, "memory_mb", "request"));
  ASSIGN_OR_RETURN(limits.processes, GetInt(json, "processes", "request"));
  ASSIGN_OR_RETURN(limits.disk_mb, GetInt(json, "disk_mb", "request"));
  ASSIGN_OR_RETURN(limits.output_kb, GetInt(json, "output_kb", "request"));
  return limits;
}

// `fds` in the order of SendRequest.
absl::Status ReadRequest(std::string_view text, std::vector<FileDescriptor> fds, SlotRequest* request) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "request"));
  ASSIGN_OR_RETURN(request->argv, GetStringArray(json, "argv", "request"));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, GetStringArray(json, "files", "request"));
  ASSIGN_OR_RETURN(const std::vector<int64_t> executable, GetIntArray(json, "executable", "request"));
  ASSIGN_OR_RETURN(const bool channel, GetBool(json, "channel", "request"));
  ASSIGN_OR_RETURN(const bool artifact, GetBool(json, "artifact", "request"));
  ASSIGN_OR_RETURN(request->limits, ReadLimits(json));
  size_t next = 0;
  if (fds.size() != 4 + channel + artifact + names.size() || executable.size() != names.size())
    return DamagedError("request: the number of descriptors is wrong");
  request->control = std::move(fds[next++]);
  request->input = std::move(fds[next++]);
  request->output = std::move(fds[next++]);
  request->error = std::move(fds[next++]);
  if (channel) request->channel = std::move(fds[next++]);
  if (artifact) request->artifact = std::move(fds[next++]);
  for (size_t i = 0; i < names.size(); ++i)
    request->files.push_back({names[i], executable[i] != 0, std::move(fds[next++])});
  return absl::OkStatus();
}

}  // namespace

absl::Status SendRequest(int socket, const SlotRequest& request) {
  const Limits& limits = request.limits;
  nlohmann::json json = {{"argv", request.argv},
                         {"channel", request.channel.get() >= 0},
                         {"artifact", request.artifact.get() >= 0},
                         {"cpu_s", limits.cpu_s},
                         {"wall_s", limits.wall_s},
                         {"memory_mb", limits.memory_mb},
                         {"processes", limits.processes},
                         {"disk_mb", limits.disk_mb},
                         {"output_kb", limits.output_kb},
                         {"files", nlohmann::json::array()},
                         {"executable", nlohmann::json::array()}};
  std::vector<int> fds = {request.control.get(), request.input.get(), request.output.get(),
                          request.error.get()};
  if (request.channel.get() >= 0) fds.push_back(request.channel.get());
  if (request.artifact.get() >= 0) fds.push_back(request.artifact.get());
  for (const SlotFile& file : request.files) {
    json["files"].push_back(file.name);
    json["executable"].push_back(file.executable ? 1 : 0);
    fds.push_back(file.content.get());
  }
  const std::string text = DumpJson(json);
  if (text.size() > kMaxMessageBytes) {
    return UsageError(
        Concat("a program's request has ", text.size(), " bytes; it may have ", kMaxMessageBytes));
  }
  iovec data = {const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  return UnavailableError(
      Concat("cannot reach the sandbox's runner; ", std::strerror(errno), "; start the program again"));
}

Received ReceiveRequest(int socket, SlotRequest* request) {
  std::string text(kMaxMessageBytes, '\0');
  iovec data = {text.data(), text.size()};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  const ssize_t length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (length < 0 && errno == EINTR) return Received::kNothing;
  if (length <= 0) return Received::kEnd;
  std::vector<FileDescriptor> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= header->cmsg_len; at += sizeof(int)) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  text.resize(length);
  return ReadRequest(text, std::move(fds), request).ok() ? Received::kRequest : Received::kNothing;
}

}  // namespace moebius::sandbox
