// What communication needs of a device whose memory host code cannot touch: copies, sums over ranks, staging
// memory. An exchange stream of such a backend has one (Stream::link); a CPU's has none, and everything that
// is communicated is then host memory.
//
// Called by exchange threads; nothing blocks. Work runs in the order of the calls, beside the compute
// streams. A failing device ends the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Some memory that is sent or received; what is sent is never written.
struct MemoryPiece {
  void* data = nullptr;
  int64_t bytes = 0;
};

enum class ReduceOp : uint8_t { kSum, kMax };

class DeviceChannel;

class DeviceLink {
 public:
  // Work under way; may be asked by any thread, and destroyed at any time.
  class Work {
   public:
    virtual ~Work() = default;
    virtual bool Done() = 0;
  };

  virtual ~DeviceLink() = default;

  // Whether host code cannot touch it: a device's own memory.
  virtual bool Holds(const void* memory) const = 0;

  // The bytes of `from`, one piece after another, to those of `to`: as many. Either may lie on this device,
  // on another one of this process or on the host; pieces of one list lie in the same place.
  virtual std::unique_ptr<Work> Copy(const std::vector<MemoryPiece>& from,
                                     const std::vector<MemoryPiece>& to) = 0;

  // out [count] = ((c0 op c1) op c2) ... of device memory; parallel/comm/reduce.h with the same bits.
  virtual std::unique_ptr<Work> Reduce(DType dtype, ReduceOp op,
                                       const std::vector<const void*>& contributions, int64_t count,
                                       void* out) = 0;

  // Memory for things on their way, kept for the next ones. kHost: of the host, at full speed for Copy.
  enum class Place : uint8_t { kHost, kDevice };
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
    Place place = Place::kHost;
  };
  virtual Block Take(Place place, int64_t bytes) = 0;
  virtual void Give(const Block& block) = 0;  // when no work uses it any more

  // What channels to devices of other processes are made of ("NCCL 2.28.3"); empty: none can be opened here.
  virtual std::string channels() const { return ""; }
  bool has_channels() const { return !channels().empty(); }
  // What the two ends need to open one, at most 128 bytes: made by one end, given to both.
  virtual std::string NewChannelId() { return ""; }
  // ranks: of the world, each of which may have a channel to and from every other.
  virtual std::unique_ptr<DeviceChannel> OpenChannel(const std::string& id, bool sends, int ranks);
};

// One way from a process' device to another's, for the exchange thread. Both ends transfer the same messages
// in the same order. It outlives the link that opened it.
class DeviceChannel {
 public:
  virtual ~DeviceChannel() = default;
  // Whether the next transfer may be made: the channel is open, the last one on its way. False for ever once
  // status() is an error.
  virtual bool Ready() = 0;
  virtual std::unique_ptr<DeviceLink::Work> Transfer(const MemoryPiece& piece) = 0;
  virtual absl::Status status() const = 0;
  // Ends what is open: no transfer touches its memory any more. May wait for all channels of the device to be
  // aborted, by other threads.
  virtual void Abort() = 0;
};

inline std::unique_ptr<DeviceChannel> DeviceLink::OpenChannel(const std::string&, bool, int) {
  return nullptr;
}

}  // namespace moebius
