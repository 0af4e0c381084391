#include "parallel/comm/mpi_process.h"

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

namespace {

using Clock = std::chrono::steady_clock;

// The number of the context after all groups' (Tag::kMaxContexts), so no group's message ever has it.
constexpr int kNoticeTag = Tag::kMaxContexts << 18;
// How long a failed world waits for a buffer that MPI still uses.
constexpr std::chrono::milliseconds kGiveUpAfter{100};
constexpr std::chrono::microseconds kLookForNotice{200};

// The text of a failure, as it travels.
struct Notice {
  int32_t code = 0;
  char text[1020] = {};
};

std::string ErrorText(int rc) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(rc, text, &length);
  return std::string(text, length);
}

// The pieces' bytes in parts of at most `limit`. Both ends cut at the same bytes, whatever their pieces; no
// bytes are one empty part.
std::vector<std::vector<MemoryPiece>> CutPieces(const std::vector<MemoryPiece>& pieces, int64_t limit) {
  std::vector<std::vector<MemoryPiece>> parts(1);
  int64_t room = limit;
  for (MemoryPiece piece : pieces) {
    while (piece.bytes > 0) {
      if (room == 0) {
        parts.emplace_back();
        room = limit;
      }
      const int64_t n = std::min(piece.bytes, room);
      parts.back().push_back({piece.data, n});
      piece = {static_cast<char*>(piece.data) + n, piece.bytes - n};
      room -= n;
    }
  }
  return parts;
}

// The memory of one part, as MPI's calls want it.
class Buffer {
 public:
  explicit Buffer(const std::vector<MemoryPiece>& pieces) {
    for (const MemoryPiece& piece : pieces) bytes_ += static_cast<int>(piece.bytes);
    count_ = bytes_;
    if (!pieces.empty()) data_ = pieces[0].data;
    if (pieces.size() < 2) return;
    // Scattered memory as one message: MPI gathers and scatters while it copies.
    std::vector<int> lengths(pieces.size());
    std::vector<MPI_Aint> addresses(pieces.size());
    for (size_t i = 0; i < pieces.size(); ++i) {
      lengths[i] = static_cast<int>(pieces[i].bytes);
      MPI_Get_address(pieces[i].data, &addresses[i]);
    }
    MPI_Type_create_hindexed(static_cast<int>(pieces.size()), lengths.data(), addresses.data(), MPI_BYTE,
                             &type_);
    MPI_Type_commit(&type_);
    data_ = MPI_BOTTOM;
    count_ = 1;
  }
  ~Buffer() {
    if (type_ != MPI_BYTE) MPI_Type_free(&type_);  // MPI keeps it as long as a message needs it
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  int count() const { return count_; }
  MPI_Datatype type() const { return type_; }
  int bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int count_ = 0, bytes_ = 0;
  MPI_Datatype type_ = MPI_BYTE;
};

// A receive takes its message from MPI when it is there and has the right size, not before: with posted
// receives, ranks that disagreed on a size corrupted the heap under Open MPI 4.1.4 (why was not isolated),
// and there is no safe way to take a posted one back.
struct MpiRequest final : Transport::Request {
  int peer = 0, tag = 0;
  std::deque<std::vector<MemoryPiece>> expected;  // parts to receive that are not there yet
  std::vector<MPI_Request> open;                  // parts that MPI is copying
  bool wrong_size = false;
  bool given_time = false;
  Clock::time_point give_up;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(std::mutex* mpi, MPI_Comm comm, int64_t max_message_bytes)
      : mpi_(mpi), comm_(comm), max_message_bytes_(max_message_bytes) {
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override;
  std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) override;
  Advance Test(Request& request) override;
  void Abort(const absl::Status& status) override {
    std::lock_guard lock(*mpi_);
    AbortLocked(status);
  }
  absl::Status status() override;
  void Close() override;

 private:
  void TakeArrived(MpiRequest& request);
  bool Release(MpiRequest& request);
  void AbortLocked(const absl::Status& status);
  // Whether an MPI call did its work; if not the world fails.
  bool Did(int rc, const char* what, int peer) {
    if (rc == MPI_SUCCESS) return true;
    AbortLocked(UnavailableError(Concat("MPI cannot ", what, " rank ", peer, ": ", ErrorText(rc))));
    return false;
  }

