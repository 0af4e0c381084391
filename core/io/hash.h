// SHA-256 (FIPS 180-4) through OpenSSL's EVP: content hashes of manifests, checkpoints and documents.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace moebius {

using Sha256Digest = std::array<uint8_t, 32>;

// Hashes a stream: Update as often as needed, then Finish once.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  Sha256Digest Finish();
  std::string FinishHex() { return ToHex(Finish()); }
  static std::string ToHex(const Sha256Digest& digest);  // 64 lower-case digits

 private:
  struct Context;  // keeps OpenSSL's headers out
  std::unique_ptr<Context> context_;
};

Sha256Digest Sha256Of(std::string_view text);
std::string Sha256Hex(std::string_view text);

struct FileHash {
  std::string sha256;  // hex
  int64_t bytes = 0;
};

// Hash and size of a file, read once front to back.
absl::StatusOr<FileHash> HashFile(const std::string& path);

// OK if the file has this hash (and size, unless expected.bytes < 0); else DamagedError with both.
absl::Status VerifyFileHash(const std::string& path, const FileHash& expected);

}  // namespace moebius
