#include "core/model/import_gguf.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/base/strings.h"

namespace moebius {
namespace {

// Parts of a layer's tensor names, Hugging Face's and GGUF's.
constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

// "blk.3.attn_q.weight" of "model.layers.3.self_attn.q_proj.weight"; "" for a name that a llama has not.
std::string GgufName(const std::string& name) {
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  constexpr std::string_view kPrefix = "model.layers.", kSuffix = ".weight";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return "";
  const size_t dot = name.find('.', kPrefix.size());
  const std::string_view layer = std::string_view(name).substr(kPrefix.size(), dot - kPrefix.size());
  const std::string_view part =
      std::string_view(name).substr(dot + 1, name.size() - dot - 1 - kSuffix.size());
  for (const auto& [ours, theirs] : kLayerNames) {
    if (part == ours) return Concat("blk.", layer, ".", theirs, ".weight");
  }
  return "";
}

// The shortest decimal that is this fp32 value: 1e-05, where the double nearest to the float is
// 9.99999974737875e-06.
double ShortestDecimal(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  std::from_chars(text, end, value);
  return value;
}

// Refuses what would change the mathematics and is not supported.
absl::Status RefuseUnsupported(const GgufFile& file, const ModelConfig& c) {
  const auto refuse = [&](const std::string& what) {
    return UsageError(Concat(file.path(), ": ", what, " is not supported; take a model without it"));
  };
  ASSIGN_OR_RETURN(const int64_t experts, file.GetIntOr("llama.expert_count", 0));
  if (experts > 0) return refuse(Concat("llama.expert_count ", experts));
  ASSIGN_OR_RETURN(const std::string scaling, file.GetStringOr("llama.rope.scaling.type", "none"));
  if (scaling != "none") return refuse(Concat("llama.rope.scaling.type \"", Printable(scaling), "\""));
  // Without a type llama.cpp scales linearly by either of these (its loader, llama-model.cpp).
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    ASSIGN_OR_RETURN(const double factor, file.GetDoubleOr(key, 1));
    if (!file.Has("llama.rope.scaling.type") && factor != 0 && factor != 1)
      return refuse(Concat(key, " ", factor));
  }
  ASSIGN_OR_RETURN(const double attention_scale, file.GetDoubleOr("llama.attention.scale", 0));
  ASSIGN_OR_RETURN(const double attention_factor, file.GetDoubleOr("llama.rope.scaling.attn_factor", 1));
  if (attention_factor != 1) return refuse(Concat("llama.rope.scaling.attn_factor ", attention_factor));
  ASSIGN_OR_RETURN(const bool causal, file.GetBoolOr("llama.attention.causal", true));
  if (!causal) return refuse("llama.attention.causal false");
  if (attention_scale != 0) return refuse(Concat("llama.attention.scale ", attention_scale));
  if (file.Find("rope_freqs.weight") != nullptr) return refuse("rope scaling by tensor rope_freqs.weight");
  if (file.Has("llama.attention.sliding_window")) return refuse("sliding-window attention");
  for (const char* key : {"llama.rope.dimension_count", "llama.attention.value_length"}) {
    ASSIGN_OR_RETURN(const int64_t size, file.GetIntOr(key, c.head_dim));
    if (size != c.head_dim) return refuse(Concat(key, " ", size, " beside heads of ", c.head_dim));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const GgufFile& file, const std::vector<TensorSpec>& specs) {
  std::set<std::string, std::less<>> known;
  for (const TensorSpec& spec : specs) {
    const std::string& name = *known.insert(GgufName(spec.name)).first;
    const GgufTensor* tensor = file.Find(name);
    if (tensor == nullptr) {
      return DamagedError(
          Concat(file.path(), ": tensor ", name, " is missing; the file is incomplete; fetch it again"));
    }
    if (tensor->shape != spec.shape) {
      return DamagedError(Concat(file.path(), ": tensor ", name,
                                 " does not have the shape that the metadata asks for; the file is damaged; "
                                 "fetch it again"));
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (known.contains(tensor.name)) continue;
    return UsageError(Concat(file.path(), ": tensor ", Printable(tensor.name),
                             " is none that a llama has; importing without it would change the model; take "
                             "another file"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string architecture, file.GetString("general.architecture"));
  if (architecture != "llama") {
    return UsageError(
        Concat(file.path(), ": general.architecture \"", Printable(architecture),
               "\" is not supported; supported: llama; import the model's Hugging Face folder"));
  }
  ASSIGN_OR_RETURN(const int64_t parts, file.GetIntOr("split.count", 1));
  if (parts > 1) {
    return UsageError(Concat(file.path(), ": is one of ", parts,
                             " parts of a model (split.count); merge them with llama.cpp's llama-gguf-split "
                             "--merge and import the whole"));
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  ModelConfig c;
  c.model_type = "llama";
  c.attention = AttentionKind::kGqa;
  c.scoring = Scoring::kSoftmax;
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) {
    return DamagedError(
        Concat(file.path(), ": tensor token_embd.weight is missing; the file is incomplete; fetch it again"));
  }
  c.vocab_size = embedding->shape.front();
  if (constexpr std::string_view kTokens = "tokenizer.ggml.tokens"; file.Has(kTokens)) {
    ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.GetStrings(kTokens));
    if (std::ssize(tokens) > c.vocab_size) {
      return DamagedError(Concat(file.path(), ": ", kTokens, " has ", tokens.size(),
                                 " tokens, token_embd.weight ", c.vocab_size,
                                 " rows; the file is damaged; fetch it again"));
    }
  }
  ASSIGN_OR_RETURN(c.hidden_size, file.GetInt("llama.embedding_length", 1, kMost));
  ASSIGN_OR_RETURN(c.intermediate_size, file.GetInt("llama.feed_forward_length", 1, kMost));
  ASSIGN_OR_RETURN(c.num_hidden_layers, file.GetInt("llama.block_count", 1, 65'536));
  ASSIGN_OR_RETURN(c.num_attention_heads, file.GetInt("llama.attention.head_count", 1, kMost));
  ASSIGN_OR_RETURN(c.num_key_value_heads,
                   file.GetIntOr("llama.attention.head_count_kv", c.num_attention_heads, 1, kMost));
  ASSIGN_OR_RETURN(c.head_dim, file.GetIntOr("llama.attention.key_length",
                                             c.hidden_size / c.num_attention_heads, 1, kMost));
  ASSIGN_OR_RETURN(c.max_position_embeddings, file.GetInt("llama.context_length", 1, kMost));
  ASSIGN_OR_RETURN(const double theta, file.GetDoubleOr("llama.rope.freq_base", 10000));
  ASSIGN_OR_RETURN(const double epsilon, file.GetDouble("llama.attention.layer_norm_rms_epsilon"));
  c.rope_theta = ShortestDecimal(theta);
  c.rms_norm_eps = ShortestDecimal(epsilon);
  c.tie_word_embeddings = file.Find("output.weight") == nullptr;
  ASSIGN_OR_RETURN(c.bos_token_id, file.GetIntOr("tokenizer.ggml.bos_token_id", -1, 0, c.vocab_size - 1));
  ASSIGN_OR_RETURN(c.eos_token_id, file.GetIntOr("tokenizer.ggml.eos_token_id", -1, 0, c.vocab_size - 1));
  RETURN_IF_ERROR(RefuseUnsupported(file, c));
  if (const absl::Status status = Validate(c, file.path()); !status.ok())
    return DamagedError(std::string(status.message()));
  return c;
}

absl::StatusOr<std::vector<float>> ReadGgufTensor(const GgufFile& file, const ModelConfig& config,
                                                  const std::string& name) {
  const GgufTensor* tensor = file.Find(GgufName(name));
  if (tensor == nullptr) {
    return DamagedError(
        Concat(file.path(), ": has no tensor for ", name, "; the file is incomplete; fetch it again"));
  }
  std::vector<float> values = file.ReadF32(*tensor);
  const bool rotated = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
  if (!rotated) return values;
  std::vector<float> ordered(values.size());
  const int64_t columns = tensor->shape.back(), half = config.head_dim / 2;
  for (int64_t row = 0; row < tensor->shape.front(); ++row) {
    const int64_t head = row / config.head_dim, within = row % config.head_dim;
    const int64_t from = head * config.head_dim + 2 * (within % half) + within / half;
    std::copy_n(values.begin() + from * columns, columns, ordered.begin() + row * columns);
  }
  return ordered;
}

absl::StatusOr<ConvertResult> ImportGguf(const GgufFile& file, const std::string& to,
                                         const ConvertOptions& options,
                                         const std::map<std::string, std::string>& companions) {
  ASSIGN_OR_RETURN(const ModelConfig config, ConfigFromGguf(file));
  CheckpointContent content{
      .config = config,
      .tensors = CheckpointTensors(config, options.dtype.value_or(DType::kF32)),
      .read = [&](const std::string& name) { return ReadGgufTensor(file, config, name); },
      .companions = companions,
      .manifest = options.manifest};
  RETURN_IF_ERROR(CheckTensors(file, content.tensors));
  for (TensorSpec& spec : content.tensors) {
    const bool stays = file.Find(GgufName(spec.name))->type == GgufType::kBF16;
    if (!options.dtype && stays) spec.dtype = DType::kBF16;
  }
  return WriteCheckpointFolder(to, content);
}

}  // namespace moebius
