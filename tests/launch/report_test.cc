#include "launch/report/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "launch/report/chart.h"
#include "launch/report/heat_map.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A run with every kind of data, in the shapes that the training loop writes.
void WriteRun(const TempFolder& folder, const std::string& name, int steps, const std::string& prompt) {
  std::string metrics, loads;
  for (int step = 1; step <= steps; ++step) {
    MetricsRow row{.step = step, .values = {}};
    row.Set("time_s", 0.5 * step);
    row.Set("tokens", 1024.0 * step);
    row.Set("train/loss", 2 + 6 * std::exp(-step / 20.0));
    row.Set("train/grad_norm", step == 5 ? NAN : 1.0);
    row.Set("train/lr", 1e-3);
    row.Set("perf/tokens_per_s", 2048);
    row.Set("moe/max_violation", 0.5);
    if (step % 10 == 0) row.Set("val/loss", 2.5 + 1.0 / step);
    if (step % 10 == 0) row.Set("val/bpb", 1.25);
    metrics += MetricsLine(row) + "\n";
    loads += ExpertLoadLine({step, {{0.25, 0.75}, {0.5, 0.5}}}) + "\n";
  }
  folder.Write(name + "/metrics.jsonl", metrics);
  folder.Write(name + "/expert_load.jsonl", loads);
  folder.Write(name + "/samples/step-00000010.jsonl", SampleLine({10, prompt, " upon a time"}) + "\n");
  folder.Write(name + "/recipe.resolved.textproto", Concat("name: \"", name, "\"\nsteps: ", steps, "\n"));
  folder.Write(name + "/environment.json",
               R"({"version":"0.1.0","memory_bytes":1073741824,"cpu_features":["avx2","fma"]})");
}

TEST(Report, ShowsEveryKindOfDataOfARunWithoutNetwork) {
  const TempFolder folder;
  WriteRun(folder, "tiny", 60, "Once <script>alert(1)</script>");
  ASSERT_TRUE(WriteReport({folder.File("tiny")}, folder.File("report.html")).ok());
  const std::string html = folder.Read("report.html");
  for (const char* part : {"Cross-entropy", "Bits per byte", "Learning rate", "Gradient norm", "Throughput",
                           "Load violation", "MoE layer 1 of 2", "Samples over time", " upon a time",
                           "steps: 60", "1.00 GiB", "avx2 fma", "nats a token"}) {
    EXPECT_TRUE(Has(html, part)) << part;
  }
  for (const char* part : {"http:", "https:", "src=", "href=", "url(", "@import"})
    EXPECT_FALSE(Has(html, part)) << part;
  EXPECT_FALSE(Has(html, "<script>alert")) << "text of a model is no HTML";
  EXPECT_TRUE(Has(html, "Once &lt;script&gt;"));
}

TEST(Report, NamesLayersOfExpertsAsTheModelDoes) {
  const TempFolder folder;
  WriteRun(folder, "r", 10, "x");
  folder.Write("r/recipe.resolved.textproto",
               "model { model_type: \"deepseek_v3\" vocab_size: 280 hidden_size: 32 intermediate_size: 48 "
               "moe_intermediate_size: 16 num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 "
               "n_routed_experts: 2 num_experts_per_tok: 1 n_group: 1 topk_group: 1 first_k_dense_replace: 1 "
               "kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8 qk_nope_head_dim: 8 v_head_dim: 8 "
               "num_nextn_predict_layers: 1 }\n");
  const auto run = ReadRun(folder.File("r"));
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->load_layers, (std::vector<std::string>{"Layer 1", "MTP 1"}));
  const std::string svg = RenderExpertLoads(run->loads, run->load_layers);
  EXPECT_TRUE(Has(svg, "<figcaption>Layer 1 ") && Has(svg, "<figcaption>MTP 1 ")) << svg;
}

