#include <algorithm>
#include <cctype>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"

namespace moebius {
namespace {

// Every finding is one line "where: what; why; what to do".
class Checker {
 public:
  Checker(const proto::Recipe& recipe, std::string file, const Origins& origins,
          std::vector<std::string>* errors)
      : r_(recipe), file_(std::move(file)), origins_(origins), errors_(errors) {}

  void CheckAll() {
    CheckName();
    if (r_.task() == proto::PIPELINE) return CheckStages();
    CheckSource();
    CheckTask();
    CheckBatch();
    CheckOptimizer();
    CheckParallel();
    CheckExtras();
  }

 private:
  // What nobody wrote has no line: the recipe's file stands for its place.
  void Add(const std::string& path, std::string_view text) {
    const std::string place = OriginPrefix(origins_, path);
    errors_->push_back(Concat(place.empty() ? file_ + ": " : place, text));
  }

  void CheckName() {
    const std::string& name = r_.name();
    const bool plain = !name.empty() && name.size() <= 100 && name[0] != '.' && name[0] != '-' &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return std::isalnum(c) || c == '.' || c == '_' || c == '-';
                       });
    if (!plain) {
      Add("name", Concat("name is '", Printable(name),
                         "'; it becomes a folder: letters, digits and . _ - only, at most "
                         "100; set another name"));
    }
  }

  void CheckStages() {
    if (r_.stage().empty())
      Add("", "stage is missing; task PIPELINE runs one after the other; add stage { name recipe }");
    for (int i = 0; i < r_.stage_size(); ++i) {
      const auto& stage = r_.stage(i);
      if (stage.name().empty() || stage.recipe().empty()) {
        Add("", Concat("stage[", i, "] lacks name or recipe; a stage has both; add what is missing"));
      }
      for (int j = 0; j < i; ++j) {
        if (r_.stage(j).name() == stage.name()) {
          Add("", Concat("stage[", i, "].name is ", stage.name(), " like that of stage[", j,
                         "]; names tell stages apart; choose another"));
        }
      }
    }
  }

  void CheckSource() {
    if (r_.init().has_from() && r_.init().from().empty()) {
      Add("init.from", "init.from is empty; it names a Hugging Face folder or a checkpoint; write its path");
    }
    if (!r_.init().has_from() && !r_.has_model()) {
      Add("",
          "neither init.from nor model is given; a run needs weights or shapes; add init { from: \"DIR\" } "
          "or model { ... }");
    }
    if (r_.init().random() && !r_.init().has_from()) {
      Add("init.random",
          "init.random is set without init.from; it takes the shapes of that folder; add init.from or "
          "leave random out: a model { } section starts from random weights anyway");
    }
    if (r_.task() == proto::PRETRAIN) CheckTexts();
    if (r_.fork().has_step() && !r_.fork().has_from()) {
      Add("fork.step", "fork.step is set without fork.from; it is a step of another run; add its run folder");
    }
  }

  void CheckTexts() {
    const bool train = !r_.data().train().empty();
    if (train && r_.data().mixture_size() > 0) {
      Add("data.train", "data.train and data.mixture are both given; they contradict; keep one");
    }
    if (!train && r_.data().mixture_size() == 0) {
      Add("data.train",
          "data.train is missing; a run needs a token file; add data { train: \"train.h5\" } (moebius data "
          "build makes one)");
    }
    for (int i = 0; i < r_.data().mixture_size(); ++i) {
      if (r_.data().mixture(i).path().empty()) {
        Add("", Concat("data.mixture[", i,
                       "].path is missing; a part of the mixture is a token file; write its path"));
      }
    }
  }

