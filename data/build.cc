#include "data/build.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "data/build_options.h"
#include "data/data.pb.h"
#include "data/document_batch.h"
#include "data/document_set.h"
#include "data/encode_documents.h"
#include "data/special_tokens.h"
#include "data/token_file.h"
#include "data/tokenizer/bpe_trainer.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;
using Say = std::function<void(const std::string&)>;

constexpr char kManifestFormat[] = "moebius-data";
constexpr int kManifestVersion = 1;

bool IsMadeByBuild(const std::string& name) {
  return name == "train.h5" || (name.starts_with("train-") && name.ends_with(".h5")) || name == "val.h5" ||
         name == "tokenizer.json" || name == "manifest.json";
}

std::string Megabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

// Everything in the recipe that decides the result, and what was read: equal values mean equal outputs.
Json SettingsOf(const proto::DataBuild& recipe, const DocumentSet& set, const std::string& given_tokenizer) {
  Json settings;
  settings["tokenizer"] = recipe.has_tokenizer() ? Sha256Hex(given_tokenizer) : "trained";
  if (!recipe.has_tokenizer()) {
    settings["vocab_size"] = recipe.vocab_size();
    settings["pre_tokenizer"] = recipe.pre_tokenizer();
    settings["special_tokens"] =
        std::vector<std::string>(recipe.special_token().begin(), recipe.special_token().end());
  }
  settings["held_out"] = set.options().held_out;
  settings["held_out_fraction"] = recipe.held_out_fraction();
  settings["seed"] = recipe.seed();
  settings["deduplicate"] = recipe.deduplicate();
  settings["invalid_text"] = proto::DataBuild::InvalidText_Name(recipe.invalid_text());
  settings["fim_rate"] = recipe.fim_rate();
  settings["separate_sources"] = recipe.separate_sources();
  return settings;
}

Json SourcesOf(const DocumentSet& set) {
  Json sources = Json::array();
  for (size_t s = 0; s < set.reports().size(); ++s) {
    const SourceOptions& options = set.options().sources[s];
    const SourceReport& report = set.reports()[s];
    Json source;
    source["name"] = options.name;
    if (!options.corpus.empty()) source["package"] = report.package;
    if (!report.version.empty()) source["version"] = report.version;
    if (!options.text.empty()) source["text"] = options.text;
    if (!options.jsonl.empty()) source["jsonl"] = options.jsonl;
    source["documents"] = report.documents;
    source["held_out"] = report.held_out;
    source["bytes"] = report.bytes;
    source["duplicates"] = report.duplicates;
    source["blank"] = report.blank;
    source["replaced"] = report.replaced;
    source["sha256"] = report.sha256;
    sources.push_back(std::move(source));
  }
  return sources;
}

// The numbers of a folder that already holds exactly this build; nullopt when it does not.
std::optional<BuildReport> UpToDate(const std::string& out, const Json& settings, const Json& sources) {
  const auto manifest = ReadJsonFile(JoinPath(out, "manifest.json"));
  if (!manifest.ok() || !manifest->is_object()) return std::nullopt;
  for (const char* field : {"settings", "sources", "outputs", "train", "held_out", "tokenizer"}) {
    if (!manifest->contains(field)) return std::nullopt;
  }
  const auto version = GetInt(*manifest, "format_version", "manifest.json");
  if (!version.ok() || *version != kManifestVersion ||
      DumpJson((*manifest)["settings"]) != DumpJson(nlohmann::json(settings)) ||
      DumpJson((*manifest)["sources"]) != DumpJson(nlohmann::json(sources)) ||
      !(*manifest)["outputs"].is_object()) {
    return std::nullopt;
  }
  for (const auto& [name, entry] : (*manifest)["outputs"].items()) {
    const auto sha256 = GetString(entry, "sha256", name);
    const auto bytes = GetInt(entry, "bytes", name, 0);
    if (!IsPlainFileName(name) || !sha256.ok() || !bytes.ok() ||
        !VerifyFileHash(JoinPath(out, name), {*sha256, *bytes}).ok()) {
      return std::nullopt;
    }
  }
  BuildReport report;
  report.up_to_date = true;
  report.out = out;
  const auto number = [&](const char* part, const char* field) {
    return GetInt((*manifest)[part], field, part, 0).value_or(0);
  };
  report.train_documents = number("train", "documents");
  report.train_bytes = number("train", "bytes");
  report.train_tokens = number("train", "tokens");
  report.held_out_documents = number("held_out", "documents");
  report.held_out_bytes = number("held_out", "bytes");
  report.held_out_tokens = number("held_out", "tokens");
  report.vocab_size = number("tokenizer", "vocab_size");
  return report;
}

