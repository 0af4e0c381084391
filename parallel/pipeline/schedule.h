// A pipeline schedule is data: for every pipeline rank the list of actions it runs in one training step.
// Generators append compute actions (generate.h), Lower adds communication (lower.h); validate.h, simulate.h,
// timeline.h and the engine read the same object. Nothing here knows tensors.
//
// The model is cut into `stages` stages; microbatch m runs F of stages 0, 1, ... and then I of stages ..., 1,
// 0. Usually a stage lives on one rank. DualPipe feeds microbatches from both ends: stage s is held by rank s
// for those of direction 0 and by rank PP-1-s for those of direction 1, so it has two holders (replicas).
//
// What crosses ranks besides activations and their gradients: the embedding table, when the last stage needs
// it too (tied head, MTP modules). Each rank that holds the first or the last stage then has one copy, used
// by both stages where it holds both, and REDUCE_TIED sums the copies' gradients. Tokens and labels do not
// travel here: every rank of a pipeline reads the same microbatches from the loader.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace moebius {

enum class ActionKind : uint8_t {
  kForward,         // F: forward of a stage
  kBackwardInput,   // I: gradient of the stage's input; needs the gradient of its output
  kBackwardWeight,  // W: gradients of the stage's weights, any time after I and its SEND; frees what both
                    // needed
  kBackward,        // B: I then W, as one action; its gradient leaves when both are done
  kOverlap,         // two compute actions of different microbatches, their segments interleaved
  kSendForward,     // the output of F(stage, microbatch) to `peer`, which holds stage + 1
  kRecvForward,     // the input of F(stage, microbatch) from `peer`, which holds stage - 1
  kSendBackward,    // the result of I(stage, microbatch) to `peer`, which holds stage - 1
  kRecvBackward,    // what I(stage, microbatch) needs from `peer`, which holds stage + 1
  kReduceGrad,      // gradients of the stage over its holders and the data ranks, without a shared table
  kReduceTied,      // gradient of the shared embedding table over all its copies and the data ranks
  kOptimize,        // waits for the reductions, then clips and updates
  kUpdateBias,      // marks where expert biases move, by this step's counts: the trainer's update does it
};

// F, I, W or B of one microbatch on one stage.
struct Compute {
  ActionKind kind = ActionKind::kForward;
  int stage = 0;
  int microbatch = 0;
  bool operator==(const Compute&) const = default;
};

// Sends, receives and reductions are posted in list order and never hold up compute: an action waits for what
// it needs, OPTIMIZE for all reductions. Messages from one rank to another arrive in the order they were
// sent.
struct Action {
  ActionKind kind = ActionKind::kForward;
  int stage = -1;                       // all but kOverlap, kReduceTied, kOptimize, kUpdateBias
  int microbatch = -1;                  // F, I, W, B, SEND, RECV
  int peer = -1;                        // SEND, RECV: a pipeline rank
  std::array<Compute, 2> overlap = {};  // kOverlap
  bool operator==(const Action&) const = default;
};

// The one or two compute parts of an action, none for communication; a range.
struct ComputeParts {
  std::array<Compute, 2> parts = {};
  int size = 0;
  const Compute* begin() const { return parts.data(); }
  const Compute* end() const { return parts.data() + size; }
};
ComputeParts PartsOf(const Action& action);

Action ComputeAction(ActionKind kind, int stage, int microbatch);
Action OverlapAction(const Compute& a, const Compute& b);

bool IsCompute(ActionKind kind);          // F, I, W, B, OVERLAP
bool HasForward(ActionKind kind);         // F
bool HasBackwardInput(ActionKind kind);   // I and B
bool HasBackwardWeight(ActionKind kind);  // W and B

struct Schedule {
  std::string name;
  int ranks = 0;
  int stages = 0;
  int microbatches = 0;
  std::vector<std::vector<int>> holders;     // [directions][stages]: the rank
  std::vector<std::vector<Action>> actions;  // [ranks]
  bool operator==(const Schedule&) const = default;

  int directions() const { return static_cast<int>(holders.size()); }
  // Microbatches are dealt to directions in contiguous blocks: with two, the first half enters at rank 0.
  int Direction(int microbatch) const;
  // The rank that runs `stage` for `microbatch`.
  int Holder(int stage, int microbatch) const { return holders[Direction(microbatch)][stage]; }
  // The ranks that have the stage's parameters, each once, rising.
  std::vector<int> HoldersOf(int stage) const;
  // The stages whose parameters a rank has, rising.
  std::vector<int> StagesOf(int rank) const;
  // The ranks that hold the first or the last stage, rising: those with a copy of a shared embedding table.
  std::vector<int> TiedHolders() const;
  // True if no rank has a communication action yet (Lower adds them).
  bool ComputeOnly() const;
};

// "F0.3" (stage 0, microbatch 3), "(F1.3|B0.2)", "SEND_F0.3>1", "RECV_B0.3<1", "REDUCE_GRAD2", "REDUCE_TIED",
// "OPTIMIZE", "UPDATE_BIAS": the form that ScheduleFromText reads.
std::string ToText(const Action& action);
std::string ToText(const Compute& part);
// "F", "SEND_F", ...; "" for OVERLAP, which has no word.
const char* KindWord(ActionKind kind);

}  // namespace moebius
