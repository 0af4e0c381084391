#include "core/io/hdf5_extract.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/hdf5_library.h"
#include "core/io/json.h"

namespace moebius {
namespace {

constexpr int kMaxGroupDepth = 8;
constexpr size_t kMaxObjects = 10000;
constexpr hsize_t kMaxChunkBytes = 64 << 20;
constexpr size_t kMaxAttributeBytes = 1 << 20;
constexpr int64_t kMaxDecodedBytes = int64_t{4} << 30;
constexpr hsize_t kMaxListedChunks = 8192;  // HDF5 1.10 looks through all chunks for the place of one
constexpr hsize_t kMaxInflation = 1100;     // what deflate can do at most

using Attribute = Hdf5Contents::Attribute;

struct Link {
  std::string name;
  H5L_type_t type;
};
struct LinkList {
  std::vector<Link> links;
  size_t limit;
};

herr_t CollectLink(hid_t, const char* name, const H5L_info_t* info, void* data) {
  auto& list = *static_cast<LinkList*>(data);
  if (list.links.size() >= list.limit) return -1;
  list.links.push_back({name, info->type});
  return 0;
}

std::optional<DType> TypeOf(hid_t type) {
  const size_t size = H5Tget_size(type);
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_FLOAT) {
    if (H5Tequal(type, H5T_IEEE_F32LE) > 0 || H5Tequal(type, H5T_IEEE_F32BE) > 0) return DType::kF32;
    if (H5Tequal(type, H5T_IEEE_F64LE) > 0 || H5Tequal(type, H5T_IEEE_F64BE) > 0) return DType::kF64;
    return std::nullopt;
  }
  if (kind != H5T_INTEGER || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0)
    return std::nullopt;
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  if (size == 1 && !is_signed) return DType::kU8;
  if (size == 2 && !is_signed) return DType::kU16;
  if (size == 4) return is_signed ? DType::kI32 : DType::kU32;
  if (size == 8 && is_signed) return DType::kI64;
  return std::nullopt;
}

// Walks one open file.
class Extractor {
 public:
  Extractor(const std::string& path, int fd, int64_t size, int decoded_fd)
      : path_(path), decoded_fd_(decoded_fd) {
    driver_.fd = fd;
    driver_.size = size;
  }
  absl::StatusOr<Hdf5Contents> Run();

 private:
  absl::Status Damaged(std::string_view what) const {
    return DamagedError(
        Concat(path_, ": ", what, "; the file is damaged or not of a kind we read; make it anew"));
  }
  absl::Status LibraryError(std::string_view what) const {
    return Damaged(Concat(what, "; HDF5: ", Hdf5ErrorText()));
  }
  absl::Status Walk(const std::string& group, int depth);
  absl::Status Examine(const std::string& name);
  absl::Status ExamineStorage(hid_t dataset, hid_t creation, Hdf5Contents::Entry& entry, bool plain);
  static absl::Status CountChunks(hid_t dataset, hsize_t wanted);
  absl::Status ExamineChunks(hid_t dataset, hsize_t chunk, Hdf5Contents::Entry& entry, bool plain) const;
  absl::Status Decode(hid_t dataset, hsize_t chunk, Hdf5Contents::Entry& entry);
  absl::Status ReadAttributes();
  absl::Status ReadAttribute(hid_t attribute, const std::string& label, Attribute& out) const;
  absl::Status ReadText(hid_t attribute, hid_t type, const std::string& label, std::string& out) const;

