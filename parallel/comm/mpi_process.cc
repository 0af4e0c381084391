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

// The number of the context after all groups' and what goes ahead of their direct messages, so that no
// message ever has it.
constexpr int kNoticeTag = (2 * Tag::kMaxContexts) << 18;
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

// Contiguous memory for scattered parts, kept for the next ones. Open MPI 4.1 moves a scattered message in
// pieces, each round of them as long as both ends take to look; a contiguous one it can copy at once within a
// node.
class Staging {
 public:
  struct Block {
    std::unique_ptr<char[]> data;
    int64_t bytes = 0;
  };

  Block Take(int64_t bytes) {
    const auto fits =
        std::find_if(free_.begin(), free_.end(), [&](const Block& b) { return b.bytes >= bytes; });
    if (fits == free_.end()) {
      if (!free_.empty()) free_.pop_back();  // too small: its place is taken by the larger one
      return {std::make_unique_for_overwrite<char[]>(bytes), bytes};
    }
    Block block = std::move(*fits);
    free_.erase(fits);
    return block;
  }
  void GiveBack(Block block) {
    if (block.data) free_.push_back(std::move(block));
  }

 private:
  std::vector<Block> free_;
};

// One part of a message with MPI. Scattered memory goes through a block of Staging.
struct Part {
  std::vector<MemoryPiece> pieces;
  int bytes = 0;
  Staging::Block block;  // empty for a single piece
  MPI_Request request = MPI_REQUEST_NULL;

  void* data() const {
    if (block.data) return block.data.get();
    return pieces.empty() ? nullptr : pieces[0].data;
  }
};

Part MakePart(std::vector<MemoryPiece> pieces, Staging& staging) {
  Part part;
  for (const MemoryPiece& piece : pieces) part.bytes += static_cast<int>(piece.bytes);
  if (pieces.size() > 1) part.block = staging.Take(part.bytes);
  part.pieces = std::move(pieces);
  return part;
}

void Gather(const Part& part) {
  char* to = part.block.data.get();
  for (const MemoryPiece& piece : part.pieces) {
    std::memcpy(to, piece.data, piece.bytes);
    to += piece.bytes;
  }
}

void Scatter(const Part& part) {
  const char* from = part.block.data.get();
  for (const MemoryPiece& piece : part.pieces) {
    std::memcpy(piece.data, from, piece.bytes);
    from += piece.bytes;
  }
}

// A receive takes its message from MPI when it is there and has the right size, not before: with posted
// receives, ranks that disagreed on a size corrupted the heap under Open MPI 4.1.4 (why was not isolated),
// and there is no safe way to take a posted one back.
struct MpiRequest final : Transport::Request {
  int peer = 0, tag = 0;
  bool is_send = false;
  std::deque<std::vector<MemoryPiece>> expected;  // parts to receive that are not there yet
  std::vector<Part> open;                         // parts that MPI is copying
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
  bool Send(MpiRequest& request, Part part);
  void TakeArrived(MpiRequest& request);
  bool Release(MpiRequest& request);
  void AbortLocked(const absl::Status& status);
  // Whether an MPI call did its work; if not the world fails.
  bool Did(int rc, const char* what, int peer) {
    if (rc == MPI_SUCCESS) return true;
    AbortLocked(LostPeerError(Concat("MPI cannot ", what, " rank ", peer, ": ", ErrorText(rc))));
    return false;
  }

  std::mutex* mpi_;  // guards MPI and all below
  MPI_Comm comm_;
  const int64_t max_message_bytes_;
  int rank_ = 0, size_ = 1;
  Staging staging_;
  absl::Status status_;
  Clock::time_point next_look_;  // for a peer's notice
  Notice sent_;
  std::vector<MPI_Request> notices_sent_;
};

std::unique_ptr<Transport::Request> MpiTransport::PostSend(const Message& message, Stream&) {
  CHECK(message.link == nullptr) << "a device's memory (staged.h)";
  auto request = std::make_unique<MpiRequest>();
  std::lock_guard lock(*mpi_);
  request->peer = message.peer;
  request->tag = message.tag.Packed();
  request->is_send = true;
  for (std::vector<MemoryPiece>& pieces : CutPieces(message.pieces, max_message_bytes_)) {
    if (!status_.ok()) break;
    Part part = MakePart(std::move(pieces), staging_);
    if (part.block.data) Gather(part);
    if (!Send(*request, std::move(part))) break;
  }
  return request;
}

bool MpiTransport::Send(MpiRequest& request, Part part) {
  const int rc =
      MPI_Isend(part.data(), part.bytes, MPI_BYTE, request.peer, request.tag, comm_, &part.request);
  if (!Did(rc, "send to", request.peer)) return false;
  request.open.push_back(std::move(part));
  return true;
}

std::unique_ptr<Transport::Request> MpiTransport::PostReceive(const Message& message, Stream&) {
  CHECK(message.link == nullptr) << "a device's memory (staged.h)";
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
  while (!r.open.empty()) {
    Part& part = r.open.back();
    int done = 0;
    const int rc = MPI_Test(&part.request, &done, MPI_STATUS_IGNORE);
    if (!Did(rc, "exchange with", r.peer) || !done) return Advance::kOpen;
    if (part.block.data && !r.is_send) Scatter(part);
    staging_.GiveBack(std::move(part.block));
    r.open.pop_back();
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
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    Part part = MakePart(request.expected.front(), staging_);
    if (bytes != part.bytes) {
      request.wrong_size = true;  // the message stays with MPI, the world fails
      return;
    }
    if (!Did(MPI_Imrecv(part.data(), bytes, MPI_BYTE, &message, &part.request), "receive from",
             request.peer)) {
      return;
    }
    request.open.push_back(std::move(part));
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
  bool done = true;
  for (Part& part : request.open) {
    int free = 1;
    if (MPI_Test(&part.request, &free, MPI_STATUS_IGNORE) == MPI_SUCCESS) done = done && free;
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
  // Where Open MPI 4.1 may not read another process's memory (most containers), it moves a large message in
  // pieces of 32 KiB, three on the way at a time, and each round takes as long as both ends take to look.
  // Larger pieces and more of them; the user's own settings win.
  setenv("OMPI_MCA_btl_vader_max_send_size", "262144", 0);
  setenv("OMPI_MCA_pml_ob1_send_pipeline_depth", "64", 0);
  // UCX, its choice on InfiniBand, has 2^23 message tags, which are too few.
  setenv("OMPI_MCA_pml", "ob1", 0);
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
  // srun without a PMI that this MPI speaks, or another MPI's launcher: every task would be a world of its
  // own.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"}) {
    const char* tasks = std::getenv(name);
    if (tasks == nullptr) continue;
    const int size = process->state_->size;
    if (std::atoi(tasks) <= 1 || size > 1) break;
    return UnavailableError(Concat(name, " says ", tasks, " tasks and MPI knows of ", size,
                                   "; they cannot find each other; start with srun --mpi=pmix or with "
                                   "launch/moebius-mpirun"));
  }
  void* limit = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &found);
  if (!found || *static_cast<int*>(limit) < kNoticeTag) {
    return UnavailableError(Concat("this MPI has too few message tags; ", kNoticeTag,
                                   " are needed; Open MPI's pml ob1 has them (unset OMPI_MCA_pml)"));
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
