// Expert load over the run, one small heat map a MoE layer: experts down, steps across, colour by how many
// times its fair share an expert got (log scale, a quarter to four times).
#pragma once

#include <string>
#include <vector>

#include "launch/metrics.h"

namespace moebius {

// The legend of the colours.
std::string RenderLoadScale();

// Figures for all layers; of more than `max_layers` an evenly spaced choice, which the text says. `names` are
// those of the layers; where they are fewer, layers are counted: "MoE layer 2 of 58". "" without rows.
std::string RenderExpertLoads(const std::vector<ExpertLoadRow>& rows, const std::vector<std::string>& names,
                              size_t max_layers = 16);

// Colour level of `times` the fair share: 0 (a quarter and less) .. 4 (fair) .. 8 (four times and more).
int LoadLevel(double times);

}  // namespace moebius
