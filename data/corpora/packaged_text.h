// Documents from the text formats inside Debian packages: dictd dictionaries, fortune files, WordNet. Pure
// functions from file contents to documents; corpus.h finds the files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/corpora/document.h"

namespace moebius {

// One document an entry of a dictd dictionary (dictfmt(1): an index of headword TAB offset TAB length in base
// 64; `text` is the uncompressed .dict), in the order of the text; information about the database itself is
// left out, as are cross-reference braces and the source tags of GCIDE ("[1913 Webster]"). Named
// "NAME/HEADWORD".
absl::StatusOr<std::vector<Document>> DictionaryEntries(std::string_view index, std::string_view text,
                                                        std::string_view name, std::string_view origin);

// One document an item of a fortune file (lines with a lone % between them), named "fortunes/FILE:NUMBER".
std::vector<Document> FortuneItems(std::string_view text, std::string_view file, std::string_view origin);

// One document a synset of a WordNet data.* file (wndb(5)): "organism, being: a living thing that ...", named
// "wordnet/n00004475".
absl::StatusOr<std::vector<Document>> WordnetGlosses(std::string_view text, std::string_view origin);

}  // namespace moebius
