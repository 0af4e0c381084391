// Decoding speed with random weights: generate_bench CONFIG.json [ACT [BATCH [PROMPT [NEW [DEVICE]]]]] prints
// one JSON line for the whole job (prefill and steps, as `generate` of other programs counts): the best of
// five rounds, its split, and the median. CONFIG "llama135m" stands for the shape of SmolLM2-135M; DEVICE is
// cpu or cuda. With a batch of one and the model's own weights the line has the share of the measured read
// bandwidth at which they are read. In the environment: PROFILE=1 adds the time of every kernel (it slows the
// run, on a GPU much), RECORD=0 makes every call of every step where steps would be replayed, TOP_K=N draws
// among the N best, on the host, EXACT=1 decodes with the bits of the training forward, INT8=1 with weights
// of 8 bits, DRAFTS=1 gives the model an MTP module and drafts with it: random weights accept nearly none, so
// tokens/s times (1 + acceptance) is what a trained module would give.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/backend/device.h"
#include "core/backend/measure.h"
#include "core/backend/ops.h"
#include "core/base/status.h"
#include "core/generate/generate.h"
#include "core/io/file.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

ModelConfig Llama135M() {
  ModelConfig c;
  c.model_type = "llama";
  c.attention = AttentionKind::kGqa;
  c.vocab_size = 49152;
  c.hidden_size = 576;
  c.intermediate_size = 1536;
  c.num_hidden_layers = 30;
  c.num_attention_heads = 9;
  c.num_key_value_heads = 3;
  c.head_dim = 64;
  c.max_position_embeddings = 2048;
  c.rope_theta = 100000;
  c.scoring = Scoring::kSoftmax;
  c.tie_word_embeddings = true;
  return c;
}

// Uniform numbers, the same few over and over: Initialize's normal ones take minutes for this many weights.
// Their number is prime, so that no two rows begin alike.
void Fill(Model& model, Backend& backend, Stream& stream) {
  constexpr int64_t kNumbers = 1048573;
  Arena scratch(backend);
  const Context context{backend, stream, scratch};
  uint32_t state = 1;
  std::vector<float> values(kNumbers);
  for (float& v : values) {
    state = state * 1664525u + 1013904223u;
    v = 0.06f * (static_cast<float>(state >> 8) / 16777216.0f - 0.5f);
  }
  const TensorView numbers = scratch.New(DType::kF32, {kNumbers});
  backend.CopyToDevice(stream, values.data(), numbers);
  for (const auto& parameter : model.parameters().all()) {
    const TensorView weight = parameter->weight().Reshape({parameter->shape().elements()});
    if (parameter->spec().init == Init::kOnes) {
      moebius::Fill(context, weight, 1);
      continue;
    }
    for (int64_t begin = 0; begin < weight.elements(); begin += kNumbers) {
      const int64_t count = std::min(kNumbers, weight.elements() - begin);
      Cast(context, numbers.Rows(0, count), weight.Rows(begin, count));
    }
  }
  stream.Synchronize();
}

// Bytes of weights that one token reads: everything but an untied embedding, and of experts those chosen.
double WeightBytes(const Model& model) {
  double bytes = 0;
  const ModelConfig& c = model.config();
  for (const auto& parameter : model.parameters().all()) {
    if (parameter->name() == "model.embed_tokens.weight" && !c.tie_word_embeddings) continue;
    const double share =
        parameter->spec().expert ? static_cast<double>(c.num_experts_per_tok) / c.n_routed_experts : 1;
    bytes += share * static_cast<double>(parameter->weight().bytes());
  }
  return bytes;
}

