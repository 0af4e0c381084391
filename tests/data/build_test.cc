// `moebius data build` from small texts: what is kept, held out and written, and what is said when it cannot
// be.
#include "data/build.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/data.pb.h"
#include "data/document_set.h"
#include "data/encode_documents.h"
#include "data/special_tokens.h"
#include "data/token_file.h"
#include "tests/core/io/scratch.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

class BuildTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(scratch_.path("text/sub"));
    for (int i = 0; i < 20; ++i) {
      std::string text = Concat("Document number ", i, ".\n");
      for (int j = 0; j < 30; ++j)
        text += Concat("The sea was calm and the wind came from the north, ", i * 31 + j, " times.\n");
      WriteRaw(scratch_.path(Concat("text/", i % 2 == 0 ? "" : "sub/", "doc", i, ".txt")), text);
    }
    recipe_.set_out(scratch_.path("out"));
    recipe_.set_vocab_size(300);
    auto* source = recipe_.add_source();
    source->set_text(scratch_.path("text"));
    recipe_.add_held_out("text/sub/doc3.txt");
  }
  absl::StatusOr<BuildReport> Build() {
    lines_.clear();
    return BuildData(recipe_, 2, [&](const std::string& line) { lines_ += line + "\n"; });
  }
  std::string ReadDocuments(const std::string& file) {
    const auto tokens = TokenFile::Open(scratch_.path("out/" + file));
    EXPECT_TRUE(tokens.ok()) << tokens.status();
    if (!tokens.ok()) return "";
    const auto tokenizer = Tokenizer::FromJson((*tokens)->info().tokenizer_json, file);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::vector<int32_t> ids((*tokens)->num_tokens());
    EXPECT_TRUE((*tokens)->Read(0, ids).ok());
    return tokenizer->Decode(ids);
  }
  const Scratch scratch_;
  proto::DataBuild recipe_;
  std::string lines_;
};

TEST_F(BuildTest, FieldsOfAnotherKindOfSourceAreRefused) {
  const auto said = [&] {
    return std::string(BuildData(recipe_, 1, [](std::string_view) {}).status().message());
  };
  recipe_.mutable_source(0)->set_text_field("body");
  EXPECT_EQ(said(), "source[0].text_field: only a source with jsonl reads it; remove the field");
  recipe_.mutable_source(0)->clear_text_field();
  recipe_.mutable_source(0)->set_root("/");
  EXPECT_EQ(said(), "source[0].root: only a source with corpus reads it; remove the field");
}

TEST_F(BuildTest, WritesEveryDocumentEndedAndInItsSplit) {
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train_documents, 19);
  EXPECT_EQ(report->held_out_documents, 1);
  EXPECT_EQ(ReadDocuments("val.h5"), ReadRaw(scratch_.path("text/sub/doc3.txt")) + "<｜end▁of▁sentence｜>");
  const std::string train = ReadDocuments("train.h5");
  EXPECT_TRUE(train.starts_with("Document number 0.\n"));
  EXPECT_EQ(train.find("Document number 3.\n"), std::string::npos);
  EXPECT_NE(train.find("<｜end▁of▁sentence｜>Document number 10.\n"), std::string::npos) << "sorted by path";
  const auto file = TokenFile::Open(scratch_.path("out/train.h5"));
  EXPECT_EQ((*file)->document_starts().size(), 19u);
  EXPECT_EQ((*file)->info().bytes, report->train_bytes);
  EXPECT_EQ((*file)->info().vocab_size, 300);
  EXPECT_EQ((*file)->info().tokenizer_json, ReadRaw(scratch_.path("out/tokenizer.json")));
  EXPECT_LT((*file)->num_tokens(), report->train_bytes / 2);
}

TEST_F(BuildTest, SaysThatATokenizerIsSmallerThanAskedFor) {
  recipe_.set_vocab_size(100000);
  ASSERT_TRUE(Build().ok());
  EXPECT_NE(lines_.find(" tokens, fewer than the 100,000 asked for"), std::string::npos) << lines_;
}

