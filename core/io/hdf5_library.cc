#include "core/io/hdf5_library.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/base/check.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

std::mutex& LibraryLock() {
  static std::mutex mutex;  // guards HDF5's own globals: see Hdf5Session
  return mutex;
}

constexpr uint64_t kPage = std::tuple_size_v<decltype(Hdf5Driver::kept)::mapped_type>;
constexpr haddr_t kMaxAddress = (haddr_t{1} << 62) - 1;

// HDF5's base "class" first, as its driver interface demands.
struct DriverFile {
  H5FD_t base;
  haddr_t end_of_allocation;
  Hdf5Driver* driver;
};
struct AccessInfo {
  Hdf5Driver* driver;
};

Hdf5Driver& DriverOf(const H5FD_t* file) { return *reinterpret_cast<const DriverFile*>(file)->driver; }

// Bytes read, less than `size` only at the end of the file; -1 on an error.
int64_t PreadFully(int fd, unsigned char* out, size_t size, int64_t offset) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = pread(fd, out + done, size - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += n;
  }
  return static_cast<int64_t>(done);
}

// Calls f(page, offset in page, offset in the range, bytes) for the pages of [address, address + size).
template <typename F>
void ForEachPage(uint64_t address, size_t size, const F& f) {
  for (size_t done = 0; done < size;) {
    const uint64_t in_page = (address + done) % kPage;
    const size_t n = std::min<uint64_t>(size - done, kPage - in_page);
    f((address + done) / kPage, in_page, done, n);
    done += n;
  }
}

void Keep(Hdf5Driver& driver, uint64_t address, size_t size, const unsigned char* bytes) {
  ForEachPage(address, size, [&](uint64_t page, uint64_t in_page, size_t done, size_t n) {
    const auto [at, inserted] = driver.kept.try_emplace(page);
    if (inserted) {
      at->second.fill(0);
      (void)PreadFully(driver.fd, at->second.data(), kPage, static_cast<int64_t>(page * kPage));
    }
    std::memcpy(at->second.data() + in_page, bytes + done, n);
  });
}

H5FD_t* DriverOpen(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const AccessInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto* file = static_cast<DriverFile*>(std::calloc(1, sizeof(DriverFile)));
  if (file == nullptr) return nullptr;
  file->driver = info->driver;
  return &file->base;
}

herr_t DriverClose(H5FD_t* file) {
  std::free(file);
  return 0;
}

int DriverCompare(const H5FD_t* a, const H5FD_t* b) {
  const auto *x = &DriverOf(a), *y = &DriverOf(b);
  return x < y ? -1 : x > y ? 1 : 0;
}

herr_t DriverQuery(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t DriverGetEoa(const H5FD_t* file, H5FD_mem_t) {
  return reinterpret_cast<const DriverFile*>(file)->end_of_allocation;
}

herr_t DriverSetEoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  reinterpret_cast<DriverFile*>(file)->end_of_allocation = address;
  return 0;
}

haddr_t DriverGetEof(const H5FD_t* file, H5FD_mem_t) { return static_cast<haddr_t>(DriverOf(file).size); }

herr_t DriverRead(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* buffer) {
  Hdf5Driver& driver = DriverOf(file);
  if (address > kMaxAddress || size > kMaxAddress - address) return -1;
  if (address + size > DriverGetEoa(file, H5FD_MEM_DEFAULT)) return -1;
  auto* out = static_cast<unsigned char*>(buffer);
  const int64_t n = PreadFully(driver.fd, out, size, static_cast<int64_t>(address));
  if (n < 0) return -1;
  if (n < static_cast<int64_t>(size)) {
    if (!driver.writing) return -1;
    std::memset(out + n, 0, size - n);  // allocated but not yet written, as in HDF5's own drivers
  }
  if (!driver.kept.empty()) {
    ForEachPage(address, size, [&](uint64_t page, uint64_t in_page, size_t done, size_t bytes) {
      const auto at = driver.kept.find(page);
      if (at != driver.kept.end()) std::memcpy(out + done, at->second.data() + in_page, bytes);
    });
  }
  return 0;
}

