#include <array>

#include "core/base/strings.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {
namespace {

// A JSON string; `text` is UTF-8.
std::string JsonText(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 32) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string Bool(bool value) { return value ? "true" : "false"; }

std::string ByteLevel(bool add_prefix_space, bool use_regex) {
  return Concat(R"({"type": "ByteLevel", "add_prefix_space": )", Bool(add_prefix_space),
                R"(, "trim_offsets": true, "use_regex": )", Bool(use_regex), "}");
}

std::string Split(std::string_view expression) {
  return Concat(R"({"type": "Split", "pattern": {"Regex": )", JsonText(expression),
                R"(}, "behavior": "Isolated", "invert": false})");
}

std::string PreTokenizerJson(const TokenizerSpec& spec) {
  std::vector<std::string> parts;
  bool use_regex = false;
  switch (spec.pre_tokenizer) {
    case PreTokenizerKind::kNone:
      break;
    case PreTokenizerKind::kGpt2:
      use_regex = true;
      break;
    case PreTokenizerKind::kDeepSeekV3:
      for (const std::string_view expression : kDeepSeekV3Expressions) parts.push_back(Split(expression));
      break;
    case PreTokenizerKind::kLlama3:
      parts.push_back(Split(kLlama3Expression));
      break;
    case PreTokenizerKind::kQwen2:
      parts.push_back(Split(kQwen2Expression));
      break;
    case PreTokenizerKind::kSmolLm:
      parts.push_back(R"({"type": "Digits", "individual_digits": true})");
      use_regex = true;
      break;
  }
  const std::string byte_level = ByteLevel(spec.add_prefix_space, use_regex);
  if (parts.empty()) return byte_level;
  parts.push_back(byte_level);
  return Concat("{\"type\": \"Sequence\", \"pretokenizers\": [\n      ", Join(parts, ",\n      "),
                "\n    ]}");
}

std::string NameOf(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& token : spec.added_tokens) {
    if (token.id == id) return token.content;
  }
  return spec.vocab[id];
}

std::string PostProcessorJson(const TokenizerSpec& spec) {
  if (spec.prefix_ids.empty() && spec.suffix_ids.empty()) return "null";
  const auto sequence = [](std::string_view id, int type) {
    return Concat(R"({"Sequence": {"id": ")", id, R"(", "type_id": )", type, "}}");
  };
  const auto around = [&](std::string_view id, int type) {
    std::vector<std::string> parts;
    const auto add = [&](const std::vector<int32_t>& ids) {
      for (const int32_t special : ids) {
        parts.push_back(Concat(R"({"SpecialToken": {"id": )", JsonText(NameOf(spec, special)),
                               R"(, "type_id": )", type, "}}"));
      }
    };
    add(spec.prefix_ids);
    parts.push_back(sequence(id, type));
    add(spec.suffix_ids);
    return Join(parts);
  };
  std::vector<std::string> special;
  std::vector<int32_t> ids = spec.prefix_ids;
  ids.insert(ids.end(), spec.suffix_ids.begin(), spec.suffix_ids.end());
  for (size_t i = 0; i < ids.size(); ++i) {
    bool seen = false;
    for (size_t j = 0; j < i; ++j) seen = seen || ids[j] == ids[i];
    const std::string name = JsonText(NameOf(spec, ids[i]));
    if (!seen)
      special.push_back(
          Concat(name, ": {\"id\": ", name, ", \"ids\": [", ids[i], "], \"tokens\": [", name, "]}"));
  }
  return Concat("{\"type\": \"TemplateProcessing\",\n    \"single\": [", around("A", 0),
                "],\n    \"pair\": [", around("A", 0), ", ", around("B", 1), "],\n    \"special_tokens\": {",
                Join(special), "}}");
}

std::string AddedTokenJson(const AddedToken& token) {
  return Concat("    {\"id\": ", token.id, ", \"content\": ", JsonText(token.content),
                ", \"single_word\": false, \"lstrip\": ", Bool(token.lstrip),
                ", \"rstrip\": ", Bool(token.rstrip), ", \"normalized\": ", Bool(token.normalized),
                ", \"special\": ", Bool(token.special), "}");
}

}  // namespace

std::string WriteTokenizerJson(const TokenizerSpec& spec) {
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += "  \"added_tokens\": [";
  for (const AddedToken& token : spec.added_tokens) {
    out += &token == spec.added_tokens.data() ? "\n" : ",\n";
    out += AddedTokenJson(token);
  }
  out += "\n  ],\n  \"normalizer\": ";
  out += spec.normalize_nfc ? R"({"type": "NFC"})" : "null";
  out += ",\n  \"pre_tokenizer\": " + PreTokenizerJson(spec);
  out += ",\n  \"post_processor\": " + PostProcessorJson(spec);
  out += ",\n  \"decoder\": " + ByteLevel(true, true);
  out += ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ";
  out += spec.unknown_id < 0 ? "null" : JsonText(spec.vocab[spec.unknown_id]);
  out += ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": ";
  out += Bool(spec.fuse_unknown) + ",\n    \"byte_fallback\": false,\n    \"ignore_merges\": ";
  out += Bool(spec.ignore_merges) + ",\n    \"vocab\": {";
  bool first = true;
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    if (spec.vocab[id].empty()) continue;
    out += first ? "\n      " : ",\n      ";
    out += JsonText(spec.vocab[id]) + ": " + std::to_string(id);
    first = false;
  }
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < spec.merges.size(); ++i) {
    out += i == 0 ? "\n      [" : ",\n      [";
    out +=
        JsonText(spec.vocab[spec.merges[i].left]) + ", " + JsonText(spec.vocab[spec.merges[i].right]) + "]";
  }
  out += "\n    ]\n  }\n}\n";
  return out;
}

}  // namespace moebius
