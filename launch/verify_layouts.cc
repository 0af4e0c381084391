#include "launch/verify_layouts.h"

#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/generate.h"

namespace moebius {
namespace {

BatchSizes SizesOf(const VerifyConfig& c) {
  return {.sequences = c.sequences, .microbatch_sequences = c.train.microbatch_sequences};
}

// "pp=2,ep=2,dp=1,schedule=zbv,chunks=2", or the recipe's names (pipeline, expert, data).
absl::StatusOr<Layout> ParseLayout(const std::string& text) {
  Layout layout;
  const std::map<std::string, int*> sizes = {{"pp", &layout.pipeline},  {"pipeline", &layout.pipeline},
                                             {"ep", &layout.expert},    {"expert", &layout.expert},
                                             {"dp", &layout.data},      {"data", &layout.data},
                                             {"chunks", &layout.chunks}};
  std::istringstream parts(text);
  std::set<const void*> said;
  if (text.empty()) return UsageError("--layout is empty; write pp=2,ep=2,dp=1,schedule=zbv");
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    const auto found = sizes.find(key);
    const void* const field = key == "schedule"      ? static_cast<const void*>(&layout.schedule)
                              : found == sizes.end() ? nullptr
                                                     : found->second;
    if (field != nullptr && !said.insert(field).second) {
      return UsageError(
          Concat("--layout ", Printable(text), ": says ", Printable(key), " twice; leave one out"));
    }
    if (key == "schedule") {
      layout.schedule = value;
    } else if (found == sizes.end()) {
      const std::string near = Nearest(key, {"pp", "ep", "dp", "schedule", "chunks"});
      return UsageError(Concat("--layout ", Printable(text), ": there is no \"", Printable(key), "\"; ",
                               near.empty() ? "" : Concat("did you mean ", near, "? "),
                               "write pp=2,ep=2,dp=1,schedule=zbv"));
    } else {
      char* end = nullptr;
      const long number = std::strtol(value.c_str(), &end, 10);
      if (value.empty() || *end != '\0' || number < 1 || number > 1024) {
        return UsageError(Concat("--layout ", Printable(text), ": ", key, " is \"", Printable(value),
                                 "\"; it must be a number from 1 to 1024; write pp=2,ep=2,dp=1"));
      }
      *found->second = static_cast<int>(number);
    }
  }
  return layout;
}

}  // namespace

absl::StatusOr<std::vector<Layout>> AskedLayouts(const std::vector<std::string>& texts, const VerifyConfig& c,
                                                 int max_ranks, bool exactly) {
  std::vector<Layout> out;
  std::string wrong;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(Layout layout, ParseLayout(text));
    const absl::StatusOr<Layout> fits = FitLayout(layout, layout.ranks(), c.model, SizesOf(c));
    if (!fits.ok()) {
      wrong += Concat("--layout ", Printable(text), ": ", std::string(fits.status().message()), "\n");
    } else if (exactly && layout.ranks() != max_ranks) {
      wrong += Concat("--layout ", Printable(text), ": has ", layout.ranks(),
                      " ranks; under mpirun every layout has all ", max_ranks, "; start ", layout.ranks(),
                      " or leave mpirun out\n");
    } else if (layout.ranks() > max_ranks) {
      wrong += Concat("--layout ", Printable(text), ": has ", layout.ranks(), " ranks; --ranks allows ",
                      max_ranks, "; raise it\n");
    }
    out.push_back(layout);
  }
  if (wrong.empty()) return out;
  wrong.pop_back();
  return UsageError(wrong);
}

std::vector<Layout> AllLayouts(const VerifyConfig& c, int max_ranks, bool exactly) {
  std::vector<Layout> out;
  for (int pipeline = 1; pipeline <= max_ranks; pipeline *= 2) {
    for (const std::string& schedule : ScheduleNames()) {
      for (int expert = 1; pipeline * expert <= max_ranks; expert *= 2) {
        for (int data = 1; pipeline * expert * data <= max_ranks; data *= 2) {
          const Layout layout{.pipeline = pipeline, .data = data, .expert = expert, .schedule = schedule};
          if (exactly && layout.ranks() != max_ranks) continue;
          // On one pipeline rank schedules differ by when W runs and by overlap: once each is enough.
          const bool plain = pipeline == 1 && schedule != "1f1b";
          if (plain && (data > 1 || (expert > 1 && schedule != "dualpipev"))) continue;
          if (layout.ranks() == 1 && schedule == "1f1b" && !exactly) continue;  // the reference
          if (FitLayout(layout, layout.ranks(), c.model, SizesOf(c)).ok()) out.push_back(layout);
        }
      }
    }
  }
  return out;
}

}  // namespace moebius
