// Encoding speed of one thread: tokenizer_bench TOKENIZER FILE [PIECE_BYTES [SECONDS]] encodes the file in
// pieces cut at characters, again and again, and prints one JSON line with the best round. Times are
// processor time, which other processes disturb less.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "core/base/status.h"
#include "core/io/file.h"
#include "data/tokenizer/tokenizer.h"

namespace {

double Seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace moebius;
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER FILE [PIECE_BYTES [SECONDS]]\n");
    return kExitUsage;
  }
  const size_t piece_bytes = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 4096;
  const double seconds = argc > 4 ? std::strtod(argv[4], nullptr) : 2;
  const double load_start = Seconds();
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(argv[1]);
  const double load_s = Seconds() - load_start;
  const absl::StatusOr<std::string> text = ReadFile(argv[2]);
  for (const absl::Status& status : {tokenizer.status(), text.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    return ExitCode(status);
  }
  std::vector<std::string_view> pieces;
  for (std::string_view rest = *text; !rest.empty();) {
    size_t cut = std::min(piece_bytes, rest.size());
    while (cut < rest.size() && cut > 1 && (rest[cut] & 0xC0) == 0x80) --cut;
    pieces.push_back(rest.substr(0, cut));
    rest.remove_prefix(cut);
  }
  double best_s = 1e30;
  size_t num_tokens = 0;
  const double start = Seconds();
  do {
    const double round = Seconds();
    num_tokens = 0;
    std::vector<int32_t> ids;
    for (const std::string_view piece : pieces) {
      ids.clear();
      tokenizer->Encode(piece, &ids);
      num_tokens += ids.size();
    }
    best_s = std::min(best_s, Seconds() - round);
  } while (Seconds() - start < seconds);
  std::printf("{\"bytes\": %zu, \"tokens\": %zu, \"mb_per_s\": %.2f, \"load_s\": %.3f}\n", text->size(),
              num_tokens, text->size() / best_s / 1e6, load_s);
  return 0;
}
