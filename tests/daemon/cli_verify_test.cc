#include "daemon/cli_verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kHalf = R"({"done":false,"objects":10,"total_objects":20,"bytes":1073741824,)"
                              R"("total_bytes":2147483648,"damaged":0,"unreadable":0})";
constexpr const char* kGood =
    R"({"done":true,"objects":20,"total_objects":20,"bytes":2147483648,"total_bytes":2147483648,)"
    R"("damaged":0,"unreadable":0,"seconds":12.5,"damaged_digests":[],"unreadable_digests":[],)"
    R"("broken_off":null})";
constexpr const char* kBad =
    R"({"done":true,"objects":20,"total_objects":20,"bytes":2147483648,"total_bytes":2147483648,)"
    R"("damaged":3,"unreadable":1,"seconds":12.5,)"
    R"("damaged_digests":["sha256:aa","sha256:bb"],"unreadable_digests":["sha256:cc"],)"
    R"("broken_off":null})";

TEST(VerifyProgress, HasABarTheSpeedAndTheTimeLeft) {
  EXPECT_EQ(render_verify_progress(json::parse(kHalf), 8, Style{}),
            "[############------------]  50%  1.0 GiB of 2.0 GiB  128.0 MiB/s  8s left");
}

TEST(VerifyProgress, BeginsWithoutASpeed) {
  EXPECT_EQ(render_verify_progress(
                json::parse(R"({"bytes":0,"total_bytes":2147483648,"damaged":0})"), 0, Style{}),
            "[------------------------]  0%  0 B of 2.0 GiB");
}

TEST(VerifyProgress, FitsItsLineAndCountsDamage) {
  json::value line = json::parse(kHalf);
  line.at("damaged") = 2;
  EXPECT_THAT(render_verify_progress(line, 8, Style{}), HasSubstr("  2 damaged"));
  for (const std::size_t columns : {1UL, 20UL, 60UL})
    EXPECT_EQ(column_count(render_verify_progress(line, 8, Style{.columns = columns})), columns);
}

TEST(VerifyProgress, SurvivesALineThatIsNoneOfOurs) {
  for (const char* text : {"{}", "[]", "null", R"({"bytes":"x","total_bytes":-5})",
                           R"({"bytes":1e300,"total_bytes":1e-300,"damaged":1e300})"}) {
    EXPECT_THAT(render_verify_progress(json::parse(text), 1, Style{}), Not(HasSubstr("nan")));
    EXPECT_THAT(render_verify_result(json::parse(text)), StartsWith("verified "));
  }
}

TEST(VerifyResult, SaysThatAllIsGood) {
  EXPECT_EQ(render_verify_result(json::parse(kGood)),
            "verified 20 objects, 2.0 GiB, in 12s: nothing is damaged\n");
}

TEST(VerifyResult, NamesWhatIsDamagedAndWhatBecomesOfIt) {
  EXPECT_EQ(render_verify_result(json::parse(kBad)),
            "verified 20 objects, 2.0 GiB, in 12s: 3 damaged, 1 unreadable\n"
            "damaged, set aside, and fetched again when somebody pulls them:\n"
            "  sha256:aa\n"
            "  sha256:bb\n"
            "  and 1 more\n"
            "not readable now, left as it is (journalctl -u staithed):\n"
            "  sha256:cc\n");
}

TEST(VerifyResult, SaysWhyItWasBrokenOff) {
  json::value line = json::parse(kGood);
  line.at("broken_off") = "the disk fails";
  line.at("objects") = 5;
  EXPECT_THAT(render_verify_result(line),
              HasSubstr("broken off after 5 of 20 objects: the disk fails\n"));
}

class VerifyCommandTest : public testing::Test, protected fake::ControlDaemon {
 protected:
  static std::string chunked(const std::vector<std::string>& parts, bool ended = true) {
    std::string text =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    for (const std::string& part : parts) {
      char size[32];
      std::snprintf(size, sizeof size, "%zx\r\n", part.size());
      text += size + part + "\r\n";
    }
    return ended ? text + "0\r\n\r\n" : text;
  }
  int run(std::vector<std::string> arguments, Terminal terminal = {}) {
    arguments.insert(arguments.begin(), {"staithe", "--socket", socket_});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    const Environment environment;
    return run_cli(static_cast<int>(argv.size()), argv.data(), {out_, err_, environment, terminal});
  }

  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(VerifyCommandTest, EndsWellIfNothingIsDamaged) {
  std::string asked;
  serve([&](const std::string& request) {
    asked = request;
    return chunked({kHalf + std::string("\n"), kGood + std::string("\n")});
  });
  EXPECT_EQ(run({"verify"}), kExitOk) << err_.str();
  EXPECT_EQ(out_.str(), "verified 20 objects, 2.0 GiB, in 12s: nothing is damaged\n");
  stop();
  EXPECT_THAT(asked, StartsWith("POST /v1/verify HTTP/1.1\r\n"));
}

TEST_F(VerifyCommandTest, FailsIfThereIsDamage) {
  serve(chunked({kBad + std::string("\n")}));
  EXPECT_EQ(run({"verify"}), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("sha256:aa"));
}

TEST_F(VerifyCommandTest, DrawsOverOneLineOfATerminal) {
  serve(chunked({kHalf + std::string("\n"), kGood + std::string("\n")}));
  EXPECT_EQ(run({"verify"}, {.is_terminal = true, .rows = 24, .style = {.columns = 80}}), kExitOk);
  EXPECT_THAT(out_.str(), StartsWith("\r[############------------]  50%  "));
  EXPECT_THAT(
      out_.str(),
      HasSubstr("\x1b[K\r\x1b[Kverified 20 objects, 2.0 GiB, in 12s: nothing is damaged\n"));
}

TEST_F(VerifyCommandTest, PassesTheLinesOnAsJson) {
  serve(chunked({kHalf + std::string("\n"), kBad + std::string("\n")}));
  EXPECT_EQ(run({"verify", "--json"}), kExitFailed);
  const std::string text = out_.str();
  const std::size_t end = text.find('\n');
  EXPECT_EQ(json::parse(text.substr(0, end)), json::parse(kHalf));
  EXPECT_EQ(json::parse(text.substr(end + 1)), json::parse(kBad));
}

TEST_F(VerifyCommandTest, ReadsLinesHoweverTheyAreCut) {
  const std::string lines = std::string(kHalf) + "\n" + kGood + "\n";
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < lines.size(); at += 7) parts.push_back(lines.substr(at, 7));
  serve(chunked(parts));
  EXPECT_EQ(run({"verify"}), kExitOk) << err_.str();
}

TEST_F(VerifyCommandTest, TellsAnAnswerThatBreaksOffFromAGoodOne) {
  serve(chunked({kHalf + std::string("\n")}, false));
  EXPECT_EQ(run({"verify"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("broke its answer off"));
  stop();
}

TEST_F(VerifyCommandTest, AnEndThatSaysNothingIsNone) {
  serve(chunked({kHalf + std::string("\n")}));
  EXPECT_EQ(run({"verify"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("no end"));
}

TEST_F(VerifyCommandTest, ShowsARefusalAndADaemonThatIsNotThere) {
  EXPECT_EQ(run({"verify"}), kExitUnreachable);
  serve(fake::refusal("409 Conflict", "DENIED", "the cache is being verified already"));
  EXPECT_EQ(run({"verify"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("staithe: the cache is being verified already\n"));
  EXPECT_THAT(out_.str(), IsEmpty());
}

}  // namespace
}  // namespace staithe::daemon
