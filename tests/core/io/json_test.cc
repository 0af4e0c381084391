#include "core/io/json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

std::string ErrorOf(const std::string& text) {
  const auto value = ParseJson(text, "a.json");
  if (value.ok()) return "";
  EXPECT_EQ(ExitCode(value.status()), kExitDamaged);
  return std::string(value.status().message());
}

void ExpectError(const std::string& text, const std::string& part) {
  const std::string error = ErrorOf(text);
  EXPECT_NE(error.find(part), std::string::npos) << "text " << text.substr(0, 80) << " gave: " << error;
  EXPECT_EQ(error.rfind("a.json: ", 0), 0u) << error;
}

TEST(Json, ParsesEveryKindOfValue) {
  const auto value =
      ParseJson(R"( {"a": [1, -2, 2.5, true, null, "\u00e9\ud83d\ude00"], "b": {"c": {}}} )", "x");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(DumpJson(*value), "{\"a\":[1,-2,2.5,true,null,\"é😀\"],\"b\":{\"c\":{}}}");
  EXPECT_EQ(*ParseJson("3", "x"), 3);
  EXPECT_EQ(*ParseJson("\"\"", "x"), "");
}

TEST(Json, NamesSourceLineAndColumnOfSyntaxErrors) {
  ExpectError("", "line 1");
  ExpectError("{\n \"a\": 1,\n \"b\": tru }\n", "line 3, column 10");
  ExpectError("[1, 2", "line 1");
  ExpectError("[1] x", "line 1, column 5");
  ExpectError("{\"a\" 1}", "line 1");
  ExpectError("[1,]", "line 1, column 4");
  ExpectError("[NaN]", "line 1");
  ExpectError("[Infinity]", "line 1");
  ExpectError("[01]", "line 1");
  ExpectError("[\"a\nb\"]", "line");
  ExpectError(std::string("[\"a\0b\"]", 7), "line 1");
}

TEST(Json, RefusesInvalidUtf8AndLoneSurrogates) {
  ExpectError("[\"\xff\"]", "line 1");
  ExpectError("[\"\xc0\x80\"]", "line 1");
  ExpectError("[\"\xed\xa0\x80\"]", "line 1");
  ExpectError("[\"abc\xe2\x82\"]", "line 1");
  ExpectError(R"(["\ud800"])", "line 1");
  ExpectError(R"(["\udc00"])", "line 1");
}

TEST(Json, RefusesDuplicateKeysAtAnyLevel) {
  ExpectError("{\"a\": 1,\n \"a\": 2}", "line 2, column 4: key \"a\" appears twice");
  ExpectError(R"([{"x": {"k": 1, "l": 2, "k": 1}}])", "key \"k\" appears twice");
  ExpectError(R"({"a": 1, "\u0061": 2})", "appears twice");
  EXPECT_TRUE(ParseJson(R"([{"a": 1}, {"a": {"a": 1}}])", "x").ok());
}

TEST(Json, RefusesNumbersThatNoDoubleHolds) {
  ExpectError("[1e999]", "line 1");
  ExpectError("[-1e999]", "line 1");
  EXPECT_TRUE(
      ParseJson("[18446744073709551615, -9223372036854775808, 1e308, 36893488147419103232]", "x").ok());
}

TEST(Json, CapsTheDepthWhileParsing) {
  const auto nested = [](int depth, const char* open, const char* inside, const char* close) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += open;
    text += inside;
    for (int i = 0; i < depth; ++i) text += close;
    return text;
  };
  EXPECT_TRUE(ParseJson(nested(kMaxJsonDepth, "[", "", "]"), "x").ok());
  EXPECT_TRUE(ParseJson(nested(kMaxJsonDepth, "{\"a\":", "1", "}"), "x").ok());
  ExpectError(nested(kMaxJsonDepth + 1, "[", "", "]"), "deeper than 64");
  ExpectError(nested(1000000, "[", "", "]"), "line 1, column 65: nested deeper than 64");
  ExpectError(nested(1000000, "{\"a\":", "1", "}"), "deeper than 64");
  ExpectError(std::string(1000000, '['), "deeper than 64");
}

TEST(Json, ReportsAMissingAndATooLargeFile) {
  const auto missing = ReadJsonFile("/no/such/file.json");
  EXPECT_EQ(ExitCode(missing.status()), kExitMissing);
  EXPECT_NE(std::string(missing.status().message()).find("/no/such/file.json"), std::string::npos);
  const std::string path = testing::TempDir() + "json_test_large.json";
  std::ofstream(path) << "[1, 2, 3]";
  EXPECT_EQ(DumpJson(*ReadJsonFile(path, 9)), "[1,2,3]");
  EXPECT_EQ(ExitCode(ReadJsonFile(path, 8).status()), kExitDamaged);
}

