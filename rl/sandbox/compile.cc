#include "rl/sandbox/compile.h"

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "core/base/strings.h"
#include "rl/sandbox/cpp_stub.h"
#include "rl/sandbox/slot_run.h"

namespace moebius::sandbox {
namespace {

constexpr char kWrapMain[] = "-Wl,--wrap=main";

// Whether a class or struct Solution is declared: outside of comments and quoted text.
bool HasSolutionClass(const std::string& program) {
  std::string code;
  for (size_t i = 0; i < program.size(); ++i) {
    const char c = program[i];
    const std::string_view rest = std::string_view(program).substr(i);
    if (rest.starts_with("//") || rest.starts_with("/*")) {
      const std::string_view end = rest[1] == '/' ? "\n" : "*/";
      const size_t at = rest.find(end, 2);
      if (at == std::string_view::npos) break;
      i += at + end.size() - 1;
      code += ' ';
    } else if (c == '"' || c == '\'') {
      for (++i; i < program.size() && program[i] != c && program[i] != '\n'; ++i) i += program[i] == '\\';
      code += ' ';
    } else {
      code += c == '\n' || c == '\t' ? ' ' : c;
    }
  }
  for (const std::string_view words : {"class Solution", "struct Solution"}) {
    for (size_t at = code.find(words); at != std::string::npos; at = code.find(words, at + 1)) {
      const size_t end = at + words.size();
      if (end == code.size() || (!absl::ascii_isalnum(code[end]) && code[end] != '_')) return true;
    }
  }
  return false;
}

// What is compiled: the program alone where it has a main of its own, else between the stub and a main of
// ours, which is "signed", as programs like to have a macro named int.
std::string Source(const Job& job, const std::string& script) {
  const std::string& program = job.program;
  if (job.tests.kind == TestKind::kStdin || job.tests.kind == TestKind::kChecker) return program;
  const std::string head = Concat(kCppStub, "\n#define main moebius_program_main\n#line 1 \"program.cpp\"\n",
                                  program, "\n#undef main\n");
  if (job.tests.kind == TestKind::kFunction) {
    std::string name = job.tests.function;
    if (const size_t point = name.find('.'); point != std::string::npos) name.replace(point, 1, "::");
    const bool method = name.find("::") == std::string::npos && HasSolutionClass(program);
    return Concat(head, "\nsigned main() { return moebius_slot::Call(&", method ? "Solution::" : "", name,
                  "); }\n");
  }
  // A script without a main is the body of one. Either way the real one is called through the linker
  // (kWrapMain), and only its return, not an exit, leads to the end mark.
  const bool whole = script.find(" main(") != std::string::npos;
  return Concat(head, "#undef NDEBUG\n#undef assert\n#include <cassert>\n#line 1 \"test\"\n",
                whole ? "" : "signed main() {\n", script, whole ? "\n" : "\n}\n",
                "extern \"C\" signed __real_main(signed, char**, char**);\n"
                "extern \"C\" signed __wrap_main(signed count, char** words, char** environment) {\n"
                "  const signed code = __real_main(count, words, environment);\n"
                "  return code != 0 ? code : moebius_slot::Finish();\n}\n");
}

}  // namespace

Compiled Compile(Runner& runner, const Job& job, const std::string& script) {
  const std::string source = Source(job, script);
  SlotProgram compiler;
  compiler.argv = {"/usr/bin/g++", "-std=gnu++20", "-O2", "-pipe", "-o", "/box/artifact", "/prog/main.cpp"};
  if (job.tests.kind == TestKind::kAssert) compiler.argv.push_back(kWrapMain);
  compiler.files = {{"main.cpp", source}};
  compiler.limits = kCompileLimits;
  compiler.want_artifact = true;
  SlotResult result = RunInSlot(runner, compiler);
  Compiled compiled;
  compiled.harness = result.facts.harness;
  compiled.message = compiled.harness ? result.harness_error : result.error;
  RunFacts facts = result.facts;
  facts.right = true;
  const Verdict verdict = Decide(facts);
  struct stat info;
  compiled.ok = verdict == Verdict::kOk && fstat(result.artifact.get(), &info) == 0 && info.st_size > 0;
  compiled.executable = std::move(result.artifact);
  if (verdict != Verdict::kOk && verdict != Verdict::kRuntime)
    compiled.message = Concat("compiling ended with ", VerdictName(verdict), "; ", compiled.message);
  return compiled;
}

}  // namespace moebius::sandbox
