#include "core/model/import_gguf.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/base/strings.h"
#include "tests/core/io/gguf_text.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

constexpr int64_t kHidden = 64, kHeads = 2, kKvHeads = 1, kHeadDim = 32, kMlp = 96, kVocab = 10;

std::vector<float> Ramp(int64_t rows, int64_t columns, float start) {
  std::vector<float> out(rows * columns);
  for (int64_t i = 0; i < rows * columns; ++i) out[i] = start + static_cast<float>(i % 251) / 8;
  return out;
}

// As the converters to GGUF write q and k: within a head the two halves of the rows alternate.
std::vector<float> Interleaved(const std::vector<float>& rows, int64_t heads) {
  std::vector<float> out;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < kHeadDim / 2; ++i) {
      for (const int64_t row : {head * kHeadDim + i, head * kHeadDim + kHeadDim / 2 + i}) {
        out.insert(out.end(), rows.begin() + row * kHidden, rows.begin() + (row + 1) * kHidden);
      }
    }
  }
  return out;
}

// Q8_0 with the scale 1/8, which holds Ramp exactly where start is a multiple of 1/8 and small.
std::string Q8(const std::vector<float>& values) {
  std::string out;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 32 == 0) out += LittleEndian<uint16_t>(0x3000);
    out += static_cast<char>(static_cast<int8_t>(values[i] * 8));
  }
  return out;
}

std::string BF16Bytes(const std::vector<float>& values) {
  std::string out;
  for (const float value : values) out += LittleEndian(BF16::FromFloat(value).bits);
  return out;
}

struct TinyGguf {
  GgufText text;
  std::map<std::string, std::vector<float>> wanted;  // by Hugging Face's name

  TinyGguf() {
    text.String("general.architecture", "llama");
    text.Int("llama.block_count", 1).Int("llama.context_length", 128).Int("llama.embedding_length", kHidden);
    text.Int("llama.feed_forward_length", kMlp).Int("llama.attention.head_count", kHeads);
    text.Int("llama.attention.head_count_kv", kKvHeads).Float("llama.rope.freq_base", 50000);
    text.Float("llama.attention.layer_norm_rms_epsilon", 1e-5f).Int("llama.rope.dimension_count", kHeadDim);
    text.Int("tokenizer.ggml.bos_token_id", 1).Int("tokenizer.ggml.eos_token_id", 2);
    const std::string layer = "model.layers.0.";
    Add("model.embed_tokens.weight", "token_embd.weight", kVocab, kHidden, 0);
    Add("model.norm.weight", "output_norm.weight", 1, kHidden, 0);
    Add(layer + "input_layernorm.weight", "blk.0.attn_norm.weight", 1, kHidden, 0);
    Add(layer + "post_attention_layernorm.weight", "blk.0.ffn_norm.weight", 1, kHidden, 0);
    Add(layer + "self_attn.q_proj.weight", "blk.0.attn_q.weight", kHeads * kHeadDim, kHidden, kHeads);
    Add(layer + "self_attn.k_proj.weight", "blk.0.attn_k.weight", kKvHeads * kHeadDim, kHidden, kKvHeads);
    Add(layer + "self_attn.v_proj.weight", "blk.0.attn_v.weight", kKvHeads * kHeadDim, kHidden, 0);
    Add(layer + "self_attn.o_proj.weight", "blk.0.attn_output.weight", kHidden, kHeads * kHeadDim, 0);
    Add(layer + "mlp.gate_proj.weight", "blk.0.ffn_gate.weight", kMlp, kHidden, 0);
    Add(layer + "mlp.up_proj.weight", "blk.0.ffn_up.weight", kMlp, kHidden, 0);
    Add(layer + "mlp.down_proj.weight", "blk.0.ffn_down.weight", kHidden, kMlp, 0);
  }

  // In F32, BF16 and Q8_0 by turns. `heads`: of a rotated matrix.
  void Add(const std::string& name, const std::string& gguf_name, uint64_t rows, uint64_t columns,
           int64_t heads) {
    const size_t turn = wanted.size();
    std::vector<float> values = Ramp(rows, columns, static_cast<float>(turn % 3) / 8 - 16);
    wanted[name] = values;
    if (heads > 0) values = Interleaved(values, heads);
    const std::vector<uint64_t> dims =
        rows == 1 ? std::vector<uint64_t>{columns} : std::vector{columns, rows};
    if (turn % 3 == 0) text.Tensor(gguf_name, dims, 0, LittleEndianList(values));
    if (turn % 3 == 1) text.Tensor(gguf_name, dims, 30, BF16Bytes(values));
    if (turn % 3 == 2) text.Tensor(gguf_name, dims, 8, Q8(values));
  }
};