// Whether the folder's manifest is a build's, and names every other file there.
bool IsBuild(const std::string& folder, const std::vector<std::string>& names) {
  const auto manifest = ReadJsonFile(JoinPath(folder, "manifest.json"));
  if (!manifest.ok() || !manifest->is_object() ||
      GetString(*manifest, "format", "").value_or("") != kManifestFormat || !manifest->contains("outputs")) {
    return false;
  }
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return name == "manifest.json" || (*manifest)["outputs"].contains(name);
  });
}

// A folder is replaced as a whole, so it must hold nothing but what a build makes.
absl::Status CheckReplaceable(const std::string& out) {
  if (FileExists(out))
    return CannotWriteError(Concat(out, ": is a file; the build makes a folder; give another out"));
  if (!FolderExists(out)) return absl::OkStatus();
  struct stat here = {}, parent = {}, current = {};
  const bool known = stat(out.c_str(), &here) == 0;
  const bool mounted = known && stat(ParentPath(out).c_str(), &parent) == 0 && here.st_dev != parent.st_dev;
  const bool is_current =
      known && stat(".", &current) == 0 && here.st_dev == current.st_dev && here.st_ino == current.st_ino;
  if (is_current || mounted) {
    return CannotWriteError(
        Concat(out, ": cannot be replaced as a whole; a new folder is renamed to it, and it is ",
               mounted ? "a mount point" : "the current one", "; give a folder inside it"));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(out));
  for (const std::string& name : names) {
    if (!IsMadeByBuild(name)) {
      return CannotWriteError(Concat(out, ": holds '", Printable(name),
                                     "', which a data build did not make; the folder would be "
                                     "replaced as a whole; give a new or empty folder"));
    }
  }
  if (!names.empty() && !IsBuild(out, names)) {
    return CannotWriteError(
        Concat(out,
               ": holds files that no manifest.json of a data build names; the folder would be "
               "replaced as a whole; give a new or empty folder"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Tokenizer> TrainTokenizer(const proto::DataBuild& recipe, const DocumentSet& set, int threads,
                                         const Say& say) {
  say(Concat("tokenizer: training ", recipe.vocab_size(), " tokens on ",
             Megabytes(set.bytes(Split::kTrain))));
  BpeTrainerOptions options{.vocab_size = static_cast<int32_t>(recipe.vocab_size()),
                            .pre_tokenizer = *PreTokenizerFromName(recipe.pre_tokenizer()),
                            .special_tokens = BuiltInSpecialTokens(),
                            .threads = threads};
  options.special_tokens.insert(options.special_tokens.end(), recipe.special_token().begin(),
                                recipe.special_token().end());
  auto trainer = BpeTrainer::Create(options);
  if (!trainer.ok()) return Annotate(trainer.status(), "vocab_size, special_token");
  // Some documents at a time keep all threads busy.
  DocumentBatch batch;
  const auto count = [&] {
    const std::vector<std::string_view> texts(batch.texts.begin(), batch.texts.end());
    trainer->AddDocuments(texts);
    batch.Clear();
  };
  RETURN_IF_ERROR(set.ForEach([&](const Document& document, const DocumentSet::Place& place) {
    if (place.split != Split::kTrain) return absl::OkStatus();
    if (batch.Add(document.text)) count();
    return absl::OkStatus();
  }));
  count();
  ASSIGN_OR_RETURN(Tokenizer tokenizer, trainer->Train());
  if (const std::string note = trainer->Shortfall(tokenizer); !note.empty()) {
    say(Concat("tokenizer: ", WithCommas(tokenizer.vocab_size()), " tokens, ", note));
  }
  return tokenizer;
}

absl::Status CheckRecipe(const proto::DataBuild& recipe) {
  if (recipe.out().empty()) return UsageError("out: no folder to make; name one (--out DIR)");
  if (recipe.has_tokenizer()) return absl::OkStatus();
  if (!PreTokenizerFromName(recipe.pre_tokenizer())) {
    return UsageError(Concat("pre_tokenizer: '", Printable(recipe.pre_tokenizer()), "' is not one of ",
                             Join(PreTokenizerNames()), "; correct the recipe"));
  }
  const int64_t least =
      256 + static_cast<int64_t>(BuiltInSpecialTokens().size()) + recipe.special_token_size();
  if (recipe.vocab_size() < least || recipe.vocab_size() > kMaxTokenId) {
    return UsageError(Concat("vocab_size: ", recipe.vocab_size(), " is outside ", least,
                             " (256 bytes and the special tokens) to ", kMaxTokenId, "; correct the recipe"));
  }
  return absl::OkStatus();
}

void SayReports(const DocumentSet& set, bool separate, const Say& say) {
  for (size_t s = 0; s < set.reports().size(); ++s) {
    const SourceReport& report = set.reports()[s];
    std::string line = Concat(set.options().sources[s].name, ": ", WithCommas(report.documents),
                              " documents, ", Megabytes(report.bytes));
    if (!report.package.empty())
      line += Concat(" (", report.package, report.version.empty() ? "" : " ", report.version, ")");
    if (report.held_out > 0) line += Concat(", ", WithCommas(report.held_out), " held out");
    if (separate && report.held_out == report.documents)
      line += ": nothing of it to train on, no file of its own";
    if (report.duplicates > 0) line += Concat(", ", WithCommas(report.duplicates), " duplicates left out");
    if (report.blank > 0) line += Concat(", ", WithCommas(report.blank), " blank left out");
    if (report.replaced > 0) line += Concat(", ", WithCommas(report.replaced), " runs of bad bytes replaced");
    say(line);
  }
}

void SayFile(const EncodedFile& file, const Say& say) {
  char ratio[32];
  std::snprintf(ratio, sizeof ratio, "%.3f",
                static_cast<double>(file.bytes) / static_cast<double>(file.tokens));
  say(Concat(file.name, ": ", WithCommas(file.documents), " documents, ", Megabytes(file.bytes), ", ",
             WithCommas(file.tokens), " tokens (", ratio, " bytes each), ", Megabytes(file.hash.bytes),
             " on disk"));
}

}  // namespace

absl::StatusOr<BuildReport> BuildData(const proto::DataBuild& recipe, int threads, const Say& say) {
  CHECK_GE(threads, 1);
  RETURN_IF_ERROR(CheckRecipe(recipe));
  ASSIGN_OR_RETURN(DocumentSetOptions options, DocumentSetOptionsFrom(recipe));
  // A link keeps leading to what it leads to.
  std::error_code absent;
  const std::filesystem::path real = std::filesystem::canonical(recipe.out(), absent);
  const std::string out = absent ? recipe.out() : real.string();
  if (absent && std::filesystem::is_symlink(recipe.out(), absent)) {
    return CannotWriteError(Concat(recipe.out(),
                                   ": is a link to what is not there; make the folder that it "
                                   "leads to, or give another out"));
  }
  RETURN_IF_ERROR(CheckReplaceable(out));
  std::optional<Tokenizer> tokenizer;
  if (recipe.has_tokenizer()) {
    ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(recipe.tokenizer()));
  }
  ASSIGN_OR_RETURN(const DocumentSet set, DocumentSet::Scan(std::move(options)));
  SayReports(set, recipe.separate_sources(), say);
  const bool holds_out = recipe.held_out_size() > 0 || recipe.held_out_fraction() > 0;
  if (holds_out && set.documents(Split::kHeldOut) == 0) {
    return UsageError(Concat("held_out_fraction: ", recipe.held_out_fraction(), " of ",
                             set.documents(Split::kTrain),
                             " documents came to none; take a larger share or name documents in held_out"));
  }
  if (set.documents(Split::kTrain) == 0) {
    return UsageError("held_out: every document is held out, which leaves none to train on; hold out less");
  }
  const Json settings = SettingsOf(recipe, set, tokenizer ? tokenizer->json() : ""), sources = SourcesOf(set);
  if (auto done = UpToDate(out, settings, sources)) return *std::move(done);
  // Before the long work: a place that cannot be written must not show at its end.
  RETURN_IF_ERROR(MakeDirs(ParentPath(out)));
  ASSIGN_OR_RETURN(AtomicDirectory folder, AtomicDirectory::Create(out));
  if (!tokenizer) {
    ASSIGN_OR_RETURN(tokenizer, TrainTokenizer(recipe, set, threads, say));
  }
  if (!FindEndOfDocument(*tokenizer)) {
    say("warning: the tokenizer has no end-of-document token that is known by its name (<|endoftext|>, </s>, "
        "...): documents follow each other unmarked, and a model cannot learn to end");
  }
  ASSIGN_OR_RETURN(const std::vector<EncodedFile> files,
                   EncodeDocuments(set, *tokenizer,
                                   {.folder = folder.temporary_path(),
                                    .separate_sources = recipe.separate_sources(),
                                    .seed = recipe.seed(),
                                    .fim_rate = recipe.fim_rate(),
                                    .threads = threads}));
  ASSIGN_OR_RETURN(
      const FileHash tokenizer_hash,
      WriteFileAtomically(JoinPath(folder.temporary_path(), "tokenizer.json"), tokenizer->json()));

  Json manifest;
  manifest["format"] = kManifestFormat;
  manifest["format_version"] = kManifestVersion;
  manifest["settings"] = settings;
  manifest["sources"] = sources;
  manifest["tokenizer"] = {{"sha256", tokenizer_hash.sha256}, {"vocab_size", tokenizer->vocab_size()}};
  BuildReport report{.up_to_date = false, .out = recipe.out(), .vocab_size = tokenizer->vocab_size()};
  Json outputs;
  outputs["tokenizer.json"] = {{"bytes", tokenizer_hash.bytes}, {"sha256", tokenizer_hash.sha256}};
  for (const EncodedFile& file : files) {
    outputs[file.name] = {{"bytes", file.hash.bytes}, {"sha256", file.hash.sha256}};
    const bool train = file.split == Split::kTrain;
    (train ? report.train_documents : report.held_out_documents) += file.documents;
    (train ? report.train_bytes : report.held_out_bytes) += file.bytes;
    (train ? report.train_tokens : report.held_out_tokens) += file.tokens;
    SayFile(file, say);
  }
  manifest["train"] = {
      {"documents", report.train_documents}, {"bytes", report.train_bytes}, {"tokens", report.train_tokens}};
  manifest["held_out"] = {{"documents", report.held_out_documents},
                          {"bytes", report.held_out_bytes},
                          {"tokens", report.held_out_tokens}};
  manifest["outputs"] = outputs;
  RETURN_IF_ERROR(
      WriteFileAtomically(JoinPath(folder.temporary_path(), "manifest.json"), DumpJson(manifest, 2) + "\n")
          .status());
  RETURN_IF_ERROR(folder.Commit(AtomicDirectory::OnExisting::kReplace));
  return report;
}

}  // namespace moebius
