#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "parallel/comm/reduce.h"
#include "tests/parallel/comm/device_ranks.h"

namespace moebius {
namespace {

// No address of x86-64 has this bit: who follows it ends with a signal.
constexpr uintptr_t kPretended = uintptr_t{1} << 62;
constexpr int kPolls = 3;  // until work is done

char* Real(const void* memory) {
  return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(memory) & ~kPretended);
}

class Later final : public DeviceLink::Work {
 public:
  explicit Later(std::function<void()> work) : work_(std::move(work)) {}
  bool Done() override {
    std::lock_guard lock(mutex_);
    if (++polls_ == kPolls) work_();
    return polls_ >= kPolls;
  }

 private:
  std::mutex mutex_;
  std::function<void()> work_;
  int polls_ = 0;
};

// A transfer is a file that the receiver takes away.
class FileChannel final : public DeviceChannel {
 public:
  FileChannel(const std::string& id, bool sends) : id_(id), sends_(sends) {}
  bool Ready() override { return ++polls_ % kPolls == 0; }
  std::unique_ptr<DeviceLink::Work> Transfer(const MemoryPiece& piece) override {
    return std::make_unique<Transferred>(Concat(id_, ".", next_++), sends_, piece);
  }
  absl::Status status() const override { return absl::OkStatus(); }
  void Abort() override {}

 private:
  class Transferred final : public DeviceLink::Work {
   public:
    Transferred(const std::string& path, bool sends, const MemoryPiece& piece)
        : path_(path), sends_(sends), piece_(piece) {}
    bool Done() override {
      if (sends_) {
        std::ofstream(path_ + ".part").write(Real(piece_.data), piece_.bytes);
        std::filesystem::rename(path_ + ".part", path_);
        return true;
      }
      std::ifstream file(path_);
      if (!file) return false;
      file.read(Real(piece_.data), piece_.bytes);
      CHECK_EQ(file.gcount(), piece_.bytes);
      std::filesystem::remove(path_);
      return true;
    }

   private:
    const std::string path_;
    const bool sends_;
    const MemoryPiece piece_;
  };

  const std::string id_;
  const bool sends_;
  int polls_ = 0;
  int64_t next_ = 0;
};

class Link final : public PretendedLink {
 public:
  explicit Link(bool channels) : channels_(channels) {}
  void* Allocate(int64_t bytes) override {
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(std::malloc(bytes + 1)) | kPretended);
  }
  void Free(void* memory) override { std::free(Real(memory)); }
  void CopyIn(const void* host, void* device, int64_t bytes) override {
    std::memcpy(Real(device), host, bytes);
  }
  void CopyOut(const void* device, void* host, int64_t bytes) override {
    std::memcpy(host, Real(device), bytes);
  }

  bool Holds(const void* memory) const override {
    return (reinterpret_cast<uintptr_t>(memory) & kPretended) != 0;
  }
  std::unique_ptr<Work> Copy(const std::vector<MemoryPiece>& from,
                             const std::vector<MemoryPiece>& to) override {
    return std::make_unique<Later>([from, to] {
      std::vector<char> bytes;
      for (const MemoryPiece& piece : from) {
        bytes.insert(bytes.end(), Real(piece.data), Real(piece.data) + piece.bytes);
      }
      const char* next = bytes.data();
      for (const MemoryPiece& piece : to) {
        if (piece.bytes > 0) std::memcpy(Real(piece.data), next, piece.bytes);
        next += piece.bytes;
      }
    });
  }
  std::unique_ptr<Work> Reduce(DType dtype, ReduceOp op, const std::vector<const void*>& contributions,
                               int64_t count, void* out) override {
    return std::make_unique<Later>([=] {
      std::vector<const void*> real;
      for (const void* contribution : contributions) real.push_back(Real(contribution));
      ReduceInRankOrder(dtype, op, real, count, Real(out));
    });
  }
  Block Take(Place place, int64_t bytes) override {
    return {place == Place::kHost ? std::malloc(bytes + 1) : Allocate(bytes), bytes, place};
  }
  void Give(const Block& block) override { std::free(Real(block.data)); }

  std::string channels() const override { return channels_ ? "files" : ""; }
  std::string NewChannelId() override {
    return Concat(testing::TempDir(), "/moebius_channel_", getpid(), "_", ++ids_);
  }
  std::unique_ptr<DeviceChannel> OpenChannel(const std::string& id, bool sends, int) override {
    return std::make_unique<FileChannel>(id.c_str(), sends);
  }

 private:
  const bool channels_;
  static inline std::atomic<int> ids_ = 0;
};

}  // namespace

std::unique_ptr<PretendedLink> NewPretendedLink(bool channels) { return std::make_unique<Link>(channels); }

}  // namespace moebius
