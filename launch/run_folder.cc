#include "launch/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <limits>
#include <map>
#include <set>

#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"

namespace moebius {
namespace {

constexpr int64_t kNoStepIsBeyond = std::numeric_limits<int64_t>::max();
constexpr const char* kRemoving = ".removing-";  // before the name of a checkpoint that goes
constexpr const char* kLinks[] = {"latest", "best", "reference"};  // of checkpoints
constexpr const char* kSubfolders[] = {"checkpoints", "log", "samples", "tensorboard"};

// The highest folder on the way to `path` that does not exist; "" if all do.
std::string HighestMissing(std::string path) {
  if (FolderExists(path)) return "";
  for (std::string above = ParentPath(path); !FolderExists(above) && above != path; above = ParentPath(path))
    path = above;
  return path;
}

// The process that holds the lock, as it wrote it itself; "" when unreadable.
std::string HolderOf(const std::string& path) {
  const std::string text = ReadFile(path, 4096).value_or("");
  return Printable(text.substr(0, text.find('\n')), 60);
}

bool IsNoLink(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0 && !S_ISLNK(info.st_mode);
}

// A checkpoint that goes is none already: what still holds a file of it holds up nothing.
void WarnUnlessRemoved(const absl::Status& status) {
  if (!status.ok())
    LogLine(Concat("warning: ", std::string(status.message()), "; an old checkpoint's rest stays"));
}

absl::Status CannotUse(const std::string& path, const absl::Status& why) {
  return CannotWriteError(Concat("cannot use ", path, " as run folder; ", why.message(),
                                 "; choose another folder with --out or make room and permissions"));
}

}  // namespace

std::optional<int64_t> StepOfName(std::string_view name) {
  if (!name.starts_with("step-")) return std::nullopt;
  name.remove_prefix(5);
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

std::string StepName(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return name;
}

std::string RunFolder::log_path(int rank) const { return File(Concat("log/rank-", rank, ".log")); }
std::string RunFolder::checkpoint_path(int64_t step) const { return File("checkpoints/" + StepName(step)); }

absl::StatusOr<RunFolder> RunFolder::Open(const std::string& path) {
  RunFolder run(path);
  if (path.empty()) return UsageError("--out names no folder; give one, or leave it out for runs/NAME");
  run.made_from_ = HighestMissing(path);
  if (!FileExists(run.File("lock"))) run.made_.emplace_back("lock");
  for (const char* name : kSubfolders) {
    if (!FolderExists(run.File(name))) run.made_.emplace_back(name);
    if (absl::Status status = MakeDirs(run.File(name)); !status.ok()) return CannotUse(path, status);
  }
  const std::string lock_path = run.File("lock");
  run.lock_ = FileDescriptor(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (run.lock_.get() < 0) return CannotUse(path, ErrnoError(errno, "open " + lock_path, /*writing=*/true));
  if (flock(run.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return CannotUse(path, ErrnoError(errno, "lock " + lock_path, true));
    return CannotWriteError(
        Concat("cannot use ", path, " as run folder; ", HolderOf(lock_path),
               " is using it; wait for it, stop it, or choose another folder with --out"));
  }
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const std::string holder = Concat("process ", getpid(), " on ", host, "\n");
  if (ftruncate(run.lock_.get(), 0) != 0 || pwrite(run.lock_.get(), holder.data(), holder.size(), 0) < 0) {
    return CannotUse(path, ErrnoError(errno, "write " + lock_path, true));
  }
  for (const std::string& folder : {path, run.File("checkpoints"), run.samples_path()}) {
    if (absl::Status status = RemoveStaleTemporaries(folder); !status.ok()) return CannotUse(path, status);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(run.File("checkpoints")));
  for (const std::string& name : names) {
    if (!name.starts_with(kRemoving)) continue;
    WarnUnlessRemoved(RemoveTree(run.File("checkpoints/" + name)));
  }
  for (const char* name : kLinks) {
    const std::string link = run.File(Concat("checkpoints/", name));
    if (!IsNoLink(link)) continue;
    return DamagedError(
        Concat(link,
               " is no link; a copy of the run folder may have made a folder of it; remove it: "
               "the run goes on from its newest checkpoint"));
  }
  return run;
}

void RunFolder::DiscardIfUnused() const {
  if (FileSize(metrics_path()).value_or(0) > 0) return;
  const absl::StatusOr<std::vector<int64_t>> steps = CheckpointSteps();
  if (!steps.ok() || !steps->empty()) return;
  if (made_from_.empty()) {
    for (const std::string& name : made_) RemoveTree(File(name)).IgnoreError();
    return;
  }
  if (!RemoveTree(path_).ok()) return;
  for (std::string at = path_; at != made_from_ && rmdir(ParentPath(at).c_str()) == 0;) at = ParentPath(at);
}

absl::StatusOr<RunFolder> RunFolder::OpenForReading(const std::string& path) {
  RunFolder run(path);
  if (!FolderExists(path))
    return MissingError(Concat("no run folder ", path, "; ", WhyAbsent(path), "; check the name"));
  if (!FileExists(run.metrics_path()) && !FileExists(run.recipe_path())) {
    return MissingError(
        Concat(path,
               " is no run folder; it has neither metrics.jsonl nor recipe.resolved.textproto; name "
               "the folder that moebius train wrote, runs/NAME"));
  }
  return run;
}

absl::Status RunFolder::WriteRecipe(std::string_view text) const {
  return WriteFileAtomically(recipe_path(), text).status();
}

absl::Status RunFolder::WriteEnvironment(std::string_view json) const {
  return WriteFileAtomically(environment_path(), json).status();
}

absl::Status RunFolder::WriteSamples(int64_t step, const std::vector<SampleRow>& rows) const {
  std::string lines;
  for (const SampleRow& row : rows) lines += SampleLine(row) + "\n";
  return WriteFileAtomically(JoinPath(samples_path(), StepName(step) + ".jsonl"), lines).status();
}

absl::StatusOr<std::optional<std::string>> RunFolder::LatestCheckpoint() const {
  const std::string link = File("checkpoints/latest");
  const absl::StatusOr<std::string> target = ReadSymlink(link);
  if (!target.ok()) {
    if (ExitCode(target.status()) != kExitMissing && !IsNoLink(link)) return target.status();
    // Some copies of a folder lose its links, or make folders of them.
    if (!FolderExists(File("checkpoints"))) return std::nullopt;
    ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CheckpointSteps());
    if (steps.empty()) return std::nullopt;
    return checkpoint_path(steps.back());
  }
  const std::string checkpoint = File("checkpoints/" + *target);
  if (!FolderExists(checkpoint)) {
    return WithWayBack(DamagedError(Concat(link, " points to ", Printable(*target),
                                           "; no such checkpoint exists; point it to one that "
                                           "does, or start over with another --out")),
                       checkpoint);
  }
  return checkpoint;
}

absl::StatusOr<std::vector<int64_t>> CheckpointStepsIn(const std::string& path) {
  const std::string checkpoints = JoinPath(path, "checkpoints");
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(checkpoints));
  std::vector<int64_t> steps;
  for (const std::string& name : names) {
    const std::optional<int64_t> step = StepOfName(name);
    if (step && FolderExists(JoinPath(checkpoints, name))) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

absl::Status RunFolder::Mark(const std::string& link, int64_t step) const {
  if (!FolderExists(checkpoint_path(step))) {
    return DamagedError(Concat(checkpoint_path(step), " vanished; it was to become ", link,
                               "; look who removes files there"));
  }
  RETURN_IF_ERROR(ReplaceSymlink(File("checkpoints/" + link), StepName(step)));
  return SyncFolder(File("checkpoints"));
}

absl::Status RunFolder::MarkLatest(int64_t step) const { return Mark("latest", step); }
absl::Status RunFolder::MarkBest(int64_t step) const { return Mark("best", step); }
absl::Status RunFolder::RestoreBest(int64_t step) const {
  return step >= 0 && FolderExists(checkpoint_path(step)) ? MarkBest(step) : absl::OkStatus();
}
absl::Status RunFolder::MarkReference(int64_t step) const { return Mark("reference", step); }
std::string RunFolder::ReferenceCheckpoint() const {
  const std::string link = File("checkpoints/reference");
  return FolderExists(link) ? link : "";
}

absl::Status RunFolder::PruneCheckpoints(int64_t keep, int64_t proven,
                                         const ReferenceOf& reference_of) const {
  ASSIGN_OR_RETURN(std::vector<int64_t> steps, CheckpointSteps());
  std::set<std::string> marked{StepName(proven)};
  for (const char* link : kLinks) {
    if (const auto target = ReadSymlink(File(Concat("checkpoints/", link))); target.ok())
      marked.insert(*target);
  }
  const auto latest = ReadSymlink(File("checkpoints/latest"));
  const int64_t last = (latest.ok() ? StepOfName(*latest) : std::nullopt).value_or(kNoStepIsBeyond);
  for (; !steps.empty() && steps.back() > last; steps.pop_back()) {
    const std::string away = File(Concat("checkpoints/given-up-", StepName(steps.back())));
    RETURN_IF_ERROR(RemoveTree(away));
    if (rename(checkpoint_path(steps.back()).c_str(), away.c_str()) != 0) {
      return ErrnoError(errno, "rename " + checkpoint_path(steps.back()), /*writing=*/true);
    }
  }
  const size_t surplus = steps.size() - std::min(steps.size(), static_cast<size_t>(keep));
  // Who goes back to one that is kept needs the policy that it compares with.
  for (size_t i = 0; i < steps.size(); ++i) {
    if (i < surplus && !marked.contains(StepName(steps[i]))) continue;
    if (const int64_t step = reference_of(checkpoint_path(steps[i])); step >= 0)
      marked.insert(StepName(step));
  }
  for (size_t i = 0; i < surplus; ++i) {
    if (marked.contains(StepName(steps[i]))) continue;
    // Under another name first: a half-removed checkpoint must not look like one.
    const std::string doomed = File(Concat("checkpoints/", kRemoving, StepName(steps[i])));
    if (rename(checkpoint_path(steps[i]).c_str(), doomed.c_str()) != 0) {
      return ErrnoError(errno, "rename " + checkpoint_path(steps[i]), /*writing=*/true);
    }
    WarnUnlessRemoved(RemoveTree(doomed));
  }
  return absl::OkStatus();
}

absl::Status RunFolder::CutBackTo(int64_t step) const {
  RETURN_IF_ERROR(CutJsonLines(metrics_path(), step));
  RETURN_IF_ERROR(CutJsonLines(expert_load_path(), step));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(samples_path()));
  for (const std::string& name : names) {
    std::string stem = name.substr(0, name.rfind('.'));
    if (stem.starts_with("rollout-")) stem.replace(0, 8, "step-");
    const std::optional<int64_t> of = StepOfName(stem);
    if (of && *of > step) RETURN_IF_ERROR(RemoveTree(JoinPath(samples_path(), name)));
  }
  const std::string best = File("checkpoints/best");
  const absl::StatusOr<std::string> target = ReadSymlink(best);
  if (!target.ok() || StepOfName(*target).value_or(step) <= step) return absl::OkStatus();
  return unlink(best.c_str()) == 0 ? absl::OkStatus() : ErrnoError(errno, "remove " + best, /*writing=*/true);
}

absl::Status WithWayBack(const absl::Status& status, const std::string& checkpoint, bool fork) {
  if (ExitCode(status) != kExitDamaged && ExitCode(status) != kExitMissing) return status;
  const std::string folder = ParentPath(checkpoint);
  std::optional<int64_t> other;
  for (const std::string& name : ListDir(folder).value_or(std::vector<std::string>())) {
    const std::optional<int64_t> step = StepOfName(name);
    if (step && *step < StepOfName(FileName(checkpoint)).value_or(kNoStepIsBeyond))
      other = std::max(other, step);
  }
  if (!other) return status;
  return absl::Status(status.code(),
                      Concat(status.message(), "; to ", fork ? "fork" : "go on", " from step ", *other, ": ",
                             fork ? Concat("--set fork.step=", *other)
                                  : Concat("ln -sfn ", StepName(*other), " ", JoinPath(folder, "latest"))));
}

absl::StatusOr<std::string> CheckpointToFork(const std::string& from, std::optional<int64_t> step) {
  ASSIGN_OR_RETURN(const RunFolder parent, RunFolder::OpenForReading(from));
  std::optional<std::string> start;
  if (step) {
    start = parent.checkpoint_path(*step);
  } else {
    ASSIGN_OR_RETURN(start, parent.LatestCheckpoint());
  }
  if (start && FolderExists(*start)) return *start;
  return MissingError(Concat("fork.from: ", from, " has no checkpoint",
                             step ? Concat(" of step ", *step) : std::string(),
                             "; a fork starts from one; name a step that moebius inspect lists"));
}

bool IsRunFolder(const std::string& path) {
  return FolderExists(path) && (FileExists(JoinPath(path, "metrics.jsonl")) ||
                                FileExists(JoinPath(path, "recipe.resolved.textproto")));
}

std::vector<std::string> StageFoldersIn(const std::string& path) {
  if (!FolderExists(path) || IsRunFolder(path)) return {};
  std::map<int64_t, std::string> stages;
  for (const std::string& name : ListDir(path).value_or(std::vector<std::string>())) {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    const std::string folder = JoinPath(path, name);
    if (error == std::errc() && name.substr(end - name.data()).starts_with('-') && IsRunFolder(folder))
      stages.emplace(number, folder);
  }
  std::vector<std::string> folders;
  for (const auto& [number, folder] : stages) folders.push_back(folder);
  return folders;
}

std::string ModelFolderOf(const std::string& path) {
  if (FileExists(JoinPath(path, "config.json"))) return path;
  // The link itself where it is there: its name is what messages say.
  const auto latest = [](const std::string& run) -> std::optional<std::string> {
    const std::string link = JoinPath(run, "checkpoints/latest");
    if (FolderExists(link)) return link;
    const absl::StatusOr<RunFolder> folder = RunFolder::OpenForReading(run);
    return folder.ok() ? folder->LatestCheckpoint().value_or(std::nullopt) : std::nullopt;
  };
  if (IsRunFolder(path)) return latest(path).value_or(JoinPath(path, "checkpoints/latest"));
  std::string model = path;
  for (const std::string& stage : StageFoldersIn(path)) model = latest(stage).value_or(model);
  return model;
}

}  // namespace moebius
