// Texts that nobody would write: the grader must answer each within its budget, whatever it says.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "rl/math/equivalence.h"
#include "tests/rl/math/math_tables.h"

namespace moebius::math {
namespace {

constexpr uint64_t kSeed = 7;
// Far above the budget's few milliseconds: a slow or sanitized machine must not fail here.
constexpr double kMaxSeconds = 5;

void GradeInTime(const std::string& gold, const std::string& answer) {
  const auto start = std::chrono::steady_clock::now();
  const GradeResult result = Grade(gold, answer);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_FALSE(result.reason.empty());
  EXPECT_LT(seconds.count(), kMaxSeconds) << gold << " | " << answer << ": " << result.reason;
}

TEST(GradeFuzz, RandomBytes) {
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 20000; ++round) {
    std::string text(random() % 60, ' ');
    for (char& c : text) c = static_cast<char>(random());
    GradeInTime(round % 2 == 0 ? "5" : text, text + (round % 3 == 0 ? "" : "1"));
  }
}

TEST(GradeFuzz, RandomRowsOfTokens) {
  const std::vector<std::string> pieces = {"1",
                                           "2",
                                           "10",
                                           "0",
                                           "999999",
                                           "x",
                                           "y",
                                           "n",
                                           "e",
                                           "i",
                                           "+",
                                           "-",
                                           "*",
                                           "/",
                                           "^",
                                           "_",
                                           "{",
                                           "}",
                                           "(",
                                           ")",
                                           "[",
                                           "]",
                                           ",",
                                           "=",
                                           "<",
                                           ">",
                                           "|",
                                           "!",
                                           ":",
                                           "%",
                                           "&",
                                           "\\frac",
                                           "\\sqrt",
                                           "\\sqrt[3]",
                                           "\\sin",
                                           "\\ln",
                                           "\\log",
                                           "\\pi",
                                           "\\infty",
                                           "\\cup",
                                           "\\{",
                                           "\\}",
                                           "\\pm",
                                           "\\binom",
                                           "\\sum_{k=1}^{9}",
                                           "\\int_0^1",
                                           "dx",
                                           "\\le",
                                           "\\in",
                                           "\\mathbb{R}",
                                           "\\text{cm}",
                                           "\\text{or}",
                                           "\\begin{pmatrix}",
                                           "\\end{pmatrix}",
                                           "\\\\",
                                           "\\ldots",
                                           "\\lfloor",
                                           "\\rfloor",
                                           "^\\circ",
                                           "\\pmod",
                                           "\\left(",
                                           "\\right)",
                                           "9^{9^{9}}",
                                           "1e9999",
                                           "\\$",
                                           " "};
  std::mt19937_64 random(kSeed);
  const auto row = [&] {
    std::string text;
    for (size_t n = 1 + random() % 14; n > 0; --n)
      text += pieces[random() % pieces.size()] + (random() % 4 == 0 ? " " : "");
    return text;
  };
  for (int round = 0; round < 40000; ++round) GradeInTime(row(), row());
}

TEST(GradeFuzz, MutatedCases) {
  const std::vector<Case> cases = ReadCases(MOEBIUS_SOURCE_DIR "/tests/rl/math/cases.tsv");
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 20000; ++round) {
    const Case& c = cases[random() % cases.size()];
    std::string text = c.answer;
    if (text.size() > 300) continue;
    for (size_t n = random() % 4; n > 0 && !text.empty(); --n) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text.erase(at, 1);
          break;
        case 1:
          text.insert(at, 1, text[random() % text.size()]);
          break;
        case 2:
          text += c.gold.substr(0, 200);
          break;
        default:
          text[at] = "0123456789xyn{}()^_+-*/\\!,"[random() % 26];
      }
    }
    GradeInTime(c.gold, text);
  }
}

TEST(GradeFuzz, Bombs) {
  const auto repeat = [](const std::string& text, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += text;
    return out;
  };
  const std::vector<std::string> bombs = {repeat("(", 9000),
                                          repeat("{", 4500) + repeat("}", 4500),
                                          repeat("\\frac{1}{1+", 1500) + "1" + repeat("}", 1500),
                                          repeat("\\sqrt", 3000) + "2",
                                          repeat("x^", 5000) + "x",
                                          repeat("9^", 5000) + "9",
                                          repeat("9^{", 100) + "9" + repeat("}", 100),
                                          "((((1000000!)!)!)!)!",
                                          repeat("(", 50) + "9" + repeat("!)", 50),
                                          "10^{999999999999999999999999}!",
                                          repeat("1,", 4500) + "1",
                                          repeat("\\{", 5000),
                                          repeat("[(", 4000),
                                          "\\binom{10^{9}}{10^{8}}",
                                          "\\binom{99999999}{49999999}",
                                          "\\sum_{k=1}^{5000}k^{5000}",
                                          "\\prod_{k=1}^{5000}(k!)^{k}",
                                          "(x+y+z)^{99999}",
                                          "2^{2^{2^{2^{2^{2}}}}}",
                                          "\\int_0^1 x^{1000}\\sin(1000x)\\,dx",
                                          "\\int_{-1}^1 \\frac{1}{x}dx",
                                          "\\int_0^{10^{9}} \\sin(x^2) dx",
                                          "0.\\overline{" + repeat("7", 4000) + "}",
                                          repeat("7", 9000),
                                          "1e9999",
                                          "1e-9999",
                                          "\\sqrt[9999]{2}",
                                          "\\sqrt[64]{\\sqrt[63]{\\sqrt[61]{2}}}",
                                          "\\cos\\frac{\\pi}{1999}\\cos\\frac{\\pi}{1997}",
                                          "10^{10^{10}}+1",
                                          "\\sin(10^{10^{10}})",
                                          "\\ln(10^{10^{10}})",
                                          "\\lfloor 10^{10^{10}}\\rfloor",
                                          "\\lfloor e^{1000}\\rfloor",
                                          "\\gcd(2^{100000},3^{100000})",
                                          repeat("\\begin{pmatrix}", 500),
                                          repeat("|", 5000),
                                          repeat("abs(", 60) + "x" + repeat(")", 60) + "<5",
                                          repeat("|", 40) + "x" + repeat("|", 40) + "<5",
                                          repeat("\\text{", 50000) + "5" + repeat("}", 50000),
                                          repeat("\\mathbf{1", 900) + repeat("}", 900),
                                          repeat("-", 9000),
                                          repeat("\\pm 1", 3000),
                                          "1" + repeat("\\pm 1", 100),
                                          repeat("x_{", 3000),
                                          repeat("\\text{", 3000),
                                          "\\{" + repeat("\\sqrt{2},", 900) + "1\\}",
                                          "(-1)^{\\frac{1}{64}}",
                                          "i^{i^{i^{i}}}",
                                          "x<1" + repeat(",x<2", 2000),
                                          "\\left(" + repeat("(0,1)\\cup", 1500) + "(0,1)",
                                          repeat("\\boxed{", 2000),
                                          repeat("<answer>", 2000),
                                          repeat("a=", 5000) + "a",
                                          repeat("sin", 4000),
                                          "1:" + repeat("1:", 5000) + "1",
                                          repeat("1 ft ", 3000),
                                          "5" + repeat("\\text{ m}", 3000)};
  for (const std::string& bomb : bombs) {
    GradeInTime("5", bomb);
    GradeInTime(bomb, "5");
    GradeInTime(bomb, bomb + "+0");
    GradeInTime(bomb + "+1", bomb);
  }
}

}  // namespace
}  // namespace moebius::math
