#include "data/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/ascii.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "data/jinja_words.h"

namespace moebius {
namespace {

constexpr const char* kSmolLmSystem = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr const char* kQwenSystem = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
constexpr const char* kLlama31Preface = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

struct NamedTemplate {
  const char* name;
  ChatTemplate chat;
};

std::vector<NamedTemplate> NamedTemplates() {
  return {{"chatml", {.family = ChatFamily::kChatMl}},
          {"smollm2", {.family = ChatFamily::kChatMl, .default_system = kSmolLmSystem}},
          {"qwen2.5", {.family = ChatFamily::kChatMl, .default_system = kQwenSystem}},
          {"qwen3", {.family = ChatFamily::kQwen3}},
          {"llama3", {.family = ChatFamily::kLlama3}},
          {"llama3.1", {.family = ChatFamily::kLlama3, .system_preface = kLlama31Preface}},
          {"deepseek-v3", {.family = ChatFamily::kDeepSeek}},
          {"deepseek-r1", {.family = ChatFamily::kDeepSeek, .opens_thinking = true}}};
}

absl::Status UnknownTemplate(const std::string& source, const std::string& why) {
  return UsageError(Concat(
      source, ": is no chat template that moebius renders; ", why,
      "; choose one by name, with --chat or in a recipe with chat_template: ", Join(ChatTemplateNames())));
}

// A Jinja literal without its escapes; nullopt where it has another one, or goes on as an expression.
std::optional<std::string> Unescaped(std::string_view literal) {
  std::string text;
  for (size_t i = 0; i < literal.size(); ++i) {
    const char c = literal[i];
    if (c == '\'' || c == '"') {
      const size_t next = literal.find_first_not_of(" \t\n", i + 1);
      if (next != std::string_view::npos &&
          std::string_view("+~|}-").find(literal[next]) != std::string_view::npos)
        return std::nullopt;
    }
    if (c != '\\') {
      text += c;
      continue;
    }
    constexpr std::string_view kEscapes = "\\'\"n", kMeant = "\\'\"\n";
    const size_t escape = ++i < literal.size() ? kEscapes.find(literal[i]) : std::string_view::npos;
    if (escape == std::string_view::npos) return std::nullopt;
    text += kMeant[escape];
  }
  return text;
}

// The literal system prompt that a ChatML template writes where a conversation has none; "" without one.
absl::StatusOr<std::string> DefaultSystem(const std::string& text, const std::string& source) {
  constexpr std::string_view kHead = "<|im_start|>system", kEnd = "<|im_end|>";
  for (size_t at = text.find(kHead); at != std::string::npos; at = text.find(kHead, at + 1)) {
    size_t begin = at + kHead.size();
    // The line end as such, or as Jinja's escape.
    if (text.compare(begin, 1, "\n") == 0) {
      begin += 1;
    } else if (text.compare(begin, 2, "\\n") == 0) {
      begin += 2;
    } else {
      continue;
    }
    const size_t end = text.find(kEnd, begin);
    if (end == std::string::npos) return "";
    const std::string literal = text.substr(begin, end - begin);
    // Not a prompt of the template's own, but the conversation's.
    if (literal.empty() || literal[0] == '\'' || literal[0] == '"' ||
        literal.find("{{") != std::string::npos || literal.find("{%") != std::string::npos)
      continue;
    if (std::optional<std::string> system = Unescaped(literal)) return *std::move(system);
    return UnknownTemplate(source, "its own system prompt is not a plain text");
  }
  return "";
}

// What templates of a family say beside their markers. The released ones say more where tools are, in texts
// that begin so.
struct FamilyWords {
  std::vector<std::string_view> markers, texts, words;
};

constexpr std::string_view kChatMlStart = "<|im_start|>", kChatMlEnd = "<|im_end|>";

const FamilyWords kChatMlWords = {
    {kChatMlStart, kChatMlEnd, "<think>", "</think>"},
    {"# Tools\n\nYou may call one or more functions",
     "\n</tools>\n\nFor each function call, return a json object"},
    {"system", "user", "assistant", "tool", "role", "content", "reasoning_content", "tool_calls", "tool_call",
     "tool_response", "name", "arguments", "type", "text"}};

const FamilyWords kLlama3Words = {
    {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
     "<|python_tag|>"},
    {"Cutting Knowledge Date: December 2023\n", "Today Date: ", "26 Jul 2024", "Environment: ipython",
     "Tools: ", "You have access to the following functions.", "Given the following functions,",
     "with its proper arguments", "Respond in the format {", "Do not use variables."},
    {"system", "user", "assistant", "tool", "ipython", "role", "content", "tool_calls", "name", "parameters",
     "arguments", "call", "equalto", "code_interpreter", "type", "text"}};

const FamilyWords kDeepSeekWords = {
    {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>",
     "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
     "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",
     "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"},
    {},
    {"system", "user", "assistant", "tool", "role", "content", "tool_calls", "type", "function", "name",
     "arguments", "json"}};

// Whether `behind` stands behind every `marker` and the word or value after it, with no further line end.
bool LineEndsFollow(std::string_view text, std::string_view marker, std::string_view behind, bool ends_open) {
  for (size_t at = 0; (at = text.find(marker, at)) != std::string_view::npos;) {
    at += marker.size();
    while (at < text.size() &&
           (absl::ascii_isalpha(static_cast<unsigned char>(text[at])) || text[at] == kJinjaValue))
      ++at;
    const std::string_view rest = text.substr(at);
    if (rest.empty() && ends_open) continue;
    if (!rest.starts_with(behind) || rest.substr(behind.size()).starts_with('\n')) return false;
  }
  return true;
}

// In what is written, and in texts that are put together before they are.
bool LineEndsFollow(const JinjaParts& parts, std::string_view marker, std::string_view behind) {
  return LineEndsFollow(parts.output, marker, behind, false) &&
         std::all_of(parts.pieces.begin(), parts.pieces.end(),
                     [&](const std::string& piece) { return LineEndsFollow(piece, marker, behind, true); });
}

absl::Status CheckWords(const JinjaParts& parts, const FamilyWords& family, const std::string& system,
                        const std::string& source) {
  for (std::string piece : parts.pieces) {
    for (const std::string_view text : family.texts) piece.resize(std::min(piece.find(text), piece.size()));
    const auto erase = [&](std::string_view what) {
      for (size_t at; !what.empty() && (at = piece.find(what)) != std::string::npos;)
        piece.replace(at, what.size(), " ");
    };
    erase(system);
    for (const std::string_view marker : family.markers) erase(marker);
    if (const std::string_view word = FirstUnknownWord(piece, family.words); !word.empty())
      return UnknownTemplate(source, Concat("it says \"", Printable(word, 40), "\""));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> ChatTemplateNames() {
  std::vector<std::string> names;
  for (const NamedTemplate& named : NamedTemplates()) names.emplace_back(named.name);
  return names;
}

std::string NameOf(const ChatTemplate& chat) {
  for (const std::string& name : ChatTemplateNames()) {
    if (*ChatTemplateByName(name) == chat) return name;
  }
  return "";
}

absl::StatusOr<ChatTemplate> ChatTemplateByName(const std::string& name) {
  for (const NamedTemplate& named : NamedTemplates()) {
    if (name == named.name) return named.chat;
  }
  return UsageError(Concat("chat_template \"", Printable(name),
                           "\" is unknown; there is no such template; it is one of ",
                           Join(ChatTemplateNames())));
}

absl::StatusOr<ChatTemplate> RecognizeChatTemplate(const std::string& text, const std::string& source) {
  const auto has = [&](std::string_view marker) { return text.find(marker) != std::string::npos; };
  const JinjaParts parts = ReadJinja(text);
  if (has("<｜User｜>") && has("<｜Assistant｜>") && has("<｜end▁of▁sentence｜>")) {
    if (has("thinking")) return UnknownTemplate(source, "it switches thinking on and off (DeepSeek-V3.1)");
    RETURN_IF_ERROR(CheckWords(parts, kDeepSeekWords, "", source));
    for (const std::string& piece : parts.pieces) {
      if (piece.find("<｜User｜>") == std::string::npos || piece.find("<｜Assistant｜>") == std::string::npos)
        continue;
      return UnknownTemplate(source, "it opens an answer behind every question (DeepSeek-R1-0528)");
    }
    const bool opens = has("<｜Assistant｜><think>\\n") || has("<｜Assistant｜><think>\n");
    return ChatTemplateByName(opens ? "deepseek-r1" : "deepseek-v3");
  }
  if (has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>")) {
    if (has("strftime_now"))
      return UnknownTemplate(source, "it writes today's date into the prompt (Llama 3.2)");
    if (!has("trim"))
      return UnknownTemplate(source, "it keeps the blanks around messages, which Llama 3 trims");
    const bool dated = has("Today Date: ");
    if (dated && !has("26 Jul 2024")) return UnknownTemplate(source, "it has another date than Llama 3.1");
    if (!LineEndsFollow(parts, "<|end_header_id|>", "\n\n"))
      return UnknownTemplate(source, "it has not two line ends behind <|end_header_id|>");
    RETURN_IF_ERROR(CheckWords(parts, kLlama3Words, "", source));
    return ChatTemplateByName(dated ? "llama3.1" : "llama3");
  }
  if (has("<|im_start|>") && has("<|im_end|>")) {
    for (const std::string_view marker : {kChatMlStart, kChatMlEnd}) {
      if (!LineEndsFollow(parts, marker, "\n"))
        return UnknownTemplate(source, Concat("it has not one line end behind ", marker));
    }
    if (has("last_query_index") && has("enable_thinking")) {
      if (!has("loop.last or")) return UnknownTemplate(source, "it keeps other thoughts than Qwen3");
      RETURN_IF_ERROR(CheckWords(parts, kChatMlWords, "", source));
      return ChatTemplateByName("qwen3");
    }
    for (const char* other : {"think", "trim", "strip(", "<|im_sep|>", "bos_token", "system_message"}) {
      if (has(other)) return UnknownTemplate(source, Concat("it is ChatML with \"", other, "\""));
    }
    ASSIGN_OR_RETURN(std::string system, DefaultSystem(text, source));
    RETURN_IF_ERROR(CheckWords(parts, kChatMlWords, system, source));
    return ChatTemplate{.family = ChatFamily::kChatMl, .default_system = std::move(system)};
  }
  return UnknownTemplate(source, "it has the markers of no known family");
}

absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& folder) {
  const std::string path = JoinPath(folder, "chat_template.jinja");
  if (FileExists(path)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, int64_t{16} << 20));
    return RecognizeChatTemplate(text, path);
  }
  const std::string config_path = JoinPath(folder, "tokenizer_config.json");
  if (FileExists(config_path)) {
    ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(config_path, int64_t{64} << 20));
    if (HasJsonField(config, "chat_template")) {
      std::string text;
      if (config["chat_template"].is_array()) {  // of several, by their names
        bool found = false;
        for (const nlohmann::json& each : config["chat_template"]) {
          if (!each.is_object() || each.value("name", nlohmann::json()) != "default") continue;
          ASSIGN_OR_RETURN(text, GetString(each, "template", config_path));
          found = true;
        }
        if (!found)
          return UnknownTemplate(Concat(config_path, ": chat_template"),
                                 "of its list none is called \"default\"");
      } else {
        ASSIGN_OR_RETURN(text, GetString(config, "chat_template", config_path));
      }
      return RecognizeChatTemplate(text, Concat(config_path, ": chat_template"));
    }
  }
  return MissingError(
      Concat(folder,
             ": has no chat template (chat_template.jinja, or chat_template in "
             "tokenizer_config.json); it is not a chat model; choose a template by name, with --chat or "
             "in a recipe with chat_template: ",
             Join(ChatTemplateNames())));
}

