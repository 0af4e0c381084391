#include "rl/loop/journal.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/hash.h"
#include "core/io/json.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& folder, int rank,
                                                       int64_t after_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return CannotWriteError(Concat(folder, "; ", error.message(), "; make it writable"));
  std::unique_ptr<Journal> journal(new Journal);
  // Ranks may have judged one answer differently: what this one said is what its samples have earned.
  const std::string own = JoinPath(folder, Concat("verdicts-", rank, ".jsonl"));
  if (FileExists(own)) {
    std::string kept;
    RETURN_IF_ERROR(journal->Read(own, after_step, kept));
    RETURN_IF_ERROR(WriteFileAtomically(own, kept).status());
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    std::string theirs;
    if (name.starts_with("verdicts-") && path != own)
      RETURN_IF_ERROR(journal->Read(path, after_step, theirs));
  }
  ASSIGN_OR_RETURN(JsonLinesWriter writer, JsonLinesWriter::Open(own));
  journal->writer_.emplace(std::move(writer));
  return journal;
}

absl::Status Journal::Read(const std::string& path, int64_t after_step, std::string& kept) {
  return ReadJsonLines(path, [&](const nlohmann::json& line, int64_t number) -> absl::Status {
    const std::string where = Concat(path, " line ", number);
    if (!HasJsonField(line, "step")) return absl::OkStatus();  // earlier versions did not say
    ASSIGN_OR_RETURN(const int64_t step, GetInt(line, "step", where));
    if (step <= after_step) return absl::OkStatus();
    ASSIGN_OR_RETURN(std::string problem, GetString(line, "problem", where));
    ASSIGN_OR_RETURN(std::string answer, GetString(line, "answer", where));
    Judgement judgement;
    judgement.depends_on_time = true;
    ASSIGN_OR_RETURN(judgement.verdict, GetString(line, "verdict", where));
    ASSIGN_OR_RETURN(judgement.correct, GetDouble(line, "correct", where));
    for (auto [field, value] : {std::pair{"dense", &judgement.dense}, {"visible", &judgement.visible}}) {
      if (!HasJsonField(line, field)) continue;
      ASSIGN_OR_RETURN(const double number_read, GetDouble(line, field, where));
      *value = number_read;
    }
    known_.emplace(Key(step, std::move(problem), std::move(answer)), std::move(judgement));
    kept.append(DumpJson(line)).push_back('\n');
    return absl::OkStatus();
  });
}

void Journal::Begin(int64_t step) {
  std::lock_guard lock(mutex_);
  step_ = step;
  known_.erase(known_.begin(), known_.lower_bound({step, "", ""}));
}

std::optional<Judgement> Journal::Find(const std::string& fingerprint, const std::string& answer) const {
  std::lock_guard lock(mutex_);
  const auto found = known_.find({step_, fingerprint, Sha256Hex(answer)});
  if (found == known_.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<Judgement> Journal::Add(const std::string& fingerprint, const std::string& answer,
                                       const Judgement& judgement) {
  std::lock_guard lock(mutex_);
  const std::string hash = Sha256Hex(answer);
  Key key(step_, fingerprint, hash);
  if (const auto found = known_.find(key); found != known_.end()) return found->second;
  nlohmann::ordered_json line{{"step", step_},
                              {"problem", fingerprint},
                              {"answer", hash},
                              {"verdict", judgement.verdict},
                              {"correct", *judgement.correct}};
  if (judgement.dense) line["dense"] = *judgement.dense;
  if (judgement.visible) line["visible"] = *judgement.visible;
  RETURN_IF_ERROR(writer_->Append(DumpJson(line)));
  known_.insert({std::move(key), judgement});
  return judgement;
}

}  // namespace moebius
