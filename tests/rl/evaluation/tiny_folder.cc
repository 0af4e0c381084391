#include "tests/rl/evaluation/tiny_folder.h"

#include <fstream>

#include "core/base/check.h"
#include "core/io/file.h"
#include "core/model/weights.h"
#include "tests/core/generate/tiny_models.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {

void WriteTinyFolder(const std::string& folder, TinyChat chat) {
  ModelConfig config = TinyConfig("qwen3");
  config.vocab_size = kFirstSpecialId + 2;
  config.max_position_embeddings = kTinyPositions;
  config.eos_token_id = kFirstSpecialId + 1;
  TinyModel model(config, DType::kF32);
  CHECK(MakeDirs(folder).ok());
  const auto written = SaveWeights(folder, model.backend(), model.stream(), model.model(), DType::kF32);
  CHECK(written.ok()) << written.status();
  const Tokenizer tokenizer = SmallTokenizer({"<|im_start|>", "<|im_end|>"});
  std::ofstream(JoinPath(folder, "tokenizer.json")) << tokenizer.json();
  if (chat == TinyChat::kChatMl) {
    std::ofstream(JoinPath(folder, "chat_template.jinja"))
        << "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
           "}}<|im_end|>\n"
           "{% endfor %}";
  }
}

}  // namespace moebius
