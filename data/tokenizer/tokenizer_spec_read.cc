#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/token_index.h"
#include "data/tokenizer/tokenizer_json.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

// The position in the file that a message names: file and dotted field.
struct Where {
  const std::string& source;
  std::string field;

  Where Below(std::string_view name) const {
    return {source, field.empty() ? std::string(name) : Concat(field, ".", name)};
  }
  Where At(size_t index) const { return {source, Concat(field, "[", index, "]")}; }
  std::string Text() const { return field.empty() ? source : Concat(source, ": field \"", field, "\""); }
};

absl::Status Unsupported(const Where& where, const std::string& what) {
  return DamagedError(Concat(where.Text(), " ", what,
                             "; this is not a byte-level BPE tokenizer that moebius knows, and it encodes "
                             "nothing rather than encode it differently; use another tokenizer.json"));
}

absl::Status Wrong(const Where& where, const std::string& what) {
  return DamagedError(Concat(where.Text(), " ", what, "; the file is damaged; fetch or train it again"));
}

std::string Quoted(std::string_view text) { return Concat("\"", Printable(text), "\""); }

// The type of a component, "" if it has none.
std::string TypeOf(const Json& component) {
  if (!component.is_object()) return "";
  const auto found = component.find("type");
  return found != component.end() && found->is_string() ? found->get<std::string>() : "";
}

// Null and absent are `otherwise`.
absl::StatusOr<bool> Flag(const Json& object, const char* name, bool otherwise, const Where& where) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return otherwise;
  if (!found->is_boolean())
    return Wrong(where.Below(name), Concat("is ", DescribeJson(*found), ", not a bool"));
  return found->get<bool>();
}

const Json* Member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A component and those inside its Sequences (whose list is called `list`), in order.
absl::Status Flatten(const Json& component, const char* list, const Where& where,
                     std::vector<std::pair<const Json*, Where>>* out) {
  if (!component.is_object()) return Wrong(where, Concat("is ", DescribeJson(component), ", not an object"));
  if (TypeOf(component) != "Sequence") {
    out->emplace_back(&component, where);
    return absl::OkStatus();
  }
  const Json* parts = Member(component, list);
  if (parts == nullptr || !parts->is_array()) return Wrong(where.Below(list), "is missing or not a list");
  for (size_t i = 0; i < parts->size(); ++i) {
    RETURN_IF_ERROR(Flatten((*parts)[i], list, where.Below(list).At(i), out));
  }
  return absl::OkStatus();
}

class Reader {
 public:
  Reader(const Json& root, const VocabAndMerges& model, const std::string& source)
      : root_(root), model_(model), source_(source) {}

  absl::StatusOr<TokenizerSpec> Read() {
    const Where top{source_, ""};
    if (!root_.is_object()) return Wrong(top, "is not a JSON object");
    for (const char* name : {"truncation", "padding"}) {
      if (Member(root_, name)) return Unsupported(top.Below(name), "is set");
    }
    RETURN_IF_ERROR(ReadModel(top.Below("model")));
    RETURN_IF_ERROR(ReadAddedTokens(top.Below("added_tokens")));
    RETURN_IF_ERROR(ReadNormalizer(top.Below("normalizer")));
    RETURN_IF_ERROR(ReadPreTokenizer(top.Below("pre_tokenizer")));
    RETURN_IF_ERROR(ReadPostProcessor(top.Below("post_processor")));
    RETURN_IF_ERROR(ReadDecoder(top.Below("decoder")));
    return std::move(spec_);
  }

 private:
  absl::Status ReadModel(const Where& where);
  absl::Status ReadVocab(const Where& where);
  absl::Status ReadMerges(const Where& where);
  absl::Status ReadAddedTokens(const Where& where);
  absl::Status ReadAddedToken(const Json& entry, const Where& where);
  absl::Status ReadNormalizer(const Where& where);
  absl::Status ReadPreTokenizer(const Where& where);
  absl::Status ReadPostProcessor(const Where& where);
  absl::Status ReadTemplate(const Json& processor, const Where& where);
  absl::Status ReadDecoder(const Where& where);

