// One function a schedule, called by GenerateSchedule after it has checked the numbers and set up everything
// but the actions. Internal to parallel/pipeline.
#pragma once

#include "parallel/pipeline/schedule.h"

namespace moebius::generators {

inline constexpr ActionKind kF = ActionKind::kForward;
inline constexpr ActionKind kI = ActionKind::kBackwardInput;
inline constexpr ActionKind kW = ActionKind::kBackwardWeight;
inline constexpr ActionKind kB = ActionKind::kBackward;

void GPipe(Schedule& schedule);
void OneFOneB(Schedule& schedule);
void Interleaved(Schedule& schedule);
void ZeroBubbleH1(Schedule& schedule);
void ZeroBubbleV(Schedule& schedule);
void DualPipe(Schedule& schedule);
void DualPipeV(Schedule& schedule);

}  // namespace moebius::generators
