#include "core/io/byte_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"

namespace moebius {
namespace {

constexpr size_t kInputBytes = 128 * 1024;

// The raw file behind one buffer; the decoders take from available() and call Consume.
class FileInput {
 public:
  FileInput(std::string path, FileDescriptor fd)
      : path_(std::move(path)), fd_(std::move(fd)), buffer_(kInputBytes) {}

  // More bytes behind those not consumed yet; false at the end of the file.
  absl::StatusOr<bool> Fill() {
    std::copy(buffer_.begin() + begin_, buffer_.begin() + end_, buffer_.begin());
    end_ -= std::exchange(begin_, 0);
    while (true) {
      const ssize_t n = read(fd_.get(), buffer_.data() + end_, buffer_.size() - end_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, Concat("read ", Printable(path_, 400)));
      end_ += n;
      return n > 0;
    }
  }
  std::string_view available() const { return {buffer_.data() + begin_, end_ - begin_}; }
  void Consume(size_t n) { begin_ += n; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  FileDescriptor fd_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
};

bool IsGzip(std::string_view head) { return head.substr(0, 3) == "\x1f\x8b\x08"; }

bool IsZstd(std::string_view head) {
  if (head.size() < 4) return false;
  // A skippable frame may come first: 0x184D2A5? little-endian.
  const bool skippable = (head[0] & 0xF0) == 0x50 && head.substr(1, 3) == "\x2a\x4d\x18";
  return skippable || head.substr(0, 4) == "\x28\xb5\x2f\xfd";
}

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(FileInput input) : input_(std::move(input)) {}
  absl::StatusOr<size_t> Read(std::span<char> out) override {
    if (out.empty()) return 0;
    if (input_.available().empty()) {
      ASSIGN_OR_RETURN(const bool more, input_.Fill());
      if (!more) return 0;
    }
    const size_t n = std::min(out.size(), input_.available().size());
    std::copy_n(input_.available().data(), n, out.data());
    input_.Consume(n);
    return n;
  }

 private:
  FileInput input_;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(FileInput input) : input_(std::move(input)) {}
  ~GzipSource() override {
    if (open_) inflateEnd(&stream_);
  }
  absl::StatusOr<size_t> Read(std::span<char> out) override {
    while (!out.empty()) {
      if (input_.available().empty()) {
        ASSIGN_OR_RETURN(const bool more, input_.Fill());
        if (!more && open_) return Damaged("the compressed data end early");
        if (!more) return 0;
      }
      if (!open_) {
        ASSIGN_OR_RETURN(const bool member, StartMember());
        if (!member) continue;
      }
      ASSIGN_OR_RETURN(const size_t n, Inflate(out.first(std::min<size_t>(out.size(), 1u << 30))));
      if (n > 0) return n;
    }
    return 0;
  }

 private:
  absl::Status Damaged(std::string_view what) const {
    return DamagedError(Concat(Printable(input_.path(), 400), ": gzip: ", what, "; get the file again"));
  }
  // Members follow each other; zeros after the last one are padding (tapes, dictzip). False: padding eaten.
  absl::StatusOr<bool> StartMember() {
    const std::string_view bytes = input_.available();
    const size_t zeros = std::min(bytes.find_first_not_of('\0'), bytes.size());
    if (num_members_ > 0 && zeros > 0) {
      input_.Consume(zeros);
      return false;
    }
    stream_ = z_stream{};
    if (inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) return Damaged("zlib cannot start");
    open_ = true;
    ++num_members_;
    return true;
  }
  absl::StatusOr<size_t> Inflate(std::span<char> out) {
    const std::string_view bytes = input_.available();
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = bytes.size();
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = out.size();
    const int code = inflate(&stream_, Z_NO_FLUSH);
    input_.Consume(bytes.size() - stream_.avail_in);
    if (code == Z_STREAM_END) {
      inflateEnd(&stream_);
      open_ = false;
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      return Damaged(stream_.msg != nullptr ? stream_.msg : "corrupt data");
    }
    return out.size() - stream_.avail_out;
  }

