// The name by which the program knows a libmoebius_cuda.so of its own build.
#include "core/backend/gpu_build.h"

#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "core/base/strings.h"
#include "core/io/hash.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

std::string ContentOf(const std::string& path) {
  std::ifstream file(Concat(MOEBIUS_SOURCE_DIR "/", path));
  CHECK(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// `path` and what it includes of ours.
void AddHeaders(const std::string& path, std::set<std::string>& headers) {
  if (!headers.insert(path).second) return;
  const std::string text = ContentOf(path);
  static const std::regex include("#include \"(core/[^\"]+)\"");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), include); it != std::sregex_iterator();
       ++it) {
    AddHeaders((*it)[1], headers);
  }
}

TEST(GpuBuildTest, ItsNameChangesWithEveryHeaderBetweenTheProgramAndTheBackend) {
  std::set<std::string> headers;
  AddHeaders("core/backend/gpu.h", headers);
  AddHeaders("core/backend/device_link.h", headers);
  std::string hashes;
  for (const std::string& header : headers) hashes += Sha256::ToHex(Sha256Of(ContentOf(header)));
  const std::string hash = Sha256::ToHex(Sha256Of(hashes)).substr(0, 16);
  EXPECT_NE(std::string(kGpuBuild).find(Concat("headers ", hash)), std::string::npos)
      << kGpuBuild << "; SEAM in core/backend/CMakeLists.txt has to list " << [&headers] {
           std::string all;
           for (const std::string& header : headers) all += header + " ";
           return all;
         }();
}

}  // namespace
}  // namespace moebius
