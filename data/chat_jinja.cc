// The templates of chat_render.cc as Jinja texts, for programs that read chat_template.jinja of a checkpoint.
#include "core/base/strings.h"
#include "data/chat_template.h"

namespace moebius {
namespace {

// Between single quotes of a Jinja string.
std::string Quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || c == '\'') out += '\\';
    out += c;
  }
  return out + "'";
}

constexpr const char* kChatMlPrompt = R"(
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
)";

std::string ChatMl(const ChatTemplate& chat) {
  std::string out;
  if (!chat.default_system.empty()) {
    out = Concat("{%- if messages[0]['role'] != 'system' -%}\n  {{- ",
                 Quoted(Concat("<|im_start|>system\n", chat.default_system, "<|im_end|>\n")),
                 " -}}\n{%- endif -%}\n");
  }
  return Concat(out, R"({%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}
{%- endfor -%})",
                kChatMlPrompt);
}

// The reasoning of answers stays after the last question that is no tool's answer in disguise.
std::string Qwen3() {
  return Concat(R"({%- set ns = namespace(found=false, last_query_index=messages | length - 1) -%}
{%- for message in messages[::-1] -%}
  {%- set text = message['content'] -%}
  {%- set tool = text.startswith('<tool_response>') and text.endswith('</tool_response>') -%}
  {%- if message['role'] == 'user' and not tool and not ns.found -%}
    {%- set ns.found = true -%}
    {%- set ns.last_query_index = messages | length - 1 - loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set text = message['content'] -%}
  {{- '<|im_start|>' + message['role'] + '\n' -}}
  {%- if message['role'] == 'assistant' -%}
    {%- set reasoning = '' -%}
    {%- if '</think>' in text -%}
      {%- set reasoning = text.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
      {%- set text = text.split('</think>')[-1].lstrip('\n') -%}
    {%- endif -%}
    {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) -%}
      {{- '<think>\n' + reasoning + '\n</think>\n\n' + text.lstrip('\n') -}}
    {%- else -%}
      {{- text -}}
    {%- endif -%}
  {%- else -%}
    {{- text -}}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%})",
                kChatMlPrompt,
                R"({%- if add_generation_prompt and enable_thinking is defined and not enable_thinking -%}
  {{- '<think>\n\n</think>\n\n' -}}
{%- endif -%}
)");
}

std::string Llama3(const ChatTemplate& chat) {
  std::string out = "{{- '<|begin_of_text|>' -}}\n{%- set rest = messages -%}\n";
  if (!chat.system_preface.empty()) {
    out += Concat(
        "{{- ", Quoted(Concat("<|start_header_id|>system<|end_header_id|>\n\n", chat.system_preface)), R"( -}}
{%- if messages[0]['role'] == 'system' -%}
  {{- messages[0]['content'] | trim -}}
  {%- set rest = messages[1:] -%}
{%- endif -%}
{{- '<|eot_id|>' -}}
)");
  }
  return Concat(out, R"({%- for message in rest -%}
  {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' -}}
  {{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
)");
}

std::string DeepSeek(const ChatTemplate& chat) {
  return Concat(R"({{- '<｜begin▁of▁sentence｜>' -}}
{%- set ns = namespace(first=true) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {{- ('' if ns.first else '\n\n') + message['content'] -}}
    {%- set ns.first = false -%}
  {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '<｜User｜>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- )",
                chat.opens_thinking ? "'<｜Assistant｜><think>\\n'" : "'<｜Assistant｜>'", R"( -}}
{%- endif -%}
)");
}

}  // namespace

std::string ChatTemplateJinja(const ChatTemplate& chat) {
  switch (chat.family) {
    case ChatFamily::kChatMl:
      return ChatMl(chat);
    case ChatFamily::kQwen3:
      return Qwen3();
    case ChatFamily::kLlama3:
      return Llama3(chat);
    case ChatFamily::kDeepSeek:
      return DeepSeek(chat);
  }
  return "";
}

}  // namespace moebius