std::string ChatText(const std::vector<ChatSegment>& segments) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

absl::Status EncodeSegments(const Tokenizer& tokenizer, const std::vector<ChatSegment>& segments,
                            EncodedChat* out) {
  std::string text;  // of the segments that wait for being tokenised together
  const auto flush = [&](bool is_answer) {
    if (text.empty()) return;
    tokenizer.Encode(text, &out->ids, {.parse_special = false});
    out->is_answer.resize(out->ids.size(), is_answer);
    text.clear();
  };
  bool was_answer = false;
  for (const ChatSegment& segment : segments) {
    if (segment.is_marker || segment.is_answer != was_answer) flush(was_answer);
    was_answer = segment.is_answer;
    if (!segment.is_marker) {
      text += segment.text;
      continue;
    }
    const std::optional<int32_t> id = tokenizer.TokenToId(segment.text);
    if (!id) {
      return UsageError(
          Concat("the tokenizer has no token \"", segment.text,
                 "\", which the chat template needs; the model was not made for this template; add "
                 "the token (in a recipe new_token: \"",
                 segment.text,
                 "\"), go on with texts instead, or choose what the model was made for, chat_template: ",
                 Join(ChatTemplateNames())));
    }
    out->ids.push_back(*id);
    out->is_answer.push_back(segment.is_answer);
  }
  flush(was_answer);
  return absl::OkStatus();
}

absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer, const ChatTemplate& chat,
                                       const std::vector<ChatMessage>& messages, GenerationPrompt prompt) {
  ASSIGN_OR_RETURN(const std::vector<ChatSegment> segments, RenderChat(chat, messages, prompt));
  EncodedChat out;
  RETURN_IF_ERROR(EncodeSegments(tokenizer, segments, &out));
  return out;
}

}  // namespace moebius