TEST(Report, ComparesRunsAndTheirRecipes) {
  const TempFolder folder;
  WriteRun(folder, "a", 60, "x");
  WriteRun(folder, "b", 30, "x");
  ASSERT_TRUE(WriteReport({folder.File("a"), folder.File("b")}, folder.File("r.html")).ok());
  const std::string html = folder.Read("r.html");
  EXPECT_TRUE(Has(html, "Comparison of 2 runs"));
  EXPECT_TRUE(Has(html, "<code>steps</code></td><td>60</td><td>30</td>"));
  EXPECT_FALSE(Has(html, "<code>optimizer.lr</code>")) << "equal values are not listed";
  EXPECT_TRUE(Has(html, "Validation loss"));
}

TEST(Report, WorksWithMetricsAlone) {
  const TempFolder folder;
  folder.Write("r/metrics.jsonl", "{\"step\":1,\"train/loss\":5}\n");
  ASSERT_TRUE(WriteReport({folder.File("r")}, folder.File("r.html")).ok());
  EXPECT_TRUE(Has(folder.Read("r.html"), "Cross-entropy"));
  EXPECT_FALSE(Has(folder.Read("r.html"), "Samples over time"));
  EXPECT_FALSE(Has(folder.Read("r.html"), "nan"));
}

TEST(Report, NamesWhatIsMissingOrDamaged) {
  const TempFolder folder;
  EXPECT_EQ(ExitCode(WriteReport({folder.File("none")}, folder.File("r.html"))), kExitMissing);
  WriteRun(folder, "a", 10, "x");
  folder.Write("a/expert_load.jsonl", "{\"step\":1,\"load\":[3]}\n");
  const absl::Status status = WriteReport({folder.File("a")}, folder.File("r.html"));
  EXPECT_EQ(ExitCode(status), kExitDamaged);
  EXPECT_TRUE(Has(std::string(status.message()), "expert_load.jsonl, line 1")) << status;
  EXPECT_FALSE(std::filesystem::exists(folder.File("r.html")));
}

TEST(Report, SummarisesARunOnTheTerminal) {
  const TempFolder folder;
  WriteRun(folder, "tiny", 60, "x");
  const std::string text = TerminalSummary(*ReadRun(folder.File("tiny")), 80);
  EXPECT_TRUE(Has(text, "tiny: 60 of 60 steps, 61.44k tokens, 30s")) << text;
  EXPECT_TRUE(Has(text, "█")) << text;
  EXPECT_TRUE(Has(text, " 2.314 (mean of last 3)\n")) << text;
  WriteRun(folder, "short", 10, "x");
  EXPECT_TRUE(Has(TerminalSummary(*ReadRun(folder.File("short")), 80), " 5.639\n")) << "the last step alone";
  EXPECT_TRUE(Has(text, "val/bpb   1.2500"));
}

TEST(Report, KeepsLossesOfAPartAndOfTheWholeTextApart) {
  const TempFolder folder;
  folder.Write("r/metrics.jsonl",
               "{\"step\":1,\"train/loss\":5,\"val/part_loss\":4.5}\n"
               "{\"step\":2,\"train/loss\":4,\"val/part_loss\":4.25,\"val/loss\":4.75}\n");
  const std::string text = TerminalSummary(*ReadRun(folder.File("r")), 80);
  EXPECT_TRUE(Has(text, "val/part_loss 4.2500 (best 4.2500)\n")) << text;
  EXPECT_TRUE(Has(text, "val/loss  4.7500\n")) << text;
  ASSERT_TRUE(WriteReport({folder.File("r")}, folder.File("r.html")).ok());
  const std::string html = folder.Read("r.html");
  EXPECT_TRUE(Has(html, "<b>4.750</b><span>validation loss</span><small>lowest, held-out text</small>"));
  EXPECT_TRUE(Has(html, "validation, a part of the text"));
  folder.Write("s/metrics.jsonl", "{\"step\":1,\"train/loss\":5,\"val/part_loss\":4.5}\n");
  ASSERT_TRUE(WriteReport({folder.File("s")}, folder.File("s.html")).ok());
  EXPECT_TRUE(Has(folder.Read("s.html"),
                  "<b>4.500</b><span>validation loss</span><small>lowest, a part of the text</small>"));
}

