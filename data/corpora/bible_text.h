// The text of the package bible-kjv-text. Its data file (C. Chapin's Bible Retrieval System, tsl.c) is a
// table of windows of 64 KB, each LZW-compressed by itself; we decode it, so neither the `bible` program nor
// readline is needed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/corpora/document.h"

namespace moebius {

// LZW as compress(1) writes it (9 to 16 bits a code, block mode), without the three-byte file header.
// `size_limit`: an error beyond that many bytes out.
absl::StatusOr<std::string> DecodeLzw(std::string_view codes, size_t size_limit);

// The whole text of a bible.data file: a title line, then a line a verse: "Ge1:1 In the beginning ...".
absl::StatusOr<std::string> DecodeBibleData(std::string_view data);

// One document a book ("Ge", "1Jn", ...) from that text: verse references stripped, a line a verse, an empty
// line between chapters. Names are "bible/Ge"; `origin` is for messages.
absl::StatusOr<std::vector<Document>> BibleBooks(std::string_view text, std::string_view origin);

}  // namespace moebius
