#include "launch/verb_chat.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/base/strings.h"
#include "core/generate/generate.h"
#include "core/io/json.h"
#include "core/model/weights.h"
#include "launch/model_flags.h"
#include "launch/progress.h"
#include "launch/signals.h"
#include "launch/terminal_text.h"
#include "launch/thought_stream.h"

namespace moebius {
namespace {

struct ChatOptions {
  std::string system;
  SamplingParams sampling;
  int64_t max_new = 512;
  bool json = false;
};

struct Reply {
  std::string thoughts, answer;
  int64_t tokens = 0;
  const char* reason = "length";  // "stop", "length", "interrupted"
};

// Where a reply goes while it grows: thoughts dimmed on a terminal; without colour marked by words; where
// standard output is a file or a pipe, only the answer goes there and thoughts go to standard error.
class ReplyWriter {
 public:
  explicit ReplyWriter(bool silent) : silent_(silent), terminal_(DetectTerminal(STDOUT_FILENO)) {}

  void Write(TextPart part, std::string_view piece) {
    if (silent_) return;
    const bool thoughts = part == TextPart::kThoughts;
    if (!last_ || *last_ != part) {
      // The answer's leading line ends only part it from the thoughts.
      if (!thoughts) piece.remove_prefix(std::min(piece.find_first_not_of('\n'), piece.size()));
      if (piece.empty()) return;
      Turn(part);
    }
    std::FILE* out = thoughts && !terminal_.interactive ? stderr : stdout;
    const std::string shown = terminal_.interactive ? TerminalText(piece) : std::string(piece);
    std::fwrite(shown.data(), 1, shown.size(), out);
    std::fflush(out);
  }

  void End() {
    if (silent_) return;
    if (last_ == TextPart::kThoughts) Turn(TextPart::kAnswer);
    std::fputs(terminal_.interactive ? "\n\n" : "\n", stdout);
    std::fflush(stdout);
  }

 private:
  void Turn(TextPart part) {
    const bool thoughts = part == TextPart::kThoughts;
    if (terminal_.interactive) {
      const bool first = !last_;
      if (terminal_.colour) {
        std::fputs(thoughts ? "\x1b[2m" : first ? "" : "\x1b[0m\n\n", stdout);
      } else {
        std::fputs(thoughts ? "[thoughts]\n" : first ? "" : "\n[answer]\n", stdout);
      }
    } else if (last_ == TextPart::kThoughts) {
      std::fputs("\n", stderr);
    }
    last_ = part;
  }

  const bool silent_;
  const Terminal terminal_;
  std::optional<TextPart> last_;
};

class Chat {
 public:
  Chat(LanguageModel& model, ChatOptions options) : model_(model), options_(std::move(options)) { Reset(); }

  void Reset() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  }

  // One exchange. UsageError for a message that alone is too long; the conversation is then as before.
  absl::Status Say(const std::string& text) {
    const std::vector<ChatMessage> before = messages_;
    messages_.push_back({"user", text});
    absl::StatusOr<std::vector<int32_t>> prompt = Fit();
    if (!prompt.ok()) {
      messages_ = before;
      return prompt.status();
    }
    ASSIGN_OR_RETURN(Reply reply, Answer(*std::move(prompt)));
    // Templates of reasoning models leave out earlier thoughts; so do we for all.
    messages_.push_back({"assistant", reply.answer});
    if (options_.json) Print(text, reply);
    return absl::OkStatus();
  }

 private:
  // The prompt of the conversation, which loses its oldest exchanges until the answer has room.
  absl::StatusOr<std::vector<int32_t>> Fit() {
    const int64_t positions = model_.decoder().max_positions();
    const int64_t room = std::max<int64_t>(1, std::min(options_.max_new, positions / 4));
    dropped_ = 0;
    while (true) {
      ASSIGN_OR_RETURN(std::vector<int32_t> prompt, model_.ChatPrompt(messages_));
      if (std::ssize(prompt) + room <= positions) {
        if (dropped_ > 0) {
          std::fprintf(stderr,
                       "note: the oldest %lld exchange%s left out; the model has room for %lld tokens\n",
                       static_cast<long long>(dropped_), dropped_ == 1 ? " is" : "s are",
                       static_cast<long long>(positions));
        }
        return prompt;
      }
      const size_t first = options_.system.empty() ? 0 : 1;
      if (messages_.size() <= first + 1) {
        return UsageError(Concat("the message makes a prompt of ", prompt.size(), " tokens; the model has ",
                                 positions, " positions and the answer needs ", room, "; shorten it"));
      }
      messages_.erase(messages_.begin() + first, messages_.begin() + first + 2);
      ++dropped_;
    }
  }

  absl::StatusOr<Reply> Answer(std::vector<int32_t> prompt) {
    const std::vector<int32_t>& ends = model_.stop_ids();
    const int64_t room = model_.decoder().max_positions() - std::ssize(prompt);
    const GenerateRequest request = {.prompt = std::move(prompt),
                                     .max_new = std::min(options_.max_new, room),
                                     .sampling = options_.sampling,
                                     .sequence = turn_++,
                                     .stop = ends};
    Reply reply;
    ReplyWriter writer(options_.json);
    ThoughtStream parts(model_.chat()->opens_thinking ? TextPart::kThoughts : TextPart::kAnswer,
                        [&](TextPart part, std::string_view piece) {
                          (part == TextPart::kThoughts ? reply.thoughts : reply.answer) += piece;
                          writer.Write(part, piece);
                        });
    StreamDecoder decoder(model_.tokenizer());
    // On a terminal the interrupt key ends the reply, not the program.
    std::optional<StopSignals> signals;
    if (isatty(STDIN_FILENO)) signals.emplace();
    const auto on_token = [&](size_t, const SampledToken& token) {
      ++reply.tokens;
      if (std::find(ends.begin(), ends.end(), token.id) != ends.end()) {
        reply.reason = "stop";
      } else {
        parts.Push(decoder.Push(token.id));
      }
      if (!signals || !signals->stop_requested()) return true;
      reply.reason = "interrupted";
      return false;
    };
    const auto results = Generate(model_.decoder(), {&request, 1}, {.max_batch = 1, .on_token = on_token});
    if (!results.ok()) return results.status();
    parts.Push(decoder.Finish());
    parts.Finish();
    writer.End();
    reply.answer.erase(0, std::min(reply.answer.find_first_not_of('\n'), reply.answer.size()));
    return reply;
  }

