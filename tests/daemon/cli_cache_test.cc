#include "daemon/cli_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <chrono>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using fake::answer;
using fake::body_of;
using fake::refusal;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class CliCache : public testing::Test, protected fake::ControlDaemon {
 protected:
  void serve_and_remember(const std::string& text) {
    serve([this, text](const std::string& request) {
      const std::scoped_lock lock(mutex_);
      asked_ = request;
      return text;
    });
  }
  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "staithe");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out;
    std::ostringstream err;
    const Environment environment{{{"STAITHE_SOCKET", socket_}}, 0, {}};
    const int status =
        run_cli(static_cast<int>(argv.size()), argv.data(),
                {.out = out, .err = err, .environment = environment, .terminal = {}, .now = [] {
                   return std::chrono::sys_seconds(std::chrono::seconds(1'000'000));
                 }});
    return {status, out.str(), err.str()};
  }
  std::string asked() {
    const std::scoped_lock lock(mutex_);
    return asked_;
  }

 private:
  std::mutex mutex_;
  std::string asked_;
};

constexpr const char* kImages = R"({"images":[
 {"name":"docker.io/library/busybox:latest","digest":"sha256:abababababababababababababababababab",
  "media_type":"x","bytes_cached":2097152,"bytes_needed":2097152,"complete":true,
  "last_used_unix_seconds":999000,"tag_age_seconds":5,"pinned":true},
 {"name":"r.example/app:1","digest":"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
  "media_type":"x","bytes_cached":1048576,"bytes_needed":4194304,"complete":false,
  "last_used_unix_seconds":null,"tag_age_seconds":null,"pinned":false},
 {"name":"r.example/later:1","digest":null,"media_type":null,"bytes_cached":0,"bytes_needed":null,
  "complete":false,"last_used_unix_seconds":null,"tag_age_seconds":null,"pinned":true}]})";

TEST_F(CliCache, LsIsATableOfImages) {
  serve(answer(kImages));
  EXPECT_EQ(run({"ls"}).out,
            "IMAGE                             DIGEST               SIZE     CACHED  LAST USED    "
            "PINNED\n"
            "docker.io/library/busybox:latest  sha256:abababababab  2.0 MiB  yes     16m 40s ago  "
            "pinned\n"
            "r.example/app:1                   sha256:cdcdcdcdcdcd  4.0 MiB  25%     -            "
            "-\n"
            "r.example/later:1                 -                    -        no      -            "
            "pinned\n");
  const Outcome outcome = run({"ls", "--json"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(json::parse(outcome.out), json::parse(kImages));
}

TEST_F(CliCache, LsOfBlobsShowsWhereTheyBelong) {
  serve_and_remember(answer(
      R"({"blobs":[{"digest":"sha256:abababababababababababababab","kind":"blob","bytes":1024,
      "last_used_unix_seconds":1000000,"verified":true,"pinned":false,
      "repositories":["r.example/app","r.example/\u001b[31mweb"]},{"digest":7},3]})"));
  const Outcome outcome = run({"ls", "--blobs"});
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("sha256:abababababab  blob  1.0 KiB  now"),
                                 HasSubstr("r.example/app"), Not(HasSubstr("\x1b"))));
  stop();
  EXPECT_THAT(asked(), StartsWith("GET /v1/blobs "));
}

TEST_F(CliCache, NothingIsSaidInWords) {
  serve(answer(R"({"images":[],"blobs":[]})"));
  EXPECT_EQ(run({"ls"}).out, "no image is cached\n");
  EXPECT_EQ(run({"ls", "--blobs"}).out, "nothing is cached\n");
}

