#include "daemon/cli_warm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/cli_warm_progress.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kFound =
    R"({"kind":"image","image":"r.example/app:1","state":"fetching","digest":"sha256:aa",)"
    R"("platforms":"linux/amd64","blobs":2,"bytes":0,"total":2147483648,"error":null})";
constexpr const char* kBlob =
    R"({"kind":"blob","image":"r.example/app:1","digest":"sha256:bbbbbbbbbbbbbbbb",)"
    R"("state":"fetching","bytes":536870912,"total":1073741824,"bytes_per_second":134217728,)"
    R"("error":null})";
constexpr const char* kBlobDone =
    R"({"kind":"blob","image":"r.example/app:1","digest":"sha256:bbbbbbbbbbbbbbbb",)"
    R"("state":"done","bytes":1073741824,"total":1073741824,"bytes_per_second":null,)"
    R"("error":null})";
constexpr const char* kDone =
    R"({"kind":"image","image":"r.example/app:1","state":"done","digest":"sha256:aa",)"
    R"("platforms":"linux/amd64","blobs":2,"bytes":2147483648,"total":2147483648,"error":null})";
constexpr const char* kFailed =
    R"({"kind":"image","image":"r.example/bad:1","state":"failed","digest":null,)"
    R"("platforms":null,"blobs":0,"bytes":0,"total":0,"error":"it is not there"})";
constexpr const char* kWaiting = R"({"kind":"waiting","client_fills":3})";
constexpr const char* kGood =
    R"({"kind":"sum","done":true,"images":1,"failed":0,"blobs":2,"bytes_cached":1024,)"
    R"("bytes_fetched":2147483648,"seconds":12.5,"errors":[]})";
constexpr const char* kBad =
    R"({"kind":"sum","done":true,"images":2,"failed":1,"blobs":2,"bytes_cached":0,)"
    R"("bytes_fetched":2147483648,"seconds":12.5,)"
    R"("errors":[{"image":"r.example/bad:1","error":"it is not there"}]})";

TEST(WarmProgress, HasABarPerBlobAndOneForAll) {
  WarmProgress progress;
  progress.add(json::parse(kFound), 0);
  EXPECT_THAT(progress.bars(0, Style{}),
              ElementsAre("[----------]  0.0%  0 of 1 image  0 B of 2.0 GiB"));
  progress.add(json::parse(kBlob), 1);
  EXPECT_THAT(progress.bars(5, Style{}),
              ElementsAre("bbbbbbbbbbbb  [#####-----]  50.0%  512.0 MiB of 1.0 GiB  128.0 MiB/s  "
                          "4s left  r.example/app:1",
                          "[##--------]  25.0%  0 of 1 image  512.0 MiB of 2.0 GiB"));
  progress.add(json::parse(kBlobDone), 9);
  EXPECT_THAT(progress.bars(9, Style{}),
              ElementsAre("[#####-----]  50.0%  0 of 1 image  1.0 GiB of 2.0 GiB  "
                          "128.0 MiB/s  8s left"));
  progress.add(json::parse(kWaiting), 10);
  EXPECT_THAT(progress.all(10, Style{}), HasSubstr("waits for pulls: 3"));
}

TEST(WarmProgress, MeasuresTheSpeedThatTheDaemonDoesNotKnow) {
  WarmProgress progress;
  json::value line = json::parse(kBlob);
  line.at("bytes_per_second") = nullptr;
  line.at("bytes") = 0;
  progress.add(line, 0);
  line.at("bytes") = 512 << 20;
  progress.add(line, 4);
  EXPECT_THAT(progress.bars(4, Style{}).front(), HasSubstr("128.0 MiB/s  4s left"));
}

TEST(WarmProgress, FitsEveryWidth) {
  WarmProgress progress;
  for (const char* line : {kFound, kBlob, kFailed}) progress.add(json::parse(line), 1);
  for (const std::size_t columns : {1UL, 20UL, 60UL, 200UL})
    for (const std::string& line : progress.bars(3, Style{.columns = columns}))
      EXPECT_LE(column_count(line), columns);
}