  std::mutex* mpi_;  // guards MPI and all below
  MPI_Comm comm_;
  const int64_t max_message_bytes_;
  int rank_ = 0, size_ = 1;
  absl::Status status_;
  Clock::time_point next_look_;  // for a peer's notice
  Notice sent_;
  std::vector<MPI_Request> notices_sent_;
};

std::unique_ptr<Transport::Request> MpiTransport::PostSend(const Message& message, Stream&) {
  auto request = std::make_unique<MpiRequest>();
  std::lock_guard lock(*mpi_);
  for (const std::vector<MemoryPiece>& part : CutPieces(message.pieces, max_message_bytes_)) {
    if (!status_.ok()) break;
    const Buffer buffer(part);
    MPI_Request open;
    const int rc = MPI_Isend(buffer.data(), buffer.count(), buffer.type(), message.peer, message.tag.Packed(),
                             comm_, &open);
    if (Did(rc, "send to", message.peer)) request->open.push_back(open);
  }
  return request;
}

std::unique_ptr<Transport::Request> MpiTransport::PostReceive(const Message& message, Stream&) {
  auto request = std::make_unique<MpiRequest>();
  request->peer = message.peer;
  request->tag = message.tag.Packed();
  for (std::vector<MemoryPiece>& part : CutPieces(message.pieces, max_message_bytes_)) {
    request->expected.push_back(std::move(part));
  }
  return request;
}

Advance MpiTransport::Test(Request& request) {
  MpiRequest& r = static_cast<MpiRequest&>(request);
  std::lock_guard lock(*mpi_);
  if (status_.ok() && !r.wrong_size) TakeArrived(r);
  if (!status_.ok()) return Release(r) ? Advance::kDone : Advance::kOpen;
  if (!r.open.empty()) {
    int done = 0;
    const int rc = MPI_Testall(static_cast<int>(r.open.size()), r.open.data(), &done, MPI_STATUSES_IGNORE);
    if (!Did(rc, "exchange with", r.peer) || !done) return Advance::kOpen;
    r.open.clear();
  }
  if (r.wrong_size) return Advance::kWrongSize;
  return r.expected.empty() ? Advance::kDone : Advance::kOpen;
}

void MpiTransport::TakeArrived(MpiRequest& request) {
  while (!request.expected.empty()) {
    int there = 0;
    MPI_Message message;
    MPI_Status status;
    if (!Did(MPI_Improbe(request.peer, request.tag, comm_, &there, &message, &status), "hear from",
             request.peer) ||
        !there) {
      return;
    }
    const Buffer buffer(request.expected.front());
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    if (bytes != buffer.bytes()) {
      request.wrong_size = true;  // the message stays with MPI, the world fails
      return;
    }
    MPI_Request open;
    if (!Did(MPI_Imrecv(buffer.data(), buffer.count(), buffer.type(), &message, &open), "receive from",
             request.peer)) {
      return;
    }
    request.open.push_back(open);
    request.expected.pop_front();
  }
}

// The world has failed. True when MPI has let go of the buffers, or is given up on: a send that nobody
// receives stays with MPI, which reads it only if somebody does.
bool MpiTransport::Release(MpiRequest& request) {
  if (!request.given_time) {
    request.given_time = true;
    request.give_up = Clock::now() + kGiveUpAfter;
  }
  int done = 1;
  if (!request.open.empty()) {
    const int rc =
        MPI_Testall(static_cast<int>(request.open.size()), request.open.data(), &done, MPI_STATUSES_IGNORE);
    if (rc != MPI_SUCCESS) done = 1;
  }
  return done || Clock::now() > request.give_up;
}

void MpiTransport::AbortLocked(const absl::Status& status) {
  CHECK(!status.ok());
  if (!status_.ok()) return;
  status_ = status;
  sent_.code = static_cast<int32_t>(status.code());
  const std::string text(status.message());
  std::memcpy(sent_.text, text.data(), std::min(text.size(), sizeof(sent_.text) - 1));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    notices_sent_.emplace_back();
    MPI_Isend(&sent_, sizeof(Notice), MPI_BYTE, peer, kNoticeTag, comm_, &notices_sent_.back());
  }
}

