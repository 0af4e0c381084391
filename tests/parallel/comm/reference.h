// What ranks hold, what a call must make of it, and the fixture of the communicator's tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parallel/comm/all_to_all.h"
#include "tests/parallel/comm/ranks.h"

namespace moebius {

// What rank `rank` holds at place i: numbers whose float sum depends on the order of adding.
inline double ValueAt(int rank, int64_t i) {
  const uint64_t bits = (static_cast<uint64_t>(rank) * 1000003 + i + 1) * 0x9E3779B97F4A7C15u;
  const double unit = static_cast<double>(bits >> 11) * 0x1p-53 - 0.5;
  return unit * std::ldexp(1.0, static_cast<int>(bits % 17) - 8);
}
template <typename T>
T Cast(double value) {
  if constexpr (std::is_same_v<T, BF16>) {
    return BF16::FromFloat(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return static_cast<int64_t>(value * 1e6);
  } else {
    return static_cast<T>(value);
  }
}
template <typename T>
std::vector<T> Values(int rank, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = Cast<T>(ValueAt(rank, i));
  return values;
}
template <typename T>
TensorView View(std::vector<T>& values) {
  return {values.data(), DTypeOf<T>::value, {static_cast<int64_t>(values.size())}};
}
template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// The contributions of ranks 0..size-1 added, or their maximum, in that order.
template <typename T>
std::vector<T> Reduced(int size, int64_t count, ReduceOp op) {
  std::vector<T> result(count);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, BF16>) {
      float sum = Cast<BF16>(ValueAt(0, i)).ToFloat();
      for (int rank = 1; rank < size; ++rank) {
        const float next = Cast<BF16>(ValueAt(rank, i)).ToFloat();
        sum = op == ReduceOp::kSum ? sum + next : std::max(sum, next);
      }
      result[i] = BF16::FromFloat(sum);
    } else {
      T sum = Cast<T>(ValueAt(0, i));
      for (int rank = 1; rank < size; ++rank) {
        const T next = Cast<T>(ValueAt(rank, i));
        sum = op == ReduceOp::kSum ? sum + next : std::max(sum, next);
      }
      result[i] = sum;
    }
  }
  return result;
}

// An all-to-all: rank i sends j (5 * i + 3 * j) % 7 * 400 + (0 or 1) bytes: some of them none.
inline int64_t BytesFromTo(int from, int to) {
  const int64_t blocks = (5 * from + 3 * to) % 7;
  return blocks == 0 ? 0 : blocks * 400 + from % 2;
}
inline char ByteAt(int from, int to, int64_t i) { return static_cast<char>(from * 31 + to * 7 + i % 101); }

struct Exchange {
  explicit Exchange(const Rank& r) {
    for (int peer = 0; peer < r.size(); ++peer) {
      args.send_offsets.push_back(static_cast<int64_t>(send.size()));
      args.receive_offsets.push_back(static_cast<int64_t>(wanted.size()));
      args.send_bytes.push_back(BytesFromTo(r.rank(), peer));
      args.receive_bytes.push_back(BytesFromTo(peer, r.rank()));
      for (int64_t i = 0; i < args.send_bytes[peer]; ++i) send.push_back(ByteAt(r.rank(), peer, i));
      for (int64_t i = 0; i < args.receive_bytes[peer]; ++i) wanted.push_back(ByteAt(peer, r.rank(), i));
    }
    receive.resize(wanted.size(), 'x');
    args.send = send.data();
    args.receive = receive.data();
  }
  // Every buffer as pieces of `length` bytes, an empty one between.
  static std::vector<MemoryPiece> Cut(char* data, int64_t bytes, int64_t length) {
    std::vector<MemoryPiece> pieces;
    for (int64_t begin = 0; begin < bytes; begin += length) {
      pieces.push_back({data + begin, std::min(length, bytes - begin)});
      pieces.push_back({data + begin, 0});
    }
    return pieces;
  }
  PeerPieces Pieces(int64_t send_length, int64_t receive_length) {
    PeerPieces pieces;
    for (size_t peer = 0; peer < args.send_bytes.size(); ++peer) {
      pieces.send.push_back(Cut(send.data() + args.send_offsets[peer], args.send_bytes[peer], send_length));
      pieces.receive.push_back(
          Cut(receive.data() + args.receive_offsets[peer], args.receive_bytes[peer], receive_length));
    }
    return pieces;
  }

  std::vector<char> send, receive, wanted;
  AllToAllVArgs args;
};

class CommunicatorTest : public testing::TestWithParam<int> {
 protected:
  void Run(const std::function<void(Rank&)>& body, const WorldOptions& options = {}) {
    const absl::Status status = OnRanks(GetParam(), options, body);
    EXPECT_TRUE(status.ok()) << status;
  }
};

}  // namespace moebius