TEST_F(BuildTest, TheManifestTellsSourcesAndHashes) {
  ASSERT_TRUE(Build().ok());
  const auto manifest = nlohmann::json::parse(ReadRaw(scratch_.path("out/manifest.json")));
  EXPECT_EQ(manifest["sources"][0]["name"], "text");
  EXPECT_EQ(manifest["sources"][0]["documents"], 20);
  EXPECT_EQ(manifest["train"]["documents"], 19);
  for (const char* name : {"train.h5", "val.h5", "tokenizer.json"}) {
    const auto hash = HashFile(scratch_.path(Concat("out/", name)));
    EXPECT_EQ(manifest["outputs"][name]["sha256"], hash->sha256) << name;
    EXPECT_EQ(manifest["outputs"][name]["bytes"], hash->bytes) << name;
  }
}

TEST_F(BuildTest, DoesNothingTheSecondTimeUntilSomethingChanges) {
  const auto first = Build();
  ASSERT_TRUE(first.ok());
  const std::string manifest = ReadRaw(scratch_.path("out/manifest.json"));
  const auto written = fs::last_write_time(scratch_.path("out/train.h5"));
  const auto again = Build();
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->up_to_date);
  EXPECT_EQ(again->train_tokens, first->train_tokens);
  EXPECT_EQ(again->vocab_size, 300);
  EXPECT_EQ(fs::last_write_time(scratch_.path("out/train.h5")), written);
  // One byte of text, one of the output, one of the recipe.
  std::string text = ReadRaw(scratch_.path("text/doc0.txt"));
  text[0] = 'd';
  WriteRaw(scratch_.path("text/doc0.txt"), text);
  EXPECT_FALSE(Build()->up_to_date);
  EXPECT_TRUE(Build()->up_to_date);
  std::string tokens = ReadRaw(scratch_.path("out/train.h5"));
  tokens[tokens.size() / 2] = static_cast<char>(tokens[tokens.size() / 2] ^ 1);
  WriteRaw(scratch_.path("out/train.h5"), tokens);
  EXPECT_FALSE(Build()->up_to_date);
  recipe_.set_vocab_size(310);
  EXPECT_FALSE(Build()->up_to_date);
}

TEST_F(BuildTest, GivesTheSameBytesForAnyNumberOfThreads) {
  ASSERT_TRUE(Build().ok());
  const std::string one = ReadRaw(scratch_.path("out/train.h5"));
  recipe_.set_out(scratch_.path("other"));
  ASSERT_TRUE(BuildData(recipe_, 5, [](const std::string&) {}).ok());
  EXPECT_EQ(ReadRaw(scratch_.path("other/train.h5")), one);
  EXPECT_EQ(ReadRaw(scratch_.path("other/manifest.json")), ReadRaw(scratch_.path("out/manifest.json")));
}

TEST_F(BuildTest, DropsDuplicatesFromTheTrainingTextNotFromTheHeldOut) {
  const std::string held_out = ReadRaw(scratch_.path("text/sub/doc3.txt"));
  std::string spaced = "  " + held_out + "\n\n";
  spaced.insert(spaced.find(' ', 10), "\n ");
  WriteRaw(scratch_.path("text/aaa.txt"), spaced);  // before it in order
  WriteRaw(scratch_.path("text/zzz.txt"), ReadRaw(scratch_.path("text/doc0.txt")));
  WriteRaw(scratch_.path("text/blank.txt"), " \n\t\n");
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train_documents, 19);
  EXPECT_EQ(report->held_out_documents, 1);
  EXPECT_NE(lines_.find("2 duplicates left out, 1 blank left out"), std::string::npos) << lines_;
  recipe_.set_deduplicate(false);
  EXPECT_EQ(Build()->train_documents, 21);
}

TEST_F(BuildTest, TakesAGivenTokenizerAndEncodesMarkersInTextAsText) {
  const Tokenizer tokenizer = SmallTokenizer({"<|endoftext|>"});
  WriteRaw(scratch_.path("tokenizer.json"), tokenizer.json());
  WriteRaw(scratch_.path("text/doc0.txt"), "a marker <|endoftext|> in the text");
  recipe_.set_tokenizer(scratch_.path("tokenizer.json"));
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(ReadRaw(scratch_.path("out/tokenizer.json")), tokenizer.json());
  const auto file = TokenFile::Open(scratch_.path("out/train.h5"));
  std::vector<int32_t> ids((*file)->num_tokens());
  ASSERT_TRUE((*file)->Read(0, ids).ok());
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kFirstSpecialId), 19)
      << "one end for each document, none from text";
}

