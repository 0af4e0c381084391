#include "core/backend/kept_blocks.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"

namespace moebius {
namespace {

// A device of a thousand bytes.
class Device {
 public:
  int64_t left = 1000, waits = 0;
  std::unique_ptr<KeptBlocks> blocks =
      std::make_unique<KeptBlocks>(KeptBlocks::Device{.take = [this](int64_t bytes) -> void* {
                                                        if (bytes > left) return nullptr;
                                                        left -= bytes;
                                                        return new int64_t(bytes);
                                                      },
                                                      .give =
                                                          [this](void* memory) {
                                                            left += *static_cast<int64_t*>(memory);
                                                            delete static_cast<int64_t*>(memory);
                                                          },
                                                      .wait = [this] { ++waits; }});

  KeptBlocks::Block Take(int64_t bytes) { return blocks->Take(bytes, KeptBlocks::From::kKeptFirst); }
};

TEST(KeptBlocksTest, AFreedBlockIsHandedOutAgainToWhomItSuits) {
  Device device;
  void* const first = device.Take(300).memory;
  device.blocks->Free(first);
  EXPECT_EQ(device.left, 700) << "the device does not get it back";
  EXPECT_EQ(device.blocks->kept_bytes(), 300);
  const KeptBlocks::Block beside = device.blocks->Take(300, KeptBlocks::From::kDevice);
  EXPECT_NE(beside.memory, first) << "who may not follow the earlier owner gets another";
  EXPECT_FALSE(beside.was_kept);
  EXPECT_NE(device.Take(200).memory, first) << "of another size";
  const KeptBlocks::Block again = device.Take(300);
  EXPECT_EQ(again.memory, first);
  EXPECT_TRUE(again.was_kept);
  EXPECT_EQ(device.blocks->bytes(), 800);
  EXPECT_EQ(device.blocks->kept_bytes(), 0);
  EXPECT_EQ(device.waits, 0);
}

TEST(KeptBlocksTest, ABlockServesWhatIsALittleSmaller) {
  Device device;
  void* const first = device.Take(450).memory;
  device.blocks->Free(first);
  EXPECT_NE(device.Take(399).memory, first) << "too much would be left over";
  EXPECT_EQ(device.Take(400).memory, first);
  device.blocks->Free(first);
  EXPECT_EQ(device.Take(450).memory, first) << "it is still of its own size";
  EXPECT_EQ(device.blocks->bytes(), 849);
}

TEST(KeptBlocksTest, WhatIsKeptGoesBackWhereTheDeviceHasNothingLeft) {
  Device device;
  void* const kept = device.Take(600).memory;
  device.Take(100);
  device.blocks->Free(kept);
  const KeptBlocks::Block large = device.Take(900);
  EXPECT_NE(large.memory, nullptr);
  EXPECT_EQ(device.waits, 1) << "for the work that may still use it";
  EXPECT_EQ(device.left, 0);
  EXPECT_EQ(device.blocks->bytes(), 1000);
}

TEST(KeptBlocksTest, NothingIsHandedOutWhereEvenThatIsTooLittle) {
  Device device;
  device.Take(500);
  EXPECT_FALSE(device.blocks->GiveBack());
  EXPECT_EQ(device.Take(501).memory, nullptr);
  EXPECT_EQ(device.waits, 0);
  EXPECT_EQ(device.blocks->bytes(), 500);
}

TEST(KeptBlocksTest, TheEndGivesAllBack) {
  Device device;
  device.Take(500);
  device.blocks->Free(device.Take(100).memory);
  device.blocks = nullptr;
  EXPECT_EQ(device.left, 1000);
}

}  // namespace
}  // namespace moebius
