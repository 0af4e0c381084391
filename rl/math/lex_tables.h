// The names that the lexer knows: commands, functions, Greek letters, short words.
#pragma once

#include <string_view>

namespace moebius::math {

struct Alias {
  std::string_view from, to;
};

// Commands that are another command or sign.
inline constexpr Alias kAliases[] = {{"dfrac", "frac"},
                                     {"tfrac", "frac"},
                                     {"cfrac", "frac"},
                                     {"dbinom", "binom"},
                                     {"tbinom", "binom"},
                                     {"leq", "le"},
                                     {"leqslant", "le"},
                                     {"geq", "ge"},
                                     {"geqslant", "ge"},
                                     {"neq", "ne"},
                                     {"ast", "times"},
                                     {"star", "times"},
                                     {"varnothing", "emptyset"},
                                     {"dots", "ldots"},
                                     {"cdots", "ldots"},
                                     {"dotsc", "ldots"},
                                     {"dotsb", "ldots"},
                                     {"lbrace", "{"},
                                     {"rbrace", "}"},
                                     {"varepsilon", "epsilon"},
                                     {"varphi", "phi"},
                                     {"vartheta", "theta"},
                                     {"tg", "tan"},
                                     {"ctg", "cot"},
                                     {"cosec", "csc"},
                                     {"arctg", "arctan"},
                                     {"asin", "arcsin"},
                                     {"acos", "arccos"},
                                     {"atan", "arctan"},
                                     {"infinity", "infty"},
                                     {"Infinity", "infty"},
                                     {"inf", "infty"},
                                     {"oo", "infty"},
                                     {"thickapprox", "approx"},
                                     {"simeq", "approx"},
                                     {"approxeq", "approx"},
                                     {"smallsetminus", "setminus"},
                                     {"backslash", "setminus"},
                                     {"bigcup", "cup"},
                                     {"bigcap", "cap"},
                                     {"land", "and"},
                                     {"lor", "or"},
                                     {"wedge", "and"},
                                     {"vee", "or"},
                                     {"dfrac", "frac"},
                                     {"isin", "in"},
                                     {"union", "cup"},
                                     {"reals", "R"},
                                     {"C", "C"},
                                     {"tbinom", "binom"},
                                     {"iint", "int"},
                                     {"ceiling", "ceil"},
                                     {"degree", "circ"},
                                     {"degrees", "circ"},
                                     {"textdegree", "circ"},
                                     {"Rightarrow", "implies"},
                                     {"Longrightarrow", "implies"},
                                     {"rightarrow", "to"},
                                     {"longrightarrow", "to"},
                                     {"smallmatrix", "pmatrix"}};

// Commands that are one character.
inline constexpr Alias kChars[] = {{"lt", "<"},     {"gt", ">"},     {"colon", ":"}, {"lbrack", "["},
                                   {"rbrack", "]"}, {"lvert", "|"},  {"rvert", "|"}, {"vert", "|"},
                                   {"lparen", "("}, {"rparen", ")"}, {"prime", "'"}, {"percent", "%"}};

inline constexpr std::string_view kSkipped[] = {
    "left",         "right",      "big",         "Big",     "bigg",     "Bigg",          "bigl",
    "bigr",         "Bigl",       "Bigr",        "biggl",   "biggr",    "Biggl",         "Biggr",
    "displaystyle", "textstyle",  "scriptstyle", "limits",  "nolimits", "quad",          "qquad",
    "middle",       "rm",         "it",          "bf",      "angle",    "measuredangle", "triangle",
    "hfill",        "thinspace",  "medspace",    "enspace", "hline",    "mathstrut",     "space",
    "nonumber",     "normalsize", "large",       "Large",   "boldmath"};

inline constexpr std::string_view kTextCommands[] = {
    "text", "textbf", "textit", "textrm", "mathrm", "mbox",       "mathit",
    "emph", "textsf", "texttt", "mathsf", "hbox",   "textnormal", "operatorname"};
// Decorations: the letters below keep their names.
inline constexpr std::string_view kDecorations[] = {
    "mathbf", "boldsymbol", "bm",    "vec",       "overrightarrow", "mathcal", "mathfrak", "mathscr",
    "hat",    "widehat",    "tilde", "underline", "boxed",          "bold",    "pmb"};

inline constexpr std::string_view kFunctions[] = {
    "sin",    "cos",  "tan",  "cot",  "sec",   "csc",  "arcsin", "arccos", "arctan",
    "arccot", "sinh", "cosh", "tanh", "ln",    "log",  "lg",     "exp",    "gcd",
    "lcm",    "min",  "max",  "abs",  "floor", "ceil", "det",    "Re",     "Im"};

inline constexpr std::string_view kNamedLetters[] = {
    "alpha", "beta",  "gamma",  "delta", "epsilon", "zeta",  "eta", "theta", "iota",  "kappa", "lambda",
    "mu",    "nu",    "xi",     "rho",   "sigma",   "tau",   "phi", "chi",   "psi",   "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi",    "Pi",      "Sigma", "Phi", "Psi",   "Omega", "ell",   "hbar"};

// Plain words that are commands without a backslash.
inline constexpr std::string_view kBareCommands[] = {
    "pi",      "sqrt",   "cbrt",  "infinity", "Infinity", "inf",  "oo",   "and",     "or",  "mod",
    "percent", "choose", "union", "infty",    "asin",     "acos", "atan", "ceiling", "frac"};

// Short words that would otherwise be products of letters.
inline constexpr std::string_view kShortWords[] = {
    "yes", "no",  "odd", "all",  "is",  "the", "of",  "not", "to",  "at",  "if",  "on",  "for", "are", "sum",
    "but", "non", "nor", "both", "mon", "tue", "wed", "thu", "fri", "sat", "sun", "one", "two", "six", "ten",
    "any", "may", "can", "red",  "yea", "nay", "dne", "tie", "win", "men", "boy", "am",  "pm",  "so",  "we",
    "it",  "as",  "by",  "an",   "he",  "she", "up",  "per", "few", "not", "off", "was", "has", "say"};

}  // namespace moebius::math
