// Turns what people and models write around and instead of LaTeX into plain ASCII LaTeX: Unicode signs,
// dollar and Markdown wrappers, spacing commands, a full stop at the end.
#pragma once

#include <string>
#include <string_view>

namespace moebius::math {

// Unicode signs become LaTeX commands or ASCII, bytes that are no such sign '?', and "{\rm x}" of plain TeX
// "\mathrm{x}".
std::string ToAscii(std::string_view text);
// Strips wrappers from both ends as long as there are any: spaces, $...$, \(...\), \[...\], \boxed{...},
// **...**,
// `...`, \text{...} around the whole, a final full stop or \\.
std::string StripWrappers(std::string_view ascii);
// The words of a text without formatting commands, in lower case with single spaces: "\textbf{(B) Yes.}" is
// "(b) yes".
std::string PlainWords(std::string_view ascii);
// The same with the case kept.
std::string PlainText(std::string_view ascii);
// Index behind the brace that closes the one at `open`, or npos. \{ and \} do not count.
size_t MatchBrace(std::string_view text, size_t open);

}  // namespace moebius::math