  // Sections of the other tasks, where they are and where they are missing.
  void CheckTask() {
    const auto task = r_.task();
    const bool asks = r_.has_problems();
    if (task == proto::PRETRAIN) return;
    if ((task == proto::GRPO || task == proto::REJECTION) && !asks) {
      Add("",
          Concat("problems is missing; task ", proto::Task_Name(task),
                 " asks them and judges the answers; add problems { kind: \"sort\" } or problems { jsonl: "
                 "\"FILE\" }"));
    }
    if ((task == proto::SFT || task == proto::DISTILL) && !asks && r_.sft().data().empty()) {
      Add("", Concat("sft.data is missing; task ", proto::Task_Name(task),
                     " learns from conversations; add sft { data: \"FILE.jsonl\" }, or problems whose worked "
                     "answers it learns"));
    }
    if (task == proto::DISTILL && r_.distill().teacher().empty()) {
      Add("distill.teacher",
          "distill.teacher is missing; task DISTILL learns a model's probabilities; add distill { teacher: "
          "\"DIR\" }, a checkpoint or a Hugging Face folder with the same tokenizer");
    }
    if (task == proto::DPO && r_.dpo().data().empty()) {
      Add("", "dpo.data is missing; task DPO learns from pairs of answers; add dpo { data: \"FILE.jsonl\" }");
    }
    const auto& problems = r_.problems();
    const bool holds_none_out =
        !problems.jsonl().empty() && problems.held_out() == 0 && problems.held_out_jsonl().empty();
    if (holds_none_out && r_.evaluate().ByteSizeLong() > 0) {
      Add("",
          "evaluate is given and problems.held_out is 0; no problem is held out to ask; leave evaluate out, "
          "raise problems.held_out, or give problems.held_out_jsonl");
    }
    if (r_.rl().has_top_p() && r_.rl().top_p() == 0) {
      Add("rl.top_p", "rl.top_p is 0; no token would be left; use 1 for all, or a low rl.temperature");
    }
    const std::string tag = Concat("<", r_.answer().answer_tag(), ">");
    for (const auto& [where, begin] :
         {std::pair(proto::Answer::TAGS, tag), std::pair(proto::Answer::BOXED, std::string("\\boxed"))}) {
      if (r_.answer().where() != where || r_.open_answer().find(begin) == std::string::npos) continue;
      Add("open_answer",
          Concat("open_answer has ", begin, ", where answer.where ", proto::Answer::Where_Name(where),
                 " looks for in what the model says behind it; no answer would be found; end ",
                 "open_answer before it"));
    }
    const bool exact = task == proto::GRPO && r_.rl().rollout() == proto::Rl::EXACT;
    if (exact && r_.precision().compute() == proto::Precision::FP8) {
      Add("precision.compute",
          "precision.compute is FP8 with rl.rollout EXACT; sampling does not round as training does; set "
          "rl.rollout: FAST, which measures the gap and corrects for it");
    }
    if (exact && r_.device() == proto::CUDA) {
      Add("rl.rollout",
          "rl.rollout is EXACT on device CUDA; only the CPU's kernels give a row the same bits in every "
          "batch; set rl.rollout: FAST, which measures the gap and corrects for it");
    }
    if (r_.rl().rollout() == proto::Rl::INT8 && r_.device() == proto::CUDA) {
      Add("rl.rollout",
          "rl.rollout is INT8 on device CUDA; only the CPU has products in 8 bits; set rl.rollout: FAST");
    }
  }

  void CheckBatch() {
    const auto& batch = r_.batch();
    const int64_t micro = batch.microbatch_sequences();
    const auto divides = [&](int64_t sequences, const std::string& path) {
      if (micro > 0 && sequences > 0 && sequences % micro != 0) {
        Add(path, Concat(path, " is ", sequences, " and batch.microbatch_sequences ", micro,
                         "; a batch is a whole number of microbatches; use a divisor, for example ",
                         LargestDivisor(sequences, micro)));
      }
    };
    divides(batch.sequences(), "batch.sequences");
    int64_t last = -1;
    for (int i = 0; i < batch.ramp_size(); ++i) {
      const std::string path = Concat("batch.ramp[", i, "]");
      if (!batch.ramp(i).has_at_step() || !batch.ramp(i).has_to_sequences()) {
        Add(path, path + " lacks at_step or to_sequences; a point of the ramp has both; add what is missing");
        continue;
      }
      if (batch.ramp(i).at_step() <= last) {
        Add(path + ".at_step", Concat(path, ".at_step is ", batch.ramp(i).at_step(), " after ", last,
                                      "; the points must rise; put them in order"));
      }
      last = batch.ramp(i).at_step();
      divides(batch.ramp(i).to_sequences(), path + ".to_sequences");
    }
  }

  static int64_t LargestDivisor(int64_t n, int64_t limit) {
    int64_t best = 1;
    for (int64_t d = 1; d <= std::min(n, limit) && d <= 65536; ++d) {
      if (n % d == 0) best = d;
    }
    return best;
  }

