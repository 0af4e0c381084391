#include "core/io/gguf.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/base/strings.h"
#include "tests/core/io/gguf_text.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

absl::StatusOr<GgufFile> OpenGguf(const std::string& text) {
  const Scratch scratch;
  WriteRaw(scratch.path("a.gguf"), text);
  return GgufFile::Open(scratch.path("a.gguf"));  // the map outlives the file's name
}

constexpr uint16_t kHalf = 0x3800;          // 0.5
constexpr uint16_t kMinusQuarter = 0xB400;  // -0.25

// Byte i holds i in its low and 15 - i in its high half.
std::string Nibbles() {
  std::string out;
  for (int i = 0; i < 16; ++i) out += static_cast<char>(i | (15 - i) << 4);
  return out;
}

std::string Floats(int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<float>(i) / 4);
  return LittleEndianList(values);
}

TEST(GgufFile, ReadsEveryElementType) {
  GgufText text;
  text.Tensor("f32", {3, 2}, 0, Floats(6));
  text.Tensor("f16", {2}, 1, LittleEndian(kHalf) + LittleEndian(kMinusQuarter));
  text.Tensor("bf16", {2}, 30, LittleEndian<uint16_t>(0x3FC0) + LittleEndian<uint16_t>(0xC000));
  text.Tensor("q4_0", {32}, 2, LittleEndian(kHalf) + Nibbles());
  text.Tensor("q4_1", {32, 2}, 3,
              LittleEndian(kHalf) + LittleEndian(kMinusQuarter) + Nibbles() + LittleEndian(kHalf) +
                  LittleEndian(kHalf) + std::string(16, '\0'));
  std::string bytes;
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(i * 8 - 128);
  text.Tensor("q8_0", {32}, 8, LittleEndian(kHalf) + bytes);
  const auto file = OpenGguf(text.Text());
  ASSERT_TRUE(file.ok()) << file.status();
  const auto values = [&](const char* name) { return file->ReadF32(*file->Find(name)); };
  EXPECT_EQ(values("f32"), (std::vector<float>{0, 0.25, 0.5, 0.75, 1, 1.25}));
  EXPECT_EQ(file->Find("f32")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(values("f16"), (std::vector<float>{0.5, -0.25}));
  EXPECT_EQ(values("bf16"), (std::vector<float>{1.5, -2}));
  const std::vector<float> q4_0 = values("q4_0"), q4_1 = values("q4_1"), q8_0 = values("q8_0");
  ASSERT_EQ(q4_1.size(), 64u);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(q4_0[i], (i - 8) * 0.5f) << i;
    EXPECT_EQ(q4_0[i + 16], (7 - i) * 0.5f) << i;
    EXPECT_EQ(q4_1[i], i * 0.5f - 0.25f) << i;
    EXPECT_EQ(q4_1[i + 16], (15 - i) * 0.5f - 0.25f) << i;
    EXPECT_EQ(q4_1[i + 32], 0.5f) << i;
    EXPECT_EQ(q4_1[i + 48], 0.5f) << i;
  }
  for (int i = 0; i < 32; ++i) EXPECT_EQ(q8_0[i], (i * 8 - 128) * 0.5f) << i;
  EXPECT_EQ(file->Find("gone"), nullptr);
}

TEST(GgufFile, GivesMetadataOfEveryType) {
  GgufText text;
  text.version = 2;
  text.Value("u8", 0, "\xFF").Value("i8", 1, "\xFF").Value("u16", 2, "\xFF\xFF").Value("i16", 3, "\xFF\xFF");
  text.Int("u32", 0xFFFFFFFFu)
      .Value("i32", 5, LittleEndian<int32_t>(-2))
      .Float("f32", 0.5f)
      .Bool("bool", true);
  text.String("string", "a\nb").Value("u64", 10, LittleEndian<uint64_t>(uint64_t{1} << 62));
  text.Value("i64", 11, LittleEndian<int64_t>(-3)).Value("f64", 12, LittleEndian(0.1));
  text.Ints("ints", {1, -1}).Strings("strings", {"x", "", "yz"});
  const auto file = OpenGguf(text.Text());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->GetInt("u8"), 255);
  EXPECT_EQ(*file->GetInt("i8", -1), -1);
  EXPECT_EQ(*file->GetInt("u16"), 65535);
  EXPECT_EQ(*file->GetInt("i16", -1), -1);
  EXPECT_EQ(*file->GetInt("u32"), 0xFFFFFFFFll);
  EXPECT_EQ(*file->GetInt("i32", -5), -2);
  EXPECT_EQ(*file->GetInt("u64"), int64_t{1} << 62);
  EXPECT_EQ(*file->GetInt("i64", -5), -3);
  EXPECT_EQ(*file->GetDouble("f32"), 0.5);
  EXPECT_EQ(*file->GetDouble("f64"), 0.1);
  EXPECT_TRUE(*file->GetBoolOr("bool", false));
  EXPECT_TRUE(*file->GetBoolOr("gone", true));
  EXPECT_EQ(*file->GetString("string"), "a\nb");
  EXPECT_EQ(*file->GetStringOr("gone", "else"), "else");
  EXPECT_EQ(*file->GetIntOr("gone", 7), 7);
  EXPECT_EQ(*file->GetDoubleOr("gone", 7), 7);
  EXPECT_EQ(*file->GetInts("ints"), (std::vector<int64_t>{1, -1}));
  EXPECT_EQ(*file->GetStrings("strings"), (std::vector<std::string_view>{"x", "", "yz"}));
  EXPECT_TRUE(Contains(file->GetInt("gone").status(), "key gone is missing"));
  EXPECT_TRUE(Contains(file->GetInt("string").status(), "key string is not an integer"));
  EXPECT_TRUE(Contains(file->GetInt("i8").status(), "key i8 is -1, outside 0 to"));
}