TEST_F(BuildTest, FillInTheMiddleKeepsEveryCharacterAndLeavesHeldOutTextAlone) {
  WriteRaw(scratch_.path("text/doc0.txt"), "Ünïcödé — 日本語 text with characters of every length 😀.\n");
  recipe_.set_fim_rate(1);
  ASSERT_TRUE(Build().ok());
  const std::string train = ReadDocuments("train.h5");
  size_t begin = 0;
  for (int d = 0; d < 19; ++d) {
    const size_t end = train.find("<｜end▁of▁sentence｜>", begin);
    ASSERT_NE(end, std::string::npos);
    const std::string document = train.substr(begin, end - begin);
    const std::string kBegin = "<｜fim▁begin｜>", kHole = "<｜fim▁hole｜>", kEnd = "<｜fim▁end｜>";
    const size_t hole = document.find(kHole), middle = document.find(kEnd);
    ASSERT_TRUE(document.starts_with(kBegin) && hole != std::string::npos && middle != std::string::npos)
        << document;
    const std::string prefix = document.substr(kBegin.size(), hole - kBegin.size());
    const std::string suffix = document.substr(hole + kHole.size(), middle - hole - kHole.size());
    Document restored{.name = "", .text = prefix, .origin = "prefix"};
    EXPECT_TRUE(MakeValidUtf8(InvalidText::kRefuse, &restored).ok()) << "cut between characters";
    const std::string text = prefix + document.substr(middle + kEnd.size()) + suffix;
    if (d == 0) {
      EXPECT_EQ(text, ReadRaw(scratch_.path("text/doc0.txt")));
    }
    begin = end + std::string("<｜end▁of▁sentence｜>").size();
  }
  EXPECT_EQ(ReadDocuments("val.h5").find("fim"), std::string::npos);
}

TEST_F(BuildTest, FillInTheMiddleIsRefusedWithoutItsTokens) {
  WriteRaw(scratch_.path("tokenizer.json"), SmallTokenizer({"<|endoftext|>"}).json());
  recipe_.set_tokenizer(scratch_.path("tokenizer.json"));
  recipe_.set_fim_rate(0.5);
  const auto report = Build();
  EXPECT_EQ(ExitCode(report.status()), kExitUsage);
  EXPECT_NE(MessageOf(report.status()).find("no fill-in-the-middle tokens"), std::string::npos)
      << report.status();
  EXPECT_FALSE(fs::exists(scratch_.path("out"))) << "nothing is left of a build that failed";
}

TEST_F(BuildTest, SeparateSourcesShareATokenizerAndReplaceAWholeBuild) {
  ASSERT_TRUE(Build().ok());
  WriteRaw(scratch_.path("lines.jsonl"), "{\"text\": \"one line\"}\n{\"text\": \"another line\"}\n");
  auto* source = recipe_.add_source();
  source->set_name("web");
  source->set_jsonl(scratch_.path("lines.jsonl"));
  recipe_.set_separate_sources(true);
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train_documents, 21);
  EXPECT_FALSE(fs::exists(scratch_.path("out/train.h5")));
  EXPECT_TRUE(ReadDocuments("train-text.h5").starts_with("Document number 0.\n"));
  EXPECT_EQ(ReadDocuments("train-web.h5"), "one line<｜end▁of▁sentence｜>another line<｜end▁of▁sentence｜>");
  EXPECT_EQ((*TokenFile::Open(scratch_.path("out/train-web.h5")))->info().bytes, 20);
  EXPECT_TRUE(Build()->up_to_date);
  source->set_name("../web");
  EXPECT_EQ(ExitCode(Build().status()), kExitUsage);
}

