#include "launch/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/status.h"
#include "launch/environment.h"

namespace moebius {
namespace {

TEST(StopSignals, RemembersTheFirstSignal) {
  const StopSignals signals;
  EXPECT_FALSE(signals.stop_requested());
  raise(SIGUSR1);
  raise(SIGTERM);
  EXPECT_EQ(signals.signal_number(), SIGUSR1);
}

// Computing threads have a stack for them, as generated code of products leaves no room on its own.
TEST(StopSignals, AreHandledOnTheStackForSignals) {
  const StopSignals signals;
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGHUP, SIGPIPE}) {
    struct sigaction now = {};
    ASSERT_EQ(sigaction(number, nullptr, &now), 0);
    EXPECT_TRUE(now.sa_flags & SA_ONSTACK) << number;
  }
}

// The exit code of a child that raises `numbers` one after the other and would then exit with 7.
int ExitAfter(const std::vector<int>& numbers) {
  const pid_t child = fork();
  if (child == 0) {
    const StopSignals signals;
    for (int number : numbers) raise(number);
    _exit(7);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(StopSignals, LeavesAtOnceOnTheSecondHardSignalOnly) {
  EXPECT_EQ(ExitAfter({SIGINT}), 7);
  EXPECT_EQ(ExitAfter({SIGINT, SIGINT}), 128 + SIGINT);
  EXPECT_EQ(ExitAfter({SIGINT, SIGTERM}), 128 + SIGTERM);
  EXPECT_EQ(ExitAfter({SIGUSR1, SIGUSR1, SIGTERM}), 7) << "batch queues send USR1 first, then TERM";
}

TEST(StopSignals, AClosedTerminalOrPipeIsARequestToStopUnlessItIsIgnored) {
  for (const int number : {SIGHUP, SIGPIPE}) {
    {
      const StopSignals signals;
      raise(number);
      raise(number);
      EXPECT_EQ(signals.signal_number(), number);
    }
    signal(number, SIG_IGN);
    {
      const StopSignals signals;
      raise(number);
      EXPECT_FALSE(signals.stop_requested());
    }
    EXPECT_EQ(signal(number, SIG_DFL), SIG_IGN);
  }
}

TEST(StopSignals, PutsTheEarlierHandlersBack) {
  signal(SIGTERM, SIG_IGN);
  { const StopSignals signals; }
  raise(SIGTERM);
  EXPECT_EQ(signal(SIGTERM, SIG_DFL), SIG_IGN);
}

TEST(Environment, KnowsThisMachine) {
  const Environment environment = ReadEnvironment();
  EXPECT_GE(environment.usable_cores, 1);
  EXPECT_LE(environment.usable_cores, environment.logical_cores);
  EXPECT_GT(environment.memory_bytes, 1 << 20);
  EXPECT_FALSE(environment.cpu_model.empty());
  EXPECT_FALSE(environment.version.empty());
  const std::string json = EnvironmentJson(environment, {{"perf/mfu_basis", "peak \"x\""}});
  EXPECT_NE(json.find("\"perf/mfu_basis\": \"peak \\\"x\\\"\""), std::string::npos) << json;
}

}  // namespace
}  // namespace moebius