void PrintProfile(const KernelProfile& profile) {
  std::vector<std::pair<std::string, KernelProfile::Entry>> rows(profile.entries().begin(),
                                                                 profile.entries().end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  for (const auto& [name, e] : rows) {
    std::printf("%-24s %8lld calls %9.3f ms %8.2f us/call %8.1f GFLOP/s %7.1f GB/s\n", name.c_str(),
                static_cast<long long>(e.calls), 1e3 * e.seconds, 1e6 * e.seconds / e.calls,
                1e-9 * e.flops / e.seconds, 1e-9 * e.bytes / e.seconds);
  }
}

int Main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "llama135m", act_name = argc > 2 ? argv[2] : "bf16";
  const int64_t batch = argc > 3 ? std::atoll(argv[3]) : 1, prompt = argc > 4 ? std::atoll(argv[4]) : 64;
  const int64_t max_new = argc > 5 ? std::atoll(argv[5]) : 32;
  const auto device = DeviceFromName(argc > 6 ? argv[6] : "cpu");
  if (!device) return std::fprintf(stderr, "DEVICE is cpu or cuda\n"), 64;
  const char* int8_text = std::getenv("INT8");
  const bool int8 = int8_text != nullptr && *int8_text == '1';
  const char* exact_text = std::getenv("EXACT");
  const bool exact = exact_text != nullptr && *exact_text == '1';
  auto made = MakeBackend({.device = *device, .batch_invariant = exact});
  if (!made.ok()) return std::fprintf(stderr, "%s\n", made.status().ToString().c_str()), 69;
  const std::unique_ptr<Backend> backend = *std::move(made);
  if (int8) {
    const absl::Status status =
        exact ? UsageError("EXACT=1 with INT8=1") : DecodeWeights::CheckInt8(*backend);
    if (!status.ok()) return std::fprintf(stderr, "%s\n", status.ToString().c_str()), 64;
  }
  const auto stream = backend->NewStream(StreamKind::kCompute);
  ModelConfig config = Llama135M();
  if (name != "llama135m") {
    const auto text = ReadFile(name);
    if (!text.ok()) return std::fprintf(stderr, "%s\n", text.status().ToString().c_str()), 66;
    config = *ConfigFromJson(*text, name);
  }
  const char* drafts_text = std::getenv("DRAFTS");
  const bool drafts = drafts_text != nullptr && *drafts_text == '1';
  config.num_nextn_predict_layers = drafts ? 1 : 0;
  Model model(config, *backend, *stream,
              {.storage = {.act = act_name == "fp32" ? DType::kF32 : DType::kBF16, .training = false}});
  Fill(model, *backend, *stream);

  KernelProfile profile;
  const bool profiling = std::getenv("PROFILE") != nullptr;
  const char* record = std::getenv("RECORD");
  const char* top_k = std::getenv("TOP_K");
  Decoder decoder(model, *backend, *stream,
                  {.profile = profiling ? &profile : nullptr,
                   .record = record == nullptr || *record != '0',
                   .exact = exact,
                   .int8 = int8,
                   .drafts = drafts});
  std::vector<GenerateRequest> requests;
  for (int64_t i = 0; i < batch; ++i) {
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < prompt; ++t)
      ids.push_back(static_cast<int32_t>((i * 7919 + t * 104729 + 13) % config.vocab_size));
    requests.push_back({.prompt = ids,
                        .max_new = max_new,
                        .sampling = {.top_k = top_k == nullptr ? 0 : std::atoll(top_k)},
                        .sequence = static_cast<uint64_t>(i)});
  }
  double best = 1e30, first_token = 0;
  std::vector<double> rounds;
  int64_t tried = 0, accepted = 0;
  for (int round = 0; round < 5; ++round) {
    profile.Clear();
    double first = 0;
    const auto start = Clock::now();
    const auto results =
        Generate(decoder, requests, {.max_batch = batch, .on_token = [&](size_t, const SampledToken&) {
                                       if (first == 0) first = Since(start);
                                       return true;
                                     }});
    const double seconds = Since(start);
    if (!results.ok()) return std::fprintf(stderr, "%s\n", results.status().ToString().c_str()), 1;
    for (const GenerateResult& r : *results) tried += r.drafts, accepted += r.accepted_drafts;
    if (seconds < best) best = seconds, first_token = first;
    rounds.push_back(seconds);
  }
  std::sort(rounds.begin(), rounds.end());
  const double tokens = static_cast<double>(batch * max_new), median = rounds[rounds.size() / 2];
  const double step = (best - first_token) / static_cast<double>(std::max<int64_t>(max_new - 1, 1));
  std::printf(
      "{\"model\":\"%s\",\"backend\":\"%s\",\"act\":\"%s\",\"batch\":%lld,\"prompt\":%lld,\"new\":%lld,"
      "\"tokens_per_s\":%.1f,\"median_tokens_per_s\":%.1f,"
      "\"prefill_s\":%.4f,"
      "\"step_ms\":%.3f",
      name.c_str(), backend->Name().c_str(), act_name.c_str(), static_cast<long long>(batch),
      static_cast<long long>(prompt), static_cast<long long>(max_new), tokens / best, tokens / median,
      first_token, 1e3 * step);
  if (drafts) {
    std::printf(",\"draft_acceptance\":%.4f",
                static_cast<double>(accepted) / static_cast<double>(std::max<int64_t>(tried, 1)));
  }
  if (batch == 1 && !drafts && !int8) {
    const double bandwidth = MeasureReadBandwidth(*backend), read = WeightBytes(model) / step;
    std::printf(",\"weight_gb_per_s\":%.2f,\"read_bandwidth_gb_per_s\":%.2f,\"share\":%.3f", 1e-9 * read,
                1e-9 * bandwidth, read / bandwidth);
  }
  std::printf("}\n");
  if (profiling) PrintProfile(profile);
  return 0;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { return moebius::Main(argc, argv); }
