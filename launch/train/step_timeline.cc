#include "launch/train/step_timeline.h"

#include <chrono>
#include <cstdio>
#include <sstream>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One rank's spans from its text.
void Parse(const std::string& text, int rank, std::vector<TimelineSpan>& out) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line.substr(1));
    TimelineSpan span;
    span.rank = rank;
    in >> span.start >> span.end;
    if (line[0] == 'C') {
      int kind = 0;
      in >> kind >> span.action.stage >> span.action.microbatch;
      span.action.kind = static_cast<ActionKind>(kind);
      for (Compute& part : span.action.overlap) {
        in >> kind >> part.stage >> part.microbatch;
        part.kind = static_cast<ActionKind>(kind);
      }
    } else {
      span.lane = TimelineLane::kExchange;
      span.action.kind = line[0] == 'R' ? ActionKind::kReduceGrad : ActionKind::kSendForward;
      in.get();
      std::getline(in, span.label);
    }
    out.push_back(std::move(span));
  }
}

// Mean times of the step's actions by stage; of overlapped pairs together.
PipelineCosts CostsOf(const std::vector<TimelineSpan>& spans, int stages) {
  struct Mean {
    double sum = 0;
    int count = 0;
    void Add(double value) { sum += value, ++count; }
    double Get(double otherwise) const { return count > 0 ? sum / count : otherwise; }
  };
  std::vector<Mean> forward(stages), input(stages), weight(stages), both(stages);
  Mean pair;
  for (const TimelineSpan& span : spans) {
    const double time = span.end - span.start;
    const Action& a = span.action;
    if (span.lane != TimelineLane::kCompute) continue;
    if (a.kind == ActionKind::kForward) forward[a.stage].Add(time);
    if (a.kind == ActionKind::kBackwardInput) input[a.stage].Add(time);
    if (a.kind == ActionKind::kBackwardWeight) weight[a.stage].Add(time);
    if (a.kind == ActionKind::kBackward) both[a.stage].Add(time);
    if (a.kind == ActionKind::kOverlap) pair.Add(time);
  }
  PipelineCosts costs;
  costs.stages.assign(stages, {});
  for (int s = 0; s < stages; ++s) {
    // Where all of a kind are overlapped, a third of the pair is a fair guess.
    const double part = pair.Get(0) / 3;
    costs.stages[s].forward = forward[s].Get(part);
    const double b = both[s].Get(2 * part);
    costs.stages[s].backward_input = input[s].Get(b / 2);
    costs.stages[s].backward_weight = weight[s].Get(b - b / 2);
  }
  if (pair.count > 0) costs.overlapped_pair = pair.Get(0);
  return costs;
}

}  // namespace

absl::Status StepTimeline::Begin() {
  Mesh& mesh = trainer_.mesh();
  Stream& stream = mesh.stream("control");
  mesh.all().Barrier(stream, {.what = "timeline"});
  stream.Synchronize();
  RETURN_IF_ERROR(mesh.all().status());
  origin_ = Now();
  trainer_.set_timeline(&compute_);
  mesh.world().SetTrace([this](const World::Traced& t) {
    // A message's two ends wait for each other: their calls say little about the transfer.
    if (t.call == Call::kSend || t.call == Call::kRecv) return;
    std::string label = t.what;
    if (t.layer >= 0) label += Concat(" layer ", t.layer);
    std::lock_guard lock(mutex_);
    exchanges_.push_back({std::move(label), t.start, t.end, t.what == "gradients"});
  });
  return absl::OkStatus();
}

void StepTimeline::StopListening() {
  trainer_.set_timeline(nullptr);
  trainer_.mesh().world().SetTrace(nullptr);
}

std::string StepTimeline::MineAsText() const {
  std::string out;
  char times[64];
  for (const TimelineSpan& span : compute_) {
    std::snprintf(times, sizeof times, "%.9f %.9f ", span.start - origin_, span.end - origin_);
    const Action& a = span.action;
    out += Concat("C", times, static_cast<int>(a.kind), " ", a.stage, " ", a.microbatch);
    for (const Compute& part : a.overlap) {
      out += Concat(" ", static_cast<int>(part.kind), " ", part.stage, " ", part.microbatch);
    }
    out += "\n";
  }
  for (const Exchange& exchange : exchanges_) {
    std::snprintf(times, sizeof times, "%.9f %.9f ", exchange.start - origin_, exchange.end - origin_);
    out += Concat(exchange.reduction ? "R" : "X", times, exchange.label, "\n");
  }
  return out;
}

absl::StatusOr<std::string> StepTimeline::End(bool as_trace) {
  Mesh& mesh = trainer_.mesh();
  StopListening();
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, mesh.GatherText(MineAsText()));
  if (mesh.all().rank() != 0) return std::string();
  const Layout& layout = mesh.layout();
  const Schedule& schedule = trainer_.schedule();
  Timeline measured{.title = "measured", .unit = "s", .shape = schedule, .shards = layout.batch_shards()};
  measured.shape.actions.clear();
  for (int r = 0; r < mesh.all().size(); ++r) Parse(texts[r], r, measured.spans);
  const absl::StatusOr<Simulation> run = Simulate(schedule, CostsOf(measured.spans, schedule.stages));
  std::vector<Timeline> timelines{std::move(measured)};
  if (run.ok()) timelines.push_back(TimelineOf(*run, "simulated with this step's mean times", "s"));
  return as_trace ? ChromeTrace(timelines) : TimelineHtml(timelines);
}

}  // namespace moebius
