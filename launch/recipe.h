// A training recipe, read and checked: file, includes, then --set, every value with its origin. The sections
// are handed on as messages; who reads them includes "launch/recipe.pb.h" in its .cc.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "launch/textproto.h"

namespace moebius {

namespace proto {
class Model;
class Recipe;
}  // namespace proto

class Recipe {
 public:
  // Errors: 66 (no such file), 64 with every mistake on a line of its own: unknown names, ranges of all
  // numbers, sizes that do not divide, sections that contradict each other, what this build cannot do yet.
  static absl::StatusOr<Recipe> Load(const std::string& path, const std::vector<std::string>& sets);
  // The same from memory; `name` stands for the path.
  static absl::StatusOr<Recipe> FromText(std::string_view text, const std::string& name,
                                         const std::vector<std::string>& sets);
  // Only parsed, not checked: a saved recipe.resolved.textproto to compare with.
  static absl::StatusOr<Recipe> LoadUnchecked(const std::string& path);

  Recipe(Recipe&&) noexcept;
  Recipe& operator=(Recipe&&) noexcept;
  ~Recipe();

  const proto::Recipe& proto() const { return *proto_; }

  // The model that init.from's config.json describes: fills what the recipe leaves open; a field that the
  // recipe sets itself stays. `origin`: "DIR/config.json". Of `model`, fields that its family does not read
  // are dropped; of the recipe's own they are a UsageError, as are sizes that the weights do not have.
  absl::Status FillModel(const proto::Model& model, const std::string& origin);

  // "FILE:LINE: FIELD: " for messages about what a field names; "FIELD: " where nobody wrote it.
  std::string Where(const std::string& field) const;

  // A folder that stands in for init.from, which ToText goes on naming.
  void ReadInitFrom(const std::string& folder);
  // Another vocabulary than FillModel has filled in.
  void SetVocabSize(int64_t size, const std::string& origin);

  // Every value with its origin, as recipe.resolved.textproto and --print-config show it.
  std::string ToText() const;

  // Leaf path -> value as protobuf text, defaults included: for comparing recipes.
  std::map<std::string, std::string> Values() const;

  // 64 with each difference unless `*this` may continue a run that was started with `saved`: only length,
  // layout, logging, sampling and checkpoint fields, and folders of data, may have changed.
  absl::Status CheckResumable(const Recipe& saved) const;

 private:
  Recipe();
  absl::Status Finish(const std::string& path, const std::vector<std::string>& sets);
  void CheckReaders(const std::string& path, std::vector<std::string>* errors);
  void CheckFitsWeights(const proto::Model& model, const std::string& origin,
                        std::vector<std::string>* errors) const;

  std::unique_ptr<proto::Recipe> proto_;
  Origins origins_;
  std::string written_init_from_;  // where ReadInitFrom has set another; else ""
};

// Allowed values of every number of a recipe.
const std::vector<NumberRange>& RecipeRanges();

// What ranges cannot say: how fields depend on each other. `path`: the recipe's file, the place of what
// nobody wrote.
void CheckDependencies(const proto::Recipe& recipe, const std::string& path, const Origins& origins,
                       std::vector<std::string>* errors);

// Fields that not every family, task or schedule reads.
const std::vector<FieldReaders>& RecipeReaders();

// "runs/quickstart.textproto" -> "quickstart".
std::string RecipeStem(const std::string& path);

}  // namespace moebius
