// A checkpoint is of no layout: what one wrote, any other goes on from.
#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/random.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/safetensors_shards.h"
#include "core/model/score.h"
#include "core/model/weights.h"
#include "gtest/gtest.h"
#include "optim/checkpoint.h"
#include "optim/stored.h"
#include "optim/whole_model.h"
#include "parallel/comm/solo_world.h"
#include "tests/core/io/scratch.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

using nlohmann::json;

constexpr int64_t kSequences = 16, kLength = 8;

ModelConfig SmallModel() {
  ModelConfig m = TinyConfig();
  m.num_hidden_layers = 5;
  return m;
}

TrainConfig SmallTraining() {
  TrainConfig c;
  c.steps = 4;
  c.microbatch_sequences = 1;
  c.schedule.lr = 1e-3;
  c.bias_update_speed = 0.01;
  c.sequence_loss = 1e-2;
  c.optimizer.ema_decay = 0.9;
  return c;
}

// The eight of bar c, and the same numbers of ranks in other shapes.
const std::vector<Layout>& SavedLayouts() {
  static const std::vector<Layout> layouts = {
      {},
      {.data = 2},
      {.expert = 2},
      {.expert = 4},
      {.pipeline = 2},
      {.pipeline = 2, .expert = 2, .schedule = "zbv"},
      {.pipeline = 4, .schedule = "dualpipe"},
      {.pipeline = 2, .data = 2, .expert = 2, .schedule = "dualpipev"},
  };
  return layouts;
}

// A trainer of one rank.
struct Running {
  std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  std::unique_ptr<Trainer> trainer;
  DType act = DType::kF32;

  absl::Status Start(World& world, const Layout& layout, uint64_t seed) {
    ModelOptions options;
    options.storage = {.act = act, .training = true};
    options.max_positions = kLength + 1;
    ASSIGN_OR_RETURN(trainer,
                     Trainer::New(world, *backend, *stream, SmallModel(), options, layout, SmallTraining()));
    for (Model* model : trainer->stages().models()) {
      model->parameters().Initialize(*backend, *stream, seed, 0.1f);
    }
    trainer->optimizer().ResetEma(trainer->context());
    return absl::OkStatus();
  }

  // Step `index` of one stream of random tokens.
  absl::StatusOr<StepMetrics> Step(int64_t index) {
    const RandomStream random(7, "tokens");
    std::vector<int32_t> tokens(kSequences * (kLength + 1));
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(random.Below(index * tokens.size() + i, SmallModel().vocab_size));
    }
    return trainer->Step(
        {.tokens = tokens, .sequences = kSequences, .length = kLength, .document_starts = {}});
  }
};

using Tensors = std::map<std::string, std::string>;  // bytes by name

// "NAME TOTAL FIRST COUNT\n", then the bytes: elements of `view` from piece to piece.
void AddPieces(const Context& context, const Parameter& parameter, int64_t begin, TensorView view,
               const std::string& kind, std::string& out) {
  std::vector<float> values(view.elements());
  context.backend.CopyToHost(context.stream, view.Reshape({view.elements()}), values.data());
  context.stream.Synchronize();
  const int64_t end = begin + view.elements();
  for (const Piece& piece : parameter.spec().pieces) {
    const int64_t from = std::max(begin, piece.offset);
    const int64_t to = std::min(end, piece.offset + piece.shape.elements());
    if (from >= to) continue;
    out +=
        Concat(kind, piece.name, " ", piece.shape.elements(), " ", from - piece.offset, " ", to - from, "\n");
    out.append(reinterpret_cast<const char*>(values.data() + from - begin), (to - from) * sizeof(float));
  }
}

