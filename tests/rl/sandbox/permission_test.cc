// Who may run programs where nothing holds them.
#include <string>
#include <vector>

#include "core/base/status.h"
#include "gtest/gtest.h"
#include "rl/sandbox/sandbox.h"

namespace moebius::sandbox {
namespace {

// Programs run unprotected only where the recipe and the command line both say so.
TEST(Sandbox, IsRefusedWithoutWallsUnlessBothAllowIt) {
  const std::vector<std::string> walls = {"namespaces", "seccomp", "landlock"};
  for (const bool recipe : {false, true}) {
    for (const bool command : {false, true}) {
      const auto box = Sandbox::Start({.runner = {.slots = 1, .without = walls},
                                       .recipe_allows_unsafe = recipe,
                                       .switch_allows_unsafe = command});
      ASSERT_EQ(box.ok(), recipe && command) << recipe << command << box.status();
      if (box.ok()) {
        EXPECT_FALSE((*box)->isolated());
      } else {
        EXPECT_EQ(ExitCode(box.status()), kExitUnavailable);
      }
    }
  }
}

}  // namespace
}  // namespace moebius::sandbox
