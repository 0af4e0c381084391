// Verdicts that depend on time, kept across restarts: a run that is killed and goes on from its last
// checkpoint samples the same answers again and must not judge them differently. A verdict counts only for
// the tests that it was given by (Problem::fingerprint). One file of JSON lines a rank; all ranks' files are
// read, so that a run may go on in another layout, a rank's own first.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "core/io/json_lines.h"
#include "rl/problems/problem.h"

namespace moebius {

class Journal {
 public:
  // `folder` is made when missing; `rank` writes verdicts-RANK.jsonl there. A last line that was cut short is
  // dropped.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& folder, int rank);

  // Of an answer to the problem of this fingerprint; any thread.
  std::optional<Judgement> Find(const std::string& fingerprint, const std::string& answer) const;
  // The first judgement of an answer stays: of several that were made at once the others are forgotten.
  // Returns the one that stays.
  absl::StatusOr<Judgement> Add(const std::string& fingerprint, const std::string& answer,
                                const Judgement& judgement);

 private:
  using Key = std::pair<std::string, std::string>;  // fingerprint, SHA-256 of the answer
  Journal() = default;
  absl::Status Read(const std::string& path);

  mutable std::mutex mutex_;
  std::map<Key, Judgement> known_;
  std::optional<JsonLinesWriter> writer_;
};

}  // namespace moebius
