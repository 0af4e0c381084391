#include "launch/verb_data.h"

#include <chrono>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "data/build.h"
#include "data/build_options.h"
#include "data/corpora/corpus.h"
#include "data/data.pb.h"
#include "data/token_file.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/environment.h"
#include "launch/textproto.h"

namespace moebius {
namespace {

// Flags are short names of recipe fields; what they give stands above the recipe file and below --set.
absl::Status ApplyFlags(const ParsedArgs& args, proto::DataBuild* recipe, Origins* origins) {
  const auto text = [&](const char* flag, const char* field, auto set) {
    if (!args.Given(flag)) return;
    set(args.Text(flag));
    (*origins)[field] = Concat("--", flag);
  };
  text("out", "out", [&](const std::string& value) { recipe->set_out(value); });
  text("root", "root", [&](const std::string& value) { recipe->set_root(value); });
  text("tokenizer", "tokenizer", [&](const std::string& value) { recipe->set_tokenizer(value); });
  text("pre-tokenizer", "pre_tokenizer", [&](const std::string& value) { recipe->set_pre_tokenizer(value); });
  text("invalid-text", "invalid_text", [&](const std::string& value) {
    recipe->set_invalid_text(value == "replace" ? proto::DataBuild::REPLACE : proto::DataBuild::REFUSE);
  });
  const auto given = [&](const char* flag, const char* field) {
    if (args.Given(flag)) (*origins)[field] = Concat("--", flag);
    return args.Given(flag);
  };
  if (given("vocab-size", "vocab_size")) recipe->set_vocab_size(args.Integer("vocab-size"));
  if (given("seed", "seed")) recipe->set_seed(static_cast<uint64_t>(args.Integer("seed")));
  if (given("held-out-fraction", "held_out_fraction")) {
    recipe->set_held_out_fraction(args.Number("held-out-fraction"));
  }
  if (given("fim-rate", "fim_rate")) recipe->set_fim_rate(args.Number("fim-rate"));
  if (args.On("separate")) {
    recipe->set_separate_sources(true);
    (*origins)["separate_sources"] = "--separate";
  }
  const auto add_source = [&](const char* flag, auto set) {
    for (const std::string& value : args.All(flag)) {
      (*origins)[Concat("source[", recipe->source_size(), "].", flag)] = Concat("--", flag);
      set(recipe->add_source(), value);
    }
  };
  add_source("corpus",
             [](proto::DataBuild::Source* source, const std::string& value) { source->set_corpus(value); });
  add_source("text",
             [](proto::DataBuild::Source* source, const std::string& value) { source->set_text(value); });
  add_source("jsonl",
             [](proto::DataBuild::Source* source, const std::string& value) { source->set_jsonl(value); });
  for (const std::string& value : args.All("held-out")) recipe->add_held_out(value);
  for (const std::string& value : args.All("special-token")) {
    (*origins)[Concat("special_token[", recipe->special_token_size(), "]")] = "--special-token";
    recipe->add_special_token(value);
  }
  for (const std::string& assignment : args.All("set"))
    RETURN_IF_ERROR(ApplyOverride(assignment, recipe, origins));
  return absl::OkStatus();
}

// Refuses what only a tokenizer that is trained here can have, beside a given one. What the recipe's file
// says stands below --tokenizer and gives way to it.
absl::Status CheckTokenizerFields(const proto::DataBuild& recipe, const Origins& origins) {
  if (!recipe.has_tokenizer()) return absl::OkStatus();
  const auto on_command_line = [](const std::string& origin) { return origin.starts_with("--"); };
  const auto tokenizer = origins.find("tokenizer");
  const bool file_gives_way = tokenizer != origins.end() && on_command_line(tokenizer->second);
  std::vector<std::string> given;
  for (const auto& [field, origin] : origins) {
    const bool of_training =
        field == "vocab_size" || field == "pre_tokenizer" || field.starts_with("special_token[");
    if (of_training && (on_command_line(origin) || !file_gives_way)) {
      given.push_back(Concat(field, " (", origin, ")"));
    }
  }
  if (given.empty()) return absl::OkStatus();
  return UsageError(Concat(Join(given), given.size() > 1 ? " are" : " is", " given beside the tokenizer ",
                           Printable(recipe.tokenizer()),
                           "; they are of a tokenizer that is trained here; leave them out"));
}

void ListCorpora() {
  std::printf("%-11s %-19s %s\n", "corpus", "Debian package", "text");
  for (const CorpusInfo& corpus : NamedCorpora()) {
    std::printf("%-11s %-19s %s; %s\n", std::string(corpus.name).c_str(), std::string(corpus.package).c_str(),
                std::string(corpus.text).c_str(), std::string(corpus.licence).c_str());
  }
  std::printf("get them with launch/fetch_corpora.sh NAME...; looked for in %s\n",
              Join(DefaultCorpusRoots()).c_str());
}

absl::Status ListDocuments(const proto::DataBuild& recipe) {
  ASSIGN_OR_RETURN(DocumentSetOptions options, DocumentSetOptionsFrom(recipe));
  ASSIGN_OR_RETURN(const DocumentSet set, DocumentSet::Scan(std::move(options)));
  return set.ForEach([](const Document& document, const DocumentSet::Place& place) {
    std::printf("%s\t%zu\t%s\n", place.split == Split::kTrain ? "train" : "held-out", document.text.size(),
                document.name.c_str());
    return absl::OkStatus();
  });
}

absl::Status RunDataBuild(const ParsedArgs& args) {
  if (args.On("list")) {
    ListCorpora();
    return absl::OkStatus();
  }
  proto::DataBuild recipe;
  Origins origins;
  if (!args.positional().empty()) RETURN_IF_ERROR(ReadTextproto(args.positional()[0], &recipe, &origins));
  RETURN_IF_ERROR(ApplyFlags(args, &recipe, &origins));
  if (args.On("print-config")) {
    std::fputs(PrintTextproto(recipe, origins).c_str(), stdout);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckTokenizerFields(recipe, origins));
  if (args.On("list-documents")) return ListDocuments(recipe);
  const int threads = args.Integer("threads") > 0 ? static_cast<int>(args.Integer("threads")) : UsableCores();
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const BuildReport report, BuildData(recipe, threads, [](const std::string& line) {
                     std::printf("%s\n", line.c_str());
                     std::fflush(stdout);
                   }));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (report.up_to_date) {
    std::printf("%s is up to date: the same recipe over the same text; nothing done (%s to check)\n",
                report.out.c_str(), HumanSeconds(seconds).c_str());
  } else {
    std::printf("%s: done in %s, %.1f MB of text a second\n", report.out.c_str(),
                HumanSeconds(seconds).c_str(),
                static_cast<double>(report.train_bytes + report.held_out_bytes) / 1e6 / seconds);
  }
  return absl::OkStatus();
}

// The text of a token file: its documents decoded, one after another, without special tokens.
absl::Status RunDataText(const ParsedArgs& args) {
  const std::string& path = args.positional()[0];
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFile> file, TokenFile::Open(path));
  if (file->info().tokenizer_json.empty()) {
    return UsageError(Concat(path,
                             ": does not carry its tokenizer (/tokenizer_json), so its tokens have no text; "
                             "build it with moebius data build"));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer,
                   Tokenizer::FromJson(file->info().tokenizer_json, path + "/tokenizer_json"));
  const std::span<const int64_t> starts = file->document_starts();
  std::vector<int32_t> ids;
  for (size_t d = 0; d < starts.size(); ++d) {
    const int64_t end = d + 1 < starts.size() ? starts[d + 1] : file->num_tokens();
    ids.resize(static_cast<size_t>(end - starts[d]));
    RETURN_IF_ERROR(file->Read(starts[d], ids));
    const std::string text = tokenizer.Decode(ids, SpecialTokens::kSkip);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
      return CannotWriteError(
          "cannot write standard output; the disk may be full or the reader gone; run again");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> DataVerbs() {
  const auto repeated = [](const char* name, const char* placeholder, const char* help) {
    return Flag{.name = name, .kind = FlagKind::kRepeatedText, .placeholder = placeholder, .help = help};
  };
  return {
      {.name = "data build",
       .summary = "make a tokenizer and token files from text, JSONL or named corpora",
       .usage = "[RECIPE] [--corpus NAME]... [--text PATH]... [--jsonl FILE]... --out DIR [flags]",
       .flags = {repeated("corpus", "NAME", "add a named corpus (see --list)"),
                 repeated("text", "PATH",
                          "add a file, a folder or a glob of *, ? and ** (which crosses folders); a file is "
                          "a document"),
                 repeated("jsonl", "FILE", "add lines of {\"text\": ...}, also .gz and .zst; a file or glob"),
                 {.name = "out",
                  .placeholder = "DIR",
                  .help = "folder to make: train.h5, val.h5, tokenizer.json, manifest.json"},
                 {.name = "root",
                  .placeholder = "DIR",
                  .help = "where Debian packages of named corpora are unpacked or installed; "
                          "default: the corpora cache, then /"},
                 {.name = "tokenizer",
                  .placeholder = "FILE",
                  .help = "use this tokenizer.json rather than train one"},
                 {.name = "vocab-size",
                  .kind = FlagKind::kInteger,
                  .placeholder = "TOKENS",
                  .fallback = "4096",
                  .help = "size of a trained tokenizer",
                  .min = 1},
                 {.name = "pre-tokenizer",
                  .placeholder = "NAME",
                  .fallback = "deepseek-v3",
                  .help = "how a trained tokenizer splits text",
                  .choices = PreTokenizerNames()},
                 repeated("special-token", "TEXT", "add a special token to a trained tokenizer"),
                 repeated("held-out", "NAME",
                          "put this document into val.h5 (austen/emma); a trailing * matches any rest"),
                 {.name = "held-out-fraction",
                  .kind = FlagKind::kNumber,
                  .placeholder = "SHARE",
                  .fallback = "0",
                  .help = "and this share of the others, by hash",
                  .min = 0,
                  .max = 1},
                 {.name = "seed",
                  .kind = FlagKind::kInteger,
                  .placeholder = "N",
                  .fallback = "1",
                  .help = "of the held-out share and of fill in the middle",
                  .min = 0},
                 {.name = "invalid-text",
                  .placeholder = "WHAT",
                  .fallback = "refuse",
                  .help = "what to do with bytes that are not UTF-8",
                  .choices = {"refuse", "replace"}},
                 {.name = "fim-rate",
                  .kind = FlagKind::kNumber,
                  .placeholder = "SHARE",
                  .fallback = "0",
                  .help = "share of training documents rearranged prefix-suffix-middle",
                  .min = 0,
                  .max = 1},
                 {.name = "separate",
                  .kind = FlagKind::kSwitch,
                  .help = "a file for each source, train-NAME.h5, for weighted mixtures (data.mixture)"},
                 {.name = "list", .kind = FlagKind::kSwitch, .help = "print the named corpora and stop"},
                 {.name = "list-documents",
                  .kind = FlagKind::kSwitch,
                  .help = "print split, bytes and name of every document and stop"},
                 SetFlag(),
                 PrintConfigFlag(),
                 ThreadsFlag()},
       .examples =
           {"moebius data build --corpus austen --corpus bible --held-out austen/emma --out runs/books",
            "moebius data build recipes/quickstart.data.textproto --set vocab_size=8192 --out runs/try"},
       .max_positional = 1,
       .details = "Documents are deduplicated by content and held out whole. The same recipe over the same "
                  "text is recognised: "
                  "nothing is done then.",
       .run = RunDataBuild},
      {.name = "data text",
       .summary = "print the text of a token file",
       .usage = "FILE.h5",
       .flags = {},
       .examples = {"moebius data text runs/books/val.h5 | head",
                    "moebius data text runs/books/val.h5 | xz -9e | wc -c"},
       .min_positional = 1,
       .max_positional = 1,
       .run = RunDataText}};
}

}  // namespace moebius
