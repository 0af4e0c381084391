#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/hdf5_file.h"
#include "core/io/hdf5_library.h"

namespace moebius {
namespace {

constexpr size_t kMaxAttributeText = 60000;  // an attribute must fit the 64 KiB of an object header message

struct Pending {
  DType dtype;
  Hdf5Writer::DatasetOptions options;
  std::vector<std::byte> buffer;  // not yet in the file
  int64_t stored = 0;             // elements in the file
  Hdf5Handle dataset;             // from the first full chunk on

  int64_t chunk_bytes() const { return options.chunk_elements * SizeOf(dtype); }
};

std::string RootPath(std::string_view name) {
  return name.starts_with('/') ? std::string(name) : Concat("/", name);
}

}  // namespace

struct Hdf5Writer::State {
  explicit State(TemporaryFile file_in) : temporary(std::move(file_in)) {}
  // What was not committed is thrown away: the driver drops it instead of writing it.
  ~State() {
    const Hdf5Session session;
    driver.error = ECANCELED;
    for (auto& [name, pending] : datasets) (void)pending.dataset.Close();
    (void)file.Close();
  }

  // Called with the session held, when a library call failed or might hide a failed write.
  absl::Status Failed(std::string_view what) {
    if (!error.ok()) return error;
    const std::string text = Hdf5ErrorText();
    error = driver.error != 0
                ? CannotWrite(driver.error, "write", temporary.path())
                : CannotWriteError(Concat("cannot write ", Printable(temporary.path(), 400), "; HDF5 ", what,
                                          ": ", text, "; check name and file system"));
    return error;
  }
  absl::Status Checked(bool done, std::string_view what) {
    return done && driver.error == 0 ? absl::OkStatus() : Failed(what);
  }

  absl::Status Open();
  absl::Status CreateNow(const std::string& name, Pending& pending, bool contiguous);
  absl::Status Flush(const std::string& name, Pending& pending, bool last);
  absl::Status WriteAttribute(std::string_view name, hid_t type, const void* value);

  TemporaryFile temporary;
  Hdf5Driver driver;
  Hdf5Handle file;
  std::map<std::string, Pending> datasets;
  absl::Status error;
};

absl::Status Hdf5Writer::State::Open() {
  const Hdf5Session session;
  driver.fd = temporary.fd();
  driver.writing = true;
  const Hdf5Handle access = Hdf5AccessFor(&driver);
  const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation.get(), 0);  // no clock in the bytes
  file = Hdf5Handle(
      H5Fcreate(temporary.temporary_path().c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose);
  return Checked(file.ok(), "create");
}

// Contiguous with the buffered elements, or empty and extendible.
absl::Status Hdf5Writer::State::CreateNow(const std::string& name, Pending& pending, bool contiguous) {
  const hsize_t length = contiguous ? pending.buffer.size() / SizeOf(pending.dtype) : 0;
  const hsize_t limit = contiguous ? length : H5S_UNLIMITED;
  const Hdf5Handle space(H5Screate_simple(1, &length, &limit), H5Sclose);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose),
      link(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation.get(), 0);
  H5Pset_create_intermediate_group(link.get(), 1);
  if (!contiguous) {
    const hsize_t chunk = pending.options.chunk_elements;
    H5Pset_chunk(creation.get(), 1, &chunk);
    if (pending.options.gzip_level > 0) {
      H5Pset_shuffle(creation.get());
      H5Pset_deflate(creation.get(), pending.options.gzip_level);
    }
  }
  pending.dataset = Hdf5Handle(H5Dcreate2(file.get(), name.c_str(), Hdf5FileType(pending.dtype), space.get(),
                                          link.get(), creation.get(), H5P_DEFAULT),
                               H5Dclose);
  return Checked(pending.dataset.ok(), Concat("create dataset ", Printable(name)));
}

