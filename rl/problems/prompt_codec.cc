#include "rl/problems/prompt_codec.h"

#include <algorithm>
#include <set>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "data/special_tokens.h"

namespace moebius {
namespace {

constexpr std::string_view kThinkTag = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kThinkingOpening = "<think>\n";  // of ChatTemplate::opens_thinking

// The added tokens of these names, matched without the blanks around them.
AddedTokenMatcher MatcherOf(const Tokenizer& tokenizer, const std::set<std::string>* names) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : tokenizer.added_tokens()) {
    if (names != nullptr && !names->contains(token.content)) continue;
    token.lstrip = token.rstrip = false;
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(tokens);
}

std::set<std::string> AnswerTokens(const PromptCodecOptions& options) {
  std::set<std::string> names(options.answer_tokens.begin(), options.answer_tokens.end());
  // Of DeepSeek's answers, which think: what the prompt has opened is only closed.
  if (options.chat && options.chat->family == ChatFamily::kDeepSeek) {
    names.emplace(kThinkEnd);
    if (!options.chat->opens_thinking) names.emplace(kThinkTag);
  }
  return names;
}

// Appends `segment`, cut where the matcher's tokens stand in it.
void AppendCut(const AddedTokenMatcher& tokens, const ChatSegment& segment, std::vector<ChatSegment>* out) {
  const std::string_view text = segment.text;
  const auto add = [&](size_t begin, size_t end, bool is_marker) {
    if (begin == end) return;
    out->push_back({std::string(text.substr(begin, end - begin)), is_marker, segment.is_answer});
  };
  for (size_t from = 0; from < text.size();) {
    const AddedTokenMatcher::Match match = tokens.Next(text, from, from);
    add(from, match.begin, false);
    add(match.begin, match.end, true);
    from = match.end;
  }
}

bool BeginsWith(const std::vector<ChatSegment>& all, const std::vector<ChatSegment>& first) {
  return all.size() >= first.size() &&
         std::equal(first.begin(), first.end(), all.begin(), [](const ChatSegment& a, const ChatSegment& b) {
           return a.text == b.text && a.is_marker == b.is_marker && a.is_answer == b.is_answer;
         });
}

absl::Status CheckOrder(const std::vector<ChatMessage>& prompt) {
  if (!prompt.empty() && prompt.back().role == "user") return absl::OkStatus();
  return DamagedError(
      "the conversation has no question; the message before an answer must be the user's; correct its roles");
}

}  // namespace

absl::StatusOr<std::optional<ChatTemplate>> ChooseChatTemplate(const std::string& name,
                                                               const std::string& folder) {
  if (name == "plain" || (name.empty() && folder.empty())) return std::optional<ChatTemplate>();
  absl::StatusOr<ChatTemplate> chat = name.empty() ? LoadChatTemplate(folder) : ChatTemplateByName(name);
  if (name.empty() && ExitCode(chat.status()) == kExitMissing) return std::optional<ChatTemplate>();
  if (!chat.ok()) return chat.status();
  return std::optional<ChatTemplate>(*std::move(chat));
}

PromptCodec::PromptCodec(const Tokenizer& tokenizer, PromptCodecOptions options)
    : tokenizer_(&tokenizer),
      options_(std::move(options)),
      opening_tokens_(MatcherOf(tokenizer, nullptr)),
      answer_tokens_([&] {
        const std::set<std::string> names = AnswerTokens(options_);
        return MatcherOf(tokenizer, &names);
      }()) {
  if (options_.chat && options_.chat->opens_thinking) opening_ = kThinkingOpening;
  opening_ += options_.open_answer;
}

