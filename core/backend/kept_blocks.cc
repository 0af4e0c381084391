#include "core/backend/kept_blocks.h"

#include "core/base/check.h"

namespace moebius {

KeptBlocks::~KeptBlocks() {
  for (const auto& [memory, bytes] : sizes_) device_.give(memory);
}

KeptBlocks::Block KeptBlocks::Take(int64_t bytes, From from) {
  if (from == From::kKeptFirst) {
    std::lock_guard lock(mutex_);
    // Routing changes sizes from step to step: what is a little larger serves, or every new size would strand
    // a block of the one before.
    const int64_t most = bytes + bytes / 8;
    for (auto kept = kept_.lower_bound(bytes); kept != kept_.end() && kept->first <= most; ++kept) {
      if (kept->second.empty()) continue;
      void* const memory = kept->second.back();
      kept->second.pop_back();
      return {memory, true};
    }
  }
  void* memory = device_.take(bytes);
  if (memory == nullptr && GiveBack()) memory = device_.take(bytes);
  if (memory == nullptr) return {};
  std::lock_guard lock(mutex_);
  sizes_[memory] = bytes;
  bytes_ += bytes;
  return {memory, false};
}

void KeptBlocks::Free(void* memory) {
  std::lock_guard lock(mutex_);
  const auto found = sizes_.find(memory);
  CHECK(found != sizes_.end()) << memory << " is no block";
  kept_[found->second].push_back(memory);
}

bool KeptBlocks::GiveBack() {
  std::vector<void*> back;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [bytes, blocks] : kept_) {
      back.insert(back.end(), blocks.begin(), blocks.end());
      bytes_ -= bytes * static_cast<int64_t>(blocks.size());
      for (void* const memory : blocks) sizes_.erase(memory);
    }
    kept_.clear();
  }
  if (back.empty()) return false;
  device_.wait();  // other threads go on meanwhile: the device's work may need them
  for (void* const memory : back) device_.give(memory);
  return true;
}

int64_t KeptBlocks::kept_bytes() const {
  std::lock_guard lock(mutex_);
  int64_t kept = 0;
  for (const auto& [bytes, blocks] : kept_) kept += bytes * static_cast<int64_t>(blocks.size());
  return kept;
}

int64_t KeptBlocks::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace moebius