TEST(GgufFile, HonoursItsAlignment) {
  GgufText text;
  text.alignment = 64;
  text.Int("general.alignment", 64).Tensor("a", {1}, 0, Floats(1)).Tensor("b", {2}, 0, Floats(2));
  const auto file = OpenGguf(text.Text());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Find("b")->begin, 64);
  EXPECT_EQ(file->ReadF32(*file->Find("b")), (std::vector<float>{0, 0.25}));
}

GgufText Good() {
  GgufText text;
  return text.String("general.architecture", "llama")
      .Ints("list", {1, 2, 3})
      .Tensor("a", {4, 2}, 0, Floats(8));
}

// Text() with `n` promised where the header has its eight bytes at `offset`.
std::string WithCount(const GgufText& text, size_t offset, uint64_t n) {
  return text.Text().replace(offset, 8, LittleEndian(n));
}

TEST(GgufFile, RefusesEveryTruncation) {
  const std::string whole = Good().Text();
  ASSERT_TRUE(OpenGguf(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = OpenGguf(whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << size << " " << file.status();
    EXPECT_TRUE(Contains(file.status(), "a.gguf: ")) << file.status();
  }
}

TEST(GgufFile, SurvivesAnyChangedByteOfTheHeader) {
  const std::string whole = Good().Text();
  const size_t header = Good().Header().size();
  for (size_t at = 0; at < header; ++at) {
    for (const char value : {'\0', '\1', '\x7F', '\x80', '\xFF'}) {
      std::string text = whole;
      text[at] = value;
      const auto file = OpenGguf(text);
      if (!file.ok()) continue;
      for (const GgufTensor& tensor : file->tensors()) file->ReadF32(tensor);
    }
  }
}

struct Damage {
  const char* name;
  std::function<std::string()> text;
  const char* message;
};

TEST(GgufFile, NamesEveryDamage) {
  const auto changed = [](const std::function<void(GgufText&)>& change) {
    return [change] {
      GgufText text = Good();
      change(text);
      return text.Text();
    };
  };
  const std::string one(4, '\0');
  const std::vector<Damage> damages = {
      {"magic", changed([](GgufText& t) { t.magic = "GGML"; }), "magic is not \"GGUF\""},
      {"tensor count", [] { return WithCount(Good(), 8, uint64_t{1} << 60); }, "number of tensors is"},
      {"tensor count that the file cannot hold", [] { return WithCount(Good(), 8, 1000); }, "can hold"},
      {"key count", [] { return WithCount(Good(), 16, ~uint64_t{0}); }, "number of keys is"},
      {"one key too many", changed([](GgufText& t) { t.more_values = 1; }),
       "beyond the file's end|type|string"},
      {"string length",
       changed([](GgufText& t) { t.Value("s", 8, LittleEndian<uint64_t>(uint64_t{1} << 63) + "abc"); }),
       "key s is a string of 9223372036854775808 bytes"},
      {"key length", changed([](GgufText& t) { t.values.push_back(LittleEndian<uint64_t>(1 << 30) + "k"); }),
       "name of a key is a string of"},
      {"list length", changed([](GgufText& t) {
         t.Value("l", 9, LittleEndian<uint32_t>(10) + LittleEndian<uint64_t>(uint64_t{1} << 61));
       }),
       "key l is 2305843009213693952"},
      {"list of lists",
       changed([](GgufText& t) { t.Value("l", 9, LittleEndian<uint32_t>(9) + LittleEndian<uint64_t>(0)); }),
       "key l is a list of value type 9"},
      {"value type", changed([](GgufText& t) { t.Value("v", 13, ""); }), "key v has the value type 13"},
      {"bool", changed([](GgufText& t) { t.Value("b", 7, "\2"); }), "key b is a bool of value 2"},
      {"large number", changed([](GgufText& t) { t.Value("n", 10, LittleEndian(~uint64_t{0})); }),
       "beyond 63 bits"},
      {"key twice", changed([](GgufText& t) { t.Int("x", 1).Int("x", 2); }), "key x is there twice"},
      {"alignment", changed([](GgufText& t) { t.Int("general.alignment", 24); }), "not a power of two"},
      {"alignment zero", changed([](GgufText& t) { t.Int("general.alignment", 0); }),
       "general.alignment is 0"},
      {"tensor twice", changed([&](GgufText& t) { t.Tensor("a", {1}, 0, one); }),
       "tensor a: name is there twice"},
      {"no dimensions", changed([&](GgufText& t) { t.Tensor("b", {}, 0, one); }),
       "number of dimensions is 0"},
      {"five dimensions", changed([&](GgufText& t) {
         t.Tensor("b", {1, 1, 1, 1, 1}, 0, one);
       }),
       "number of dimensions is 5"},
      {"zero dimension", changed([&](GgufText& t) {
         t.Tensor("b", {1, 0}, 0, one);
       }),
       "tensor b: dimensions hold 0"},
      {"large dimension", changed([&](GgufText& t) { t.Tensor("b", {uint64_t{1} << 41}, 0, one); }),
       "tensor b: dimensions"},
      {"overflow", changed([&](GgufText& t) {
         t.Tensor("b", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, one);
       }),
       "tensor b: dimensions"},
      {"overflow in bytes", changed([&](GgufText& t) {
         t.Tensor("b", {uint64_t{1} << 40, uint64_t{1} << 22}, 0, one);
       }),
       "tensor b: dimensions ask for more bytes"},
      {"part of a block", changed([&](GgufText& t) { t.Tensor("b", {33}, 8, one); }),
       "not whole blocks of 32"},
      {"beyond the end", changed([&](GgufText& t) { t.Tensor("b", {2}, 0, one); }), "go beyond the"},
      {"offset beyond the end", changed([&](GgufText& t) { t.Info("b", {1}, 0, uint64_t{1} << 40); }),
       "go beyond the"},
      {"absurd offset", changed([&](GgufText& t) { t.Info("b", {1}, 0, ~uint64_t{31}); }),
       "tensor b: offset is"},
      {"odd offset", changed([&](GgufText& t) { t.Info("b", {1}, 0, 4); }),
       "no multiple of the alignment 32"},
      {"overlap", changed([&](GgufText& t) { t.Info("b", {1}, 0, 0); }), "offset lies inside another tensor"},
  };
  for (const Damage& damage : damages) {
    const auto file = OpenGguf(damage.text());
    ASSERT_FALSE(file.ok()) << damage.name;
    EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << damage.name << ": " << file.status();
    bool found = false;
    std::string choices = damage.message;
    for (size_t begin = 0; begin <= choices.size();) {
      const size_t end = std::min(choices.find('|', begin), choices.size());
      found = found || Contains(file.status(), choices.substr(begin, end - begin));
      begin = end + 1;
    }
    EXPECT_TRUE(found) << damage.name << ": " << file.status();
  }
}

TEST(GgufFile, RefusesWhatItDoesNotRead) {
  GgufText text = Good();
  text.Tensor("blk.0.ffn_up.weight", {256}, 12, std::string(144, '\0'));
  auto file = OpenGguf(text.Text());
  EXPECT_EQ(ExitCode(file.status()), kExitUsage);
  EXPECT_TRUE(Contains(file.status(), "tensor blk.0.ffn_up.weight: type Q4_K is not supported"))
      << file.status();
  text = Good();
  text.Info("b", {256}, 77, 0);
  EXPECT_TRUE(Contains(OpenGguf(text.Text()).status(), "type 77 is not supported"));
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    text = Good();
    text.version = version;
    file = OpenGguf(text.Text());
    EXPECT_EQ(ExitCode(file.status()), kExitUsage) << version;
    EXPECT_EQ(Contains(file.status(), "big-endian"), version == 0x03000000u) << file.status();
  }
  EXPECT_EQ(ExitCode(GgufFile::Open("/gone/a.gguf").status()), kExitMissing);
}

}  // namespace
}  // namespace moebius