// Collective, the same on all ranks: every logical tensor of the training state. Moments come from the slices
// that ranks own; weights and biases from every rank that computes with them, which must agree.
absl::StatusOr<Tensors> GatherState(const Trainer& trainer) {
  const Context& context = trainer.context();
  std::string mine;
  for (const Model* model : trainer.stages().models()) {
    for (const auto& parameter : model->parameters().all()) {
      AddPieces(context, *parameter, 0, parameter->weight(), "w.", mine);
    }
  }
  for (const AdamWOptimizer::State& state : trainer.optimizer().states()) {
    const auto& [parameter, offset, count] = state.slice;
    AddPieces(context, *parameter, offset, state.m, "m.", mine);
    AddPieces(context, *parameter, offset, state.v, "v.", mine);
    AddPieces(context, *parameter, offset, state.ema, "ema.", mine);
    AddPieces(context, *parameter, offset, state.slice.Of(parameter->master()), "master.", mine);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> all, trainer.mesh().GatherText(mine));
  Tensors out;
  std::map<std::string, std::string> seen;  // '1' where an element has been filled
  for (const std::string& text : all) {
    for (size_t at = 0; at < text.size();) {
      const size_t line = text.find('\n', at);
      char name[512];
      long long total = 0, first = 0, count = 0;
      CHECK_EQ(std::sscanf(text.c_str() + at, "%511s %lld %lld %lld", name, &total, &first, &count), 4);
      std::string& to = out[name];
      std::string& filled = seen[name];
      to.resize(total * sizeof(float));
      filled.resize(total, '0');
      const std::string bytes = text.substr(line + 1, count * sizeof(float));
      const bool again = filled.find('1', first) < static_cast<size_t>(first + count);
      if (again && to.compare(first * sizeof(float), bytes.size(), bytes) != 0) {
        return absl::InternalError(Concat("two ranks hold different ", name));
      }
      if (again && name[0] != 'w') return absl::InternalError(Concat("two ranks own ", name));
      to.replace(first * sizeof(float), bytes.size(), bytes);
      filled.replace(first, count, count, '1');
      at = line + 1 + bytes.size();
    }
  }
  for (const auto& [name, filled] : seen) {
    if (filled.find('0') != std::string::npos)
      return absl::InternalError(Concat("nobody owns all of ", name));
  }
  return out;
}

std::vector<float> Scores(const Model& model, const Context& context) {
  const std::vector<int32_t> ids = {3, 1, 4, 1, 5, 9, 2, 6}, starts = {0, 8};
  Microbatch microbatch(context.backend, model.num_slots());
  return ScoreSequences(model, context, microbatch, ids, starts)[0];
}

// What a layout saved, and how it went on.
struct Saved {
  std::string folder;
  Tensors tensors;
  TrainerState state;
  std::vector<double> losses;  // of the next two steps: main, MTP and balance of each
  std::vector<float> scores;
};

void AddLosses(const StepMetrics& m, std::vector<double>& to) {
  to.insert(to.end(), {m.loss, m.mtp_loss, m.balance_loss});
}

absl::Status SaveUnder(World& world, const Layout& layout, const std::string& folder, Saved* out) {
  Running run;
  RETURN_IF_ERROR(run.Start(world, layout, /*seed=*/3));
  WorldGuard guard(&world);
  for (int i = 0; i < 2; ++i) RETURN_IF_ERROR(run.Step(i).status());
  run.trainer->state().elapsed_s = 12.5;
  run.trainer->state().best_step = 1;
  run.trainer->state().best_val_loss = 3.25;
  RETURN_IF_ERROR(SaveCheckpoint(folder, *run.trainer, {.instruction_set = "SET"}));
  Saved saved{.folder = folder, .tensors = {}, .state = run.trainer->state(), .losses = {}, .scores = {}};
  ASSIGN_OR_RETURN(saved.tensors, GatherState(*run.trainer));
  ModelOptions options;
  options.max_positions = kLength + 1;
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> whole, GatherWholeModel(*run.trainer, options));
  if (whole != nullptr) saved.scores = Scores(*whole, run.trainer->context());
  for (int i = 2; i < 4; ++i) {
    ASSIGN_OR_RETURN(const StepMetrics m, run.Step(i));
    AddLosses(m, saved.losses);
  }
  if (world.rank() == 0) *out = std::move(saved);
  RETURN_IF_ERROR(run.trainer->Close());
  guard.Dismiss();
  return absl::OkStatus();
}