  void Print(const std::string& text, const Reply& reply) const {
    nlohmann::ordered_json json = {{"user", text},           {"thoughts", reply.thoughts},
                                   {"answer", reply.answer}, {"tokens", reply.tokens},
                                   {"dropped", dropped_},    {"finish_reason", reply.reason}};
    std::printf("%s\n", DumpJson(json).c_str());
    std::fflush(stdout);
  }

  LanguageModel& model_;
  const ChatOptions options_;
  std::vector<ChatMessage> messages_;
  uint64_t turn_ = 0;
  int64_t dropped_ = 0;  // exchanges, of the current turn
};

absl::Status Talk(Chat& chat, bool prompts) {
  std::string line;
  while (true) {
    if (prompts) std::fputs("> ", stdout), std::fflush(stdout);
    if (!std::getline(std::cin, line)) {
      if (prompts) std::fputs("\n", stdout);
      return absl::OkStatus();
    }
    if (line.ends_with('\r')) line.pop_back();
    if (IsBlank(line)) continue;
    if (line.starts_with('/')) line.erase(line.find_last_not_of(" \t") + 1);
    if (line == "/quit") return absl::OkStatus();
    if (line == "/reset") {
      chat.Reset();
      std::fputs("note: the conversation begins anew\n", stderr);
      continue;
    }
    if (line.starts_with('/') && line.find_first_of(" \t") == line.npos && line.find('/', 1) == line.npos) {
      std::fprintf(stderr, "note: there is no command %s; there are /reset and /quit\n",
                   Printable(line).c_str());
      continue;
    }
    const absl::Status status = chat.Say(line);
    if (status.ok()) continue;
    // A person can try again; a script must see that a turn is missing.
    if (!prompts || ExitCode(status) != kExitUsage) return status;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  }
}

absl::Status RunChat(const ParsedArgs& args) {
  if (UnderMpi()) {
    return UsageError("chat under mpirun; ranks have no terminal; run moebius chat by itself");
  }
  ASSIGN_OR_RETURN(const std::string folder, VerifiedModelFolder(args.positional()[0]));
  RETURN_IF_ERROR(LoadConfig(folder).status());  // what is no model has no chat template either
  ASSIGN_OR_RETURN(const std::optional<ChatTemplate> chosen, ChatTemplateOfFlag(folder, args.Text("chat")));
  if (!chosen) {
    return UsageError(Concat(folder,
                             " has no chat template; a conversation needs one; choose it with --chat: ",
                             Join(ChatTemplateNames()), "; or continue a text with moebius generate"));
  }
  ASSIGN_OR_RETURN(const SamplingParams sampling, SamplingOf(args));
  ASSIGN_OR_RETURN(const std::unique_ptr<LanguageModel> model, LoadAsked(args, folder, chosen));
  Chat chat(*model, {.system = args.Text("system"),
                     .sampling = sampling,
                     .max_new = args.Integer("max-new"),
                     .json = args.On("json")});
  const bool prompts = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !args.On("json");
  return Talk(chat, prompts);
}

}  // namespace

std::vector<Verb> ChatVerbs() {
  return {
      {.name = "chat",
       .summary = "talk with a model; thoughts are shown apart from answers",
       .usage = "MODEL [flags]",
       .flags =
           Joined({{.name = "system", .placeholder = "TEXT", .help = "system message of the conversation"},
                   {.name = "max-new",
                    .kind = FlagKind::kInteger,
                    .placeholder = "N",
                    .fallback = "512",
                    .help = "new tokens of an answer at most",
                    .min = 1,
                    .max = 1e7},
                   {.name = "chat",
                    .placeholder = "NAME",
                    .fallback = "auto",
                    .help = "chat template: auto (the folder's) or a name"},
                   {.name = "json",
                    .kind = FlagKind::kSwitch,
                    .help = "one line {\"user\", \"thoughts\", \"answer\", ...} a turn"}},
                  {SamplingFlags({.temperature = "0.7",
                                  .top_p = "0.95",
                                  .reproduces = "the same seed and words give the same answers"}),
                   ModelFlags()}),
       .examples =
           {"moebius chat models/smollm2 --system \"You answer in one sentence.\"",
            "printf 'What is 2 + 3?\\nAnd times 4?\\n' | moebius chat models/smollm2 --temperature 0 --json"},
       .min_positional = 1,
       .max_positional = 1,
       .details =
           "Each line is a message. /reset begins anew, /quit or the end of the input ends. The "
           "interrupt key ends an answer. When the conversation outgrows the model, its oldest exchanges "
           "are left out, with a note. Into a pipe only answers are written; thoughts go to standard "
           "error.",
       .run = RunChat}};
}

}  // namespace moebius