TEST(Json, GettersReturnFieldsAndSayWhatIsWrong) {
  const nlohmann::json config = *ParseJson(
      R"({"n": 7, "big": 18446744073709551615, "f": 1.5, "s": "x", "b": true, "z": null, "o": {"k": 1},
                     "ints": [1, 2], "mixed": [1, "two"], "names": ["p", "q"]})",
      "config.json");
  const std::string source = "config.json";
  const auto message = [](const auto& result) {
    EXPECT_EQ(ExitCode(result.status()), kExitDamaged);
    return std::string(result.status().message());
  };
  EXPECT_EQ(*GetInt(config, "n", source), 7);
  EXPECT_EQ(*GetDouble(config, "n", source), 7.0);
  EXPECT_EQ(*GetDouble(config, "f", source), 1.5);
  EXPECT_EQ(*GetString(config, "s", source), "x");
  EXPECT_TRUE(*GetBool(config, "b", source));
  EXPECT_EQ((*GetObject(config, "o", source))->at("k"), 1);
  EXPECT_EQ((*GetArray(config, "ints", source))->size(), 2u);
  EXPECT_EQ(*GetIntArray(config, "ints", source), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(*GetDoubleArray(config, "ints", source), (std::vector<double>{1, 2}));
  EXPECT_EQ(*GetStringArray(config, "names", source), (std::vector<std::string>{"p", "q"}));

  EXPECT_EQ(message(GetInt(config, "gone", source)), "config.json: field \"gone\" is missing");
  EXPECT_EQ(message(GetInt(config, "n", source, 8, 10)), "config.json: field \"n\" is 7, outside 8 to 10");
  EXPECT_EQ(message(GetInt(config, "s", source)),
            "config.json: field \"s\" is string \"x\", expected an integer");
  EXPECT_EQ(message(GetInt(config, "f", source)),
            "config.json: field \"f\" is number 1.5, expected an integer");
  EXPECT_NE(message(GetInt(config, "big", source)).find("expected an integer"), std::string::npos);
  EXPECT_NE(message(GetInt(config, "z", source)).find("is null"), std::string::npos);
  EXPECT_NE(message(GetDouble(config, "f", source, 2, 3)).find("outside 2 to 3"), std::string::npos);
  EXPECT_NE(message(GetBool(config, "n", source)).find("expected true or false"), std::string::npos);
  EXPECT_NE(message(GetString(config, "ints", source)).find("array of 2, expected a string"),
            std::string::npos);
  EXPECT_NE(message(GetObject(config, "ints", source)).find("expected an object"), std::string::npos);
  EXPECT_NE(message(GetIntArray(config, "mixed", source)).find("field \"mixed\", element 1"),
            std::string::npos);
  EXPECT_NE(message(GetInt(nlohmann::json(3), "n", source)).find("expected an object"), std::string::npos);
}

TEST(Json, OptionalGettersTakeTheDefaultOnlyForAbsentOrNullFields) {
  const nlohmann::json config = *ParseJson(R"({"n": 7, "z": null, "s": "x", "b": false, "f": 2})", "c");
  EXPECT_EQ(*GetIntOr(config, "n", 1, "c"), 7);
  EXPECT_EQ(*GetIntOr(config, "z", 1, "c"), 1);
  EXPECT_EQ(*GetIntOr(config, "gone", 1, "c"), 1);
  EXPECT_EQ(*GetDoubleOr(config, "f", 1, "c"), 2.0);
  EXPECT_EQ(*GetDoubleOr(config, "gone", 0.5, "c"), 0.5);
  EXPECT_FALSE(*GetBoolOr(config, "b", true, "c"));
  EXPECT_TRUE(*GetBoolOr(config, "gone", true, "c"));
  EXPECT_EQ(*GetStringOr(config, "s", "d", "c"), "x");
  EXPECT_EQ(*GetStringOr(config, "z", "d", "c"), "d");
  EXPECT_FALSE(GetIntOr(config, "s", 1, "c").ok());
  EXPECT_FALSE(GetIntOr(config, "n", 1, "c", 8, 9).ok());
  EXPECT_FALSE(GetIntOr(nlohmann::json(3), "n", 1, "c").ok());
  EXPECT_TRUE(HasJsonField(config, "n"));
  EXPECT_FALSE(HasJsonField(config, "z"));
}

TEST(Json, DumpNeverThrows) {
  EXPECT_EQ(DumpJson(nlohmann::json("a\xff"
                                    "b")),
            "\"a\xEF\xBF\xBD"
            "b\"");
  EXPECT_EQ(DumpJson(nlohmann::json(std::numeric_limits<double>::quiet_NaN())), "null");
  EXPECT_EQ(DumpJson(nlohmann::json(0.1f)), DumpJson(nlohmann::json(double(0.1f))));
  nlohmann::ordered_json ordered;
  ordered["z"] = 1;
  ordered["a"] = 2;
  EXPECT_EQ(DumpJson(ordered), "{\"z\":1,\"a\":2}");
  EXPECT_EQ(DumpJson(ordered, 1), "{\n \"z\": 1,\n \"a\": 2\n}");
}

TEST(Json, SurvivesEveryOneByteChangeOfAText) {
  const std::string text = R"({"a": [1, -2.5e3, true, null, "\u00e9"], "b": {"c": "d"}})";
  for (size_t i = 0; i < text.size(); ++i) {
    for (int byte = 0; byte < 256; byte += 5) {
      std::string changed = text;
      changed[i] = static_cast<char>(byte);
      const auto value = ParseJson(changed, "a.json");
      if (value.ok()) DumpJson(*value);
    }
    (void)ParseJson(text.substr(0, i), "a.json");
  }
}

}  // namespace
}  // namespace moebius