  std::string path_;
  int decoded_fd_;
  Hdf5Driver driver_;
  Hdf5Handle file_;
  bool has_user_block_ = false;
  std::set<haddr_t> visited_;
  int64_t decoded_bytes_ = 0;
  Hdf5Contents contents_;
};

absl::StatusOr<Hdf5Contents> Extractor::Run() {
  const Hdf5Handle access = Hdf5AccessFor(&driver_);
  file_ = Hdf5Handle(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file_.ok()) return LibraryError("cannot be opened");
  const Hdf5Handle creation(H5Fget_create_plist(file_.get()), H5Pclose);
  hsize_t user_block = 0;
  if (!creation.ok() || H5Pget_userblock(creation.get(), &user_block) < 0)
    return LibraryError("cannot be opened");
  has_user_block_ = user_block > 0;
  RETURN_IF_ERROR(Walk("", 0));
  RETURN_IF_ERROR(ReadAttributes());
  if (!file_.Close()) return LibraryError("cannot be closed");
  return std::move(contents_);
}

// `group` is "" for the root, else "a/b/".
absl::Status Extractor::Walk(const std::string& group, int depth) {
  if (depth > kMaxGroupDepth) return Damaged(Concat("groups nested deeper than ", kMaxGroupDepth));
  const Hdf5Handle handle(H5Gopen2(file_.get(), Concat("/", group).c_str(), H5P_DEFAULT), H5Gclose);
  if (!handle.ok()) return LibraryError(Concat("group /", Printable(group), " cannot be opened"));
  LinkList list{{}, kMaxObjects};
  if (H5Literate(handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, CollectLink, &list) < 0) {
    return LibraryError(Concat("group /", Printable(group), " cannot be listed"));
  }
  for (const Link& link : list.links) {
    const std::string name = group + link.name;
    if (link.type != H5L_TYPE_HARD) return Damaged(Concat("/", Printable(name), " is a link"));
    H5O_info_t info;
    if (H5Oget_info_by_name(handle.get(), link.name.c_str(), &info, H5P_DEFAULT) < 0) {
      return LibraryError(Concat("/", Printable(name), " cannot be opened"));
    }
    if (!visited_.insert(info.addr).second) return Damaged(Concat("/", Printable(name), " is linked twice"));
    if (visited_.size() > kMaxObjects) return Damaged(Concat("more than ", kMaxObjects, " objects"));
    if (info.type == H5O_TYPE_GROUP) {
      RETURN_IF_ERROR(Walk(name + "/", depth + 1));
    } else if (info.type == H5O_TYPE_DATASET) {
      RETURN_IF_ERROR(Examine(name));
    } else {
      contents_.entries[name].unreadable = "is no dataset";
    }
  }
  return absl::OkStatus();
}

absl::Status Extractor::Examine(const std::string& name) {
  const std::string label = Concat("dataset /", Printable(name));
  const Hdf5Handle dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset.ok()) return LibraryError(Concat(label, " cannot be opened"));
  const Hdf5Handle space(H5Dget_space(dataset.get()), H5Sclose), type(H5Dget_type(dataset.get()), H5Tclose);
  const Hdf5Handle creation(H5Dget_create_plist(dataset.get()), H5Pclose);
  if (!space.ok() || !type.ok() || !creation.ok()) return LibraryError(Concat(label, " cannot be examined"));
  if (H5Pget_external_count(creation.get()) != 0) return Damaged(Concat(label, " lies in other files"));
  if (H5Pget_layout(creation.get()) == H5D_VIRTUAL) return Damaged(Concat(label, " is virtual"));
  Hdf5Contents::Entry& entry = contents_.entries[name];
  const std::optional<DType> dtype = TypeOf(type.get());
  hsize_t length = 0;
  if (H5Sget_simple_extent_ndims(space.get()) != 1) {
    entry.unreadable = "is not one-dimensional";
  } else if (!dtype.has_value()) {
    entry.unreadable = "has an element type that we do not read";
  } else if (H5Sget_simple_extent_dims(space.get(), &length, nullptr) != 1) {
    return LibraryError(Concat(label, " cannot be examined"));
  } else {
    if (length > (hsize_t{1} << 50)) return Damaged(Concat(label, " declares ", length, " elements"));
    entry.dtype = *dtype;
    entry.length = static_cast<int64_t>(length);
    const bool little_endian = SizeOf(*dtype) == 1 || H5Tget_order(type.get()) == H5T_ORDER_LE;
    const absl::Status status =
        ExamineStorage(dataset.get(), creation.get(), entry, little_endian && !has_user_block_);
    if (!status.ok()) return Damaged(Concat(label, " ", status.message()));
  }
  return absl::OkStatus();
}