  void CheckOptimizer() {
    const auto& o = r_.optimizer();
    const bool piecewise = o.schedule() == proto::Optimizer::V3_PIECEWISE;
    const auto [slowest, beta] = std::max(std::pair(o.beta1(), "beta1 "), std::pair(o.beta2(), "beta2 "));
    if (o.moments() == proto::Optimizer::BF16 && slowest > 0.99) {
      Add("optimizer.moments",
          Concat("optimizer.moments is BF16 and ", beta, slowest,
                 "; so slow a decay is rounded away in 8 bits; use FP32, or one up to 0.99"));
    }
    if (o.warmup_steps() > r_.steps()) {
      Add("optimizer.warmup_steps", Concat("optimizer.warmup_steps is ", o.warmup_steps(), " of ", r_.steps(),
                                           " steps; the run would end while warming up; shorten it"));
    }
    if (!piecewise && o.min_lr() > o.lr()) {
      Add("optimizer.min_lr", Concat("optimizer.min_lr is ", o.min_lr(), " above optimizer.lr ", o.lr(),
                                     "; schedules only fall; lower it"));
    }
    if (piecewise && o.phase_size() > 0 && o.has_lr() && o.lr() != o.phase(0).from_lr()) {
      Add("optimizer.lr",
          Concat("optimizer.lr is ", o.lr(), " and optimizer.phase[0].from_lr ", o.phase(0).from_lr(),
                 "; the second is what warm-up rises to, and the rate would jump; leave lr out"));
    }
    if (piecewise && o.phase_size() == 0) {
      Add("optimizer.schedule",
          "optimizer.schedule is V3_PIECEWISE without optimizer.phase; it consists of phases; add "
          "phase { steps from_lr to_lr }");
    }
    for (int i = 0; i < o.phase_size(); ++i) {
      if (!o.phase(i).has_steps() || !o.phase(i).has_from_lr() || !o.phase(i).has_to_lr()) {
        Add("", Concat("optimizer.phase[", i,
                       "] lacks steps, from_lr or to_lr; a phase has all three; add what is missing"));
      }
    }
    if (o.schedule() == proto::Optimizer::WSD && o.warmup_steps() <= r_.steps() &&
        (o.decay_steps() < 1 || o.decay_steps() + o.warmup_steps() > r_.steps())) {
      Add("optimizer.decay_steps",
          Concat("optimizer.decay_steps is ", o.decay_steps(), " of ", r_.steps(), " steps with ",
                 o.warmup_steps(),
                 " of warm-up; schedule WSD decays in the last decay_steps of the "
                 "run; ",
                 o.warmup_steps() < r_.steps() ? Concat("choose 1 to ", r_.steps() - o.warmup_steps())
                                               : "leave steps for it"));
    }
  }

  void CheckParallel() {
    const auto& p = r_.parallel();
    static const std::vector<std::string> kSchedules = {"gpipe", "1f1b",     "interleaved", "zb_h1",
                                                        "zbv",   "dualpipe", "dualpipev"};
    const bool known = std::find(kSchedules.begin(), kSchedules.end(), p.schedule()) != kSchedules.end();
    if (!known && !p.schedule().ends_with(".txt")) {
      Add("parallel.schedule", Concat("parallel.schedule is '", Printable(p.schedule()), "'; it is one of ",
                                      Join(kSchedules), ", or a schedule file NAME.txt; correct the name"));
    }
    if (p.combine() == proto::Parallel::FP8) {
      Add("parallel.combine", "parallel.combine is FP8, which sums do not survive; use ACT or BF16");
    }
    if (p.exchange() == proto::Parallel::GATHER &&
        (p.dispatch() != proto::Parallel::ACT || p.combine() != proto::Parallel::ACT)) {
      Add("parallel.exchange",
          "parallel.exchange is GATHER, which sends rows as they are computed; leave parallel.dispatch and "
          "parallel.combine ACT, or set parallel { exchange: FLAT }");
    }
    if (p.exchange() == proto::Parallel::GATHER && p.max_expert_rows() > 0) {
      Add("parallel.max_expert_rows",
          "parallel.max_expert_rows is set with parallel.exchange GATHER, whose buffers always hold the most "
          "rows that may come: every layer would be computed in chunks, twice; leave it out, or use another "
          "exchange");
    }
  }

  void CheckExtras() {
    if (r_.validate().every_steps() > 0 && r_.data().validation().empty()) {
      Add("validate.every_steps",
          "validate.every_steps is set without data.validation; there is nothing to validate on; "
          "add data { validation: \"val.h5\" } or set it to 0");
    }
    if (r_.sample().every_steps() > 0 && r_.sample().prompts_size() == 0) {
      Add("sample.every_steps",
          "sample.every_steps is set without sample.prompts; there is nothing to continue; add "
          "prompts: \"...\" or set it to 0");
    }
    if (r_.sample().has_top_p() && r_.sample().top_p() == 0) {
      Add("sample.top_p",
          "sample.top_p is 0; no token would be left; use temperature: 0 for the likeliest token");
    }
  }

  const proto::Recipe& r_;
  const std::string file_;
  const Origins& origins_;
  std::vector<std::string>* errors_;
};

}  // namespace

void CheckDependencies(const proto::Recipe& recipe, const std::string& path, const Origins& origins,
                       std::vector<std::string>* errors) {
  Checker(recipe, path, origins, errors).CheckAll();
}

}  // namespace moebius
