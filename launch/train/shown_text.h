// Samples of a run as a terminal line and as TensorBoard's Markdown.
#pragma once

#include <string>
#include <vector>

#include "launch/metrics.h"

namespace moebius {

// "right  6 2 9 -> 13: 6+2=8;... / (6-2)+9": prompt and text on one line, the middle of a long text left out.
// Without a judgement "sample: ".
std::string SampleInOneLine(const SampleRow& row);

// Those to print: of judged ones a right and a wrong one where there are both, of others all.
std::vector<SampleRow> ChosenToPrint(const std::vector<SampleRow>& rows);

std::string SamplesInMarkdown(const std::vector<SampleRow>& rows);

}  // namespace moebius
