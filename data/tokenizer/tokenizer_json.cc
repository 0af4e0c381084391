#include "data/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/git_lfs.h"
#include "core/io/json.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

// Receives the parser's events. Each returns false to stop, with the reason in error().
class Handler {
 public:
  Handler(Json* root, VocabAndMerges* model) : root_(root), model_(model) {}

  bool null() { return Value(nullptr); }
  bool boolean(bool value) { return Value(value); }
  bool number_integer(int64_t value) { return mode_ == Mode::kVocab ? Id(value, value < 0) : Value(value); }
  bool number_unsigned(uint64_t value) {
    return mode_ == Mode::kVocab ? Id(static_cast<int64_t>(value), value > kMaxTokenId) : Value(value);
  }
  bool number_float(double value, const std::string&) { return Value(value); }
  bool string(std::string& value);
  bool binary(Json::binary_t&) { return Fail("binary value"); }
  bool start_object(size_t);
  bool key(std::string& name);
  bool end_object() { return End(); }
  bool start_array(size_t);
  bool end_array();
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) {
    return Fail(Concat("not JSON; ", Printable(error.what(), 200)));
  }
  const std::string& error() const { return error_; }

 private:
  enum class Mode { kTree, kVocab, kMerges };

  bool Fail(const std::string& why) {
    if (error_.empty()) error_ = why;
    return false;
  }
  bool AtModel(const char* name) const {
    return mode_ == Mode::kTree && depth_ == 2 && in_model_ && key_ == name;
  }
  bool Value(Json value) {
    if (mode_ == Mode::kVocab) {
      return Fail(Concat("field \"model.vocab\" gives token \"", Printable(key_), "\" the id ",
                         DescribeJson(value), ", not a number from 0 to ", kMaxTokenId));
    }
    if (mode_ == Mode::kMerges) return BadMerge(DescribeJson(value));
    return Place(std::move(value)) != nullptr;
  }
  bool Id(int64_t id, bool bad) {
    if (bad || id > kMaxTokenId) return Value(id);
    model_->tokens.Add(key_);
    model_->ids.push_back(static_cast<int32_t>(id));
    return true;
  }
  bool BadMerge(const std::string& what) {
    return Fail(Concat("field \"model.merges[", num_merges_, "]\" is or has ", what, ", not two tokens"));
  }
  Json* Place(Json value);
  bool Open(Json value);
  bool End();

  Json* root_;
  VocabAndMerges* model_;
  Mode mode_ = Mode::kTree;
  std::vector<Json*> open_;  // containers of the tree, outermost first
  size_t depth_ = 0;         // open_.size(), and those that are not in the tree
  bool in_model_ = false;    // the second of open_ is "model"
  int parts_ = -1;           // parts of the merge being read, -1 outside one
  size_t num_merges_ = 0;    // read completely
  std::string key_, error_;
};

Json* Handler::Place(Json value) {
  if (open_.empty()) {
    *root_ = std::move(value);
    return root_;
  }
  Json& parent = *open_.back();
  if (parent.is_array()) {
    parent.push_back(std::move(value));
    return &parent.back();
  }
  const auto [entry, added] = parent.get_ref<Json::object_t&>().emplace(key_, std::move(value));
  if (!added) Fail(Concat("duplicate key \"", Printable(key_), "\""));
  return added ? &entry->second : nullptr;
}

bool Handler::Open(Json value) {
  if (depth_ >= static_cast<size_t>(kMaxJsonDepth)) {
    return Fail(Concat("nested deeper than ", kMaxJsonDepth, " levels"));
  }
  Json* const placed = Place(std::move(value));
  if (placed == nullptr) return false;
  if (depth_ == 1) in_model_ = open_[0]->is_object() && key_ == "model";
  open_.push_back(placed);
  ++depth_;
  return true;
}

bool Handler::End() {
  --depth_;
  if (mode_ == Mode::kTree) {
    open_.pop_back();
  } else {
    mode_ = Mode::kTree;
  }
  return true;
}

bool Handler::start_object(size_t) {
  if (mode_ != Mode::kTree) return Value(Json::object());
  if (!AtModel("vocab")) return Open(Json::object());
  if (model_->has_vocab) return Fail("duplicate key \"vocab\"");
  model_->has_vocab = true;
  mode_ = Mode::kVocab;
  ++depth_;
  return true;
}

bool Handler::start_array(size_t) {
  if (mode_ == Mode::kMerges && parts_ < 0) {
    parts_ = 0;
    ++depth_;
    return true;
  }
  if (mode_ != Mode::kTree) return Value(Json::array());
  if (!AtModel("merges")) return Open(Json::array());
  if (model_->has_merges) return Fail("duplicate key \"merges\"");
  model_->has_merges = true;
  mode_ = Mode::kMerges;
  ++depth_;
  return true;
}

bool Handler::end_array() {
  if (mode_ == Mode::kMerges && parts_ >= 0) {
    if (parts_ != 2) return BadMerge(Concat(parts_, " parts"));
    parts_ = -1;
    ++num_merges_;
    --depth_;
    return true;
  }
  return End();
}

bool Handler::key(std::string& name) {
  key_ = name;
  return true;
}

bool Handler::string(std::string& value) {
  if (mode_ != Mode::kMerges) return Value(value);
  if (parts_ >= 0) {
    if (++parts_ > 2) return BadMerge("three parts");
    model_->merge_parts.Add(value);
    return true;
  }
  const size_t blank = value.find(' ');
  if (blank == value.npos || value.find(' ', blank + 1) != value.npos) {
    return BadMerge(Concat("\"", Printable(value), "\""));
  }
  model_->merge_parts.Add(std::string_view(value).substr(0, blank));
  model_->merge_parts.Add(std::string_view(value).substr(blank + 1));
  ++num_merges_;
  return true;
}

}  // namespace

absl::Status ReadTokenizerJson(std::string_view json, const std::string& source, Json* rest,
                               VocabAndMerges* model) {
  if (IsGitLfsPointer(json)) return GitLfsPointerError(source);
  Handler handler(rest, model);
  bool done = false;
  try {
    done = Json::sax_parse(json.data(), json.data() + json.size(), &handler);
  } catch (const std::exception& error) {
    return DamagedError(Concat(source, ": not JSON; ", Printable(error.what(), 200)));
  }
  if (done) return absl::OkStatus();
  return DamagedError(
      Concat(source, ": ", handler.error(), "; the file is damaged; fetch or train it again"));
}

}  // namespace moebius
