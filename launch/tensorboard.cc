#include "launch/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <span>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"

namespace moebius {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

// Protobuf's wire format, as much of it as event files need.
class Message {
 public:
  Message& Varint(int field, uint64_t value) {
    Key(field, 0);
    Raw(value);
    return *this;
  }
  Message& Double(int field, double value) { return Fixed(field, 1, value); }
  Message& Float(int field, float value) { return Fixed(field, 5, value); }
  Message& Bytes(int field, std::string_view value) {
    Key(field, 2);
    Raw(value.size());
    out_.append(value);
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  template <typename T>
  Message& Fixed(int field, int wire_type, T value) {
    Key(field, wire_type);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
    return *this;
  }
  void Key(int field, int wire_type) { Raw(static_cast<uint64_t>(field) << 3 | wire_type); }
  void Raw(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
  }
  std::string out_;
};

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? c >> 1 ^ 0x82F63B78u : c >> 1;
    table[i] = c;
  }
  return table;
}

uint32_t MaskedCrc(std::string_view bytes) { return std::rotr(Crc32c(bytes), 15) + 0xA282EAD8u; }

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log.
Message Event(double wall_time_s, int64_t step) {
  return Message().Double(1, wall_time_s).Varint(2, static_cast<uint64_t>(step));
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static constexpr auto kTable = MakeCrcTable();
  uint32_t crc = ~0u;
  for (const unsigned char c : bytes) crc = kTable[(crc ^ c) & 0xFF] ^ crc >> 8;
  return ~crc;
}

absl::StatusOr<TensorboardWriter> TensorboardWriter::Open(const std::string& folder, int64_t first_step) {
  RETURN_IF_ERROR(MakeDirs(folder));
  const double now = WallSeconds();
  char host[256] = "host";
  gethostname(host, sizeof host - 1);
  // TensorBoard reads the files of a folder in the order of their names; the counter orders those of one
  // second.
  for (int n = 0; n < 1000; ++n) {
    char name[400];
    std::snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s.%d.%d", static_cast<long long>(now),
                  host, static_cast<int>(getpid()), n);
    const std::string path = JoinPath(folder, name);
    FileDescriptor fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644));
    if (fd.get() < 0 && errno == EEXIST) continue;
    if (fd.get() < 0) return ErrnoError(errno, "create " + path, /*writing=*/true);
    TensorboardWriter writer(path, std::move(fd));
    RETURN_IF_ERROR(writer.AddRecord(Message().Double(1, now).Bytes(3, "brain.Event:2").str()));
    if (first_step > 0) {
      // SessionLog.status START (1): TensorBoard then purges this step and later ones.
      RETURN_IF_ERROR(writer.AddRecord(Event(now, first_step).Bytes(7, Message().Varint(1, 1).str()).str()));
    }
    RETURN_IF_ERROR(writer.Flush());
    return writer;
  }
  return CannotWriteError(
      Concat("cannot name an event file in ", folder, "; a thousand exist; empty the folder"));
}

absl::Status TensorboardWriter::AddScalars(const MetricsRow& row, double wall_time_s) {
  Message summary;
  for (const auto& [name, value] : row.values) {
    // Summary.value: 1 tag, 2 simple_value.
    if (std::isfinite(value))
      summary.Bytes(1, Message().Bytes(1, name).Float(2, static_cast<float>(value)).str());
  }
  return AddRecord(Event(wall_time_s, row.step).Bytes(5, summary.str()).str());
}

absl::Status TensorboardWriter::AddText(const std::string& tag, int64_t step, std::string_view text,
                                        double wall_time_s) {
  // Summary.value: 1 tag, 8 tensor, 9 metadata. TensorProto: 1 dtype (7 is string), 2 shape, 8 string_val.
  const Message tensor =
      Message().Varint(1, 7).Bytes(2, Message().Bytes(2, Message().Varint(1, 1).str()).str()).Bytes(8, text);
  const Message metadata = Message().Bytes(1, Message().Bytes(1, "text").str());
  const Message value = Message().Bytes(1, tag).Bytes(9, metadata.str()).Bytes(8, tensor.str());
  return AddRecord(Event(wall_time_s, step).Bytes(5, Message().Bytes(1, value.str()).str()).str());
}

absl::Status TensorboardWriter::AddRecord(std::string_view event) {
  const uint64_t length = event.size();
  const uint32_t length_crc = MaskedCrc(BytesOf(length)), event_crc = MaskedCrc(event);
  buffer_.append(BytesOf(length)).append(BytesOf(length_crc)).append(event).append(BytesOf(event_crc));
  return buffer_.size() < (64 << 10) ? absl::OkStatus() : Flush();
}

absl::Status TensorboardWriter::Flush() {
  const std::string records = std::move(buffer_);
  buffer_.clear();
  return WriteFully(fd_.get(), std::as_bytes(std::span(records)), path_);
}

}  // namespace moebius
