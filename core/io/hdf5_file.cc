#include "core/io/hdf5_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/hdf5_child.h"
#include "core/io/hdf5_extract.h"
#include "core/io/hdf5_library.h"

namespace moebius {
namespace {

using Attribute = Hdf5Contents::Attribute;

constexpr int64_t kBlockElements = 64 * 1024;

std::string WithoutSlash(std::string_view name) {
  return std::string(name.starts_with('/') ? name.substr(1) : name);
}

bool IsInteger(DType dtype) { return dtype != DType::kF32 && dtype != DType::kF64; }

// Whether every value of `from` is one of `to` (kU32 as kI32 is checked value by value).
bool Converts(DType from, DType to) {
  return from == to || (to == DType::kI64 && IsInteger(from)) || (to == DType::kF64 && from == DType::kF32) ||
         (to == DType::kI32 && IsInteger(from) && from != DType::kI64);
}

template <typename From, typename To>
void Widen(const std::byte* from, int64_t count, void* to) {
  const auto* in = reinterpret_cast<const From*>(from);
  std::copy(in, in + count, static_cast<To*>(to));
}

template <typename To>
void WidenInteger(DType from, const std::byte* in, int64_t count, void* out) {
  if (from == DType::kU8) Widen<uint8_t, To>(in, count, out);
  if (from == DType::kU16) Widen<uint16_t, To>(in, count, out);
  if (from == DType::kU32) Widen<uint32_t, To>(in, count, out);
  if (from == DType::kI32) Widen<int32_t, To>(in, count, out);
}

}  // namespace

struct Hdf5File::State {
  explicit State(RandomAccessFile file) : storage(std::move(file)) {}

  absl::Status Damaged(std::string_view what) const {
    return DamagedError(
        Concat(storage.path(), ": ", what, "; the file is damaged or not of a kind we read; make it anew"));
  }
  absl::Status Load(const Options& options);
  absl::Status CheckExtents();
  absl::StatusOr<const Hdf5Contents::Entry*> FindReadable(std::string_view name) const;
  absl::Status ReadStored(const Hdf5Contents::Entry& entry, int64_t first, int64_t count,
                          std::byte* out) const;
  absl::Status ReadRange(std::string_view name, DType as, int64_t first, int64_t count, void* out) const;
  absl::StatusOr<const Attribute*> FindAttribute(std::string_view name) const;

