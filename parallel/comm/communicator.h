// The communicator seam: messages and collectives between the ranks of a group.
//
// Memory is the host's, or the device's of the backend whose stream a call takes: whole views, and all pieces
// that go to or come from one peer, and alike on the two ends of a message.
//
// Contract. A call is ordered on the stream that it takes, an exchange stream of the rank's one backend, and
// returns at once; buffers stay valid and untouched until the stream has passed it. All members of a group
// make the same collective calls in the same order, with the same purpose (Send and Recv: the same purpose on
// both ends); on which streams, and in which order the streams get to them, is each rank's own affair. A
// collective may make every member wait for every other; a Send may wait for its Recv. One thread at a time
// calls a communicator.
//
// Sums add the contributions in rank order 0..n-1, whatever the timing and the transport: the same bits from
// threads and from processes.
//
// Failure. Calls do not fail one by one: the first error (a lost message, ranks that disagree on a call, a
// World::Abort by any rank) fails the world for good. Open calls then end soon, later ones at once, buffers
// hold anything, streams run on; status() says why. Callers look at it where they would use what has arrived:
// after Synchronize, at the end of a step, before anything is saved.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backend/backend.h"
#include "core/backend/device_link.h"
#include "core/tensor/tensor.h"

namespace moebius {

// What a call is for: in the ledger, the watchdog's report and every error message.
struct Purpose {
  const char* what = "";  // static text: "dispatch rows"
  int layer = -1;         // -1: none
  int index = -1;         // microbatch or step; -1: none
};

// For each peer a list of pieces [size][any]: the bytes to one peer are those of its pieces one after
// another. What i sends j is what j expects of i; how a total is cut may differ on the two ends.
struct PeerPieces {
  std::vector<std::vector<MemoryPiece>> send, receive;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // in this group
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;
  virtual const std::vector<int>& world_ranks() const = 0;  // of the members, by rank in this group
  virtual absl::Status status() const = 0;                  // OK, or why the world has failed

  // Messages of one (peer, tag) arrive in the order of the calls; they stay on one stream on each end.
  // Two ranks that both send first, then receive, on one stream wait for each other for ever: use two.
  // 0 <= tag < 65,536. Views are contiguous here and below.
  virtual void Send(Stream& stream, Purpose purpose, int to, int tag, TensorView x) = 0;
  virtual void Recv(Stream& stream, Purpose purpose, int from, int tag, TensorView x) = 0;

  // x = sum or maximum over ranks: f32, f64, i64; bf16 is summed in f32 and rounded once.
  virtual void AllReduce(Stream& stream, Purpose purpose, TensorView x, ReduceOp op) = 0;
  // mine [counts[rank]] = sum over ranks of their x [sum of counts], this rank's slice of it; dtypes as
  // above. `mine` may be that slice of x; the rest of x is left as it is.
  virtual void ReduceScatterV(Stream& stream, Purpose purpose, TensorView x,
                              const std::vector<int64_t>& counts, TensorView mine) = 0;
  // all [sum of counts] = the ranks' `mine` [counts[rank]] one after another; any dtype. `mine` may be its
  // own slice of `all`.
  virtual void AllGatherV(Stream& stream, Purpose purpose, TensorView mine,
                          const std::vector<int64_t>& counts, TensorView all) = 0;
  // `pieces` is asked when the stream gets here, in its thread: it may use counts that came by the stream's
  // earlier calls.
  virtual void AllToAllV(Stream& stream, Purpose purpose, std::function<PeerPieces()> pieces) = 0;
  virtual void Broadcast(Stream& stream, Purpose purpose, int root, TensorView x) = 0;  // any dtype
  virtual void Barrier(Stream& stream, Purpose purpose) = 0;

  // Collective, and waits for the stream. One group for each color >= 0, its members ordered by (key, rank
  // here); a negative color gives null. The name is the same for all and ends as "name[color]". The new group
  // must not outlive the world.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(Stream& stream, const std::string& name,
                                                              int color, int key) = 0;
  // Collective, and waits for the stream: no more calls here. An extra call of one rank ends here at last.
  virtual absl::Status Close(Stream& stream) = 0;
};

}  // namespace moebius
