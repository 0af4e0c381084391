#include "launch/train/sampling.h"

#include "core/base/strings.h"
#include "core/generate/decoder.h"
#include "core/generate/generate.h"
#include "data/special_tokens.h"
#include "launch/recipe.pb.h"
#include "optim/whole_model.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<PromptSampler>> PromptSampler::Make(const proto::Recipe& recipe,
                                                                   const Training& training,
                                                                   const TokenizerFiles& files) {
  if (files.tokenizer_json.empty()) {
    return UsageError(
        "sample.every_steps is set, but no tokenizer is known; the token file carries none and init.from has "
        "no tokenizer.json; build the data with moebius data build, or leave sample out");
  }
  ASSIGN_OR_RETURN(Tokenizer tokenizer,
                   Tokenizer::FromJson(files.tokenizer_json, "tokenizer of the token file"));
  for (const std::string& prompt : recipe.sample().prompts())
    RETURN_IF_ERROR(
        Annotate(tokenizer.CheckNothingIsLost(prompt, {.parse_special = false}), "sample.prompts"));
  return std::unique_ptr<PromptSampler>(new PromptSampler(recipe, training, std::move(tokenizer)));
}

absl::StatusOr<std::vector<SampleRow>> PromptSampler::Run(int64_t step) const {
  const auto& sample = recipe_.sample();
  Trainer& trainer = *training_.trainer;
  std::unique_ptr<Model> gathered;
  if (!trainer.holds_whole_model()) {
    int64_t positions = sample.max_new() + 8;  // a token is a byte at least
    for (const std::string& prompt : sample.prompts()) {
      positions = std::max<int64_t>(positions, prompt.size() + sample.max_new() + 8);
    }
    ASSIGN_OR_RETURN(
        gathered,
        GatherWholeModel(trainer, {.storage = {.act = trainer.stages().model(0).options().storage.act},
                                   .max_positions = positions,
                                   .mtp = false}));
  }
  if (trainer.mesh().all().rank() != 0) return std::vector<SampleRow>();
  const Model& model = gathered != nullptr ? *gathered : trainer.model();
  Decoder decoder(model, *training_.backend, *training_.stream, {});
  const std::optional<int32_t> end = FindEndOfDocument(tokenizer_);
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < sample.prompts_size(); ++i) {
    GenerateRequest& request = requests.emplace_back();
    request.prompt = tokenizer_.Encode(sample.prompts(i), EncodeOptions{.parse_special = false});
    // What an empty prompt continues: the end of some earlier document.
    if (request.prompt.empty()) request.prompt.push_back(end.value_or(0));
    request.max_new = sample.max_new();
    request.sampling = {.temperature = sample.temperature(),
                        .top_k = sample.top_k(),
                        .top_p = sample.top_p(),
                        .seed = recipe_.seed() + static_cast<uint64_t>(step)};
    request.sequence = i;
    if (end) request.stop.push_back(*end);
  }
  ASSIGN_OR_RETURN(const std::vector<GenerateResult> results, Generate(decoder, requests, {}));
  std::vector<SampleRow> rows;
  rows.reserve(results.size());
  for (int i = 0; i < sample.prompts_size(); ++i) {
    rows.push_back({.step = step,
                    .prompt = sample.prompts(i),
                    .text = tokenizer_.DecodeText(results[i].tokens, SpecialTokens::kSkip)});
  }
  return rows;
}

}  // namespace moebius
