// Verdicts that depend on time, kept across restarts: a run that is killed and goes on from its last
// checkpoint samples the same answers again and must not judge them differently. A verdict counts only for
// the tests that it was given by (Problem::fingerprint), and in the step that it was given in: only steps
// that may be made again are remembered. One file of JSON lines a rank; all ranks' files are read, so that a
// run may go on in another layout, a rank's own first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "core/io/json_lines.h"
#include "rl/problems/problem.h"

namespace moebius {

class Journal {
 public:
  // `folder` is made when missing; `rank` writes verdicts-RANK.jsonl there. Verdicts of steps up to
  // `after_step`, which will not be made again, leave that file; so does a last line that was cut short.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& folder, int rank,
                                                       int64_t after_step);

  // Before the first answer of a step, counted from 1; verdicts of earlier ones are forgotten.
  void Begin(int64_t step);
  // Of this step's answer to the problem of this fingerprint; any thread.
  std::optional<Judgement> Find(const std::string& fingerprint, const std::string& answer) const;
  // Of a judgement that says what is correct. The first of an answer stays: of several that were made at once
  // the others are forgotten. Returns the one that stays.
  absl::StatusOr<Judgement> Add(const std::string& fingerprint, const std::string& answer,
                                const Judgement& judgement);

 private:
  using Key = std::tuple<int64_t, std::string, std::string>;  // step, fingerprint, SHA-256 of the answer
  Journal() = default;
  // Adds to `kept` every line that counts.
  absl::Status Read(const std::string& path, int64_t after_step, std::string& kept);

  mutable std::mutex mutex_;
  int64_t step_ = 0;
  std::map<Key, Judgement> known_;
  std::optional<JsonLinesWriter> writer_;
};

}  // namespace moebius