TEST_F(CliCache, PinSaysWhatIsKept) {
  serve_and_remember(answer(
      R"({"image":"docker.io/library/busybox:latest","digest":"sha256:ab","complete":true,
      "bytes_cached":1048576,"bytes_needed":1048576,"pinned_bytes":1048576,"max_bytes":99999999})"));
  const Outcome outcome = run({"pin", "busybox"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(outcome.out, "docker.io/library/busybox:latest is pinned: 1.0 MiB\n");
  EXPECT_THAT(outcome.err, IsEmpty());
  stop();
  EXPECT_THAT(asked(), StartsWith("POST /v1/pin "));
  EXPECT_EQ(body_of(asked()), R"({"image":"busybox"})");
}

TEST_F(CliCache, PinOfWhatIsNotWholeSaysWhenItHolds) {
  serve(answer(R"({"image":"a.io/b:1","complete":false,"bytes_cached":0,"bytes_needed":null,
      "pinned_bytes":0,"max_bytes":10})"));
  EXPECT_THAT(run({"pin", "a.io/b:1"}).out, HasSubstr("not cached yet"));
  stop();
}

TEST_F(CliCache, PinWarnsWhenPinsTakeTheWholeCache) {
  serve(answer(R"({"image":"a.io/b:1","complete":false,"bytes_cached":1024,"bytes_needed":4096,
      "pinned_bytes":1024,"max_bytes":1024})"));
  const Outcome outcome = run({"pin", "a.io/b:1"});
  EXPECT_THAT(outcome.out, HasSubstr("1.0 KiB of 4.0 KiB are here"));
  EXPECT_THAT(outcome.err, HasSubstr("raise cache.max_size, or unpin some"));
  EXPECT_EQ(outcome.status, kExitOk);
}

TEST_F(CliCache, UnpinOfWhatIsNotPinnedFails) {
  serve(refusal("404 Not Found", "NAME_UNKNOWN", "a.io/b:1 is not pinned: staithe ls shows it"));
  const Outcome outcome = run({"unpin", "a.io/b:1"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "staithe: a.io/b:1 is not pinned: staithe ls shows it\n");
}

constexpr const char* kPurged =
    R"({"removed":{"blobs":3,"manifests":1,"tags":1,"bytes":3145728},"kept":{
     "pinned":{"objects":0,"bytes":0},"shared":{"objects":1,"bytes":1024},
     "in_use":{"objects":0,"bytes":0},"failed":{"objects":0,"bytes":0}},"faults":[]})";

TEST_F(CliCache, PurgeSaysWhatWentAndWhatStayed) {
  serve_and_remember(answer(kPurged));
  const Outcome outcome = run({"purge", "a.io/b:1"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(outcome.out,
            "removed 1 tag, 1 manifest and 3 blobs: 3.0 MiB\n"
            "1 object stayed (1.0 KiB): other images need them\n");
  EXPECT_EQ(body_of(asked()), R"({"image":"a.io/b:1"})");
  run({"purge", "--all"});
  EXPECT_EQ(body_of(asked()), R"({"all":true})");
  run({"purge", "--older-than", "30d"});
  EXPECT_EQ(body_of(asked()), R"({"older_than_seconds":2592000})");
  EXPECT_EQ(json::parse(run({"purge", "--all", "--json"}).out), json::parse(kPurged));
}

TEST_F(CliCache, APurgeWithFaultsFails) {
  serve(answer(R"({"removed":{"blobs":0,"manifests":0,"tags":0,"bytes":0},"kept":{
      "failed":{"objects":2,"bytes":10}},"faults":["cannot remove /x: Input/output error"]})"));
  const Outcome outcome = run({"purge", "--all"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_THAT(outcome.out, HasSubstr("2 objects stayed (10 B): they could not be removed"));
  EXPECT_EQ(outcome.err, "staithe: cannot remove /x: Input/output error\n");
}

TEST_F(CliCache, WrongUsageAsksNobody) {
  serve(answer("{}"));
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"pin"},
                                                    {"unpin"},
                                                    {"purge"},
                                                    {"pin", "UPPER/x"},
                                                    {"purge", "a b"},
                                                    {"purge", "busybox", "--all"},
                                                    {"purge", "--all", "--older-than", "1d"},
                                                    {"purge", "--older-than", "soon"},
                                                    {"purge", "--older-than", "10ms"},
                                                    {"purge", "--older-than", "-5d"},
                                                    {"ls", "busybox"}}) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, kExitBadUsage) << arguments[0];
    EXPECT_THAT(outcome.err, HasSubstr("--help"));
  }
  EXPECT_EQ(requests_, 0);
}

TEST_F(CliCache, AnswersOfAnotherVersionAndADaemonThatIsNotThereAreTold) {
  EXPECT_EQ(run({"ls"}).status, kExitUnreachable);
  EXPECT_EQ(run({"purge", "--all"}).status, kExitUnreachable);
  serve(answer("{}"));
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"ls"}, {"ls", "--blobs"}, {"purge", "--all"}})
    EXPECT_THAT(run(arguments).err, HasSubstr("different versions"));
}

TEST_F(CliCache, HelpHasExamples) {
  for (const char* command : {"ls", "pin", "unpin", "purge"})
    EXPECT_THAT(run({command, "--help"}).out, HasSubstr("Example"));
}

}  // namespace
}  // namespace staithe::daemon
