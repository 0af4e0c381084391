#include "rl/loop/journal.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hash.h"
#include "core/io/json.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& folder, int rank) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return CannotWriteError(Concat(folder, "; ", error.message(), "; make it writable"));
  std::unique_ptr<Journal> journal(new Journal);
  // Ranks may have judged one answer differently: what this one said is what its samples have earned.
  const std::string own = JoinPath(folder, Concat("verdicts-", rank, ".jsonl"));
  if (FileExists(own)) RETURN_IF_ERROR(journal->Read(own));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    if (name.starts_with("verdicts-") && path != own) RETURN_IF_ERROR(journal->Read(path));
  }
  ASSIGN_OR_RETURN(JsonLinesWriter writer, JsonLinesWriter::Open(own));
  journal->writer_.emplace(std::move(writer));
  return journal;
}

absl::Status Journal::Read(const std::string& path) {
  return ReadJsonLines(path, [&](const nlohmann::json& line, int64_t number) -> absl::Status {
    const std::string where = Concat(path, " line ", number);
    // A number is what earlier versions wrote: a place in a file whose tests may be others by now.
    if (HasJsonField(line, "problem") && line["problem"].is_number()) return absl::OkStatus();
    ASSIGN_OR_RETURN(std::string problem, GetString(line, "problem", where));
    ASSIGN_OR_RETURN(std::string answer, GetString(line, "answer", where));
    Judgement judgement;
    ASSIGN_OR_RETURN(judgement.verdict, GetString(line, "verdict", where));
    for (auto [field, value] : {std::pair{"correct", &judgement.correct},
                                {"dense", &judgement.dense},
                                {"visible", &judgement.visible}}) {
      if (!HasJsonField(line, field)) continue;
      ASSIGN_OR_RETURN(const double number_read, GetDouble(line, field, where));
      *value = number_read;
    }
    if (!judgement.correct) return absl::OkStatus();  // earlier versions kept what no sandbox had judged
    judgement.depends_on_time = true;
    known_.emplace(Key(std::move(problem), std::move(answer)), std::move(judgement));
    return absl::OkStatus();
  });
}

std::optional<Judgement> Journal::Find(const std::string& fingerprint, const std::string& answer) const {
  std::lock_guard lock(mutex_);
  const auto found = known_.find({fingerprint, Sha256Hex(answer)});
  if (found == known_.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<Judgement> Journal::Add(const std::string& fingerprint, const std::string& answer,
                                       const Judgement& judgement) {
  std::lock_guard lock(mutex_);
  Key key{fingerprint, Sha256Hex(answer)};
  if (const auto found = known_.find(key); found != known_.end()) return found->second;
  nlohmann::ordered_json line{
      {"problem", fingerprint}, {"answer", key.second}, {"verdict", judgement.verdict}};
  if (judgement.correct) line["correct"] = *judgement.correct;
  if (judgement.dense) line["dense"] = *judgement.dense;
  if (judgement.visible) line["visible"] = *judgement.visible;
  RETURN_IF_ERROR(writer_->Append(DumpJson(line)));
  known_.insert({std::move(key), judgement});
  return judgement;
}

}  // namespace moebius
