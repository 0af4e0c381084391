#include "launch/progress.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <optional>

#include "core/base/log.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr size_t kLossHistory = 200, kSecondsHistory = 200;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool EnvironmentHas(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

template <typename... Args>
std::string Format(const char* format, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

std::string CountText(double value) {
  if (!std::isfinite(value)) return "?";
  if (value >= 1e6) return Format("%.2fM", value / 1e6);
  if (value >= 1e4) return Format("%.1fk", value / 1e3);
  return Format("%.0f", value);
}

std::optional<int> ColumnsOf(int fd) {
  struct winsize size;
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return std::nullopt;
  return size.ws_col;
}

}  // namespace

bool UnderMpi() {
  return EnvironmentHas("OMPI_COMM_WORLD_SIZE") || EnvironmentHas("PMI_RANK") || EnvironmentHas("PMIX_RANK");
}

Terminal DetectTerminal(int fd) {
  Terminal terminal;
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb" || *term == '\0';
  terminal.interactive = isatty(fd) == 1 && !UnderMpi() && !dumb;
  terminal.colour = terminal.interactive && !EnvironmentHas("NO_COLOR");
  terminal.columns = ColumnsOf(fd).value_or(terminal.columns);
  return terminal;
}

std::string Sparkline(const std::deque<double>& values, size_t width) {
  static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (values.empty() || width == 0) return "";
  const size_t count = std::min(width, values.size());
  std::vector<double> means(count, 0.0);
  double low = INFINITY, high = -INFINITY;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * values.size() / count, end = (i + 1) * values.size() / count;
    int finite = 0;
    for (size_t k = begin; k < end; ++k) {
      if (!std::isfinite(values[k])) continue;
      means[i] += values[k];
      ++finite;
    }
    means[i] = finite > 0 ? means[i] / finite : NAN;
    if (finite > 0) {
      low = std::min(low, means[i]);
      high = std::max(high, means[i]);
    }
  }
  std::string out;
  for (const double mean : means) {
    if (!std::isfinite(mean)) {
      out += " ";
    } else {
      const double share = high > low ? (mean - low) / (high - low) : 0.5;
      out += kBlocks[std::clamp(static_cast<int>(share * 7.999), 0, 7)];
    }
  }
  return out;
}

Progress::Progress(Options options) : options_(std::move(options)) {
  if (!options_.log_path.empty()) {
    log_ = FileDescriptor(open(options_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (log_.get() < 0)
      LogLine("warning: cannot write " + options_.log_path + "; going on without a log file");
  }
}

Progress::~Progress() { Finish(); }

void Progress::Update(const Step& step) {
  latest_ = step;
  losses_.push_back(step.loss);
  if (losses_.size() > kLossHistory) losses_.pop_front();
  seconds_.push_back(step.step_s);
  if (seconds_.size() > kSecondsHistory) seconds_.pop_front();
  const bool at_interval = step.step % std::max<int64_t>(options_.log_every_steps, 1) == 0 ||
                           step.step == options_.last_step || step.step == options_.first_step + 1;
  if (at_interval) Log(Line(step));
  if (!options_.terminal.interactive) {
    if (at_interval) Write(Line(step) + "\n");
    return;
  }
  const double now = Now();
  if (now - last_drawn_ < kRedrawSeconds && step.step != options_.last_step) return;
  last_drawn_ = now;
  options_.terminal.columns = ColumnsOf(options_.fd).value_or(options_.terminal.columns);  // it was resized
  Write("\r\033[K" + Bar(step));
  bar_shown_ = true;
}

void Progress::Print(std::string_view line) {
  Log(line);
  if (bar_shown_) {
    Write(Concat("\r\033[K", line, "\n", Bar(latest_)));
  } else {
    Write(Concat(line, "\n"));
  }
}

void Progress::Finish() {
  if (!bar_shown_) return;
  Write("\r\033[K" + Line(latest_) + "\n");
  bar_shown_ = false;
}

std::string Progress::Eta(const Step& step) const {
  if (step.step >= options_.last_step) return "done";
  const double seconds =
      std::accumulate(seconds_.begin(), seconds_.end(), 0.0) / static_cast<double>(seconds_.size());
  return "ETA " + HumanSeconds(seconds * static_cast<double>(options_.last_step - step.step));
}

std::string Progress::Line(const Step& step) const {
  const std::string last = std::to_string(options_.last_step);
  return Concat(
      "step ", Format("%*lld/", static_cast<int>(last.size()), static_cast<long long>(step.step)), last,
      Format("  loss %.4f  grad_norm %.3f  lr %.2e  %s tokens/s  ", step.loss, step.grad_norm, step.lr,
             CountText(step.tokens_per_s).c_str()),
      step.more, step.more.empty() ? "" : "  ", step.details, step.details.empty() ? "" : "  ", Eta(step));
}

// Drawn to fit the terminal; the parts at the end of the line go first when it is narrow.
std::string Progress::Bar(const Step& step) const {
  const bool colour = options_.terminal.colour;
  const auto paint = [colour](const char* code, const std::string& text) {
    return colour ? Concat("\033[", code, "m", text, "\033[0m") : text;
  };
  const std::string counter = Concat(step.step, "/", options_.last_step);
  const std::string loss = step.more.empty() ? Format("loss %.4f", step.loss) : step.more;
  const std::string rate = CountText(step.tokens_per_s) + " tok/s";
  const std::string eta = Eta(step);
  const int columns = options_.terminal.columns - 1;
  const std::string least = Concat(counter, "  ", loss);
  if (std::ssize(least) + 2 + std::ssize(eta) > columns) return least.substr(0, std::max(columns, 0));
  int left = columns - static_cast<int>(counter.size() + loss.size() + eta.size()) - 6;
  const bool with_rate = left >= static_cast<int>(rate.size()) + 12;
  if (with_rate) left -= static_cast<int>(rate.size()) + 2;
  const int spark = left >= 34 ? 14 : 0;
  if (spark > 0) left -= spark + 1;
  const int width = std::clamp(left, 0, 40);

  const double share =
      options_.last_step > 0
          ? std::clamp(static_cast<double>(step.step) / static_cast<double>(options_.last_step), 0.0, 1.0)
          : 0;
  static constexpr const char* kParts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(share * width * 8);
  std::string full, empty;
  for (int i = 0; i < eighths / 8; ++i) full += "█";
  full += kParts[eighths % 8];
  for (int i = eighths / 8 + (eighths % 8 > 0); i < width; ++i) empty += "·";
  std::string out = width > 3 ? paint("36", full) + paint("2", empty) + " " : "";
  out += counter + "  " + paint("1", loss);
  if (spark > 0) out += " " + paint("36", Sparkline(losses_, spark));
  if (with_rate) out += "  " + rate;
  return out + "  " + paint("2", eta);
}

void Progress::Write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(options_.fd, text.data(), text.size());
    if (n <= 0) return;  // a closed terminal must not end the run
    text.remove_prefix(n);
  }
}

void Progress::Log(std::string_view line) {
  if (log_.get() < 0) return;
  const std::string text = Concat(line, "\n");
  [[maybe_unused]] const ssize_t ignored = write(log_.get(), text.data(), text.size());
}

}  // namespace moebius
