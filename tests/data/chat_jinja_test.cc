// Our Jinja texts, rendered by jinja2 as transformers does it, against what the released templates render.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/base/strings.h"
#include "data/chat_template.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

constexpr const char* kProgram = R"(
import json, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment
folder, goldens = sys.argv[1:]
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
wrong = count = 0
for line in open(goldens):
    g = json.loads(line)
    text = env.from_string(open(f"{folder}/{g['template']}").read()).render(
        messages=g["messages"], add_generation_prompt=g["add_generation_prompt"])
    count += 1
    if text != g["text"]:
        wrong += 1
        print(g["template"], repr(text), repr(g["text"]))
print(count, "rendered")
sys.exit(1 if wrong or count < 70 else 0)
)";

TEST(ChatJinja, RendersAsTheReleasedTemplates) {
  const Scratch scratch;
  for (const std::string& name : ChatTemplateNames())
    WriteRaw(scratch.path(name), ChatTemplateJinja(*ChatTemplateByName(name)));
  WriteRaw(scratch.path("render.py"), kProgram);
  const std::string command =
      Concat(MOEBIUS_JINJA_PYTHON, " ", scratch.path("render.py"), " ", scratch.folder(), " ",
             MOEBIUS_SOURCE_DIR "/tests/data/chat_goldens.jsonl");
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace moebius
