// Memory of a device that stays when it is freed and is handed out again: asking the device for more waits
// for all of its work. A block serves any size from eight ninths of its own on. What is kept goes back to the
// device when it has nothing left.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace moebius {

class KeptBlocks {
 public:
  struct Device {
    std::function<void*(int64_t bytes)> take;  // null: nothing left
    std::function<void(void* memory)> give;
    std::function<void()> wait;  // until no work uses what has been freed
  };

  explicit KeptBlocks(Device device) : device_(std::move(device)) {}
  ~KeptBlocks();  // gives all back, whoever has it
  KeptBlocks(const KeptBlocks&) = delete;
  KeptBlocks& operator=(const KeptBlocks&) = delete;

  enum class From { kKeptFirst, kDevice };
  struct Block {
    void* memory = nullptr;  // null: the device has none, even with what was kept
    bool was_kept = false;
  };
  // kDevice: for who may not follow an earlier owner's work.
  Block Take(int64_t bytes, From from);
  void Free(void* memory);  // of Take; keeps it
  // Gives what is kept back to the device; false where there is nothing. Holds up nobody else.
  bool GiveBack();

  int64_t bytes() const;       // taken from the device
  int64_t kept_bytes() const;  // of them, those that nobody has

 private:
  const Device device_;
  mutable std::mutex mutex_;
  std::map<void*, int64_t> sizes_;              // of what is handed out or kept
  std::map<int64_t, std::vector<void*>> kept_;  // by size
  int64_t bytes_ = 0;
};

}  // namespace moebius
