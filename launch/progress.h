// What a person sees of a run: on a real terminal one line that is redrawn (bar, loss with its recent course,
// tokens/s, ETA), elsewhere one plain line each interval. Lines also go to the run's log file.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/io/file.h"

namespace moebius {

struct Terminal {
  bool interactive = false;  // a line may be redrawn
  bool colour = false;
  int columns = 80;
};

// For file descriptor `fd`. Under mpirun isatty is true even into a file, so there nothing is interactive;
// nor is it with TERM=dumb. NO_COLOR (non-empty) turns colour off.
Terminal DetectTerminal(int fd);

// True in a process that mpirun or srun started.
bool UnderMpi();

// " ▂▄█": one character a value, low to high; "" for none. NaN is left blank.
std::string Sparkline(const std::deque<double>& values, size_t width);

class Progress {
 public:
  struct Options {
    Terminal terminal;
    int fd = 1;
    int64_t first_step = 0;  // steps done before this process began
    int64_t last_step = 0;   // steps of the whole run
    int64_t log_every_steps = 10;
    std::string log_path = {};  // "" for none
  };
  struct Step {
    int64_t step = 0;  // done, counted from 1
    double loss = 0;
    double grad_norm = 0;
    double lr = 0;
    double tokens_per_s = 0;
    double step_s = 0;         // seconds since the step before was done, whatever they were spent on
    std::string more = {};     // "reward 0.41  accuracy 0.38"
    std::string details = {};  // "entropy 0.9  kl 0.01": of plain lines, which have the room
  };

  explicit Progress(Options options);
  ~Progress();

  void Update(const Step& step);
  // A line of its own, above the bar on a terminal: validation results, samples, checkpoints saved.
  void Print(std::string_view line);
  // Removes the bar and leaves its last state as a plain line.
  void Finish();

 private:
  std::string Bar(const Step& step) const;
  std::string Line(const Step& step) const;
  std::string Eta(const Step& step) const;
  void Write(std::string_view text);
  void Log(std::string_view line);

  Options options_;
  FileDescriptor log_;
  std::deque<double> losses_;
  std::deque<double> seconds_;  // of the last steps
  double last_drawn_ = -1;      // seconds of the steady clock
  bool bar_shown_ = false;
  Step latest_;
};

}  // namespace moebius