// Puts the buffer into the file: whole chunks always, so that none is written (and compressed) twice, and the
// rest when it is the last time.
absl::Status Hdf5Writer::State::Flush(const std::string& name, Pending& pending, bool last) {
  // A short dataset would waste most of a chunk; compression needs one all the same, cut to length.
  if (last && !pending.dataset.ok()) {
    const auto length = static_cast<int64_t>(pending.buffer.size()) / SizeOf(pending.dtype);
    pending.options.chunk_elements = std::max<int64_t>(length, 1);
    RETURN_IF_ERROR(CreateNow(name, pending, /*contiguous=*/pending.options.gzip_level == 0 || length == 0));
    if (pending.options.gzip_level == 0 || length == 0) {
      pending.stored = 0;
      const bool done = length == 0 || H5Dwrite(pending.dataset.get(), Hdf5NativeType(pending.dtype), H5S_ALL,
                                                H5S_ALL, H5P_DEFAULT, pending.buffer.data()) >= 0;
      pending.buffer.clear();
      return Checked(done, Concat("write dataset ", Printable(name)));
    }
  }
  if (pending.buffer.empty()) return absl::OkStatus();
  if (!pending.dataset.ok()) RETURN_IF_ERROR(CreateNow(name, pending, /*contiguous=*/false));
  const hsize_t count = pending.buffer.size() / SizeOf(pending.dtype), first = pending.stored,
                length = first + count;
  bool done = H5Dset_extent(pending.dataset.get(), &length) >= 0;
  const Hdf5Handle space(H5Dget_space(pending.dataset.get()), H5Sclose);
  const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
  done = done && H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &first, nullptr, &count, nullptr) >= 0 &&
         H5Dwrite(pending.dataset.get(), Hdf5NativeType(pending.dtype), memory.get(), space.get(),
                  H5P_DEFAULT, pending.buffer.data()) >= 0;
  pending.stored = static_cast<int64_t>(length);
  pending.buffer.clear();
  return Checked(done, Concat("write dataset ", Printable(name)));
}

