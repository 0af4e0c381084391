#include "core/io/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"

namespace moebius {

struct Sha256::Context {
  Context() : evp(EVP_MD_CTX_new()) {
    CHECK(evp != nullptr && EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) == 1);
  }
  ~Context() { EVP_MD_CTX_free(evp); }
  EVP_MD_CTX* evp;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  CHECK_EQ(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()), 1);
}

void Sha256::Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  unsigned size = 0;
  CHECK_EQ(EVP_DigestFinal_ex(context_->evp, digest.data(), &size), 1);
  CHECK_EQ(size, digest.size());
  return digest;
}

std::string Sha256::ToHex(const Sha256Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const uint8_t byte : digest) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

Sha256Digest Sha256Of(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.Finish();
}

std::string Sha256Hex(std::string_view text) { return Sha256::ToHex(Sha256Of(text)); }

absl::StatusOr<FileHash> HashFile(const std::string& path) {
  ASSIGN_OR_RETURN(const RandomAccessFile file, RandomAccessFile::Open(path));
  (void)posix_fadvise(file.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);  // a hint only
  Sha256 hash;
  std::vector<std::byte> block(std::clamp<int64_t>(file.size(), 1, 1 << 20));
  for (int64_t done = 0; done < file.size();) {
    const int64_t n = std::min<int64_t>(block.size(), file.size() - done);
    const std::span<std::byte> part(block.data(), n);
    RETURN_IF_ERROR(file.Read(done, part));
    hash.Update(part);
    done += n;
  }
  return FileHash{hash.FinishHex(), file.size()};
}

absl::Status VerifyFileHash(const std::string& path, const FileHash& expected) {
  if (expected.bytes >= 0) {
    ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
    if (bytes != expected.bytes) {
      return DamagedError(Concat(path, ": has ", bytes, " bytes, ", expected.bytes,
                                 " are recorded; the file was cut short or changed; fetch or make it anew"));
    }
  }
  ASSIGN_OR_RETURN(const FileHash found, HashFile(path));
  if (found.sha256 != expected.sha256) {
    return DamagedError(Concat(path, ": SHA-256 is ", found.sha256, ", ", Printable(expected.sha256),
                               " is recorded; the file was changed or damaged; fetch or make it anew"));
  }
  return absl::OkStatus();
}

}  // namespace moebius