// What is declared must be stored: HDF5 reads the rest as zeros. `plain`: the stored bytes may be used as
// they are.
absl::Status Extractor::ExamineStorage(hid_t dataset, hid_t creation, Hdf5Contents::Entry& entry,
                                       bool plain) {
  const int num_filters = H5Pget_nfilters(creation);
  for (int i = 0; i < num_filters; ++i) {
    unsigned flags = 0, config = 0;
    size_t num_values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(creation, i, &flags, &num_values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32) {
      entry.unreadable = Concat("uses filter ", filter, "; deflate, shuffle and fletcher32 are read");
      return absl::OkStatus();
    }
  }
  plain = plain && num_filters == 0;
  const auto file_bytes = static_cast<hsize_t>(driver_.size);
  const hsize_t bytes = static_cast<hsize_t>(entry.length) * SizeOf(entry.dtype),
                stored = H5Dget_storage_size(dataset);
  if (num_filters <= 0 ? stored < bytes : bytes > kMaxInflation * file_bytes) {
    return DamagedError(
        Concat("declares ", entry.length, " elements, but the file holds ", stored, " bytes of it"));
  }
  const H5D_layout_t layout = H5Pget_layout(creation);
  hsize_t chunk = 0;
  if (layout == H5D_CHUNKED) {
    if (H5Pget_chunk(creation, 1, &chunk) != 1 || chunk == 0 ||
        chunk > kMaxChunkBytes / SizeOf(entry.dtype)) {
      return DamagedError(Concat("has chunks of ", chunk, " elements, more than 64 MiB"));
    }
    const hsize_t chunks = (static_cast<hsize_t>(entry.length) + chunk - 1) / chunk;
    if (chunks > kMaxListedChunks && static_cast<int64_t>(bytes) <= kMaxDecodedBytes - decoded_bytes_) {
      RETURN_IF_ERROR(CountChunks(dataset, chunks));
      plain = false;  // the library reads them
    } else {
      RETURN_IF_ERROR(ExamineChunks(dataset, chunk, entry, plain));
    }
  } else if (layout == H5D_CONTIGUOUS && entry.length > 0) {
    const haddr_t at = H5Dget_offset(dataset);
    if (at == HADDR_UNDEF || at > file_bytes || bytes > file_bytes - at)
      return DamagedError("lies outside the file");
    entry.extents.push_back({0, entry.length, static_cast<int64_t>(at)});
  }
  if (entry.length == 0 || (plain && layout != H5D_COMPACT)) return absl::OkStatus();
  return Decode(dataset, chunk, entry);
}

absl::Status Extractor::CountChunks(hid_t dataset, hsize_t wanted) {
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  hsize_t found = 0;
  if (!space.ok() || H5Dget_num_chunks(dataset, space.get(), &found) < 0)
    return DamagedError(Concat("has a damaged chunk index; HDF5: ", Hdf5ErrorText()));
  if (found < wanted) return DamagedError(Concat("lacks ", wanted - found, " chunks"));
  return absl::OkStatus();
}