TEST(WarmProgress, SurvivesLinesThatAreNoneOfOurs) {
  WarmProgress progress;
  for (const char* text :
       {"{}", "[]", "null", R"({"kind":"blob"})", R"({"kind":"blob","image":"a","state":1})",
        R"({"kind":"blob","image":"a","state":"fetching","bytes":-5,"total":1e300})",
        R"({"kind":"image","image":"a\u001b[2J","total":"x"})", R"({"kind":"waiting"})"}) {
    progress.add(json::parse(text), 1);
    for (const std::string& line : progress.bars(2, Style{})) {
      EXPECT_THAT(line, Not(HasSubstr("nan")));
      EXPECT_THAT(line, Not(HasSubstr("\x1b")));
    }
    EXPECT_THAT(render_warm_sum(json::parse(text)), HasSubstr("are warm"));
    EXPECT_THAT(warm_errors(json::parse(text)), IsEmpty());
  }
}

TEST(WarmEnd, SaysWhatBecameOfAnImage) {
  EXPECT_EQ(render_warm_end(json::parse(kDone)), "r.example/app:1  warm  2.0 GiB");
  EXPECT_EQ(render_warm_end(json::parse(kFailed)), "r.example/bad:1  failed");
  EXPECT_EQ(render_warm_end(json::parse(kFound)), "");
  EXPECT_EQ(render_warm_end(json::parse(kBlobDone)), "");
  EXPECT_EQ(render_warm_sum(json::parse(kGood)),
            "1 of 1 image is warm: 2.0 GiB fetched, 1.0 KiB were here, in 12s");
}

class WarmCommandTest : public testing::Test, protected fake::ControlDaemon {
 protected:
  static std::string lines(const std::vector<std::string>& parts, bool ended = true) {
    std::string text =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    for (const std::string& part : parts) {
      char size[32];
      std::snprintf(size, sizeof size, "%zx\r\n", part.size() + 1);
      text += size + part + "\n\r\n";
    }
    return ended ? text + "0\r\n\r\n" : text;
  }
  int run(std::vector<std::string> arguments, Terminal terminal = {}) {
    arguments.insert(arguments.begin(), {"staithe", "--socket", socket_, "warm"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    const Environment environment;
    return run_cli(static_cast<int>(argv.size()), argv.data(),
                   {out_, err_, environment, terminal, in_});
  }
  std::string list(const std::string& text) {
    const auto path = directory_ / "images.txt";
    std::ofstream(path) << text;
    return path;
  }

  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(WarmCommandTest, AsksForArgumentsAndListTogether) {
  std::string asked;
  serve([&](const std::string& request) {
    asked = request;
    return lines({kFound, kBlob, kBlobDone, kDone, kGood});
  });
  EXPECT_EQ(run({"busybox", "--file", list("# a list\napp:1\n"), "--platform", "all"}), kExitOk)
      << err_.str();
  EXPECT_EQ(out_.str(),
            "r.example/app:1  warm  2.0 GiB\n"
            "1 of 1 image is warm: 2.0 GiB fetched, 1.0 KiB were here, in 12s\n");
  stop();
  EXPECT_THAT(asked, StartsWith("POST /v1/warm HTTP/1.1\r\n"));
  EXPECT_EQ(json::parse(fake::body_of(asked)),
            json::parse(R"({"images":["busybox","app:1"],"platform":"all"})"));
}

TEST_F(WarmCommandTest, ReadsAListFromStandardInput) {
  std::string asked;
  serve([&](const std::string& request) {
    asked = request;
    return lines({kGood});
  });
  in_.str("app:1\n");
  EXPECT_EQ(run({"--file", "-"}), kExitOk) << err_.str();
  stop();
  EXPECT_THAT(asked, HasSubstr(R"("images":["app:1"])"));
}

TEST_F(WarmCommandTest, FailsIfAnImageFailsAndSaysWhy) {
  serve(lines({kFailed, kBad}));
  EXPECT_EQ(run({"app:1"}), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("r.example/bad:1  failed\n1 of 2 images is warm: "));
  EXPECT_EQ(err_.str(), "staithe: r.example/bad:1: it is not there\n");
}

TEST_F(WarmCommandTest, DrawsItsBarsInPlaceAndTakesThemAway) {
  serve(lines({kFound, kBlob, kDone, kGood}));
  EXPECT_EQ(run({"app:1"}, {.is_terminal = true, .rows = 24, .style = {.columns = 80}}), kExitOk);
  const std::string text = out_.str();
  // One line, then two in its place, and in the place of these the end of the image.
  EXPECT_THAT(text, StartsWith("[----------]  0.0%"));
  EXPECT_THAT(text, HasSubstr("\r\x1b[1Abbbbbbbbbbbb  [#####-----]  50.0%"));
  EXPECT_THAT(text, HasSubstr("\r\x1b[2A\x1b[Jr.example/app:1  warm  2.0 GiB\n"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b[3")));
  EXPECT_THAT(text, testing::EndsWith("in 12s\n"));
}

TEST_F(WarmCommandTest, PassesTheLinesOnAsJson) {
  serve(lines({kFound, kBlob, kGood}));
  EXPECT_EQ(run({"app:1", "--json"}), kExitOk);
  std::istringstream text(out_.str());
  std::string line;
  for (const char* expected : {kFound, kBlob, kGood}) {
    ASSERT_TRUE(std::getline(text, line));
    EXPECT_EQ(json::parse(line), json::parse(expected));
  }
}

TEST_F(WarmCommandTest, SaysWhatIsWrongBeforeItAsks) {
  serve(lines({kGood}));
  const std::string bad = list("app\nTwo Words\nb:1:2\n");
  EXPECT_EQ(run({"--file", bad, "--platform", "linux/amd46"}), kExitBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr(bad + ":2: "));
  EXPECT_THAT(err_.str(), HasSubstr(bad + ":3: "));
  EXPECT_THAT(err_.str(), HasSubstr("did you mean \"amd64\"?"));
  EXPECT_EQ(run({}), kExitBadUsage);
  EXPECT_EQ(run({"a b"}), kExitBadUsage);
  EXPECT_EQ(run({"--file", "/does/not/exist"}), kExitBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr("No such file or directory"));
  EXPECT_EQ(run({"--file", directory_}), kExitBadUsage);
  EXPECT_EQ(run({"--file", list("# nothing\n")}), kExitBadUsage);
  std::string many;
  for (int i = 0; i < 1001; ++i) many += "app:" + std::to_string(i) + "\n";
  EXPECT_EQ(run({"--file", list(many)}), kExitBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr("at most 1000 images"));
  stop();
  EXPECT_EQ(requests_, 0);
}

TEST_F(WarmCommandTest, TellsAnAnswerThatBreaksOffFromAGoodOne) {
  serve(lines({kFound, kBlob}, false));
  EXPECT_EQ(run({"app:1"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("broke its answer off"));
}

TEST_F(WarmCommandTest, ShowsARefusalAndADaemonThatIsNotThere) {
  EXPECT_EQ(run({"app:1"}), kExitUnreachable);
  serve(fake::refusal("403 Forbidden", "DENIED", "only root may"));
  EXPECT_EQ(run({"app:1"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("staithe: only root may\n"));
}

}  // namespace
}  // namespace staithe::daemon
