#include "parallel/pipeline/schedule_text.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/generate.h"

namespace moebius {
namespace {

constexpr size_t kMaxNameLength = 64;

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
         c == '.';
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

constexpr ActionKind kWords[] = {
    ActionKind::kForward,      ActionKind::kBackwardInput, ActionKind::kBackwardWeight,
    ActionKind::kBackward,     ActionKind::kSendForward,   ActionKind::kRecvForward,
    ActionKind::kSendBackward, ActionKind::kRecvBackward,  ActionKind::kReduceGrad,
    ActionKind::kReduceTied,   ActionKind::kOptimize,      ActionKind::kUpdateBias,
};

// Reads tokens left to right and knows where it stands.
class Reader {
 public:
  Reader(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  absl::StatusOr<Schedule> Run() {
    while (NextLine()) RETURN_IF_ERROR(IsDigit(Peek()) ? ActionsLine() : HeaderLine());
    // What is missing is told at the end of the text.
    if (schedule_.name.empty()) return Expected("a line \"schedule NAME\"");
    RETURN_IF_ERROR(NeedSizes());
    if (schedule_.holders.empty()) return Expected("a line \"holders RANK RANK ...\"");
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      if (seen_.empty() || !seen_[rank])
        return Expected(Concat("a line \"", rank, ": ...\" with the actions of rank ", rank));
    }
    return std::move(schedule_);
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  bool AtLineEnd() const { return Peek() == '\n' || Peek() == '#'; }
  void SkipBlanks() {
    while (IsBlank(Peek())) ++at_;
  }
  void EndLine() {
    while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    if (at_ >= text_.size()) return;
    ++line_;
    line_start_ = ++at_;
  }
  // To the first token of the next line that has one.
  bool NextLine() {
    for (;; EndLine()) {
      SkipBlanks();
      if (at_ >= text_.size()) return false;
      if (!AtLineEnd()) return true;
    }
  }

  absl::Status Expected(const std::string& what) const {
    size_t end = at_;
    while (end < text_.size() && !IsBlank(text_[end]) && text_[end] != '\n' && end < at_ + 64) ++end;
    const std::string found = at_ >= text_.size() ? "the end of the text"
                              : end == at_        ? "the end of the line"
                                           : Concat("\"", Printable(text_.substr(at_, end - at_), 40), "\"");
    return UsageError(Concat(source_, ": line ", line_, ", column ", at_ - line_start_ + 1, ": expected ",
                             what, ", found ", found));
  }

  absl::StatusOr<int> Number(const std::string& what, int64_t min, int64_t max) {
    const size_t start = at_;
    int64_t value = 0;
    while (IsDigit(Peek()) && value <= max) value = value * 10 + (text_[at_++] - '0');
    const bool leading_zero = at_ - start > 1 && text_[start] == '0';
    if (at_ == start || value < min || value > max || leading_zero) {
      at_ = start;
      return Expected(Concat(what, " from ", min, " to ", max));
    }
    return static_cast<int>(value);
  }

  absl::Status Character(char c, const std::string& what) {
    if (Peek() != c) return Expected(what);
    ++at_;
    return absl::OkStatus();
  }

  std::string_view Word() {
    const size_t start = at_;
    while ((Peek() >= 'a' && Peek() <= 'z') || (Peek() >= 'A' && Peek() <= 'Z') || Peek() == '_') ++at_;
    return text_.substr(start, at_ - start);
  }

  absl::Status LineEnd() {
    SkipBlanks();
    return AtLineEnd() ? absl::OkStatus() : Expected("the end of the line");
  }

  absl::Status HeaderLine() {
    const size_t start = at_;
    const std::string word(Word());
    const bool spaced = word.empty() || IsBlank(Peek()) || AtLineEnd();
    SkipBlanks();
    if (spaced && word == "schedule" && schedule_.name.empty()) return NameLine();
    if (spaced && word == "ranks" && schedule_.ranks == 0)
      return SizeLine(schedule_.ranks, word, kMaxPipelineRanks);
    if (spaced && word == "stages" && schedule_.stages == 0)
      return SizeLine(schedule_.stages, word, kMaxStages);
    if (spaced && word == "microbatches" && schedule_.microbatches == 0) {
      return SizeLine(schedule_.microbatches, word, kMaxMicrobatches);
    }
    if (spaced && word == "holders" && schedule_.holders.size() < 2) return HoldersLine();
    at_ = start;
    for (const char* known : {"schedule", "ranks", "stages", "microbatches", "holders"}) {
      if (spaced && word == known) return Expected(Concat("no further line \"", known, "\""));
    }
    return Expected("schedule, ranks, stages, microbatches, holders or \"RANK: actions\"");
  }

  absl::Status NameLine() {
    const size_t start = at_;
    while (IsNameCharacter(Peek()) && at_ - start < kMaxNameLength) ++at_;
    const bool ends = at_ > start && (IsBlank(Peek()) || AtLineEnd());
    if (!ends) {
      at_ = start;
      return Expected(Concat("a name of 1 to ", kMaxNameLength, " letters, digits, '_', '-' and '.'"));
    }
    schedule_.name = text_.substr(start, at_ - start);
    return LineEnd();
  }

  absl::Status SizeLine(int& size, const std::string& what, int max) {
    ASSIGN_OR_RETURN(size, Number("the number of " + what, 1, max));
    const int64_t work = int64_t{schedule_.stages} * schedule_.microbatches;
    if (work > kMaxStageMicrobatches) {
      return UsageError(Concat(source_, ": line ", line_, ": stages times microbatches is ", work,
                               ", more than ", kMaxStageMicrobatches));
    }
    return LineEnd();
  }

  absl::Status NeedSizes() const {
    if (schedule_.ranks == 0) return Expected("a line \"ranks N\" before this");
    if (schedule_.stages == 0) return Expected("a line \"stages N\" before this");
    if (schedule_.microbatches == 0) return Expected("a line \"microbatches N\" before this");
    return absl::OkStatus();
  }

  absl::Status HoldersLine() {
    RETURN_IF_ERROR(NeedSizes());
    std::vector<int> ranks;
    while (!AtLineEnd() && static_cast<int>(ranks.size()) < schedule_.stages) {
      ASSIGN_OR_RETURN(const int rank, Number("a rank", 0, schedule_.ranks - 1));
      ranks.push_back(rank);
      if (!AtLineEnd() && !IsBlank(Peek())) return Expected("a blank");
      SkipBlanks();
    }
    if (static_cast<int>(ranks.size()) < schedule_.stages) {
      return Expected(Concat("the rank of stage ", ranks.size(), " (of ", schedule_.stages, ")"));
    }
    schedule_.holders.push_back(std::move(ranks));
    return LineEnd();
  }

  absl::Status ActionsLine() {
    RETURN_IF_ERROR(NeedSizes());
    if (schedule_.actions.empty()) {
      schedule_.actions.resize(schedule_.ranks);
      seen_.resize(schedule_.ranks);
      // More than F, I, W, the four messages and a spare of each, with the end of the step.
      actions_left_ = int64_t{schedule_.stages} * schedule_.microbatches * 8 + 4 * int64_t{schedule_.ranks} +
                      int64_t{schedule_.ranks} * schedule_.stages;
    }
    const size_t start = at_;
    ASSIGN_OR_RETURN(const int rank, Number("a rank", 0, schedule_.ranks - 1));
    if (seen_[rank]) {
      at_ = start;
      return Expected(Concat("no second line for rank ", rank));
    }
    seen_[rank] = true;
    RETURN_IF_ERROR(Character(':', "':'"));
    for (SkipBlanks(); !AtLineEnd(); SkipBlanks()) {
      if (--actions_left_ < 0) return Expected("no more actions than a schedule of this size can have");
      ASSIGN_OR_RETURN(const Action action, ReadAction());
      if (!AtLineEnd() && !IsBlank(Peek())) return Expected("a blank after an action");
      schedule_.actions[rank].push_back(action);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Action> ReadAction() {
    if (Peek() == '(') {
      ++at_;
      ASSIGN_OR_RETURN(const Compute a, ReadCompute());
      RETURN_IF_ERROR(Character('|', "'|'"));
      ASSIGN_OR_RETURN(const Compute b, ReadCompute());
      RETURN_IF_ERROR(Character(')', "')'"));
      return OverlapAction(a, b);
    }
    Action action;
    ASSIGN_OR_RETURN(action.kind, ReadKind("an action (F, I, W or B, (a|b), SEND_F ... UPDATE_BIAS)"));
    const bool message = action.kind >= ActionKind::kSendForward && action.kind <= ActionKind::kRecvBackward;
    if (IsCompute(action.kind) || message || action.kind == ActionKind::kReduceGrad) {
      ASSIGN_OR_RETURN(action.stage, Number("a stage", 0, schedule_.stages - 1));
    }
    if (IsCompute(action.kind) || message) {
      RETURN_IF_ERROR(Character('.', "'.' and a microbatch"));
      ASSIGN_OR_RETURN(action.microbatch, Number("a microbatch", 0, schedule_.microbatches - 1));
    }
    if (message) {
      const bool send = action.kind == ActionKind::kSendForward || action.kind == ActionKind::kSendBackward;
      RETURN_IF_ERROR(send ? Character('>', "'>' and the receiving rank")
                           : Character('<', "'<' and the sending rank"));
      ASSIGN_OR_RETURN(action.peer, Number("a rank", 0, schedule_.ranks - 1));
    }
    return action;
  }

  absl::StatusOr<ActionKind> ReadKind(const std::string& what) {
    const size_t start = at_;
    const std::string_view word = Word();
    const auto* kind = std::find_if(std::begin(kWords), std::end(kWords),
                                    [&](ActionKind candidate) { return word == KindWord(candidate); });
    if (kind != std::end(kWords)) return *kind;
    at_ = start;
    return Expected(what);
  }

  absl::StatusOr<Compute> ReadCompute() {
    const size_t start = at_;
    ASSIGN_OR_RETURN(const ActionKind kind, ReadKind("F, I, W or B"));
    if (!IsCompute(kind)) {
      at_ = start;
      return Expected("F, I, W or B");
    }
    ASSIGN_OR_RETURN(const int stage, Number("a stage", 0, schedule_.stages - 1));
    RETURN_IF_ERROR(Character('.', "'.' and a microbatch"));
    ASSIGN_OR_RETURN(const int microbatch, Number("a microbatch", 0, schedule_.microbatches - 1));
    return Compute{kind, stage, microbatch};
  }

  std::string_view text_;
  const std::string& source_;
  size_t at_ = 0;
  size_t line_start_ = 0;
  int line_ = 1;
  Schedule schedule_;
  std::vector<bool> seen_;
  int64_t actions_left_ = 0;
};

}  // namespace

std::string ToText(const Schedule& schedule) {
  std::string text = Concat("schedule ", schedule.name, "\nranks ", schedule.ranks, "\nstages ",
                            schedule.stages, "\nmicrobatches ", schedule.microbatches, "\n");
  for (const std::vector<int>& direction : schedule.holders) {
    text += "holders";
    for (int rank : direction) text += " " + std::to_string(rank);
    text += "\n";
  }
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    text += std::to_string(rank) + ":";
    for (const Action& action : schedule.actions[rank]) text += " " + ToText(action);
    text += "\n";
  }
  return text;
}

absl::StatusOr<Schedule> ScheduleFromText(std::string_view text, const std::string& source) {
  if (text.size() > kMaxScheduleTextBytes) {
    return UsageError(
        Concat(source, ": ", text.size(), " bytes; a schedule has at most ", kMaxScheduleTextBytes));
  }
  return Reader(text, source).Run();
}

}  // namespace moebius