absl::Status LoadUnder(World& world, const Layout& layout, const std::string& folder, Saved* out) {
  Running run;
  RETURN_IF_ERROR(run.Start(world, layout, /*seed=*/99));  // everything must come from the folder
  WorldGuard guard(&world);
  std::string warning;
  RETURN_IF_ERROR(LoadCheckpoint(folder, *run.trainer, "SET", &warning));
  Saved loaded{.folder = folder, .tensors = {}, .state = run.trainer->state(), .losses = {}, .scores = {}};
  ASSIGN_OR_RETURN(loaded.tensors, GatherState(*run.trainer));
  for (int i = 2; i < 4; ++i) {
    ASSIGN_OR_RETURN(const StepMetrics m, run.Step(i));
    AddLosses(m, loaded.losses);
  }
  if (world.rank() == 0) *out = std::move(loaded);
  RETURN_IF_ERROR(run.trainer->Close());
  guard.Dismiss();
  return absl::OkStatus();
}

absl::Status OnRanks(const Layout& layout, const std::function<absl::Status(World&)>& body) {
  return RunRanks(layout.ranks(), {}, body);
}

// Every layout's checkpoint, written once.
const Saved& SavedBy(size_t index) {
  static Scratch scratch;
  static std::map<size_t, Saved> saved;
  if (!saved.contains(index)) {
    const std::string folder = scratch.path(Concat("from", index));
    Saved* const out = &saved[index];  // once: ranks are threads
    const absl::Status status = OnRanks(SavedLayouts()[index], [&](World& world) {
      return SaveUnder(world, SavedLayouts()[index], folder, out);
    });
    CHECK(status.ok()) << std::string(status.message());
  }
  return saved[index];
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

class ReshardTest : public testing::TestWithParam<std::tuple<size_t, size_t>> {};

TEST_P(ReshardTest, LoadsEveryByteAndGoesOnAlike) {
  const auto [from, to] = GetParam();
  const Saved& saved = SavedBy(from);
  Saved loaded;
  const absl::Status status = OnRanks(
      SavedLayouts()[to], [&](World& w) { return LoadUnder(w, SavedLayouts()[to], saved.folder, &loaded); });
  ASSERT_TRUE(status.ok()) << Text(status);
  ASSERT_EQ(loaded.tensors.size(), saved.tensors.size());
  for (const auto& [name, bytes] : saved.tensors) {
    EXPECT_TRUE(loaded.tensors[name] == bytes) << name << " was loaded with other bytes";
  }
  EXPECT_EQ(loaded.state.step, 2);
  EXPECT_EQ(loaded.state.updates, saved.state.updates);
  EXPECT_EQ(loaded.state.sequences, 2 * kSequences);
  EXPECT_EQ(loaded.state.tokens, 2 * kSequences * kLength);
  EXPECT_EQ(loaded.state.skipped_steps, 0);
  EXPECT_EQ(loaded.state.bad_in_a_row, 0);
  EXPECT_EQ(loaded.state.best_step, 1);
  EXPECT_EQ(loaded.state.best_val_loss, 3.25);
  EXPECT_EQ(loaded.state.elapsed_s, 12.5);
  ASSERT_EQ(loaded.losses.size(), saved.losses.size());
  for (size_t i = 0; i < saved.losses.size(); ++i) {
    EXPECT_NEAR(loaded.losses[i], saved.losses[i], 1e-6 * std::abs(saved.losses[i])) << "loss " << i;
  }
}

std::string Digits(const Layout& l) { return Concat("pp", l.pipeline, "dp", l.data, "ep", l.expert); }

INSTANTIATE_TEST_SUITE_P(Pairs, ReshardTest,
                         testing::Combine(testing::Range<size_t>(0, 8), testing::Range<size_t>(0, 8)),
                         [](const auto& info) {
                           return Concat(Digits(SavedLayouts()[std::get<0>(info.param)]), "_to_",
                                         Digits(SavedLayouts()[std::get<1>(info.param)]));
                         });

// In bf16 a rank's step moves the masters of its own slices alone.
TEST(ReshardTest, GathersTheMastersOfABf16RunBeforeTheyAreWritten) {
  const Layout layout{.data = 2};
  const absl::Status status = OnRanks(layout, [&](World& world) -> absl::Status {
    Running run;
    run.act = DType::kBF16;
    RETURN_IF_ERROR(run.Start(world, layout, /*seed=*/3));
    WorldGuard guard(&world);
    RETURN_IF_ERROR(run.Step(0).status());
    const auto equal = [&]() -> absl::StatusOr<bool> {
      std::string mine;
      for (const auto& p : run.trainer->model().parameters().all()) {
        const std::vector<float> values =
            GetParameter(*run.backend, *run.stream, *p, 0, p->shape().elements());
        mine.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
      }
      ASSIGN_OR_RETURN(const std::vector<std::string> all, run.trainer->mesh().GatherText(mine));
      return all[0] == all[1];
    };
    ASSIGN_OR_RETURN(const bool before, equal());
    EXPECT_FALSE(before) << "the test would see nothing";
    RETURN_IF_ERROR(run.trainer->GatherMasters());
    ASSIGN_OR_RETURN(const bool after, equal());
    EXPECT_TRUE(after);
    RETURN_IF_ERROR(run.trainer->Close());
    guard.Dismiss();
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << Text(status);
}

TEST(ReshardTest, AnyLayoutsCheckpointIsAModelFolderWithTheRunsScores) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  Arena scratch(*backend);
  for (size_t i = 0; i < SavedLayouts().size(); ++i) {
    ModelOptions options;
    options.max_positions = kLength + 1;
    options.storage.training = false;
    options.mtp = false;
    const absl::StatusOr<LoadedModel> loaded = LoadModel(SavedBy(i).folder, *backend, *stream, options);
    ASSERT_TRUE(loaded.ok()) << Text(loaded.status());
    const std::vector<float> scores = Scores(*loaded->model, Context{*backend, *stream, scratch});
    EXPECT_EQ(scores, SavedBy(i).scores) << ToText(SavedLayouts()[i]);
    for (size_t t = 0; t < scores.size(); ++t) EXPECT_NEAR(scores[t], SavedBy(0).scores[t], 1e-5);
  }
}

// A copy of a checkpoint whose optimizer set is rewritten by `change` and whose manifest agrees with it: the
// hashes do not help.
std::string Rewritten(const Scratch& scratch, const std::string& from,
                      const std::function<void(std::map<std::string, std::vector<float>>&)>& change) {
  const std::string to = scratch.path("damaged");
  CHECK_EQ(
      std::system(Concat("rm -rf ", to, " && cp -r ", from, " ", to, " && rm ", to, "/optimizer*").c_str()),
      0);
  const SafetensorsFolder files = *SafetensorsFolder::Open(from, "optimizer");
  std::map<std::string, std::vector<float>> tensors;
  for (const std::string& name : files.names()) tensors[name] = *ReadTensorF32(files, from, name);
  change(tensors);
  std::vector<TensorSpec> specs;
  for (const auto& [name, values] : tensors) {
    specs.push_back({name, DType::kF32, {static_cast<int64_t>(values.size())}});
  }
  const std::vector<WrittenFile> written = *WriteTensors(
      to, specs, [&](const std::string& name) -> absl::StatusOr<std::vector<float>> { return tensors[name]; },
      "optimizer");
  json manifest = *ReadJsonFile(JoinPath(to, "manifest.json"));
  std::erase_if(manifest["files"].get_ref<json::object_t&>(),
                [](const auto& entry) { return entry.first.starts_with("optimizer"); });
  for (const WrittenFile& file : written) {
    manifest["files"][file.name] = {{"sha256", file.hash.sha256}, {"bytes", file.hash.bytes}};
  }
  CHECK(WriteFileAtomically(JoinPath(to, "manifest.json"), DumpJson(manifest, 2)).ok());
  return to;
}

// A slice of a second half of a tensor, by name: "m.NAME[FIRST:LAST]" with FIRST > 0.
std::string LaterSlice(const std::map<std::string, std::vector<float>>& tensors) {
  for (const auto& [name, values] : tensors) {
    const size_t bracket = name.rfind('[');
    if (bracket != std::string::npos && name[bracket + 1] != '0' && values.size() > 8) return name;
  }
  CHECK(false) << "no slice";
  return "";
}

TEST(ReshardTest, RefusesSlicesThatAreNotTheTensorAndNamesFileAndTensor) {
  const Scratch scratch;
  const std::string from = SavedBy(1).folder;  // data 2: sliced moments
  std::string victim;
  struct Damage {
    const char* what;
    std::function<void(std::map<std::string, std::vector<float>>&)> change;
    const char* says;
  };
  const auto renamed = [&](std::map<std::string, std::vector<float>>& t, int64_t first_by, int64_t last_by,
                           int64_t size_by) {
    victim = LaterSlice(t);
    std::vector<float> values = t[victim];
    t.erase(victim);
    const size_t bracket = victim.rfind('[');
    long long first = 0, last = 0;
    CHECK_EQ(std::sscanf(victim.c_str() + bracket, "[%lld:%lld]", &first, &last), 2);
    values.resize(values.size() + size_by);
    victim = Concat(victim.substr(0, bracket), "[", first + first_by, ":", last + last_by, "]");
    t[victim] = values;
  };
  const std::vector<Damage> damages = {
      {"a hole", [&](auto& t) { renamed(t, 2, 0, -2); }, "hole"},
      {"an overlap", [&](auto& t) { renamed(t, -2, 0, 2); }, "overlaps"},
      {"a wrong size", [&](auto& t) { renamed(t, 0, 0, -1); }, "elements"},
      {"an end too early", [&](auto& t) { renamed(t, 0, -1, -1); }, "ends at element"},
      {"an end too late", [&](auto& t) { renamed(t, 0, 3, 3); }, "ends at element"},
      {"a slice and the whole",
       [&](auto& t) {
         victim = LaterSlice(t);
         t[victim.substr(0, victim.rfind('['))] = std::vector<float>(4);
         victim = victim.substr(0, victim.rfind('['));
       },
       "overlaps"},
      {"a lost slice",
       [&](auto& t) {
         victim = LaterSlice(t);
         t.erase(victim);
         victim = victim.substr(0, victim.rfind('['));
       },
       "ends at element"},
      {"a name that is no slice",
       [&](auto& t) {
         victim = LaterSlice(t);
         t[victim.substr(0, victim.rfind('[')) + "[x:9]"] = {1};
         victim = victim.substr(0, victim.rfind('[')) + "[x:9]";
       },
       "no slice"},
  };
  for (const Damage& damage : damages) {
    const std::string folder = Rewritten(scratch, from, damage.change);
    for (const Layout& layout : {SavedLayouts()[0], SavedLayouts()[5]}) {
      Saved loaded;
      const absl::Status status =
          OnRanks(layout, [&](World& w) { return LoadUnder(w, layout, folder, &loaded); });
      EXPECT_EQ(ExitCode(status), kExitDamaged) << damage.what << ": " << Text(status);
      EXPECT_NE(Text(status).find(damage.says), std::string::npos) << damage.what << ": " << Text(status);
      EXPECT_NE(Text(status).find(victim), std::string::npos) << damage.what << ": " << Text(status);
      EXPECT_NE(Text(status).find("damaged/optimizer"), std::string::npos) << Text(status);
    }
  }
  const std::string whole = Rewritten(scratch, from, [](auto&) {});
  Saved loaded;
  EXPECT_TRUE(OnRanks({}, [&](World& w) { return LoadUnder(w, {}, whole, &loaded); }).ok())
      << "rewriting alone does no damage";
}

}  // namespace
}  // namespace moebius
