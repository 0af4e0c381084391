// The communicator's tests with a device's memory: their bodies pass host memory, and a communicator around
// the real one moves it to the device and back. The device is a GPU, or a pretended one whose addresses no
// host code can follow and whose work takes a few polls.
#pragma once

#include <memory>

#include "core/backend/backend.h"
#include "core/backend/device_link.h"
#include "parallel/comm/communicator.h"

namespace moebius {

// Some memory of a device, and the way there; from any thread.
class TestDevice {
 public:
  virtual ~TestDevice() = default;
  virtual void* Allocate(int64_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  virtual void CopyIn(const void* host, void* device, int64_t bytes) = 0;
  virtual void CopyOut(const void* device, void* host, int64_t bytes) = 0;
};

// Of a GPU's backend, which outlives it.
std::unique_ptr<TestDevice> NewGpuTestDevice(Backend& backend);

// For CpuOptions::link. Its channels between processes are files.
class PretendedLink : public DeviceLink, public TestDevice {};
std::unique_ptr<PretendedLink> NewPretendedLink(bool channels);

// `inner`, with everything that it is given on the device. Both outlive it.
std::unique_ptr<Communicator> OnDevice(Communicator& inner, TestDevice& device);

}  // namespace moebius