absl::Status Extractor::ExamineChunks(hid_t dataset, hsize_t chunk, Hdf5Contents::Entry& entry,
                                      bool plain) const {
  const auto size = static_cast<hsize_t>(driver_.size), length = static_cast<hsize_t>(entry.length);
  for (hsize_t first = 0; first < length; first += chunk) {
    unsigned mask = 0;
    haddr_t at = HADDR_UNDEF;
    hsize_t bytes = 0;
    if (H5Dget_chunk_info_by_coord(dataset, &first, &mask, &at, &bytes) < 0) {
      return DamagedError(Concat("has a damaged chunk index; HDF5: ", Hdf5ErrorText()));
    }
    if (at == HADDR_UNDEF) return DamagedError(Concat("lacks the chunk of element ", first));
    if (at > size || bytes > size - at)
      return DamagedError(Concat("has a chunk outside the file, at element ", first));
    if (plain && bytes != chunk * SizeOf(entry.dtype)) {
      return DamagedError(Concat("has a chunk of ", bytes, " bytes at element ", first));
    }
    const auto count = static_cast<int64_t>(std::min(chunk, length - first));
    entry.extents.push_back({static_cast<int64_t>(first), count, static_cast<int64_t>(at)});
  }
  return absl::OkStatus();
}

// Appends the elements, as the library gives them, to decoded_fd_.
absl::Status Extractor::Decode(hid_t dataset, hsize_t chunk, Hdf5Contents::Entry& entry) {
  const int64_t item = SizeOf(entry.dtype), bytes = entry.length * item;
  if (bytes > kMaxDecodedBytes - decoded_bytes_) {
    return DamagedError(Concat("takes more than 4 GiB when unpacked; store it without compression"));
  }
  entry.extents = {{0, entry.length, decoded_bytes_}};
  entry.decoded = true;
  decoded_bytes_ += bytes;
  constexpr hsize_t kStep = hsize_t{1} << 20;  // elements read at once, or one chunk
  const hsize_t step = chunk == 0 ? kStep : std::max(kStep / chunk, hsize_t{1}) * chunk;
  std::vector<std::byte> block;
  for (hsize_t first = 0, count; first < static_cast<hsize_t>(entry.length); first += count) {
    count = std::min(step, static_cast<hsize_t>(entry.length) - first);
    block.resize(count * item);
    const Hdf5Handle space(H5Dget_space(dataset), H5Sclose),
        memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
    if (!space.ok() || !memory.ok() ||
        H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &first, nullptr, &count, nullptr) < 0 ||
        H5Dread(dataset, Hdf5NativeType(entry.dtype), memory.get(), space.get(), H5P_DEFAULT, block.data()) <
            0) {
      return DamagedError(Concat("cannot be read at element ", first, "; HDF5: ", Hdf5ErrorText()));
    }
    RETURN_IF_ERROR(WriteFully(decoded_fd_, block, "memory"));
  }
  return absl::OkStatus();
}

absl::Status Extractor::ReadAttributes() {
  H5O_info_t info;
  if (H5Oget_info_by_name(file_.get(), "/", &info, H5P_DEFAULT) < 0)
    return LibraryError("the root cannot be examined");
  if (info.num_attrs > kMaxObjects) return Damaged(Concat("has ", info.num_attrs, " attributes"));
  for (hsize_t i = 0; i < info.num_attrs; ++i) {
    const Hdf5Handle attribute(
        H5Aopen_by_idx(file_.get(), "/", H5_INDEX_NAME, H5_ITER_NATIVE, i, H5P_DEFAULT, H5P_DEFAULT),
        H5Aclose);
    char name[256] = "";
    if (!attribute.ok() || H5Aget_name(attribute.get(), sizeof name, name) < 0) {
      return LibraryError(Concat("attribute ", i, " cannot be opened"));
    }
    RETURN_IF_ERROR(
        ReadAttribute(attribute.get(), Concat("attribute ", Printable(name)), contents_.attributes[name]));
  }
  return absl::OkStatus();
}

