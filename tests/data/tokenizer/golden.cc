#include "tests/data/tokenizer/golden.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/io/json.h"
#include "core/io/line_reader.h"

namespace moebius {

std::vector<GoldenLine> ReadGolden(const std::string& path) {
  std::vector<GoldenLine> lines;
  absl::StatusOr<LineReader> reader = LineReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return lines;
  std::string_view text;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(&text);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return lines;
    absl::StatusOr<nlohmann::json> line = ParseJson(text, reader->Where());
    EXPECT_TRUE(line.ok()) << line.status();
    if (!line.ok()) return lines;
    const bool has_text = line->contains("text");
    lines.push_back({has_text ? line->at("text").get<std::string>() : "", has_text, line->at("decoded"),
                     line->at("ids")});
  }
}

}  // namespace moebius
