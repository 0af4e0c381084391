// A dataset of a rollout archive, whole.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <vector>

#include "core/io/hdf5_file.h"

namespace moebius {

template <typename T>
std::vector<T> ReadAll(const Hdf5File& file, const char* name) {
  const auto found = file.Find(name);
  EXPECT_TRUE(found.ok()) << name;
  if (!found.ok()) return {};
  std::vector<T> out(found->length);
  EXPECT_TRUE(file.Read(name, 0, std::span<T>(out)).ok()) << name;
  return out;
}

}  // namespace moebius
