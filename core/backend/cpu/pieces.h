// How elementwise kernels cut tensors into tasks: by shape alone, a task being long enough to be worth a
// thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend/cpu/thread_pool.h"

namespace moebius {

inline constexpr int64_t kTaskElements = 8192;  // some microseconds

// body(begin, end, thread): ranges of rows, each of about kTaskElements elements.
template <typename Body>
void ForRowRanges(ThreadPool& pool, int64_t rows, int64_t elements_a_row, const Body& body) {
  const int64_t step = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, elements_a_row));
  pool.Run((rows + step - 1) / step, [&](int64_t task, int thread) {
    const int64_t begin = task * step;
    body(begin, std::min(begin + step, rows), thread);
  });
}

// Ranges of the elements of a flat tensor.
template <typename Body>
void ForRanges(ThreadPool& pool, int64_t elements, const Body& body) {
  ForRowRanges(pool, elements, 1, body);
}

}  // namespace moebius
