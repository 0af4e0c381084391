// Writes small GGUF files for tests, right or wrong as the test wants, in the format's own words.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace moebius {

template <typename T>
std::string LittleEndian(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

inline std::string GgufString(const std::string& text) { return LittleEndian<uint64_t>(text.size()) + text; }

template <typename T>
std::string LittleEndianList(const std::vector<T>& values) {
  std::string out;
  for (const T& value : values) out += LittleEndian(value);
  return out;
}

struct GgufText {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;          // of the data that Text() lays out
  std::vector<std::string> values;  // key, type and value, one behind the other
  std::vector<std::string> infos;   // of tensors
  std::string data;
  int64_t more_tensors = 0, more_values = 0;  // that the counts promise and the file has not

  GgufText& Value(const std::string& key, uint32_t type, const std::string& bytes) {
    values.push_back(GgufString(key) + LittleEndian(type) + bytes);
    return *this;
  }
  GgufText& Int(const std::string& key, uint32_t value) { return Value(key, 4, LittleEndian(value)); }
  GgufText& Float(const std::string& key, float value) { return Value(key, 6, LittleEndian(value)); }
  GgufText& Bool(const std::string& key, bool value) { return Value(key, 7, std::string(1, value ? 1 : 0)); }
  GgufText& String(const std::string& key, const std::string& text) {
    return Value(key, 8, GgufString(text));
  }
  GgufText& Ints(const std::string& key, const std::vector<int32_t>& list) {
    return Value(key, 9,
                 LittleEndian<uint32_t>(5) + LittleEndian<uint64_t>(list.size()) + LittleEndianList(list));
  }
  GgufText& Strings(const std::string& key, const std::vector<std::string>& list) {
    std::string bytes = LittleEndian<uint32_t>(8) + LittleEndian<uint64_t>(list.size());
    for (const std::string& text : list) bytes += GgufString(text);
    return Value(key, 9, bytes);
  }
  // `dims` innermost first, as in the file.
  GgufText& Info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    infos.push_back(GgufString(name) + LittleEndian<uint32_t>(static_cast<uint32_t>(dims.size())) +
                    LittleEndianList(dims) + LittleEndian(type) + LittleEndian(offset));
    return *this;
  }
  // A tensor whose bytes go behind what is there.
  GgufText& Tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                   const std::string& bytes) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    Info(name, dims, type, data.size());
    data += bytes;
    return *this;
  }
  std::string Header() const {
    std::string out = magic + LittleEndian(version) + LittleEndian<uint64_t>(infos.size() + more_tensors) +
                      LittleEndian<uint64_t>(values.size() + more_values);
    for (const std::string& value : values) out += value;
    for (const std::string& info : infos) out += info;
    return out;
  }
  std::string Text() const {
    std::string out = Header();
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

}  // namespace moebius