  RandomAccessFile storage;
  std::optional<RandomAccessFile> decoded;  // in memory: what could not be used as it lies
  Hdf5Contents contents;
  std::vector<Dataset> datasets;
};

absl::Status Hdf5File::State::Load(const Options& options) {
  FileDescriptor memory(memfd_create("moebius-hdf5", MFD_CLOEXEC));
  if (memory.get() < 0) return ErrnoError(errno, "memfd_create");
  const Hdf5Session session;
  if (options.expected_sha256.empty() && options.isolate) {
    ASSIGN_OR_RETURN(const std::string text,
                     RunHdf5Child(storage.path(), storage.size(), [&]() -> absl::StatusOr<std::string> {
                       ASSIGN_OR_RETURN(const Hdf5Contents found, ExtractHdf5(storage.path(), storage.fd(),
                                                                              storage.size(), memory.get()));
                       return SerializeContents(found);
                     }));
    ASSIGN_OR_RETURN(contents, ParseContents(text, storage.path()));
  } else {
    ASSIGN_OR_RETURN(contents, ExtractHdf5(storage.path(), storage.fd(), storage.size(), memory.get()));
  }
  ASSIGN_OR_RETURN(decoded, RandomAccessFile::FromDescriptor(storage.path(), std::move(memory)));
  RETURN_IF_ERROR(CheckExtents());
  for (const auto& [name, entry] : contents.entries) {
    if (entry.unreadable.empty()) datasets.push_back({name, entry.dtype, entry.length});
  }
  return absl::OkStatus();
}

// The library may have been led astray by damage: nothing it says is taken on trust.
absl::Status Hdf5File::State::CheckExtents() {
  for (const auto& [name, entry] : contents.entries) {
    if (!entry.unreadable.empty()) continue;
    const int64_t file_bytes = entry.decoded ? decoded->size() : storage.size();
    int64_t next = 0;
    bool good = entry.length >= 0;
    for (const Extent& extent : entry.extents) {
      good = good && extent.first == next && extent.count > 0 && extent.file_offset >= 0 &&
             extent.file_offset <= file_bytes &&
             extent.count <= (file_bytes - extent.file_offset) / SizeOf(entry.dtype);
      if (!good) break;
      next += extent.count;
    }
    if (!good || next != entry.length) {
      return Damaged(Concat("dataset /", Printable(name), " is not stored whole"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const Hdf5Contents::Entry*> Hdf5File::State::FindReadable(std::string_view name) const {
  const auto at = contents.entries.find(WithoutSlash(name));
  if (at == contents.entries.end()) {
    return MissingError(Concat(storage.path(), ": has no dataset /", Printable(WithoutSlash(name))));
  }
  if (!at->second.unreadable.empty()) {
    return DamagedError(Concat(storage.path(), ": /", Printable(at->first), " ", at->second.unreadable));
  }
  return &at->second;
}

// Elements as they are stored, from the extents that hold them.
absl::Status Hdf5File::State::ReadStored(const Hdf5Contents::Entry& entry, int64_t first, int64_t count,
                                         std::byte* out) const {
  const RandomAccessFile& file = entry.decoded ? *decoded : storage;
  const int64_t item = SizeOf(entry.dtype);
  auto extent = std::upper_bound(entry.extents.begin(), entry.extents.end(), first,
                                 [](int64_t value, const Extent& e) { return value < e.first; });
  for (--extent; count > 0; ++extent) {
    const int64_t skip = first - extent->first, n = std::min(count, extent->count - skip);
    RETURN_IF_ERROR(file.Read(extent->file_offset + skip * item, {out, static_cast<size_t>(n * item)}));
    first += n;
    count -= n;
    out += n * item;
  }
  return absl::OkStatus();
}

absl::Status Hdf5File::State::ReadRange(std::string_view name, DType as, int64_t first, int64_t count,
                                        void* out) const {
  ASSIGN_OR_RETURN(const Hdf5Contents::Entry* entry, FindReadable(name));
  const std::string label = Concat("dataset /", Printable(WithoutSlash(name)));
  if (!Converts(entry->dtype, as)) return Damaged(Concat(label, " is ", entry->dtype, ", expected ", as));
  if (first < 0 || first > entry->length || count > entry->length - first) {
    return Damaged(
        Concat(label, " has ", entry->length, " elements; ", first, " + ", count, " were asked for"));
  }
  if (count == 0) return absl::OkStatus();
  if (entry->dtype == as || (entry->dtype == DType::kU32 && as == DType::kI32)) {
    RETURN_IF_ERROR(ReadStored(*entry, first, count, static_cast<std::byte*>(out)));
    if (entry->dtype == as) return absl::OkStatus();
    const auto* values = static_cast<const int32_t*>(out);
    const auto* bad = std::find_if(values, values + count, [](int32_t value) { return value < 0; });
    if (bad == values + count) return absl::OkStatus();
    return Damaged(Concat(label, " element ", first + (bad - values), " is ", static_cast<uint32_t>(*bad),
                          ", above 2147483647"));
  }
  std::vector<std::byte> block(std::min(count, kBlockElements) * SizeOf(entry->dtype));
  for (int64_t done = 0, n; done < count; done += n) {
    n = std::min(count - done, kBlockElements);
    RETURN_IF_ERROR(ReadStored(*entry, first + done, n, block.data()));
    auto* to = static_cast<std::byte*>(out) + done * SizeOf(as);
    if (as == DType::kF64) {
      Widen<float, double>(block.data(), n, to);
    } else if (as == DType::kI32) {
      WidenInteger<int32_t>(entry->dtype, block.data(), n, to);
    } else {
      WidenInteger<int64_t>(entry->dtype, block.data(), n, to);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const Attribute*> Hdf5File::State::FindAttribute(std::string_view name) const {
  const auto at = contents.attributes.find(std::string(name));
  if (at == contents.attributes.end())
    return MissingError(Concat(storage.path(), ": has no attribute ", Printable(name)));
  if (at->second.kind == Attribute::Kind::kOther) {
    return Damaged(Concat("attribute ", Printable(name), " is not a single number or text"));
  }
  return &at->second;
}

Hdf5File::Hdf5File(std::unique_ptr<State> state) : state_(std::move(state)) {}
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;
Hdf5File& Hdf5File::operator=(Hdf5File&&) noexcept = default;
Hdf5File::~Hdf5File() = default;

absl::StatusOr<Hdf5File> Hdf5File::Open(const std::string& path, const Options& options) {
  if (!options.expected_sha256.empty()) {
    RETURN_IF_ERROR(VerifyFileHash(path, FileHash{options.expected_sha256, -1}));
  }
  ASSIGN_OR_RETURN(RandomAccessFile storage, RandomAccessFile::Open(path));
  auto state = std::make_unique<State>(std::move(storage));
  RETURN_IF_ERROR(state->Load(options));
  return Hdf5File(std::move(state));
}

const std::string& Hdf5File::path() const { return state_->storage.path(); }
const std::vector<Hdf5File::Dataset>& Hdf5File::datasets() const { return state_->datasets; }

absl::StatusOr<Hdf5File::Dataset> Hdf5File::Find(std::string_view name) const {
  ASSIGN_OR_RETURN(const Hdf5Contents::Entry* entry, state_->FindReadable(name));
  return Dataset{WithoutSlash(name), entry->dtype, entry->length};
}

#define MOEBIUS_HDF5_READ(T, TAG)                                                             \
  absl::Status Hdf5File::Read(std::string_view name, int64_t first, std::span<T> out) const { \
    return state_->ReadRange(name, TAG, first, static_cast<int64_t>(out.size()), out.data()); \
  }
MOEBIUS_HDF5_READ(uint8_t, DType::kU8)
MOEBIUS_HDF5_READ(uint16_t, DType::kU16)
MOEBIUS_HDF5_READ(uint32_t, DType::kU32)
MOEBIUS_HDF5_READ(int32_t, DType::kI32)
MOEBIUS_HDF5_READ(int64_t, DType::kI64)
MOEBIUS_HDF5_READ(float, DType::kF32)
MOEBIUS_HDF5_READ(double, DType::kF64)
#undef MOEBIUS_HDF5_READ

absl::StatusOr<std::string> Hdf5File::ReadBytes(std::string_view name, int64_t max_bytes) const {
  ASSIGN_OR_RETURN(const Dataset dataset, Find(name));
  if (dataset.length > max_bytes) {
    return state_->Damaged(Concat("dataset /", Printable(dataset.name), " has ", dataset.length,
                                  " bytes, more than the limit of ", max_bytes));
  }
  std::string out(dataset.length, '\0');
  RETURN_IF_ERROR(Read(name, 0, std::span(reinterpret_cast<uint8_t*>(out.data()), out.size())));
  return out;
}

absl::StatusOr<std::vector<Hdf5File::Extent>> Hdf5File::Extents(std::string_view name) const {
  ASSIGN_OR_RETURN(const Hdf5Contents::Entry* entry, state_->FindReadable(name));
  if (entry->decoded) {
    return UnavailableError(Concat(path(), ": dataset /", Printable(WithoutSlash(name)),
                                   " cannot be mapped; it is compressed, big-endian or compact"));
  }
  return entry->extents;
}

absl::StatusOr<int64_t> Hdf5File::IntAttribute(std::string_view name) const {
  ASSIGN_OR_RETURN(const Attribute* attribute, state_->FindAttribute(name));
  if (attribute->kind != Attribute::Kind::kInt) {
    return state_->Damaged(Concat("attribute ", Printable(name), " is not an integer"));
  }
  return attribute->integer;
}

absl::StatusOr<double> Hdf5File::DoubleAttribute(std::string_view name) const {
  ASSIGN_OR_RETURN(const Attribute* attribute, state_->FindAttribute(name));
  if (attribute->kind == Attribute::Kind::kText) {
    return state_->Damaged(Concat("attribute ", Printable(name), " is not a number"));
  }
  return attribute->kind == Attribute::Kind::kInt ? static_cast<double>(attribute->integer)
                                                  : attribute->number;
}

absl::StatusOr<std::string> Hdf5File::StringAttribute(std::string_view name) const {
  ASSIGN_OR_RETURN(const Attribute* attribute, state_->FindAttribute(name));
  if (attribute->kind != Attribute::Kind::kText) {
    return state_->Damaged(Concat("attribute ", Printable(name), " is not text"));
  }
  return attribute->text;
}

bool Hdf5File::HasAttribute(std::string_view name) const {
  return state_->contents.attributes.contains(std::string(name));
}

}  // namespace moebius
