#include "rl/sandbox/sandbox.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/sandbox/languages.h"

namespace moebius::sandbox {

std::vector<std::string> NotHeld(const std::vector<Canary>& canaries) {
  std::vector<std::string> lines;
  for (const Canary& canary : canaries)
    if (!canary.held)
      lines.push_back(Concat(canary.name, ": ", canary.seen, " (layers: ", canary.layers, ")"));
  return lines;
}

absl::StatusOr<std::unique_ptr<Sandbox>> Sandbox::Start(const SandboxOptions& options) {
  std::unique_ptr<Sandbox> sandbox(new Sandbox);
  ASSIGN_OR_RETURN(sandbox->runner_, Runner::Start(options.runner));
  sandbox->canaries_ = TryCanaries(*sandbox->runner_);
  const std::vector<std::string> missing = NotHeld(sandbox->canaries_);
  sandbox->isolated_ = missing.empty();
  if (sandbox->isolated_ || (options.recipe_allows_unsafe && options.switch_allows_unsafe)) return sandbox;
  return UnavailableError(
      Concat("the sandbox is not isolated here; not held: ", Join(missing, "; "),
             "; run `moebius sandbox check` and give the machine what it names (docs/sandbox.md)"));
}

absl::Status Sandbox::Trusts(Language language) {
  const std::lock_guard lock(languages_mutex_);
  const auto [at, is_new] = languages_.try_emplace(language);
  if (is_new) at->second = TryLanguage(*runner_, language);
  return at->second;
}

absl::Status Sandbox::JudgeAll(size_t count, const std::function<absl::StatusOr<Job>(size_t)>& make,
                               const std::function<void(const Answer&)>& take) {
  std::mutex mutex;
  size_t next = 0, given = 0, end = count;
  std::map<size_t, Answer> done;
  absl::Status first_error;
  const auto work = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    while (next < end) {
      const size_t index = next++;
      lock.unlock();
      const absl::StatusOr<Job> job = make(index);
      absl::Status status = job.status();
      Answer answer;
      if (job.ok()) status = Trusts(job->language);
      if (status.ok()) {
        answer = JudgeJob(*runner_, *job);
        status = runner_->status();
      }
      lock.lock();
      if (!status.ok()) {
        if (index < end) {
          end = index;
          first_error = status;
        }
        continue;
      }
      done.emplace(index, std::move(answer));
      for (auto first = done.begin(); first != done.end() && first->first == given;
           first = done.erase(first)) {
        take(first->second);
        ++given;
      }
    }
  };
  std::vector<std::thread> helpers;
  const size_t threads = std::min<size_t>(count, runner_->slots());
  for (size_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return first_error;
}

absl::StatusOr<std::vector<Answer>> Sandbox::JudgeAll(const std::vector<Job>& jobs) {
  std::vector<Answer> answers;
  RETURN_IF_ERROR(JudgeAll(
      jobs.size(), [&](size_t i) -> absl::StatusOr<Job> { return jobs[i]; },
      [&](const Answer& answer) { answers.push_back(answer); }));
  return answers;
}

}  // namespace moebius::sandbox