TEST_F(BuildTest, HoldsOutAShareByNameAndSeed) {
  recipe_.clear_held_out();
  recipe_.set_held_out_fraction(0.3);
  const auto first = Build();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT(first->held_out_documents, 1);
  EXPECT_LT(first->held_out_documents, 13);
  const std::string held_out = ReadDocuments("val.h5");
  recipe_.set_seed(2);
  ASSERT_TRUE(Build().ok());
  EXPECT_NE(ReadDocuments("val.h5"), held_out);
}

TEST_F(BuildTest, MistakesInTheRecipeNameTheField) {
  const auto expect = [&](int code, const std::string& text) {
    const auto report = Build();
    EXPECT_EQ(ExitCode(report.status()), code) << report.status();
    EXPECT_NE(MessageOf(report.status()).find(text), std::string::npos) << report.status();
    EXPECT_FALSE(fs::exists(scratch_.path("out")));
  };
  const proto::DataBuild good = recipe_;
  const auto with = [&](const auto& change) {
    recipe_ = good;
    change(&recipe_);
  };
  using R = proto::DataBuild;
  with([](R* r) { r->clear_out(); });
  expect(kExitUsage, "out:");
  with([](R* r) { r->clear_source(); });
  expect(kExitUsage, "source:");
  with([](R* r) { r->mutable_source(0)->set_jsonl("x"); });
  expect(kExitUsage, "source[0]");
  with([](R* r) { *r->add_source() = r->source(0); });
  expect(kExitUsage, "source[1].name");
  with([](R* r) { r->set_vocab_size(100); });
  expect(kExitUsage, "vocab_size");
  with([](R* r) { r->set_pre_tokenizer("gpt3"); });
  expect(kExitUsage, "pre_tokenizer");
  with([](R* r) { r->set_held_out(0, "text/absent.txt"); });
  expect(kExitUsage, "text/absent.txt");
  with([](R* r) { r->set_held_out(0, "text/*"); });
  expect(kExitUsage, "every document is held out");
  with([](R* r) { r->set_held_out_fraction(1.5); });
  expect(kExitUsage, "held_out_fraction");
  with([](R* r) { r->set_fim_rate(-1); });
  expect(kExitUsage, "fim_rate");
  with([](R* r) { r->mutable_source(0)->set_text("/nowhere/at/all"); });
  expect(kExitMissing, "/nowhere/at/all");
  with([](R* r) { r->set_tokenizer("/nowhere/tokenizer.json"); });
  expect(kExitMissing, "/nowhere/tokenizer.json");
}

TEST_F(BuildTest, UnreadableTextIsNamedOrReplacedNeverDropped) {
  WriteRaw(scratch_.path("text/doc5.bin"), "ab\xFF\xFE");
  const auto refused = Build();
  EXPECT_EQ(ExitCode(refused.status()), kExitDamaged);
  EXPECT_NE(MessageOf(refused.status()).find("text/doc5.bin: byte 2"), std::string::npos) << refused.status();
  recipe_.set_invalid_text(proto::DataBuild::REPLACE);
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train_documents, 20);
  EXPECT_NE(lines_.find("1 runs of bad bytes replaced"), std::string::npos) << lines_;
  EXPECT_NE(ReadDocuments("train.h5").find("ab\xEF\xBF\xBD"), std::string::npos);
}

TEST_F(BuildTest, ATextThatChangesBetweenItsTwoReadingsIsRefusedThoughItsLengthIsTheSame) {
  const std::string path = scratch_.path("text/doc4.txt");
  std::string text = ReadRaw(path);
  // What the first reading found is told before the second one.
  const auto report = BuildData(recipe_, 1, [&](const std::string&) {
    text[text.size() / 2] = text[text.size() / 2] == ' ' ? '\n' : ' ';
    WriteRaw(path, text);
  });
  EXPECT_EQ(ExitCode(report.status()), kExitDamaged) << report.status();
  EXPECT_TRUE(Contains(report.status(), "source 'text' changed while it was being read")) << report.status();
  EXPECT_FALSE(fs::exists(scratch_.path("out")));
}

TEST_F(BuildTest, TextWithoutTextIsMissing) {
  fs::remove_all(scratch_.path("text"));
  fs::create_directories(scratch_.path("text"));
  WriteRaw(scratch_.path("text/a.txt"), "\n \n");
  recipe_.clear_held_out();
  const auto report = Build();
  EXPECT_EQ(ExitCode(report.status()), kExitMissing);
  EXPECT_NE(MessageOf(report.status()).find("no text in any source"), std::string::npos) << report.status();
}

