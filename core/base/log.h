// Lines on stderr, one write(2) a line so that lines of several ranks never mix.
#pragma once

#include <string>
#include <string_view>

namespace moebius {

// Ranks are threads or processes: the prefix "[rank 3] " belongs to the calling thread and the threads that
// it starts with SetLogRank. A negative rank (the default) prints no prefix.
void SetLogRank(int rank);
int LogRank();

// From now on lines of `rank` (of threads without a rank: 0) are appended to the file, too. False where it
// cannot be opened, which changes nothing.
bool AlsoLogTo(int rank, const std::string& path);

// Writes the prefix, `text` and a newline to stderr.
void LogLine(std::string_view text);

}  // namespace moebius
