// Token files and h5py read each other (registered only where the oracle's Python is installed).
#include <gtest/gtest.h>

#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/base/strings.h"
#include "core/io/hash.h"
#include "data/token_file.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

TEST(TokenFile, IsReadableByH5pyAndTheOtherWayRound) {
  const Scratch scratch;
  auto writer = TokenFileWriter::Create(scratch.path("t.h5"), 129280);
  ASSERT_TRUE(writer.ok());
  std::vector<int32_t> written(75);
  std::iota(written.begin(), written.end(), 0);
  ASSERT_TRUE((*writer)->AddDocument(std::span(written).first(5)).ok());
  ASSERT_TRUE((*writer)->AddDocument(std::span(written).subspan(5)).ok());
  ASSERT_TRUE((*writer)
                  ->Finish({.vocab_size = 129280,
                            .bytes = 225,
                            .tokenizer_sha256 = Sha256Hex("{}"),
                            .tokenizer_json = "{}"})
                  .ok());
  EXPECT_EQ(RunPython("import h5py\nf=h5py.File('t.h5')\n"
                      "print(f['tokens'].dtype, f['tokens'].shape, int(f['tokens'][74]), "
                      "list(f['document_starts']), f['document_starts'].dtype,"
                      "int(f.attrs['vocab_size']), int(f.attrs['bytes']), int(f.attrs['format_version']), "
                      "len(f.attrs['tokenizer_sha256']),"
                      "bytes(f['tokenizer_json'][:]))",
                      scratch),
            "uint32 (75,) 74 [np.int64(0), np.int64(5)] int64 129280 225 1 64 b'{}'\n");
  for (const char* options : {"", ", chunks=(16,), compression='gzip'", ", chunks=(7,)"}) {
    const std::string made =
        RunPython(Concat("import h5py, numpy as np\nf=h5py.File('p.h5','w')\n"
                         "f.create_dataset('tokens', data=np.arange(100, dtype=np.uint16)",
                         options,
                         ")\n"
                         "f['document_starts']=np.array([0,60],dtype=np.int64)\nf.attrs['format_version']="
                         "1\nf.attrs['vocab_size']=100\n"
                         "f.attrs['bytes']=300\nf.attrs['tokenizer_sha256']='abc'\nprint('made')"),
                  scratch);
    ASSERT_EQ(made, "made\n");
    const auto file = TokenFile::Open(scratch.path("p.h5"));
    ASSERT_TRUE(file.ok()) << options << ": " << file.status();
    std::vector<int32_t> tokens(95);
    ASSERT_TRUE((*file)->Read(3, tokens).ok());
    for (int i = 0; i < 95; ++i) EXPECT_EQ(tokens[i], i + 3) << options;
  }
}

}  // namespace
}  // namespace moebius