absl::StatusOr<ConvertResult> Import(const GgufText& text, const Scratch& scratch, const std::string& to,
                                     const ConvertOptions& options = {.dtype = std::nullopt,
                                                                      .manifest = true}) {
  WriteRaw(scratch.path("tiny.gguf"), text.Text());
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(scratch.path("tiny.gguf")));
  return ImportGguf(file, scratch.path(to), options, {{"tokenizer.json", "{}"}});
}

TEST(ImportGguf, WritesAFolderWithTheUnpermutedWeights) {
  const Scratch scratch;
  const TinyGguf tiny;
  const auto result = Import(tiny.text, scratch, "out");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tensors, 11);
  const std::string out = scratch.path("out");
  const auto files = SafetensorsFolder::Open(out);
  ASSERT_TRUE(files.ok()) << files.status();
  for (const auto& [name, values] : tiny.wanted) {
    const auto found = ReadTensorF32(*files, out, name);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, values) << name;
  }
  EXPECT_EQ(files->Find("model.norm.weight")->dtype, DType::kBF16);                     // was BF16
  EXPECT_EQ(files->Find("model.layers.0.input_layernorm.weight")->dtype, DType::kF32);  // was Q8_0
  EXPECT_EQ(ReadRaw(out + "/tokenizer.json"), "{}");
  const std::string manifest = ReadRaw(out + "/manifest.json");
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    EXPECT_NE(manifest.find(name), std::string::npos) << name;
  }
  const auto config = LoadConfig(out);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_type, "llama");
  EXPECT_EQ(config->vocab_size, kVocab);
  EXPECT_EQ(config->num_attention_heads, kHeads);
  EXPECT_EQ(config->num_key_value_heads, kKvHeads);
  EXPECT_EQ(config->head_dim, kHeadDim);
  EXPECT_EQ(config->intermediate_size, kMlp);
  EXPECT_EQ(config->max_position_embeddings, 128);
  EXPECT_EQ(config->rope_theta, 50000);
  EXPECT_EQ(config->rms_norm_eps, 1e-5);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->eos_token_id, 2);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_NE(ReadRaw(out + "/config.json").find("\"torch_dtype\": \"float32\""), std::string::npos);
}

TEST(ImportGguf, AHeadOfItsOwnIsNotTied) {
  const Scratch scratch;
  TinyGguf tiny;
  tiny.Add("lm_head.weight", "output.weight", kVocab, kHidden, 0);
  ASSERT_TRUE(Import(tiny.text, scratch, "out").ok());
  EXPECT_FALSE(LoadConfig(scratch.path("out"))->tie_word_embeddings);
  const auto files = SafetensorsFolder::Open(scratch.path("out"));
  EXPECT_EQ(*ReadTensorF32(*files, "out", "lm_head.weight"), tiny.wanted["lm_head.weight"]);
}

TEST(ImportGguf, CanRoundEverythingToBF16) {
  const Scratch scratch;
  const TinyGguf tiny;
  ASSERT_TRUE(Import(tiny.text, scratch, "out", {.dtype = DType::kBF16}).ok());
  const auto files = SafetensorsFolder::Open(scratch.path("out"));
  ASSERT_TRUE(files.ok());
  for (const auto& [name, values] : tiny.wanted) EXPECT_EQ(files->Find(name)->dtype, DType::kBF16) << name;
  EXPECT_EQ(ReadRaw(scratch.path("out/manifest.json")), "");
  EXPECT_NE(ReadRaw(scratch.path("out/config.json")).find("\"bfloat16\""), std::string::npos);
}