herr_t DriverWrite(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, const void* buffer) {
  Hdf5Driver& driver = DriverOf(file);
  if (!driver.writing || address > kMaxAddress || size > kMaxAddress - address) return -1;
  const auto* bytes = static_cast<const unsigned char*>(buffer);
  driver.size = std::max(driver.size, static_cast<int64_t>(address + size));
  for (size_t done = 0; driver.error == 0 && done < size;) {
    const ssize_t n = pwrite(driver.fd, bytes + done, size - done, static_cast<int64_t>(address + done));
    if (n >= 0) {
      done += n;
    } else if (errno != EINTR) {
      driver.error = errno;
    }
  }
  if (driver.error != 0) Keep(driver, address, size, bytes);
  return 0;
}

herr_t DriverTruncate(H5FD_t* file, hid_t, hbool_t) {
  Hdf5Driver& driver = DriverOf(file);
  if (!driver.writing) return 0;
  const auto end = static_cast<int64_t>(DriverGetEoa(file, H5FD_MEM_DEFAULT));
  if (end == driver.size) return 0;
  if (driver.error == 0 && ftruncate(driver.fd, end) != 0) driver.error = errno;
  driver.size = end;
  return 0;
}

// "major: what" of the innermost two entries.
herr_t AppendError(unsigned n, const H5E_error2_t* entry, void* text) {
  auto& out = *static_cast<std::string*>(text);
  if (n < 2 && entry->desc != nullptr) {
    if (!out.empty()) out += ", ";
    out += Printable(entry->desc, 120);
  }
  return 0;
}

H5FD_class_t DriverClass() {
  H5FD_class_t c{};
  c.name = "moebius";
  c.maxaddr = kMaxAddress;
  c.fc_degree = H5F_CLOSE_STRONG;
  c.fapl_size = sizeof(AccessInfo);
  c.open = DriverOpen;
  c.close = DriverClose;
  c.cmp = DriverCompare;
  c.query = DriverQuery;
  c.get_eoa = DriverGetEoa;
  c.set_eoa = DriverSetEoa;
  c.get_eof = DriverGetEof;
  c.read = DriverRead;
  c.write = DriverWrite;
  c.truncate = DriverTruncate;
  const H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(map), std::end(map), c.fl_map);
  return c;
}

}  // namespace

Hdf5Session::Hdf5Session() : lock_(LibraryLock()) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // a setting of the calling thread
  H5PLset_loading_state(0);
}

std::string Hdf5ErrorText() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, AppendError, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no reason given" : text;
}

hid_t Hdf5NativeType(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return H5T_NATIVE_UINT8;
    case DType::kU16:
      return H5T_NATIVE_UINT16;
    case DType::kU32:
      return H5T_NATIVE_UINT32;
    case DType::kI32:
      return H5T_NATIVE_INT32;
    case DType::kI64:
      return H5T_NATIVE_INT64;
    case DType::kF32:
      return H5T_NATIVE_FLOAT;
    case DType::kF64:
      return H5T_NATIVE_DOUBLE;
    default:
      break;
  }
  CHECK(false) << "no HDF5 type for " << dtype;
  return -1;
}

hid_t Hdf5FileType(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return H5T_STD_U8LE;
    case DType::kU16:
      return H5T_STD_U16LE;
    case DType::kU32:
      return H5T_STD_U32LE;
    case DType::kI32:
      return H5T_STD_I32LE;
    case DType::kI64:
      return H5T_STD_I64LE;
    case DType::kF32:
      return H5T_IEEE_F32LE;
    case DType::kF64:
      return H5T_IEEE_F64LE;
    default:
      break;
  }
  CHECK(false) << "no HDF5 type for " << dtype;
  return -1;
}

Hdf5Handle Hdf5AccessFor(Hdf5Driver* driver) {
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  const H5FD_class_t driver_class = DriverClass();
  // Registered anew for each file: the property list and the file hold it, so nothing global is left of it.
  const hid_t id = H5FDregister(&driver_class);
  const AccessInfo info{driver};
  const bool set = id >= 0 && access.ok() && H5Pset_driver(access.get(), id, &info) >= 0;
  if (id >= 0) H5FDunregister(id);
  CHECK(set) << "HDF5 refuses our file driver: " << Hdf5ErrorText();
  return access;
}

}  // namespace moebius
