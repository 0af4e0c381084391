// All documents of a reader.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "data/corpora/document.h"

namespace moebius {

// Up to an error, which goes to *status, or is a failure of the test where that is null.
inline std::vector<Document> All(DocumentReader& reader, absl::Status* status = nullptr) {
  std::vector<Document> documents;
  Document document;
  while (true) {
    const auto more = reader.Next(&document);
    if (status != nullptr) *status = more.status();
    if (status == nullptr) {
      EXPECT_TRUE(more.ok()) << more.status();
    }
    if (!more.ok() || !*more) return documents;
    documents.push_back(document);
  }
}

}  // namespace moebius