TEST(Report, ShowsARecipeOfAnotherVersionAsText) {
  const TempFolder folder;
  WriteRun(folder, "r", 10, "x");
  folder.Write("r/recipe.resolved.textproto", "name: \"r\"\nfield_of_tomorrow: 3\n");
  ASSERT_TRUE(WriteReport({folder.File("r")}, folder.File("r.html")).ok());
  EXPECT_TRUE(Has(folder.Read("r.html"), "field_of_tomorrow: 3"));
}

TEST(Report, NamesARunByItsFolderHoweverItIsSpelled) {
  const TempFolder folder;
  WriteRun(folder, "named", 10, "x");
  EXPECT_EQ(ReadRun(folder.File("named/samples/.."))->name, "named");
  EXPECT_EQ(ReadRun(folder.File("named/."))->name, "named");
}

TEST(Chart, HasRoundTicksInsideTheRange) {
  EXPECT_EQ(Ticks(0, 10, 5, false), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(Ticks(-1, 1, 4, false), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(Ticks(0.5, 150, 5, true), (std::vector<double>{1, 10, 100}));
  EXPECT_EQ(Ticks(0.9, 11, 5, true), (std::vector<double>{1, 2, 5, 10}));
  EXPECT_GE(Ticks(3.1, 3.2, 5, true).size(), 2u) << "a narrow log axis still has ticks";
  EXPECT_LE(Ticks(1.2, 3e25, 5, true).size(), 6u);
  EXPECT_GE(Ticks(1e-30, 1e300, 5, true).size(), 2u);
}

TEST(Chart, KeepsTheExtremesOfLongSeriesAndDropsWhatALogAxisCannotShow) {
  Chart chart{.title = "t", .y_label = "", .series = {{.name = "s", .points = {}}}};
  for (int i = 0; i < 100000; ++i)
    chart.series[0].points.push_back({double(i), i == 54321 ? 1234.5 : 1.0 + i % 2});
  const std::string svg = RenderChart(chart);
  EXPECT_LT(svg.size(), 60000u);
  EXPECT_TRUE(Has(svg, "1234.5"));
  chart.series[0].points[3].y = 2345.5;
  chart.series[0].points[99990].y = 3456.5;
  EXPECT_TRUE(Has(RenderChart(chart), "2345.5")) << "near the start";
  EXPECT_TRUE(Has(RenderChart(chart), "3456.5")) << "near the end";
  chart.log_y = true;
  for (Point& p : chart.series[0].points) p.y = -1;
  EXPECT_EQ(RenderChart(chart), "");
}

TEST(Chart, PlotsValuesWhereTheyBelong) {
  Chart chart{.title = "t",
              .y_label = "",
              .from_zero = true,
              .series = {{.name = "s", .points = {{0, 0}, {100, 50}, {200, 100}}}}};
  const std::string svg = RenderChart(chart);
  // 640 x 300 with margins 62, 14, 14 and 44; the y axis ends 6 % above the largest value.
  EXPECT_TRUE(Has(svg, "d='M62.0 256.0L344.0 141.8L626.0 27.7'")) << svg;
}

TEST(Chart, SparseLinesBeginWhereTheirRunDoes) {
  Chart chart{.title = "bits", .y_label = "", .series = {{.name = "v", .points = {{175, 2}, {700, 1}}}}};
  EXPECT_TRUE(Has(RenderChart(chart), "d='M62.0 "));
  chart.first_x = 1;
  EXPECT_FALSE(Has(RenderChart(chart), "d='M62.0 ")) << "the axis begins at 0";
}

TEST(Chart, SmoothingFollowsATrendWithoutLag) {
  std::vector<Point> line;
  for (int i = 0; i < 1000; ++i) line.push_back({double(i), 10.0 - 0.01 * i + (i % 2 ? 0.5 : -0.5)});
  const auto series = SmoothedSeries("s", 0, line);
  ASSERT_EQ(series.size(), 2u);
  EXPECT_NEAR(series[1].points[500].y, 5.0, 0.08);
  EXPECT_NEAR(series[1].points[0].y, 10.0, 0.5) << "the start is not drawn towards zero";
  EXPECT_NEAR(series[1].points[0].y, series[1].points[5].y, 0.15) << "nor towards the first value";
  EXPECT_NEAR(series[1].points[999].y, series[1].points[994].y, 0.15);
  EXPECT_EQ(SmoothedSeries("s", 0, {{1, 2}, {2, 3}}).size(), 1u);
  line[990].y = 1e25;
  EXPECT_GT(SmoothedSeries("s", 0, line)[1].points[900].y, 1e15);
  EXPECT_LT(SmoothedSeries("s", 0, line, true)[1].points[900].y, 10) << "one spike is no trend of a log axis";
}

TEST(Chart, FormatsNumbersForPeople) {
  EXPECT_EQ(FormatNumber(12345, NumberStyle::kCount), "12.35k");
  EXPECT_EQ(FormatNumber(3e-4, NumberStyle::kPlain), "3e-4");
  EXPECT_EQ(FormatNumber(12000, NumberStyle::kPlain), "1.2e4");
  EXPECT_EQ(FormatNumber(0.25, NumberStyle::kPercent), "25 %");
  EXPECT_EQ(FormatNumber(0.012, NumberStyle::kSeconds), "12 ms");
  EXPECT_EQ(FormatNumber(0.9997, NumberStyle::kSeconds), "1 s");
  EXPECT_EQ(FormatNumber(9999.7, NumberStyle::kCount), "10k");
  EXPECT_EQ(FormatNumber(1 << 20, NumberStyle::kBytes), "1.00 MiB");
}

TEST(HeatMap, ColoursByTimesTheFairShare) {
  EXPECT_EQ(LoadLevel(1), 4);
  EXPECT_EQ(LoadLevel(2), 6);
  EXPECT_EQ(LoadLevel(0.5), 2);
  EXPECT_EQ(LoadLevel(100), 8);
  EXPECT_EQ(LoadLevel(0), 0);
  EXPECT_EQ(LoadLevel(NAN), 0);
  const std::string svg = RenderExpertLoads({{.step = 5, .load = {{0.5, 0.25, 0.25, 0.0}}}}, {});
  EXPECT_TRUE(Has(svg, "<path class='h6' d='M0 0h1v1h-1z'/>")) << svg;
  EXPECT_TRUE(Has(svg, "<path class='h4' d='M0 1h1v1h-1zM0 2h1v1h-1z'/>"));
  EXPECT_TRUE(Has(svg, "<path class='h0' d='M0 3h1v1h-1z'/>"));
  EXPECT_TRUE(Has(svg, "data-heat='0100008000800000'"));
}

TEST(HeatMap, ShowsAnEvenChoiceOfManyLayersAndSurvivesOddRows) {
  std::vector<ExpertLoadRow> rows = {{.step = 1, .load = {}},
                                     {.step = 2, .load = std::vector<std::vector<double>>(58, {0.5, 0.5})}};
  const std::string svg = RenderExpertLoads(rows, {}, 4);
  EXPECT_TRUE(Has(svg, "4 of 58 MoE layers"));
  EXPECT_TRUE(Has(svg, "MoE layer 1 of 58 ") && Has(svg, "MoE layer 58 of 58 "));
  EXPECT_EQ(RenderExpertLoads({}, {}), "");
}

}  // namespace
}  // namespace moebius
