#include "parallel/pipeline/timeline.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "core/base/strings.h"

namespace moebius {
namespace {

std::string JsonString(const std::string& text) {
  std::string out = "\"";
  for (const char c : Printable(text, text.size())) {  // invalid UTF-8 and control characters become \xNN
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string JsonNumber(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6f", value);
  return text;
}

const char* Category(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return "forward";
    case ActionKind::kBackwardInput:
      return "backward input";
    case ActionKind::kBackwardWeight:
      return "backward weight";
    case ActionKind::kBackward:
      return "backward";
    case ActionKind::kOverlap:
      return "overlap";
    case ActionKind::kSendForward:
    case ActionKind::kRecvForward:
    case ActionKind::kSendBackward:
    case ActionKind::kRecvBackward:
      return "transfer";
    case ActionKind::kReduceGrad:
    case ActionKind::kReduceTied:
      return "reduction";
    default:
      return "optimizer";
  }
}

double Origin(const Timeline& timeline) {
  double origin = std::numeric_limits<double>::infinity();
  for (const TimelineSpan& span : timeline.spans) origin = std::min(origin, span.start);
  return timeline.spans.empty() ? 0 : origin;
}

}  // namespace

Timeline TimelineOf(const Simulation& run, const std::string& title, const std::string& unit) {
  Timeline timeline = {.title = title, .unit = unit, .shape = run.schedule};
  timeline.shape.actions.clear();
  for (int rank = 0; rank < run.schedule.ranks; ++rank) {
    for (size_t i = 0; i < run.times[rank].size(); ++i) {
      const Action& action = run.schedule.actions[rank][i];
      const auto& [start, end] = run.times[rank][i];
      const bool receives =
          action.kind == ActionKind::kRecvForward || action.kind == ActionKind::kRecvBackward;
      const bool ends_step = action.kind == ActionKind::kOptimize || action.kind == ActionKind::kUpdateBias;
      if (receives) continue;
      const bool compute = IsCompute(action.kind) || ends_step;
      if (!IsCompute(action.kind) && start == end) continue;  // free in this simulation: nothing to show
      timeline.spans.push_back({.rank = rank,
                                .lane = compute ? TimelineLane::kCompute : TimelineLane::kExchange,
                                .action = action,
                                .label = "",
                                .start = start,
                                .end = end});
    }
    timeline.peak_activations.push_back(run.ranks[rank].peak_activations);
  }
  return timeline;
}

std::vector<RankShare> SharesOf(const Timeline& timeline) {
  std::vector<RankShare> shares(timeline.ranks());
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (const TimelineSpan& span : timeline.spans) {
    if (!IsCompute(span.action.kind) || span.lane != TimelineLane::kCompute) continue;
    shares[span.rank].busy += span.end - span.start;
    first = std::min(first, span.start);
    last = std::max(last, span.end);
  }
  for (RankShare& share : shares) {
    if (!(last > first)) continue;
    share.idle = last - first - share.busy;
    share.bubble = share.idle / (last - first);
  }
  return shares;
}

std::string ChromeTrace(std::span<const Timeline> timelines) {
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  const char* separator = "\n";
  const auto event = [&](const std::string& text) {
    json += separator + text;
    separator = ",\n";
  };
  for (size_t pid = 0; pid < timelines.size(); ++pid) {
    const Timeline& timeline = timelines[pid];
    const double microseconds = timeline.unit == "s" ? 1e6 : 1e3;
    const double origin = Origin(timeline);
    event(Concat("{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":", pid,
                 ",\"args\":{\"name\":", JsonString(timeline.title + ": " + timeline.shape.name), "}}"));
    for (int rank = 0; rank < timeline.ranks(); ++rank) {
      for (const int lane : {0, 1}) {
        const int tid = 2 * rank + lane;
        const std::string name = Concat("rank ", rank, lane == 0 ? "" : " exchange");
        event(Concat("{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":", pid, ",\"tid\":", tid,
                     ",\"args\":{\"name\":\"", name, "\"}}"));
        event(Concat("{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":", pid, ",\"tid\":", tid,
                     ",\"args\":{\"sort_index\":", tid, "}}"));
      }
    }
    for (const TimelineSpan& span : timeline.spans) {
      const int tid = 2 * span.rank + (span.lane == TimelineLane::kCompute ? 0 : 1);
      event(
          Concat("{\"ph\":\"X\",\"name\":", JsonString(span.label.empty() ? ToText(span.action) : span.label),
                 ",\"cat\":\"", Category(span.action.kind), "\",\"pid\":", pid, ",\"tid\":", tid,
                 ",\"ts\":", JsonNumber((span.start - origin) * microseconds),
                 ",\"dur\":", JsonNumber((span.end - span.start) * microseconds), "}"));
    }
  }
  return json + "\n]}\n";
}

}  // namespace moebius