absl::Status Extractor::ReadAttribute(hid_t attribute, const std::string& label, Attribute& out) const {
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose), type(H5Aget_type(attribute), H5Tclose);
  if (!space.ok() || !type.ok()) return LibraryError(Concat(label, " cannot be examined"));
  if (H5Sget_simple_extent_npoints(space.get()) != 1) return absl::OkStatus();
  bool done = true;
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER:
      out.kind = Attribute::Kind::kInt;
      done = H5Aread(attribute, H5T_NATIVE_INT64, &out.integer) >= 0;
      break;
    case H5T_FLOAT:
      out.kind = Attribute::Kind::kDouble;
      done = H5Aread(attribute, H5T_NATIVE_DOUBLE, &out.number) >= 0;
      break;
    case H5T_STRING:
      out.kind = Attribute::Kind::kText;
      return ReadText(attribute, type.get(), label, out.text);
    default:
      break;
  }
  return done ? absl::OkStatus() : LibraryError(Concat(label, " cannot be read"));
}

absl::Status Extractor::ReadText(hid_t attribute, hid_t type, const std::string& label,
                                 std::string& out) const {
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    if (H5Aread(attribute, type, &text) < 0) return LibraryError(Concat(label, " cannot be read"));
    out = text == nullptr ? "" : text;
    H5free_memory(text);
    return absl::OkStatus();
  }
  const size_t size = H5Tget_size(type);
  if (size > kMaxAttributeBytes) return Damaged(Concat(label, " is larger than 1 MiB"));
  out.assign(size, '\0');
  if (H5Aread(attribute, type, out.data()) < 0) return LibraryError(Concat(label, " cannot be read"));
  out.resize(std::min(out.find('\0'), out.size()));
  if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) out.resize(out.find_last_not_of(' ') + 1);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Hdf5Contents> ExtractHdf5(const std::string& path, int fd, int64_t size, int decoded_fd) {
  return Extractor(path, fd, size, decoded_fd).Run();
}

std::string SerializeContents(const Hdf5Contents& contents) {
  nlohmann::json datasets = nlohmann::json::array(), attributes = nlohmann::json::array();
  for (const auto& [name, entry] : contents.entries) {
    nlohmann::json extents = nlohmann::json::array();
    for (const auto& extent : entry.extents)
      extents.push_back({extent.first, extent.count, extent.file_offset});
    datasets.push_back(
        {name, entry.unreadable, std::string(Name(entry.dtype)), entry.length, entry.decoded, extents});
  }
  for (const auto& [name, attribute] : contents.attributes) {
    attributes.push_back({name, static_cast<int>(attribute.kind), attribute.integer,
                          std::bit_cast<int64_t>(attribute.number), attribute.text});
  }
  return DumpJson(nlohmann::json{{"datasets", datasets}, {"attributes", attributes}});
}

absl::StatusOr<Hdf5Contents> ParseContents(const std::string& text, const std::string& path) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  Hdf5Contents contents;
  try {
    for (const auto& item : json.at("datasets")) {
      Hdf5Contents::Entry entry;
      entry.unreadable = item.at(1).get<std::string>();
      const std::optional<DType> dtype = DTypeFromName(item.at(2).get<std::string>());
      if (!dtype.has_value())
        return DamagedError(Concat(path, ": the process that examined it answered nonsense"));
      entry.dtype = *dtype;
      entry.length = item.at(3).get<int64_t>();
      entry.decoded = item.at(4).get<bool>();
      for (const auto& extent : item.at(5)) {
        entry.extents.push_back(
            {extent.at(0).get<int64_t>(), extent.at(1).get<int64_t>(), extent.at(2).get<int64_t>()});
      }
      contents.entries.emplace(item.at(0).get<std::string>(), std::move(entry));
    }
    for (const auto& item : json.at("attributes")) {
      contents.attributes[item.at(0).get<std::string>()] = {
          static_cast<Attribute::Kind>(item.at(1).get<int>()), item.at(2).get<int64_t>(),
          std::bit_cast<double>(item.at(3).get<int64_t>()), item.at(4).get<std::string>()};
    }
  } catch (const nlohmann::json::exception& error) {
    return DamagedError(Concat(path, ": the process that examined it answered nonsense: ", error.what()));
  }
  return contents;
}

}  // namespace moebius
