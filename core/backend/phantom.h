// A device without memory and without arithmetic: what runs on it shows how much memory it would take
// elsewhere, in seconds, however large the model. Addresses that it hands out must not be read; what it
// copies to the host is zero.
#pragma once

#include <cstdint>
#include <memory>

#include "core/backend/backend.h"

namespace moebius {

struct PhantomOptions {
  const Backend* stands_for =
      nullptr;  // its sizes and choices are repeated; none: of no device in particular
};

class PhantomBackend : public Backend {
 public:
  virtual int64_t peak_bytes() const = 0;  // the most that was ever allocated
};
std::unique_ptr<PhantomBackend> MakePhantomBackend(const PhantomOptions& options);

}  // namespace moebius
