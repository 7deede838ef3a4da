#include "daemon/cli_doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr const char* status_text =
    R"({"version":"9.9.9","state":"ready","listen":["unix:/nonexistent/registry.sock"]})";

std::string lines(std::vector<std::string> steps, bool with_end = true) {
  std::string text;
  for (const std::string& step : steps) text += step + "\n";
  if (with_end) text += "{\"kind\":\"sum\",\"done\":true}\n";
  return fake::answer(text);
}

constexpr const char* fine =
    R"({"kind":"step","step":"challenge","subject":"r.example","state":"ok","seconds":0.012,)"
    R"("finding":"it asks for no credentials","tried":"GET https://r.example/v2/: 200"})";
constexpr const char* bad =
    R"({"kind":"step","step":"token","subject":"r.example","state":"failed","seconds":1.5,)"
    R"("finding":"it grants nothing","tried":"POST x: 200","mend":"grant it","class":"denied"})";
constexpr const char* warning = R"({"kind":"step","step":"mirror","state":"warning"})";
constexpr const char* unknown = R"({"kind":"song","text":"la"})";

class CliDoctor : public testing::Test, protected fake::ControlDaemon {
 protected:
  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"staithe", "--socket", socket_,
                                       "doctor",  "--config", directory_ / "none.toml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out;
    std::ostringstream err;
    const Environment environment;
    const int status =
        run_cli(static_cast<int>(argv.size()), argv.data(), {out, err, environment, Terminal{}});
    return {status, out.str(), err.str()};
  }
  // What the daemon answers to the diagnosis itself.
  void serve_walk(const std::string& walk) {
    std::filesystem::remove(socket_);  // Of the one before.
    serve([this, walk](const std::string& request) {
      if (request.starts_with("GET /v1/status ")) return fake::answer(status_text);
      asked_ = request;
      return walk;
    });
  }

  std::string asked_;
};

TEST_F(CliDoctor, ShowsEachStepAndWhatMendsIt) {
  serve_walk(lines({fine, bad}));
  const Outcome outcome = run({"r.example/app:1"});
  EXPECT_THAT(outcome.out, HasSubstr("ok       challenge     r.example  12 ms\n"
                                     "         it asks for no credentials\n"
                                     "failed   token         r.example  1.5 s\n"
                                     "         it grants nothing\n"
                                     "         tried: POST x: 200\n"
                                     "         mend: grant it\n"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
  stop();
  EXPECT_THAT(asked_, testing::StartsWith("POST /v1/doctor "));
  EXPECT_THAT(asked_, EndsWith(R"({"target":"r.example/app:1"})"));
}

TEST_F(CliDoctor, EndsByWhatItFound) {
  const auto status_of = [&](const std::string& walk) {
    serve_walk(walk);
    // The listener of this daemon is not there, so only what its steps add is told here.
    const Outcome outcome = run({"--json"});
    stop();
    std::istringstream all(outcome.out);
    std::size_t failed = 0;
    for (std::string line; std::getline(all, line);) {
      const auto one = boost::json::parse(line);
      if (one.at("kind") == "sum") failed = one.at("failed").to_number<std::size_t>();
    }
    EXPECT_EQ(outcome.status, kExitFailed) << outcome.out;
    return failed - 1;  // the listener
  };
  EXPECT_EQ(status_of(lines({fine, warning, unknown})), 0u);
  EXPECT_EQ(status_of(lines({fine, bad, bad})), 2u);
  EXPECT_EQ(status_of(lines({fine}, false)), 1u) << "an answer without an end is one";
  EXPECT_EQ(status_of(fake::refusal("409 Conflict", "DENIED", "another one")), 1u);
}

TEST_F(CliDoctor, OfADaemonThatIsNotThereIsThreeAndLooksFurther) {
  const Outcome outcome = run();
  EXPECT_EQ(outcome.status, kExitUnreachable);
  EXPECT_THAT(outcome.out, HasSubstr("failed   daemon"));
  EXPECT_THAT(outcome.out, HasSubstr("none.toml")) << "the file that it was told of";
}

TEST_F(CliDoctor, AsksForSudoWhereTheUserMayNot) {
  serve_walk(fake::refusal("403 Forbidden", "DENIED", "only root"));
  EXPECT_THAT(run().out, HasSubstr("mend: sudo staithe doctor"));
}

TEST_F(CliDoctor, RefusesATargetThatIsNone) {
  serve_walk(fake::refusal("400 Bad Request", "UNSUPPORTED", "no such name"));
  EXPECT_EQ(run({"a b"}).status, kExitBadUsage) << "as it sees itself";
  const Outcome outcome = run({"r.example"});
  EXPECT_EQ(outcome.status, kExitBadUsage) << "as the daemon says";
  EXPECT_THAT(outcome.err, HasSubstr("no such name"));
}

TEST(CliDoctorText, HasColoursAndAWidthOnATerminalOnly) {
  const DoctorStep step{.step = "token",
                        .subject = "r.example",
                        .state = StepState::failed,
                        .finding = "it grants nothing at all to this identity, as far as it says",
                        .mend = "grant it"};
  const std::string text = render_step(step, {.columns = 40, .colour = true});
  EXPECT_THAT(text, HasSubstr("\x1b["));
  EXPECT_THAT(render_step(step, Style{}), Not(HasSubstr("\x1b[")));
  std::istringstream narrow(render_step(step, {.columns = 40}));
  for (std::string line; std::getline(narrow, line);) EXPECT_LE(line.size(), 40u) << line;
  EXPECT_EQ(render_sum({.ok = 3, .failed = 1}, 1.25, Style{}),
            "1 failed  0 warnings  3 ok  0 skipped  in 1.2 s\n");
}

}  // namespace
}  // namespace staithe::daemon
