// What every rank did and when, as a picture: from a simulation (predicted) or from a run (measured), as one
// HTML page without network or as a Chrome trace (chrome://tracing, Perfetto).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {

enum class TimelineLane { kCompute, kExchange };

struct TimelineSpan {
  int rank = 0;
  TimelineLane lane = TimelineLane::kCompute;
  Action action;      // what ran, or what an exchange belongs to; gives the colour
  std::string label;  // "" is ToText(action); a run says more: "dispatch F1.3"
  double start = 0;   // in Timeline::unit, from any origin
  double end = 0;
};

struct Timeline {
  std::string title;      // "predicted", "measured"
  std::string note = {};  // shown beside the figures, say a published formula and its value
  std::string unit;  // "s" for seconds (shown as s, ms or us), "" for the units of the costs, or any word
  Schedule shape;    // name, ranks, stages, microbatches, holders; its actions may be left out
  int shards =
      1;  // of the batch, each with a pipeline of its own: rank p * shards + s is rank p of shard s's
  std::vector<TimelineSpan> spans = {};       // compute spans of a rank do not overlap each other
  std::vector<double> peak_activations = {};  // by rank, as in RankFigures; empty when not known

  int ranks() const { return shape.ranks * shards; }
};

// Compute in the compute lane, transfers (on the sender) and reductions in the exchange lane.
Timeline TimelineOf(const Simulation& run, const std::string& title, const std::string& unit = "");

// Busy, idle and bubble of every rank, counted as Simulate does.
struct RankShare {
  double busy = 0;
  double idle = 0;
  double bubble = 0;
};
std::vector<RankShare> SharesOf(const Timeline& timeline);

// One self-contained page with one chart a timeline, the first on top; on one scale where units are equal.
// Light and dark, printable; a few lines of JavaScript zoom, show values and follow a microbatch under the
// pointer. At least one timeline: CHECK.
std::string TimelineHtml(std::span<const Timeline> timelines);

// {"traceEvents": [...]}: a process a timeline, a thread a lane. Microseconds; units other than "s" count as
// milliseconds.
std::string ChromeTrace(std::span<const Timeline> timelines);

// <style> and <script> of the page (timeline_assets.cc).
extern const char kTimelineStyle[];
extern const char kTimelineScript[];

}  // namespace moebius