TEST(ImportGguf, NamesWhatItCannotImport) {
  struct Case {
    std::function<void(GgufText&)> change;
    int exit_code;
    const char* message;
  };
  const auto replace = [](const char* key, uint32_t type, const std::string& bytes) {
    return [=](GgufText& text) {
      std::erase_if(text.values, [&](const std::string& v) { return v.starts_with(GgufString(key)); });
      if (!bytes.empty()) text.Value(key, type, bytes);
    };
  };
  const auto without = [](const char* name) {
    return [=](GgufText& text) {
      std::erase_if(text.infos, [&](const std::string& v) { return v.starts_with(GgufString(name)); });
    };
  };
  const std::string zero = LittleEndian<uint32_t>(0), one = LittleEndian<uint32_t>(1);
  const std::vector<Case> cases = {
      {replace("general.architecture", 8, GgufString("qwen2")), kExitUsage, "general.architecture \"qwen2\""},
      {replace("general.architecture", 8, ""), kExitDamaged, "general.architecture is missing"},
      {replace("llama.embedding_length", 4, zero), kExitDamaged, "llama.embedding_length is 0"},
      {replace("llama.embedding_length", 4, LittleEndian<uint32_t>(32)), kExitUsage,
       "llama.rope.dimension_count"},
      {replace("llama.feed_forward_length", 4, one), kExitDamaged,
       "blk.0.ffn_gate.weight does not have the shape"},
      {replace("llama.block_count", 4, LittleEndian<uint32_t>(2)), kExitDamaged, "tensor blk.1."},
      {replace("llama.attention.head_count_kv", 4, LittleEndian<uint32_t>(3)), kExitDamaged,
       "num_key_value_heads"},
      {replace("llama.attention.layer_norm_rms_epsilon", 6, ""), kExitDamaged,
       "layer_norm_rms_epsilon is missing"},
      {replace("llama.rope.dimension_count", 4, LittleEndian<uint32_t>(16)), kExitUsage,
       "dimension_count 16"},
      {replace("llama.rope.scaling.type", 8, GgufString("linear")), kExitUsage, "scaling.type \"linear\""},
      {[](GgufText& t) { t.Float("llama.rope.scaling.factor", 4); }, kExitUsage, "rope.scaling.factor 4"},
      {[](GgufText& t) { t.Float("llama.rope.scale_linear", 4); }, kExitUsage, "rope.scale_linear 4"},
      {[](GgufText& t) { t.Float("llama.attention.scale", 0.5f); }, kExitUsage, "attention.scale 0.5"},
      {[](GgufText& t) { t.Float("llama.rope.scaling.attn_factor", 2); }, kExitUsage, "attn_factor 2"},
      {replace("llama.attention.causal", 7, std::string(1, '\0')), kExitUsage, "attention.causal false"},
      {replace("split.count", 2, LittleEndian<uint16_t>(3)), kExitUsage, "is one of 3 parts"},
      {replace("llama.expert_count", 4, LittleEndian<uint32_t>(8)), kExitUsage, "llama.expert_count 8"},
      {replace("tokenizer.ggml.eos_token_id", 4, LittleEndian<uint32_t>(10)), kExitDamaged,
       "eos_token_id is 10"},
      {without("token_embd.weight"), kExitDamaged, "tensor token_embd.weight is missing"},
      {without("blk.0.attn_k.weight"), kExitDamaged, "tensor blk.0.attn_k.weight is missing"},
      {[](GgufText& t) { t.Tensor("blk.0.attn_q.bias", {1}, 0, "abcd"); }, kExitUsage,
       "tensor blk.0.attn_q.bias"},
      {[](GgufText& t) { t.Tensor("rope_freqs.weight", {1}, 0, "abcd"); }, kExitUsage, "rope_freqs.weight"},
  };
  for (const Case& c : cases) {
    const Scratch scratch;
    TinyGguf tiny;
    c.change(tiny.text);
    const auto result = Import(tiny.text, scratch, "out");
    ASSERT_FALSE(result.ok()) << c.message;
    EXPECT_EQ(ExitCode(result.status()), c.exit_code) << result.status();
    EXPECT_TRUE(Contains(result.status(), c.message)) << c.message << ": " << result.status();
    EXPECT_FALSE(FolderExists(scratch.path("out")));
  }
}

TEST(ImportGguf, DoesNotOverwrite) {
  const Scratch scratch;
  const TinyGguf tiny;
  WriteRaw(scratch.path("out"), "mine");
  EXPECT_EQ(ExitCode(Import(tiny.text, scratch, "out").status()), kExitCannotWrite);
  EXPECT_EQ(ReadRaw(scratch.path("out")), "mine");
}

}  // namespace
}  // namespace moebius
