#include "data/build_options.h"

#include <set>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "data/corpora/corpus.h"
#include "data/data.pb.h"

namespace moebius {
namespace {

absl::StatusOr<SourceOptions> SourceFrom(const proto::DataBuild& recipe, int index,
                                         const std::set<std::string>& names) {
  const proto::DataBuild::Source& source = recipe.source(index);
  const std::string field = Concat("source[", index, "]");
  const int given = source.has_corpus() + source.has_text() + source.has_jsonl();
  if (given != 1) {
    return UsageError(Concat(field, ": gives ", given,
                             " of corpus, text and jsonl; a source has exactly one; correct the recipe"));
  }
  const auto needs = [&](bool given, bool read, const char* what, const char* kind) {
    return given && !read ? UsageError(Concat(field, ".", what, ": only a source with ", kind,
                                              " reads it; remove the field"))
                          : absl::OkStatus();
  };
  RETURN_IF_ERROR(needs(source.has_text_field(), source.has_jsonl(), "text_field", "jsonl"));
  RETURN_IF_ERROR(needs(source.has_root(), source.has_corpus(), "root", "corpus"));
  SourceOptions options{.name = source.name(),
                        .corpus = source.corpus(),
                        .text = source.text(),
                        .jsonl = source.jsonl(),
                        .text_field = source.text_field(),
                        .roots = {}};
  if (!source.corpus().empty()) {
    if (!options.name.empty() && options.name != source.corpus()) {
      return UsageError(Concat(field, ".name: a named corpus keeps its own name, '", source.corpus(),
                               "'; remove the field"));
    }
    options.name = source.corpus();
  }
  if (options.name.empty()) {
    // The last plain part of the path: "notes" of "my/notes/**/*.txt".
    std::string path = source.has_text() ? source.text() : source.jsonl();
    if (const size_t star = path.find_first_of("*?"); star != std::string::npos) {
      path = path.substr(0, path.rfind('/', star) == std::string::npos ? 0 : path.rfind('/', star));
    }
    options.name = FileName(path);
    if (!IsPlainFileName(options.name)) options.name = Concat("source", index);  // of "." and ".."
  }
  if (!IsPlainFileName(options.name)) {
    return UsageError(Concat(field, ".name: '", Printable(options.name),
                             "' is no plain name (it becomes part of a file name); give one without '/'"));
  }
  if (names.contains(options.name)) {
    return UsageError(Concat(field, ".name: '", Printable(options.name),
                             "' is the name of two sources; give one another name, for example --set '",
                             field, ".name=\"", Printable(options.name), "-2\"'"));
  }
  if (source.has_root()) {
    options.roots = {source.root()};
  } else if (recipe.has_root()) {
    options.roots = {recipe.root()};
  } else {
    options.roots = DefaultCorpusRoots();
  }
  return options;
}

}  // namespace

absl::StatusOr<DocumentSetOptions> DocumentSetOptionsFrom(const proto::DataBuild& recipe) {
  DocumentSetOptions options;
  options.leave_out = recipe.out();
  if (recipe.source_size() == 0) {
    return UsageError(
        "source: no text is named; give --corpus austen, --text FOLDER or --jsonl FILE, or in a recipe "
        "source { corpus: \"austen\" }, source { text: \"FOLDER\" } or source { jsonl: \"FILE\" }");
  }
  std::set<std::string> names;
  for (int i = 0; i < recipe.source_size(); ++i) {
    ASSIGN_OR_RETURN(SourceOptions source, SourceFrom(recipe, i, names));
    names.insert(source.name);
    options.sources.push_back(std::move(source));
  }
  options.held_out.assign(recipe.held_out().begin(), recipe.held_out().end());
  if (!(recipe.held_out_fraction() >= 0 && recipe.held_out_fraction() < 1)) {
    return UsageError(Concat("held_out_fraction: ", recipe.held_out_fraction(),
                             " is not a share from 0 to below 1; correct the recipe"));
  }
  if (!(recipe.fim_rate() >= 0 && recipe.fim_rate() <= 1)) {
    return UsageError(
        Concat("fim_rate: ", recipe.fim_rate(), " is not a share from 0 to 1; correct the recipe"));
  }
  options.held_out_fraction = recipe.held_out_fraction();
  options.seed = recipe.seed();
  options.deduplicate = recipe.deduplicate();
  options.invalid_text =
      recipe.invalid_text() == proto::DataBuild::REPLACE ? InvalidText::kReplace : InvalidText::kRefuse;
  return options;
}

absl::StatusOr<LoaderOptions> LoaderOptionsFrom(const proto::Data& data, int64_t sequence_length,
                                                int64_t vocab_size, uint64_t seed) {
  LoaderOptions options{
      .parts = {},
      .sequence_length = sequence_length,
      .shuffle = data.shuffle(),
      .packing = data.pack() == proto::Data::DOCUMENTS ? Packing::kDocuments : Packing::kContiguous,
      .seed = seed,
      .vocab_size = vocab_size,
      .fim_rate = data.fim_rate()};
  const bool train = !data.train().empty();
  if (train == (data.mixture_size() > 0)) {
    return UsageError(train ? "data: both train and mixture are set; keep one"
                            : "data.train: no token file; set it (moebius data build makes one), or mixture");
  }
  if (train) options.parts.push_back({data.train(), 1});
  for (int k = 0; k < data.mixture_size(); ++k) {
    if (data.mixture(k).path().empty()) {
      return UsageError(Concat("data.mixture[", k, "].path: no token file; set it"));
    }
    options.parts.push_back({data.mixture(k).path(), data.mixture(k).weight()});
  }
  return options;
}

}  // namespace moebius
