// A model folder ready to be asked: weights, tokenizer, chat template, what ends an answer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/device.h"
#include "core/base/status.h"
#include "core/generate/decoder.h"
#include "core/model/weights.h"
#include "data/chat_template.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// What --chat means for a folder. "auto": its own template, none where it has none; "none"; or a name of
// ChatTemplateNames. UsageError for an unknown name or a template that is not recognised.
absl::StatusOr<std::optional<ChatTemplate>> ChatTemplateOfFlag(const std::string& folder,
                                                               const std::string& choice);

struct LanguageModelOptions {
  DeviceOptions device = {};
  std::string compute = "auto";  // "fp32", "bf16"; auto: bf16 unless the checkpoint is stored in fp32
  bool int8 = false;             // decodes with weights of 8 bits
  std::optional<ChatTemplate> chat = {};
};

class LanguageModel {
 public:
  // MissingError without config.json, weights or tokenizer.json, UsageError for int8 where the device has
  // none.
  static absl::StatusOr<std::unique_ptr<LanguageModel>> Load(const std::string& folder,
                                                             const LanguageModelOptions& options);

  // The text with what the tokenizer puts around one, never empty. Special tokens in it stay text.
  absl::StatusOr<std::vector<int32_t>> TextPrompt(std::string_view text) const;
  // Up to where the next answer begins. UsageError where the model has no chat template.
  absl::StatusOr<std::vector<int32_t>> ChatPrompt(const std::vector<ChatMessage>& messages) const;

  // Ends of an answer: the config's and generation_config.json's end-of-text tokens, and the chat template's
  // end of an answer.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  const std::optional<ChatTemplate>& chat() const { return chat_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ModelConfig& config() const { return loaded_.config; }
  const Model& model() const { return *loaded_.model; }
  Decoder& decoder() { return *decoder_; }
  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }

 private:
  explicit LanguageModel(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::vector<int32_t> stop_ids_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  LoadedModel loaded_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace moebius