  FileInput input_;
  z_stream stream_{};
  bool open_ = false;  // inside a member
  int64_t num_members_ = 0;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(FileInput input) : input_(std::move(input)), context_(ZSTD_createDCtx()) {}
  ~ZstdSource() override { ZSTD_freeDCtx(context_); }
  absl::StatusOr<size_t> Read(std::span<char> out) override {
    while (!out.empty()) {
      bool ended = false;
      if (input_.available().empty()) {
        ASSIGN_OR_RETURN(const bool more, input_.Fill());
        ended = !more;
      }
      if (ended && frame_done_) return 0;
      ZSTD_inBuffer in{input_.available().data(), input_.available().size(), 0};
      ZSTD_outBuffer written{out.data(), out.size(), 0};
      const size_t code = ZSTD_decompressStream(context_, &written, &in);
      input_.Consume(in.pos);
      if (ZSTD_isError(code)) return Damaged(ZSTD_getErrorName(code));
      frame_done_ = code == 0;
      if (written.pos > 0) return written.pos;
      if (ended && !frame_done_) return Damaged("the compressed data end early");
    }
    return 0;
  }

 private:
  absl::Status Damaged(std::string_view what) const {
    return DamagedError(Concat(Printable(input_.path(), 400), ": zstd: ", what, "; get the file again"));
  }
  FileInput input_;
  ZSTD_DCtx* context_;  // refuses windows above 128 MiB by itself
  bool frame_done_ = true;
};

class LimitedSource : public ByteSource {
 public:
  LimitedSource(std::unique_ptr<ByteSource> source, std::string path, int64_t max_bytes)
      : source_(std::move(source)), path_(std::move(path)), max_bytes_(max_bytes), left_(max_bytes) {}
  absl::StatusOr<size_t> Read(std::span<char> out) override {
    if (!error_.ok()) return error_;
    absl::StatusOr<size_t> n = source_->Read(out);
    if (n.ok() && static_cast<int64_t>(*n) > left_) {
      n = DamagedError(
          Concat(Printable(path_, 400), ": holds more than the limit of ", max_bytes_, " bytes"));
    }
    if (n.ok()) left_ -= static_cast<int64_t>(*n);
    error_ = n.status();
    return n;
  }

 private:
  std::unique_ptr<ByteSource> source_;
  std::string path_;
  int64_t max_bytes_, left_;
  absl::Status error_;
};

bool EndsWith(std::string_view text, std::string_view end) { return text.ends_with(end); }

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path, int64_t max_bytes) {
  if (FolderExists(path)) {
    return MissingError(Concat("open ", Printable(path, 400), ": is a folder; a file is needed"));
  }
  // Standard input may be a socket, or another user's pipe, which cannot be opened by name.
  FileDescriptor fd(path == "/dev/stdin" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                         : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoError(errno, Concat("open ", Printable(path, 400)));
  FileInput input(path, std::move(fd));
  for (bool more = true; more && input.available().size() < 4;) {
    ASSIGN_OR_RETURN(more, input.Fill());
  }
  const std::string_view head = input.available();
  const bool gzip = IsGzip(head), zstd = IsZstd(head);
  if (!gzip && (EndsWith(path, ".gz") || EndsWith(path, ".dz"))) {
    return DamagedError(Concat(Printable(path, 400), ": is not gzip data although its name says so"));
  }
  if (!zstd && EndsWith(path, ".zst")) {
    return DamagedError(Concat(Printable(path, 400), ": is not zstd data although its name says so"));
  }
  std::unique_ptr<ByteSource> source;
  if (gzip) {
    source = std::make_unique<GzipSource>(std::move(input));
  } else if (zstd) {
    source = std::make_unique<ZstdSource>(std::move(input));
  } else {
    source = std::make_unique<PlainSource>(std::move(input));
  }
  return std::make_unique<LimitedSource>(std::move(source), path, max_bytes);
}

absl::StatusOr<std::string> ReadAll(ByteSource& source) {
  std::string out;
  size_t done = 0;
  while (true) {
    out.resize(std::max<size_t>(65536, done + done / 2));
    ASSIGN_OR_RETURN(const size_t n, source.Read(std::span(out).subspan(done)));
    done += n;
    if (n == 0) break;
  }
  out.resize(done);
  return out;
}

}  // namespace moebius