  const Json& root_;
  const VocabAndMerges& model_;
  const std::string& source_;
  TokenizerSpec spec_;
  std::optional<TokenIndex> index_;                          // of spec_.vocab
  std::unordered_map<std::string_view, int32_t> added_ids_;  // added tokens; views into root_
  std::unordered_map<int32_t, std::string_view> added_names_;
};

absl::Status Reader::ReadModel(const Where& where) {
  const Json* model = Member(root_, "model");
  if (model == nullptr || !model->is_object()) return Wrong(where, "is missing or not an object");
  const std::string type = TypeOf(*model);
  if (type != "BPE") return Unsupported(where.Below("type"), Concat("is ", Quoted(type), ", not \"BPE\""));
  RETURN_IF_ERROR(ReadVocab(where.Below("vocab")));
  RETURN_IF_ERROR(ReadMerges(where.Below("merges")));
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* affix = Member(*model, name);
    if (affix != nullptr && *affix != "") return Unsupported(where.Below(name), "is set");
  }
  if (const Json* dropout = Member(*model, "dropout"); dropout != nullptr && *dropout != 0) {
    return Unsupported(where.Below("dropout"), "is set");
  }
  ASSIGN_OR_RETURN(spec_.fuse_unknown, Flag(*model, "fuse_unk", false, where));
  ASSIGN_OR_RETURN(spec_.ignore_merges, Flag(*model, "ignore_merges", false, where));
  ASSIGN_OR_RETURN(const bool byte_fallback, Flag(*model, "byte_fallback", false, where));
  if (byte_fallback) {
    const ByteAlphabet alphabet;
    for (int b = 0; b < 256; ++b) {
      if (index_->Find(alphabet.Character(b)) >= 0) continue;
      return Unsupported(where.Below("byte_fallback"), Concat("is set, and byte ", b, " has no token"));
    }
  }
  if (const Json* unknown = Member(*model, "unk_token"); unknown != nullptr && *unknown != "") {
    if (!unknown->is_string()) return Wrong(where.Below("unk_token"), "is not a string");
    spec_.unknown_id = index_->Find(unknown->get_ref<const std::string&>());
    if (spec_.unknown_id < 0) {
      return Wrong(where.Below("unk_token"),
                   Concat("names ", DescribeJson(*unknown), ", which is not in vocab"));
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadVocab(const Where& where) {
  if (!model_.has_vocab || model_.ids.empty()) {
    return Wrong(where, "is missing, empty or not an object of token: id");
  }
  spec_.vocab.resize(*std::max_element(model_.ids.begin(), model_.ids.end()) + 1);
  for (size_t i = 0; i < model_.ids.size(); ++i) {
    const int32_t id = model_.ids[i];
    const std::string_view token = model_.tokens[i];
    if (token.empty()) return Wrong(where, Concat("gives the id ", id, " to an empty token"));
    if (!spec_.vocab[id].empty()) {
      return Wrong(where,
                   Concat("gives the id ", id, " to ", Quoted(spec_.vocab[id]), " and ", Quoted(token)));
    }
    spec_.vocab[id] = token;
  }
  index_.emplace(spec_.vocab);
  if (const int32_t id = index_->duplicate(); id >= 0) {
    return Wrong(where, Concat("has token ", Quoted(spec_.vocab[id]), " twice"));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadMerges(const Where& where) {
  if (!model_.has_merges) return Wrong(where, "is missing or not a list");
  const size_t num_merges = model_.merge_parts.size() / 2;
  spec_.merges.reserve(num_merges);
  std::string joined;
  int32_t guess = 0;  // results mostly stand in vocab one after the other: a look before a search
  for (size_t i = 0; i < num_merges; ++i) {
    const std::string_view left = model_.merge_parts[2 * i], right = model_.merge_parts[2 * i + 1];
    joined.assign(left).append(right);
    const bool guessed = static_cast<size_t>(guess) < spec_.vocab.size() && spec_.vocab[guess] == joined;
    const TokenizerSpec::Merge merge = {index_->Find(left), index_->Find(right),
                                        guessed && !joined.empty() ? guess : index_->Find(joined)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
      const std::string_view unknown = merge.left < 0 ? left : merge.right < 0 ? right : joined;
      return Wrong(where.At(i), Concat("names ", Quoted(unknown), ", which is not in vocab"));
    }
    guess = merge.result + 1;
    spec_.merges.push_back(merge);
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedTokens(const Where& where) {
  const Json* tokens = Member(root_, "added_tokens");
  if (tokens == nullptr) return absl::OkStatus();
  if (!tokens->is_array()) return Wrong(where, "is not a list");
  for (size_t i = 0; i < tokens->size(); ++i) RETURN_IF_ERROR(ReadAddedToken((*tokens)[i], where.At(i)));
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedToken(const Json& entry, const Where& where) {
  if (!entry.is_object()) return Wrong(where, "is not an object");
  AddedToken token;
  const Json* content = Member(entry, "content");
  if (content == nullptr || !content->is_string() || *content == "") {
    return Wrong(where.Below("content"), "is missing, empty or not a string");
  }
  const std::string& name = content->get_ref<const std::string&>();
  token.content = name;
  const Json* id = Member(entry, "id");
  const int64_t number = id != nullptr && id->is_number_integer() ? id->get<int64_t>() : -1;
  if (number < 0 || number > kMaxTokenId) {
    return Wrong(where.Below("id"), Concat("is missing or not a number from 0 to ", kMaxTokenId));
  }
  token.id = static_cast<int32_t>(number);
  ASSIGN_OR_RETURN(const bool single_word, Flag(entry, "single_word", false, where));
  if (single_word) return Unsupported(where.Below("single_word"), "is set");
  ASSIGN_OR_RETURN(token.special, Flag(entry, "special", false, where));
  ASSIGN_OR_RETURN(token.normalized, Flag(entry, "normalized", !token.special, where));
  ASSIGN_OR_RETURN(token.lstrip, Flag(entry, "lstrip", false, where));
  ASSIGN_OR_RETURN(token.rstrip, Flag(entry, "rstrip", false, where));

  if (const int32_t in_vocab = index_->Find(name); in_vocab >= 0 && in_vocab != token.id) {
    return Wrong(where, Concat("gives ", Quoted(name), " the id ", token.id, ", model.vocab ", in_vocab));
  }
  if (static_cast<size_t>(token.id) < spec_.vocab.size() && !spec_.vocab[token.id].empty() &&
      spec_.vocab[token.id] != name) {
    return Wrong(where, Concat("gives ", Quoted(name), " the id ", token.id, ", which ",
                               Quoted(spec_.vocab[token.id]), " has in model.vocab"));
  }
  if (const auto [same, added] = added_names_.try_emplace(token.id, name); !added) {
    return Wrong(where.Below("id"), Concat("is ", token.id, ", which ", Quoted(same->second), " has too"));
  }
  if (!added_ids_.try_emplace(name, token.id).second) {
    return Wrong(where.Below("content"), Concat("is ", Quoted(name), " for the second time"));
  }
  spec_.added_tokens.push_back(std::move(token));
  return absl::OkStatus();
}

absl::Status Reader::ReadNormalizer(const Where& where) {
  const Json* normalizer = Member(root_, "normalizer");
  if (normalizer == nullptr) return absl::OkStatus();
  std::vector<std::pair<const Json*, Where>> parts;
  RETURN_IF_ERROR(Flatten(*normalizer, "normalizers", where, &parts));
  for (const auto& [part, at] : parts) {
    if (TypeOf(*part) != "NFC") {
      return Unsupported(at.Below("type"), Concat("is ", Quoted(TypeOf(*part)), ", not \"NFC\" or none"));
    }
    spec_.normalize_nfc = true;
  }
  return absl::OkStatus();
}

// An expression with line ends written as escapes, however the file wrote them.
std::string CanonicalExpression(std::string_view expression) {
  std::string out;
  for (const char c : expression) {
    if (c == '\r') {
      out += "\\r";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

absl::Status Reader::ReadPreTokenizer(const Where& where) {
  const Json* pre_tokenizer = Member(root_, "pre_tokenizer");
  if (pre_tokenizer == nullptr) return Unsupported(where, "is missing");
  std::vector<std::pair<const Json*, Where>> parts;
  RETURN_IF_ERROR(Flatten(*pre_tokenizer, "pretokenizers", where, &parts));

  // Each part as one word; the list of words is what we know or do not know.
  std::vector<std::string> words;
  for (const auto& [part, at] : parts) {
    const std::string type = TypeOf(*part);
    if (type == "ByteLevel") {
      ASSIGN_OR_RETURN(const bool use_regex, Flag(*part, "use_regex", true, at));
      ASSIGN_OR_RETURN(const bool prefix, Flag(*part, "add_prefix_space", true, at));
      if (prefix && parts.size() > 1)
        return Unsupported(at.Below("add_prefix_space"), "is set in a Sequence");
      spec_.add_prefix_space = prefix;
      words.push_back(use_regex ? "ByteLevel+" : "ByteLevel");
    } else if (type == "Digits") {
      ASSIGN_OR_RETURN(const bool individual, Flag(*part, "individual_digits", false, at));
      if (!individual) return Unsupported(at.Below("individual_digits"), "is not set");
      words.push_back("Digits");
    } else if (type == "Split") {
      const Json* pattern = Member(*part, "pattern");
      const Json* regex = pattern != nullptr && pattern->is_object() ? Member(*pattern, "Regex") : nullptr;
      if (regex == nullptr || !regex->is_string()) return Unsupported(at.Below("pattern"), "is not a Regex");
      const Json* behavior = Member(*part, "behavior");
      if (behavior == nullptr || *behavior != "Isolated") {
        return Unsupported(at.Below("behavior"), "is not \"Isolated\"");
      }
      ASSIGN_OR_RETURN(const bool invert, Flag(*part, "invert", false, at));
      if (invert) return Unsupported(at.Below("invert"), "is set");
      words.push_back(CanonicalExpression(regex->get_ref<const std::string&>()));
    } else {
      return Unsupported(at.Below("type"), Concat("is ", Quoted(type), ", not ByteLevel, Split or Digits"));
    }
  }
  const auto is = [&words](std::vector<std::string_view> known) {
    return std::equal(words.begin(), words.end(), known.begin(), known.end());
  };
  using enum PreTokenizerKind;
  const auto& v3 = kDeepSeekV3Expressions;
  if (is({"ByteLevel+"}) || is({kGpt2Expression, "ByteLevel"})) {
    spec_.pre_tokenizer = kGpt2;
  } else if (is({"ByteLevel"})) {
    spec_.pre_tokenizer = kNone;
  } else if (is({v3[0], v3[1], v3[2], "ByteLevel"})) {
    spec_.pre_tokenizer = kDeepSeekV3;
  } else if (is({kLlama3Expression, "ByteLevel"})) {
    spec_.pre_tokenizer = kLlama3;
  } else if (is({kQwen2Expression, "ByteLevel"})) {
    spec_.pre_tokenizer = kQwen2;
  } else if (is({"Digits", "ByteLevel+"})) {
    spec_.pre_tokenizer = kSmolLm;
  } else {
    return Unsupported(where, Concat("is an unknown series (", Printable(Join(words), 300),
                                     "); known are those of ", Join(PreTokenizerNames())));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadPostProcessor(const Where& where) {
  const Json* processor = Member(root_, "post_processor");
  if (processor == nullptr) return absl::OkStatus();
  std::vector<std::pair<const Json*, Where>> parts;
  RETURN_IF_ERROR(Flatten(*processor, "processors", where, &parts));
  for (const auto& [part, at] : parts) {
    const std::string type = TypeOf(*part);
    if (type == "ByteLevel") continue;  // trims offsets only
    if (type != "TemplateProcessing") {
      return Unsupported(at.Below("type"),
                         Concat("is ", Quoted(type), ", not ByteLevel or TemplateProcessing"));
    }
    if (!spec_.prefix_ids.empty() || !spec_.suffix_ids.empty())
      return Unsupported(at, "is a second template");
    RETURN_IF_ERROR(ReadTemplate(*part, at));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadTemplate(const Json& processor, const Where& where) {
  const Json* single = Member(processor, "single");
  const Json* special = Member(processor, "special_tokens");
  if (single == nullptr || !single->is_array())
    return Wrong(where.Below("single"), "is missing or not a list");
  bool text_seen = false;
  for (size_t i = 0; i < single->size(); ++i) {
    const Where at = where.Below("single").At(i);
    const Json& piece = (*single)[i];
    if (!piece.is_object()) return Wrong(at, "is not an object");
    if (Member(piece, "Sequence")) {
      if (text_seen) return Unsupported(at, "is a second Sequence");
      text_seen = true;
      continue;
    }
    const Json* token = Member(piece, "SpecialToken");
    const Json* name = token != nullptr && token->is_object() ? Member(*token, "id") : nullptr;
    if (name == nullptr || !name->is_string()) return Wrong(at, "is neither Sequence nor SpecialToken");
    const std::string& text = name->get_ref<const std::string&>();
    const Json* entry = special != nullptr && special->is_object() ? Member(*special, text.c_str()) : nullptr;
    const Json* ids = entry != nullptr && entry->is_object() ? Member(*entry, "ids") : nullptr;
    if (ids == nullptr || !ids->is_array())
      return Wrong(at, Concat(Quoted(text), " is not in special_tokens"));
    for (const Json& id : *ids) {
      const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
      const bool known = number >= 0 && number <= kMaxTokenId &&
                         (added_names_.contains(static_cast<int32_t>(number)) ||
                          (static_cast<size_t>(number) < spec_.vocab.size() && !spec_.vocab[number].empty()));
      if (!known) return Wrong(at, Concat("has the id ", DescribeJson(id), ", which no token has"));
      (text_seen ? spec_.suffix_ids : spec_.prefix_ids).push_back(static_cast<int32_t>(number));
    }
  }
  if (!text_seen) return Unsupported(where.Below("single"), "has no Sequence");
  return absl::OkStatus();
}

absl::Status Reader::ReadDecoder(const Where& where) {
  const Json* decoder = Member(root_, "decoder");
  if (decoder == nullptr) return Unsupported(where, "is missing");
  std::vector<std::pair<const Json*, Where>> parts;
  RETURN_IF_ERROR(Flatten(*decoder, "decoders", where, &parts));
  if (parts.size() != 1 || TypeOf(*parts[0].first) != "ByteLevel")
    return Unsupported(where, "is not one ByteLevel");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json, const std::string& source) {
  if (json.size() > kMaxTokenizerJsonBytes) {
    return DamagedError(Concat(source, ": has ", HumanBytes(json.size()), ", more than the ",
                               HumanBytes(kMaxTokenizerJsonBytes), " that a tokenizer may have"));
  }
  Json root;
  VocabAndMerges model;
  RETURN_IF_ERROR(ReadTokenizerJson(json, source, &root, &model));
  return Reader(root, model, source).Read();
}

std::string_view FirstDifference(const TokenizerSpec& a, const TokenizerSpec& b) {
  const auto same_merge = [](const TokenizerSpec::Merge& x, const TokenizerSpec::Merge& y) {
    return x.left == y.left && x.right == y.right && x.result == y.result;
  };
  const auto same_token = [&](const AddedToken& x, const AddedToken& y) {
    return x.id == y.id && x.content == y.content && (x.normalized == y.normalized || !a.normalize_nfc) &&
           x.lstrip == y.lstrip && x.rstrip == y.rstrip && IsMarker(x) == IsMarker(y);
  };
  if (a.pre_tokenizer != b.pre_tokenizer || a.add_prefix_space != b.add_prefix_space) return "pre_tokenizer";
  if (a.normalize_nfc != b.normalize_nfc) return "normalizer";
  if (!std::ranges::equal(a.merges, b.merges, same_merge)) return "model.merges";
  if (a.ignore_merges != b.ignore_merges) return "model.ignore_merges";
  if (a.unknown_id != b.unknown_id || a.fuse_unknown != b.fuse_unknown) return "model.unk_token";
  if (!std::ranges::is_permutation(a.added_tokens, b.added_tokens, same_token)) return "added_tokens";
  return "";
}

}  // namespace moebius
