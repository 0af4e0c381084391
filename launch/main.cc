// The program: one explicit list of verbs. What a verb needs at start-up is paid for by that verb alone.
#include <fcntl.h>

#include <csignal>
#include <new>
#include <string>
#include <vector>

#include "core/base/memory.h"
#include "launch/cli.h"
#include "launch/verb_bench.h"
#include "launch/verb_chat.h"
#include "launch/verb_convert.h"
#include "launch/verb_data.h"
#include "launch/verb_doctor.h"
#include "launch/verb_eval.h"
#include "launch/verb_generate.h"
#include "launch/verb_grade.h"
#include "launch/verb_inspect.h"
#include "launch/verb_plan.h"
#include "launch/verb_report.h"
#include "launch/verb_sandbox.h"
#include "launch/verb_score.h"
#include "launch/verb_tokenizer.h"
#include "launch/verb_train.h"
#include "launch/verb_verify.h"

int main(int argc, char** argv) {
  using moebius::Verb;
  std::set_new_handler([] { moebius::OutOfMemory(0); });
  // Where a standard stream is closed, the first file that is opened would get its number, and its text.
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", O_RDONLY);  // writing there fails, as before
  }
  std::signal(SIGXFSZ,
              SIG_IGN);  // a file above the limit (ulimit -f) is then an error of write, which says so
  std::vector<Verb> verbs;
  // Each launch/verb_NAME.h declares a function that returns its verbs; they are listed here in the order of
  // help.
  const auto add = [&verbs](std::vector<Verb> more) {
    for (Verb& verb : more) verbs.push_back(std::move(verb));
  };
  add(moebius::TrainVerbs());
  add(moebius::VerifyVerbs());
  add(moebius::PlanVerbs());
  add(moebius::DataVerbs());
  add(moebius::TokenizerVerbs());
  add(moebius::ScoreVerbs());
  add(moebius::GenerateVerbs());
  add(moebius::ChatVerbs());
  add(moebius::EvalVerbs());
  add(moebius::GradeVerbs());
  add(moebius::SandboxVerbs());
  add(moebius::ConvertVerbs());
  add(moebius::InspectVerbs());
  add(moebius::ReportVerbs());
  add(moebius::BenchVerbs());
  add(moebius::DoctorVerbs());
  return moebius::RunProgram(verbs, std::vector<std::string>(argv + 1, argv + argc));
}
