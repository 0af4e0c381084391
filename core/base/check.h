// CHECK: a broken invariant ends the process with exit code 70, saying where, what and the values.
// For the programmer's mistakes only; what the outside world gets wrong is an absl::Status (status.h).
#pragma once

#include <sstream>
#include <string>

namespace moebius {

// Collects the message of a failed CHECK; its destructor prints it and ends the process.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const std::string& what);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

namespace check_internal {
// Lets the macro be an expression of type void on both sides of ?:.
struct Voidify {
  void operator&(std::ostream&) const {}
};
template <typename A, typename B>
std::string Values(const char* text, const A& a, const B& b) {
  std::ostringstream out;
  out << text << " (" << a << " vs " << b << ")";
  return out.str();
}
}  // namespace check_internal

}  // namespace moebius

#define CHECK(condition)                            \
  __builtin_expect(static_cast<bool>(condition), 1) \
      ? void(0)                                     \
      : ::moebius::check_internal::Voidify() &      \
            ::moebius::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define MOEBIUS_CHECK_OP(a, op, b)                                                                  \
  __builtin_expect(static_cast<bool>((a)op(b)), 1)                                                  \
      ? void(0)                                                                                     \
      : ::moebius::check_internal::Voidify() &                                                      \
            ::moebius::CheckFailure(__FILE__, __LINE__,                                             \
                                    ::moebius::check_internal::Values(#a " " #op " " #b, (a), (b))) \
                .stream()
#define CHECK_EQ(a, b) MOEBIUS_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) MOEBIUS_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) MOEBIUS_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) MOEBIUS_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) MOEBIUS_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) MOEBIUS_CHECK_OP(a, >=, b)