absl::StatusOr<PromptCodec> PromptCodec::Create(const Tokenizer& tokenizer, PromptCodecOptions options) {
  PromptCodec codec(tokenizer, std::move(options));
  const std::vector<AddedToken>& added = tokenizer.added_tokens();
  for (const std::string& name : codec.options_.answer_tokens) {
    if (std::any_of(added.begin(), added.end(), [&](const AddedToken& t) { return t.content == name; })) {
      continue;
    }
    return UsageError(Concat("answer token \"", Printable(name),
                             "\" is not known to the tokenizer; its added tokens do not have it; add it to "
                             "the tokenizer (in a recipe: new_token) or leave it out"));
  }
  RETURN_IF_ERROR(codec.FindMarkers());
  return codec;
}

absl::Status PromptCodec::FindMarkers() {
  const std::optional<int32_t> end_of_document = FindEndOfDocument(*tokenizer_);
  std::set<int32_t> stop;
  if (end_of_document) stop.insert(*end_of_document);
  stop.insert(options_.stop_ids.begin(), options_.stop_ids.end());
  if (!options_.chat) {
    if (!end_of_document) {
      return UsageError(
          "the tokenizer has no end-of-document token, with which an answer ends; its special tokens have "
          "other names; add one (in a recipe new_token: \"<|endoftext|>\"), or choose a chat_template");
    }
    end_marker_ = tokenizer_->TokenBytes(*end_of_document);
  } else {
    // A conversation with every marker of the template.
    ASSIGN_OR_RETURN(std::vector<ChatSegment> segments,
                     RenderChat(*options_.chat, {{"system", "a"}, {"user", "a"}, {"assistant", "a"}},
                                GenerationPrompt::kAdd));
    std::erase_if(segments, [](const ChatSegment& segment) { return !segment.is_marker; });
    for (const ChatSegment& segment : segments) {
      if (segment.is_answer) end_marker_ = segment.text;
    }
    EncodedChat encoded;
    RETURN_IF_ERROR(EncodeSegments(*tokenizer_, segments, &encoded));
    stop.insert(*tokenizer_->TokenToId(end_marker_));
  }
  stop_ids_.assign(stop.begin(), stop.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChatSegment>> PromptCodec::PromptSegments(
    const std::vector<ChatMessage>& messages) const {
  RETURN_IF_ERROR(CheckOrder(messages));
  std::vector<ChatSegment> segments, rendered;
  if (options_.chat) {
    ASSIGN_OR_RETURN(rendered, RenderChat(*options_.chat, messages, GenerationPrompt::kAdd));
  } else if (messages.size() > 1) {
    return UsageError(Concat("a plain prompt is one message, this one has ", messages.size(),
                             "; without a chat template there is no way to write them; choose a "
                             "chat_template: ",
                             Join(ChatTemplateNames())));
  } else {
    rendered.push_back({messages[0].content});
  }
  for (const ChatSegment& segment : rendered) {
    if (segment.is_answer && !segment.is_marker) {
      AppendCut(answer_tokens_, segment, &segments);
    } else {
      segments.push_back(segment);
    }
  }
  AppendCut(opening_tokens_, {options_.open_answer}, &segments);
  return segments;
}

absl::StatusOr<std::vector<ChatSegment>> PromptCodec::AnswerSegments(
    const std::vector<ChatMessage>& messages) const {
  const std::vector<ChatMessage> prompt(messages.begin(), messages.end() - 1);
  std::vector<ChatSegment> rest;
  // As the template writes answers. DeepSeek's drops their thoughts, which here are to be learnt.
  if (options_.chat && opening_.empty() && options_.chat->family != ChatFamily::kDeepSeek) {
    ASSIGN_OR_RETURN(const std::vector<ChatSegment> first,
                     RenderChat(*options_.chat, prompt, GenerationPrompt::kAdd));
    ASSIGN_OR_RETURN(rest, RenderChat(*options_.chat, messages, GenerationPrompt::kNone));
    CHECK(BeginsWith(rest, first)) << ChatText(first) << " and " << ChatText(rest);
    rest.erase(rest.begin(), rest.begin() + std::ssize(first));
    while (!rest.back().is_answer) rest.pop_back();
  } else {
    std::string_view text = messages.back().content;
    if (text.starts_with(opening_)) {
      text.remove_prefix(opening_.size());
    } else if (opening_ == kThinkingOpening && text.starts_with(kThinkTag)) {  // without the line's end
      text.remove_prefix(kThinkTag.size());
    }
    rest = {{std::string(text), false, true}, {end_marker_, true, true}};
  }
  std::vector<ChatSegment> segments;
  bool has_text = false;  // apart from what the template adds to an empty one
  for (const ChatSegment& segment : rest) {
    if (segment.is_marker) {
      segments.push_back(segment);
    } else {
      has_text = has_text || (!segment.text.empty() && !messages.back().content.empty());
      AppendCut(answer_tokens_, segment, &segments);
    }
  }
  if (!has_text)
    return DamagedError("the answer is empty; there is nothing to learn from it; leave the example out");
  return segments;
}

absl::StatusOr<EncodedChat> PromptCodec::Encode(const std::vector<ChatSegment>& segments) const {
  for (const ChatSegment& segment : segments) {
    if (!segment.is_marker)
      RETURN_IF_ERROR(tokenizer_->CheckNothingIsLost(segment.text, {.parse_special = false}));
  }
  EncodedChat out;
  if (!options_.chat) out.ids = tokenizer_->prefix_ids();
  out.is_answer.resize(out.ids.size(), false);
  RETURN_IF_ERROR(EncodeSegments(*tokenizer_, segments, &out));
  return out;
}

absl::StatusOr<std::vector<int32_t>> PromptCodec::Prompt(const std::vector<ChatMessage>& messages) const {
  ASSIGN_OR_RETURN(const std::vector<ChatSegment> segments, PromptSegments(messages));
  ASSIGN_OR_RETURN(EncodedChat encoded, Encode(segments));
  if (encoded.ids.empty())
    return DamagedError("the prompt is empty; there is nothing to answer; give it a text");
  return std::move(encoded.ids);
}

absl::StatusOr<EncodedChat> PromptCodec::Conversation(const std::vector<ChatMessage>& messages) const {
  if (messages.empty() || messages.back().role != "assistant") {
    return DamagedError(
        "the conversation has no answer; its last message must be the assistant's; correct its roles");
  }
  ASSIGN_OR_RETURN(std::vector<ChatSegment> segments, PromptSegments({messages.begin(), messages.end() - 1}));
  ASSIGN_OR_RETURN(const std::vector<ChatSegment> answer, AnswerSegments(messages));
  segments.insert(segments.end(), answer.begin(), answer.end());
  ASSIGN_OR_RETURN(EncodedChat encoded, Encode(segments));
  if (encoded.is_answer.front())
    return DamagedError("the prompt is empty; there is nothing to answer; give it a text");
  return encoded;
}

absl::StatusOr<EncodedChat> PromptCodec::Example(const std::vector<ChatMessage>& messages,
                                                 std::string_view answer) const {
  ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, Prompt(messages));
  std::vector<ChatMessage> all = messages;
  all.push_back({"assistant", std::string(answer)});
  ASSIGN_OR_RETURN(EncodedChat encoded, Conversation(all));
  std::fill_n(encoded.is_answer.begin(), prompt.size(), false);
  return encoded;
}

std::string PromptCodec::AnswerText(std::span<const int32_t> ids) const {
  const auto stop = std::find_first_of(ids.begin(), ids.end(), stop_ids_.begin(), stop_ids_.end());
  const auto unknown = [this](int32_t id) { return tokenizer_->TokenBytes(id).empty(); };
  std::string text;
  for (auto begin = ids.begin(); begin != stop;) {
    const auto end = std::find_if(begin, stop, unknown);
    text += tokenizer_->DecodeText({begin, end});
    begin = end;
    if (begin != stop) text += "\uFFFD", ++begin;
  }
  return text;
}

}  // namespace moebius