absl::Status MpiTransport::status() {
  std::lock_guard lock(*mpi_);
  // Not each time: every call of MPI looks at all of its links, and yields.
  const Clock::time_point now = Clock::now();
  if (!status_.ok() || comm_ == MPI_COMM_NULL || now < next_look_) return status_;
  next_look_ = now + kLookForNotice;
  int there = 0;
  MPI_Status from;
  if (Did(MPI_Iprobe(MPI_ANY_SOURCE, kNoticeTag, comm_, &there, &from), "hear from", -1) && there) {
    Notice notice;
    MPI_Recv(&notice, sizeof(Notice), MPI_BYTE, from.MPI_SOURCE, kNoticeTag, comm_, MPI_STATUS_IGNORE);
    status_ = absl::Status(static_cast<absl::StatusCode>(notice.code), notice.text);
  }
  return status_;
}

void MpiTransport::Close() {
  std::lock_guard lock(*mpi_);
  if (status_.ok()) {
    MPI_Comm_free(&comm_);
    return;
  }
  // Messages may still come on a failed world's communicator: it stays. Peers that hang do not hold this up.
  int done = 0;
  for (const Clock::time_point give_up = Clock::now() + kGiveUpAfter; !done && Clock::now() < give_up;) {
    MPI_Testall(static_cast<int>(notices_sent_.size()), notices_sent_.data(), &done, MPI_STATUSES_IGNORE);
  }
}

}  // namespace

struct MpiProcess::State {
  std::mutex mpi;
  int rank = 0, size = 1;
  bool finalized = false;
};

bool MpiProcess::Launched() {
  // srun's batch script itself has SLURM_NTASKS too; a task that srun has started has the step's number.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

MpiProcess::MpiProcess() : state_(std::make_unique<State>()) {}

absl::StatusOr<std::unique_ptr<MpiProcess>> MpiProcess::Start() {
  int provided = MPI_THREAD_SINGLE;
  const int rc = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (rc != MPI_SUCCESS) {
    return UnavailableError(Concat("MPI_Init: ", ErrorText(rc), "; start with mpirun or srun"));
  }
  if (provided < MPI_THREAD_SERIALIZED) {
    return UnavailableError("this MPI serves only its main thread; use one with MPI_THREAD_SERIALIZED");
  }
  std::unique_ptr<MpiProcess> process(new MpiProcess());
  MPI_Comm_rank(MPI_COMM_WORLD, &process->state_->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &process->state_->size);
  void* limit = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &found);
  if (!found || *static_cast<int*>(limit) < kNoticeTag) {
    return UnavailableError(Concat("this MPI has too few message tags; ", kNoticeTag, " are needed"));
  }
  return process;
}

MpiProcess::~MpiProcess() = default;
int MpiProcess::rank() const { return state_->rank; }
int MpiProcess::size() const { return state_->size; }

std::vector<int> MpiProcess::NodeOfRank() {
  std::lock_guard lock(state_->mpi);
  MPI_Comm node;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, state_->rank, MPI_INFO_NULL, &node);
  // A node is named by its lowest rank, then numbered in that order.
  int first = state_->rank;
  MPI_Bcast(&first, 1, MPI_INT, 0, node);
  MPI_Comm_free(&node);
  std::vector<int> firsts(state_->size);
  MPI_Allgather(&first, 1, MPI_INT, firsts.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::vector<int> names = firsts;
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (int& f : firsts) f = static_cast<int>(std::lower_bound(names.begin(), names.end(), f) - names.begin());
  return firsts;
}

std::unique_ptr<Transport> MpiProcess::NewTransport(int64_t max_message_bytes) {
  std::lock_guard lock(state_->mpi);
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  return std::make_unique<MpiTransport>(&state_->mpi, comm, max_message_bytes);
}

void MpiProcess::Finalize() {
  std::lock_guard lock(state_->mpi);
  CHECK(!state_->finalized);
  state_->finalized = true;
  MPI_Finalize();
}

void MpiProcess::Exit(int code) {
  // Without the lock: another thread may hang in MPI with it.
  MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace moebius
