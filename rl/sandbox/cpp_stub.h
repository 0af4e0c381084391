// The C++ text around a program whose function is called or whose asserts are run: JSON to arguments, result
// to JSON, frames on descriptor 3.
#pragma once

namespace moebius::sandbox {

// Before the program. Then come the program, and a main that calls moebius_slot::Call(function) or, after the
// script, moebius_slot::Finish().
inline constexpr char kCppStub[] = R"STUB(
#include <unistd.h>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>
namespace moebius_slot {
inline void Send(const std::string& bytes) {
  unsigned length = bytes.size();
  std::string data(reinterpret_cast<char*>(&length), 4);
  data += bytes;
  for (size_t at = 0; at < data.size();) {
    ssize_t n = ::write(3, data.data() + at, data.size() - at);
    if (n <= 0) ::_exit(1);
    at += n;
  }
}
inline std::string Receive() {
  auto exactly = [](size_t size) {
    std::string data(size, '\0');
    for (size_t at = 0; at < size;) {
      ssize_t n = ::read(3, &data[at], size - at);
      if (n <= 0) ::_exit(1);
      at += n;
    }
    return data;
  };
  unsigned length;
  std::memcpy(&length, exactly(4).data(), 4);
  return exactly(length);
}
struct Reader {
  const char* at;
  void Space() { while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r') ++at; }
  void Bad() { std::fputs("an argument does not fit the function's parameter\n", stderr); ::_exit(3); }
  bool Take(char c) { Space(); if (*at != c) return false; ++at; return true; }
  void Need(char c) { if (!Take(c)) Bad(); }
  unsigned Hex() { unsigned v = std::strtoul(std::string(at, 4).c_str(), nullptr, 16); at += 4; return v; }
  std::string Text() {
    Need('"');
    std::string out;
    while (*at != '"') {
      if (*at != '\\') { out += *at++; continue; }
      ++at;
      char c = *at++;
      if (c != 'u') { const char* names = "nrtbf"; const char* p = std::strchr(names, c);
        out += p ? "\n\r\t\b\f"[p - names] : c; continue; }
      unsigned code = Hex();
      if (code >= 0xD800 && code < 0xDC00) { at += 2; code = 0x10000 + ((code - 0xD800) << 10) + (Hex() - 0xDC00); }
      if (code < 0x80) { out += char(code); }
      else if (code < 0x800) { out += char(0xC0 | code >> 6); out += char(0x80 | (code & 63)); }
      else if (code < 0x10000) { out += char(0xE0 | code >> 12); out += char(0x80 | (code >> 6 & 63)); out += char(0x80 | (code & 63)); }
      else { out += char(0xF0 | code >> 18); out += char(0x80 | (code >> 12 & 63)); out += char(0x80 | (code >> 6 & 63)); out += char(0x80 | (code & 63)); }
    }
    ++at;
    return out;
  }
};
template <class T> struct Json;
template <class T> void Get(Reader& in, T& out) { Json<T>::Get(in, out); }
template <class T> void Put(const T& value, std::string& out) { Json<T>::Put(value, out); }
template <class T> requires std::is_arithmetic_v<T> struct Json<T> {
  static void Get(Reader& in, T& out) {
    in.Space();
    char* end;
    if constexpr (std::is_same_v<T, bool>) {
      if (!std::strncmp(in.at, "true", 4)) { out = true; in.at += 4; }
      else if (!std::strncmp(in.at, "false", 5)) { out = false; in.at += 5; }
      else in.Bad();
      return;
    } else if constexpr (std::is_same_v<T, char>) {
      std::string text = in.Text();
      if (text.size() != 1) in.Bad();
      out = text[0];
      return;
    } else if constexpr (std::is_floating_point_v<T>) {
      out = std::strtold(in.at, &end);
    } else if constexpr (std::is_signed_v<T>) {
      errno = 0;
      long long v = std::strtoll(in.at, &end, 10);
      out = T(v);
      if (out != v || errno != 0 || *end == '.' || *end == 'e') in.Bad();
    } else {
      errno = 0;
      unsigned long long v = std::strtoull(in.at, &end, 10);
      out = T(v);
      if (out != v || *in.at == '-' || errno != 0 || *end == '.' || *end == 'e') in.Bad();
    }
    if (end == in.at) in.Bad();
    in.at = end;
  }
  static void Put(const T& v, std::string& out) {
    if constexpr (std::is_same_v<T, bool>) { out += v ? "true" : "false"; }
    else if constexpr (std::is_same_v<T, char>) { moebius_slot::Put(std::string(1, v), out); }
    else if constexpr (std::is_same_v<T, float>) {
      char b[64];
      for (int digits = 6; digits <= 9; ++digits) {
        std::snprintf(b, sizeof b, "%.*g", digits, v);
        if (std::strtof(b, nullptr) == v) break;
      }
      out += b;
    }
    else if constexpr (std::is_floating_point_v<T>) { char b[64]; std::snprintf(b, sizeof b, "%.17Le", (long double)v); out += b; }
    else { out += std::to_string(v); }
  }
};
template <> struct Json<std::string> {
  static void Get(Reader& in, std::string& out) { out = in.Text(); }
  static void Put(const std::string& v, std::string& out) {
    out += '"';
    for (unsigned char c : v) {
      if (c == '"' || c == '\\') { out += '\\'; out += c; }
      else if (c < 0x20) { char b[8]; std::snprintf(b, sizeof b, "\\u%04x", c); out += b; }
      else out += c;
    }
    out += '"';
  }
};
template <class T, class A> struct Json<std::vector<T, A>> {
  static void Get(Reader& in, std::vector<T, A>& out) {
    in.Need('[');
    if (in.Take(']')) return;
    do { T item{}; moebius_slot::Get(in, item); out.push_back(std::move(item)); } while (in.Take(','));
    in.Need(']');
  }
  static void Put(const std::vector<T, A>& v, std::string& out) {
    out += '[';
    bool first = true;
    for (const auto& item : v) { if (!first) out += ','; first = false; moebius_slot::Put<T>(item, out); }
    out += ']';
  }
};
template <class... T> struct Json<std::tuple<T...>> {
  static void Get(Reader& in, std::tuple<T...>& out) {
    in.Need('[');
    bool first = true;
    std::apply([&](auto&... item) { ((first ? void(first = false) : in.Need(','), moebius_slot::Get(in, item)), ...); }, out);
    in.Need(']');
  }
  static void Put(const std::tuple<T...>& v, std::string& out) {
    out += '[';
    bool first = true;
    std::apply([&](const auto&... item) { ((first ? void(first = false) : void(out += ','), moebius_slot::Put(item, out)), ...); }, v);
    out += ']';
  }
};
template <class A, class B> struct Json<std::pair<A, B>> {
  static void Get(Reader& in, std::pair<A, B>& out) {
    in.Need('['); moebius_slot::Get(in, out.first); in.Need(','); moebius_slot::Get(in, out.second); in.Need(']');
  }
  static void Put(const std::pair<A, B>& v, std::string& out) {
    out += '['; moebius_slot::Put(v.first, out); out += ','; moebius_slot::Put(v.second, out); out += ']';
  }
};
template <class T> struct Json<std::optional<T>> {
  static void Get(Reader& in, std::optional<T>& out) {
    in.Space();
    if (!std::strncmp(in.at, "null", 4)) { in.at += 4; return; }
    T v{}; moebius_slot::Get(in, v); out = std::move(v);
  }
  static void Put(const std::optional<T>& v, std::string& out) { if (v) moebius_slot::Put(*v, out); else out += "null"; }
};
template <class Map> struct JsonMap {
  static void Get(Reader& in, Map& out) {
    in.Need('{');
    if (in.Take('}')) return;
    do {
      std::string key = in.Text();
      in.Need(':');
      typename Map::mapped_type item{};
      moebius_slot::Get(in, item);
      if constexpr (std::is_same_v<typename Map::key_type, std::string>) { out[key] = std::move(item); }
      else { typename Map::key_type k{}; Reader inner{key.c_str()}; moebius_slot::Get(inner, k); out[k] = std::move(item); }
    } while (in.Take(','));
    in.Need('}');
  }
  static void Put(const Map& v, std::string& out) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : v) {
      if (!first) out += ',';
      first = false;
      std::string text;
      moebius_slot::Put(key, text);
      if (text[0] == '"') out += text; else out += '"' + text + '"';
      out += ':';
      moebius_slot::Put(item, out);
    }
    out += '}';
  }
};
template <class... T> struct Json<std::map<T...>> : JsonMap<std::map<T...>> {};
template <class... T> struct Json<std::unordered_map<T...>> : JsonMap<std::unordered_map<T...>> {};
template <class... Args> std::tuple<std::decay_t<Args>...> ReadArguments() {
  std::string text;
  std::FILE* file = std::fopen("/prog/args.json", "r");
  char block[65536];
  for (size_t n; (n = std::fread(block, 1, sizeof block, file)) > 0;) text.append(block, n);
  std::fclose(file);
  Reader in{text.c_str()};
  std::tuple<std::decay_t<Args>...> arguments;
  in.Need('[');
  bool first = true;
  std::apply([&](auto&... a) { ((first ? void(first = false) : in.Need(','), Get(in, a)), ...); }, arguments);
  in.Need(']');
  return arguments;
}
template <class F, class R, class... Args> int CallAs(F function) {
  auto arguments = ReadArguments<Args...>();
  auto call = [&](auto&... a) -> R { return function(static_cast<Args>(static_cast<std::conditional_t<std::is_lvalue_reference_v<Args>, std::decay_t<Args>&, std::decay_t<Args>&&>>(a))...); };
  std::string out;
  if constexpr (std::is_void_v<R>) { std::apply(call, arguments); out = "null"; }
  else { std::decay_t<R> result = std::apply(call, arguments); Put(result, out); }
  std::fflush(stdout);
  Send(out);
  ::_exit(0);
}
template <class R, class... Args> int Call(R (*function)(Args...)) { return CallAs<decltype(function), R, Args...>(function); }
template <class C, class R, class... Args> int Call(R (C::*method)(Args...)) {
  static C object;
  auto bound = [method](Args... a) -> R { return (object.*method)(static_cast<Args>(a)...); };
  return CallAs<decltype(bound), R, Args...>(bound);
}
template <class C, class R, class... Args> int Call(R (C::*method)(Args...) const) {
  static C object;
  auto bound = [method](Args... a) -> R { return (object.*method)(static_cast<Args>(a)...); };
  return CallAs<decltype(bound), R, Args...>(bound);
}
inline int Finish() {
  Send("done");
  Send(Receive());
  std::fflush(stdout);
  ::_exit(0);
}
}  // namespace moebius_slot
)STUB";

}  // namespace moebius::sandbox
