#include "parallel/pipeline/timeline.h"

#include <gtest/gtest.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

PipelineCosts WithExchange() {
  PipelineCosts costs = Equal(1, 1, 1);
  costs.transfer_time = 0.25;
  costs.stages[0].reduce_grad = 2;
  costs.optimize = 1;
  return costs;
}

TEST(TimelineTest, SpansAreThoseOfTheSimulationWithTransfersOnTheSender) {
  const Simulation run = Simulated(Generate("1f1b", 2, 3), WithExchange());
  const Timeline timeline = TimelineOf(run, "predicted");
  int compute = 0, exchange = 0;
  for (const TimelineSpan& span : timeline.spans) {
    (span.lane == TimelineLane::kCompute ? compute : exchange) += 1;
    EXPECT_NE(span.action.kind, ActionKind::kRecvForward);
    EXPECT_NE(span.action.kind, ActionKind::kRecvBackward);
  }
  EXPECT_EQ(compute, 2 * (6 + 1));  // with OPTIMIZE; UPDATE_BIAS takes no time here
  EXPECT_EQ(exchange, 3 + 3 + 2);   // F, B, reductions
}

TEST(TimelineTest, SharesCountIdleTimeAsTheSimulatorDoes) {
  const Simulation run = Simulated(Generate("dualpipev", 4, 10), Equal(1, 1, 1, 2.5));
  const std::vector<RankShare> shares = SharesOf(TimelineOf(run, "predicted"));
  ASSERT_EQ(shares.size(), run.ranks.size());
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    EXPECT_DOUBLE_EQ(shares[rank].busy, run.ranks[rank].busy);
    EXPECT_DOUBLE_EQ(shares[rank].idle, run.ranks[rank].idle);
    EXPECT_DOUBLE_EQ(shares[rank].bubble, run.ranks[rank].bubble);
  }
}

TEST(TimelineTest, ThePageIsOneFileWithEveryActionOfBothCharts) {
  const Simulation run = Simulated(Generate("dualpipev", 2, 6), WithExchange());
  Timeline measured = TimelineOf(run, "measured");
  for (TimelineSpan& span : measured.spans) span.start += 100, span.end += 100;  // any origin
  const std::vector<Timeline> both = {TimelineOf(run, "predicted"), measured};
  const std::string html = TimelineHtml(both);
  for (const char* outside : {"http:", "https:", "src=", "@import", "url(h", "<link"}) {
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  }
  EXPECT_EQ(Count(html, "class=\"chart\""), 2u);
  size_t parts = 0, overlaps = 0;
  for (const auto& list : run.schedule.actions) {
    for (const Action& action : list) {
      parts += PartsOf(action).size;
      overlaps += action.kind == ActionKind::kOverlap;
    }
  }
  ASSERT_GT(overlaps, 0u);
  EXPECT_EQ(Count(html, "rx=\"2.5\" data-m="), 2 * parts);  // an overlapped pair is two boxes
  EXPECT_EQ(Count(html, "data-t=\"(F"), 2 * 2 * overlaps);
  EXPECT_NE(html.find("data-t=\"F0.0  (1); rank 0, 0 to 1\""), std::string::npos);
  EXPECT_EQ(html.find("100 to"), std::string::npos);  // both charts begin at 0
  EXPECT_EQ(Count(html, "<svg"), Count(html, "</svg>"));
  EXPECT_EQ(Count(html, "<div"), Count(html, "</div>"));
  EXPECT_EQ(html.find("nan%"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
}

TEST(TimelineTest, ShardsOfTheBatchAreRanksAndNoDirections) {
  Timeline timeline = TimelineOf(Simulated(Generate("interleaved", 2, 4)), "measured", "s");
  timeline.peak_activations.clear();
  timeline.shards = 2;
  for (TimelineSpan& span : timeline.spans) span.rank = 2 * span.rank + 1;  // all of the second shard
  const std::string html = TimelineHtml({&timeline, 1});
  EXPECT_NE(html.find("2 pipeline ranks for each of 2 shards of the batch, 4 stages"), std::string::npos);
  EXPECT_EQ(html.find("other direction"), std::string::npos);
  EXPECT_EQ(Count(html, "</span><small>stages 0, 2</small>"), 2u) << "ranks 0 and 1";
  EXPECT_EQ(Count(html, "</span><small>stages 1, 3</small>"), 2u) << "ranks 2 and 3";
}

TEST(TimelineTest, NamesFromOutsideCannotBecomeMarkup) {
  Timeline timeline = TimelineOf(Simulated(Generate("1f1b", 1, 1)), "<script>alert(1)</script>\"");
  timeline.unit = "<u>";
  timeline.note = "<i>";
  timeline.spans[0].label = "x\"><script>\xff";
  const std::string html = TimelineHtml({&timeline, 1});
  EXPECT_EQ(Count(html, "<script"), 1u);  // the page's own
  EXPECT_NE(html.find("x&quot;&gt;&lt;script&gt;\\xFF"), std::string::npos);
  EXPECT_EQ(html.find("<u>"), std::string::npos);
  EXPECT_NE(html.find("&lt;u&gt;"), std::string::npos);
  EXPECT_EQ(html.find("<i"), std::string::npos);
  EXPECT_TRUE(nlohmann::json::accept(ChromeTrace({&timeline, 1})));
}

TEST(TimelineTest, AnEmptyTimelineIsAPageToo) {
  Timeline timeline = TimelineOf(Simulated(Generate("1f1b", 2, 2)), "measured", "s");
  timeline.spans.clear();
  const std::string html = TimelineHtml({&timeline, 1});
  EXPECT_NE(html.find("rank 1"), std::string::npos);
  EXPECT_EQ(html.find("nan%"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
}

// Of a step that ran no schedule, as one that rejects answers.
TEST(TimelineTest, ATimelineWithoutRanksSaysSo) {
  const Timeline timeline{.title = "measured", .unit = "s", .shape = {}};
  const std::string html = TimelineHtml({&timeline, 1});
  EXPECT_NE(html.find("no schedule has run"), std::string::npos);
}

TEST(TimelineTest, ChromeTraceHasAProcessATimelineAndAThreadALane) {
  const Simulation run = Simulated(Generate("1f1b", 2, 3), WithExchange());
  Timeline measured = TimelineOf(run, "measured", "s");
  for (TimelineSpan& span : measured.spans) span.start += 7, span.end += 7;
  const std::vector<Timeline> both = {TimelineOf(run, "predicted"), measured};
  const nlohmann::json trace = nlohmann::json::parse(ChromeTrace(both));
  int complete[2] = {}, threads = 0;
  double first = 1e9;
  for (const nlohmann::json& event : trace["traceEvents"]) {
    if (event["ph"] == "M") threads += event["name"] == "thread_name";
    if (event["ph"] != "X") continue;
    ++complete[event["pid"].get<int>()];
    if (event["pid"] == 1) first = std::min(first, event["ts"].get<double>());
    if (event["pid"] == 1 && event["name"] == "B1.0") {
      EXPECT_EQ(event["dur"], 2e6);
      EXPECT_EQ(event["tid"], 2);
      EXPECT_EQ(event["cat"], "backward");
    }
    if (event["name"] == "SEND_F0.0>1") {
      EXPECT_EQ(event["tid"], 1);
    }
  }
  EXPECT_EQ(complete[0], static_cast<int>(both[0].spans.size()));
  EXPECT_EQ(complete[1], complete[0]);
  EXPECT_EQ(threads, 2 * 2 * 2);
  EXPECT_EQ(first, 0);
}

}  // namespace
}  // namespace moebius