absl::Status Hdf5Writer::State::WriteAttribute(std::string_view name, hid_t type, const void* value) {
  if (!error.ok()) return error;
  const std::string key(name);
  const Hdf5Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
  bool done = root.ok();
  if (done && H5Aexists(root.get(), key.c_str()) > 0) done = H5Adelete(root.get(), key.c_str()) >= 0;
  if (done) {
    const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    Hdf5Handle attribute(H5Acreate2(root.get(), key.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
    done = attribute.ok() && H5Awrite(attribute.get(), type, value) >= 0 && attribute.Close();
  }
  return Checked(done, Concat("write attribute ", Printable(key)));
}

Hdf5Writer::Hdf5Writer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Hdf5Writer::Hdf5Writer(Hdf5Writer&&) noexcept = default;
Hdf5Writer& Hdf5Writer::operator=(Hdf5Writer&&) noexcept = default;
Hdf5Writer::~Hdf5Writer() = default;

absl::StatusOr<Hdf5Writer> Hdf5Writer::Create(const std::string& path) {
  ASSIGN_OR_RETURN(TemporaryFile file, TemporaryFile::Create(path));
  auto state = std::make_unique<State>(std::move(file));
  RETURN_IF_ERROR(state->Open());
  return Hdf5Writer(std::move(state));
}

absl::Status Hdf5Writer::CreateDataset(std::string_view name, DType dtype, const DatasetOptions& options) {
  if (!state_->error.ok()) return state_->error;
  (void)Hdf5FileType(dtype);  // CHECKs
  CHECK(options.chunk_elements > 0 && options.gzip_level >= 0 && options.gzip_level <= 9) << name;
  const auto [at, inserted] = state_->datasets.try_emplace(RootPath(name));
  CHECK(inserted) << "dataset " << name << " created twice";
  at->second.dtype = dtype;
  at->second.options = options;
  return absl::OkStatus();
}

namespace {

// Appends through the buffer; `flush` is called whenever it holds a chunk.
template <typename Flush>
absl::Status AppendBytes(Pending& pending, std::span<const std::byte> bytes, const Flush& flush) {
  while (!bytes.empty()) {
    const size_t n = std::min<size_t>(bytes.size(), pending.chunk_bytes() - pending.buffer.size());
    pending.buffer.insert(pending.buffer.end(), bytes.begin(), bytes.begin() + n);
    bytes = bytes.subspan(n);
    if (static_cast<int64_t>(pending.buffer.size()) == pending.chunk_bytes()) RETURN_IF_ERROR(flush());
  }
  return absl::OkStatus();
}

}  // namespace

// The seven element types differ in nothing but their tag.
#define MOEBIUS_HDF5_APPEND(T, TAG)                                                                     \
  absl::Status Hdf5Writer::Append(std::string_view name, std::span<const T> values) {                   \
    if (!state_->error.ok()) return state_->error;                                                      \
    const auto at = state_->datasets.find(RootPath(name));                                              \
    CHECK(at != state_->datasets.end()) << "no dataset " << name;                                       \
    CHECK(at->second.dtype == TAG) << "dataset " << name << " is " << at->second.dtype << ", appended " \
                                   << TAG;                                                              \
    return AppendBytes(at->second, std::as_bytes(values), [&] {                                         \
      const Hdf5Session session;                                                                        \
      return state_->Flush(at->first, at->second, false);                                               \
    });                                                                                                 \
  }
MOEBIUS_HDF5_APPEND(uint8_t, DType::kU8)
MOEBIUS_HDF5_APPEND(uint16_t, DType::kU16)
MOEBIUS_HDF5_APPEND(uint32_t, DType::kU32)
MOEBIUS_HDF5_APPEND(int32_t, DType::kI32)
MOEBIUS_HDF5_APPEND(int64_t, DType::kI64)
MOEBIUS_HDF5_APPEND(float, DType::kF32)
MOEBIUS_HDF5_APPEND(double, DType::kF64)
#undef MOEBIUS_HDF5_APPEND

absl::Status Hdf5Writer::WriteBytes(std::string_view name, std::string_view bytes) {
  RETURN_IF_ERROR(CreateDataset(name, DType::kU8));
  return Append(name, std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

absl::Status Hdf5Writer::SetAttribute(std::string_view name, int64_t value) {
  const Hdf5Session session;
  return state_->WriteAttribute(name, H5T_NATIVE_INT64, &value);
}

absl::Status Hdf5Writer::SetAttribute(std::string_view name, double value) {
  const Hdf5Session session;
  return state_->WriteAttribute(name, H5T_NATIVE_DOUBLE, &value);
}

absl::Status Hdf5Writer::SetAttribute(std::string_view name, std::string_view value) {
  CHECK_LE(value.size(), kMaxAttributeText) << " bytes of text in attribute " << name;
  const Hdf5Session session;
  // Variable length: h5py gives these as str, fixed ones as bytes.
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  const std::string text(value);
  const char* pointer = text.c_str();
  return state_->WriteAttribute(name, type.get(), &pointer);
}

absl::StatusOr<FileHash> Hdf5Writer::Commit() {
  if (!state_->error.ok()) return state_->error;
  {
    const Hdf5Session session;
    for (auto& [name, pending] : state_->datasets) {
      RETURN_IF_ERROR(state_->Flush(name, pending, /*last=*/true));
      RETURN_IF_ERROR(state_->Checked(pending.dataset.Close(), Concat("close dataset ", Printable(name))));
    }
    RETURN_IF_ERROR(state_->Checked(H5Fflush(state_->file.get(), H5F_SCOPE_GLOBAL) >= 0, "flush"));
    RETURN_IF_ERROR(state_->Checked(state_->file.Close(), "close"));
  }
  state_->error = CannotWriteError(Concat(state_->temporary.path(), ": was committed already"));
  ASSIGN_OR_RETURN(const FileHash hash, HashFile(state_->temporary.temporary_path()));
  RETURN_IF_ERROR(state_->temporary.Publish());
  return hash;
}

}  // namespace moebius