TEST_F(BuildTest, AFolderWithOtherThingsIsNotReplaced) {
  fs::create_directories(scratch_.path("out"));
  WriteRaw(scratch_.path("out/thesis.tex"), "years of work");
  const auto report = Build();
  EXPECT_EQ(ExitCode(report.status()), kExitCannotWrite);
  EXPECT_NE(MessageOf(report.status()).find("thesis.tex"), std::string::npos) << report.status();
  EXPECT_EQ(ReadRaw(scratch_.path("out/thesis.tex")), "years of work");
}

// A name alone does not make a file a build's.
TEST_F(BuildTest, ATokenizerOfTheUsersOwnIsNotReplaced) {
  fs::create_directories(scratch_.path("out"));
  WriteRaw(scratch_.path("out/tokenizer.json"), "{}");
  const auto report = Build();
  EXPECT_EQ(ExitCode(report.status()), kExitCannotWrite) << report.status();
  EXPECT_NE(MessageOf(report.status()).find("no manifest.json"), std::string::npos) << report.status();
  // A manifest of something else, and a build's that does not name the file.
  for (const char* manifest :
       {R"({"name": "my web app"})", R"({"format": "moebius-data", "outputs": {"train.h5": {}}})", "["}) {
    WriteRaw(scratch_.path("out/manifest.json"), manifest);
    EXPECT_EQ(ExitCode(Build().status()), kExitCannotWrite) << manifest;
  }
  EXPECT_EQ(ReadRaw(scratch_.path("out/tokenizer.json")), "{}");
}

TEST_F(BuildTest, ALinkKeepsLeadingToTheFolderThatIsReplaced) {
  fs::create_directories(scratch_.path("real"));
  fs::create_directory_symlink(scratch_.path("real"), scratch_.path("out"));
  ASSERT_TRUE(Build().ok());
  EXPECT_TRUE(fs::is_symlink(scratch_.path("out")));
  EXPECT_TRUE(fs::exists(scratch_.path("real/train.h5")));
}

TEST_F(BuildTest, ALinkToWhatIsNotThereStaysALink) {
  fs::create_directory_symlink(scratch_.path("unmounted"), scratch_.path("out"));
  const absl::Status status = Build().status();
  EXPECT_EQ(ExitCode(status), kExitCannotWrite) << status;
  EXPECT_TRUE(fs::is_symlink(scratch_.path("out")));
}

TEST_F(BuildTest, ItsOwnFolderIsNoSourceOfTheNextBuild) {
  recipe_.set_out(scratch_.path("text/out"));
  ASSERT_TRUE(Build().ok());
  const auto again = Build();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->up_to_date);
}

TEST_F(BuildTest, TheCurrentFolderIsRefusedBeforeTheWork) {
  recipe_.set_out(".");
  const auto report = Build();
  EXPECT_EQ(ExitCode(report.status()), kExitCannotWrite) << report.status();
  EXPECT_EQ(lines_, "");
}

TEST_F(BuildTest, APlaceThatCannotBeWrittenShowsBeforeTheTokenizerIsTrained) {
  WriteRaw(scratch_.path("file"), "no folder");
  recipe_.set_out(scratch_.path("file/out"));
  EXPECT_EQ(ExitCode(Build().status()), kExitCannotWrite);
  EXPECT_EQ(lines_.find("tokenizer"), std::string::npos) << lines_;
}

TEST_F(BuildTest, AFailedRebuildLeavesTheOldFolder) {
  ASSERT_TRUE(Build().ok());
  const std::string manifest = ReadRaw(scratch_.path("out/manifest.json"));
  WriteRaw(scratch_.path("text/new.txt"), "new\xFF");
  EXPECT_FALSE(Build().ok());
  EXPECT_EQ(ReadRaw(scratch_.path("out/manifest.json")), manifest);
  EXPECT_TRUE(TokenFile::Open(scratch_.path("out/train.h5")).ok());
}

}  // namespace
}  // namespace moebius
