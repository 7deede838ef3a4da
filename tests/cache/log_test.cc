#include "cache/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace staithe::log {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;

// 2025-11-21 08:31:02.007 UTC
constexpr std::chrono::sys_time<std::chrono::milliseconds> kTime{1763713862007ms};

std::string line(Format format, Fields fields, Level level = Level::info) {
  return format_line(format, level, kTime, "pull done", fields);
}

json::object object(const std::string& text) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  EXPECT_FALSE(error) << text;
  return value.is_object() ? value.get_object() : json::object();
}

TEST(TextLine, HasTimeLevelEventAndFields) {
  EXPECT_EQ(line(Format::text, {{"registry", "docker.io"}, {"bytes", 12u}, {"hit", true}}),
            "2025-11-21T08:31:02.007Z info  pull done registry=docker.io bytes=12 hit=true\n");
  EXPECT_EQ(line(Format::text, {}, Level::error), "2025-11-21T08:31:02.007Z error pull done\n");
}

TEST(TextLine, QuotesValuesThatWouldNotBeOneWord) {
  EXPECT_THAT(line(Format::text, {{"a", ""}}), EndsWith(" a=\"\"\n"));
  EXPECT_THAT(line(Format::text, {{"a", "two words"}}), EndsWith(" a=\"two words\"\n"));
  EXPECT_THAT(line(Format::text, {{"a", "x=y"}}), EndsWith(" a=\"x=y\"\n"));
  EXPECT_THAT(line(Format::text, {{"a", "say \"hi\""}}), EndsWith(R"( a="say \"hi\"")"
                                                                  "\n"));
}

TEST(Line, LeavesOutWhatSaysNothing) {
  EXPECT_EQ(line(Format::text, {{"a", if_any("")}, {"b", if_any(0)}, {"c", if_any(5)}}),
            "2025-11-21T08:31:02.007Z info  pull done c=5\n");
  const json::object parsed = object(line(Format::json, {{"a", if_any("")}, {"b", if_any("x")}}));
  EXPECT_FALSE(parsed.contains("a"));
  EXPECT_EQ(parsed.at("b").as_string(), "x");
  EXPECT_EQ(line(Format::journal, {{"a", if_any("")}}).find("STAITHE_A"), std::string::npos);
}

TEST(JsonLine, IsOneObject) {
  const std::string text = line(Format::json,
                                {{"registry", "docker.io"},
                                 {"bytes", std::numeric_limits<std::uint64_t>::max()},
                                 {"delta", std::numeric_limits<std::int64_t>::min()},
                                 {"seconds", 1.5},
                                 {"hit", false}},
                                Level::warn);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const json::object parsed = object(text);
  EXPECT_EQ(parsed.at("time").as_string(), "2025-11-21T08:31:02.007Z");
  EXPECT_EQ(parsed.at("level").as_string(), "warn");
  EXPECT_EQ(parsed.at("event").as_string(), "pull done");
  EXPECT_EQ(parsed.at("registry").as_string(), "docker.io");
  EXPECT_EQ(parsed.at("bytes").as_uint64(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(parsed.at("delta").as_int64(), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(parsed.at("seconds").as_double(), 1.5);
  EXPECT_EQ(parsed.at("hit").as_bool(), false);
}

TEST(JsonLine, HasNullForNumbersThatJsonHasNoWordFor) {
  const json::object parsed = object(
      line(Format::json, {{"a", std::nan("")}, {"b", std::numeric_limits<double>::infinity()}}));
  EXPECT_TRUE(parsed.at("a").is_null());
  EXPECT_TRUE(parsed.at("b").is_null());
}

TEST(JournalEntry, HasPriorityMessageAndFields) {
  EXPECT_EQ(line(Format::journal, {{"registry", "docker.io"}, {"bytes", 12}}, Level::warn),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=staithed\n"
            "MESSAGE=pull done registry=docker.io bytes=12\n"
            "STAITHE_EVENT=pull done\nSTAITHE_REGISTRY=docker.io\nSTAITHE_BYTES=12\n");
}

TEST(Line, TakesAnErrorByItsDetail) {
  const Error error{Errc::throttled, "docker.io answered 429: wait"};
  EXPECT_THAT(line(Format::text, {{"error", error}}),
              EndsWith(" error=\"docker.io answered 429: wait\"\n"));
}

// What a hostile registry or client would try.
TEST(Line, EscapesWhatComesFromOutside) {
  using namespace std::string_literals;
  const std::string hostile = "a\nlevel=error\r\x1b[2J\0z\"\\\x7f\xc2\x9b\xff\u202e"s;
  for (const Format format : {Format::text, Format::json, Format::journal}) {
    const std::string text = line(format, {{"path", hostile}, {"next", 1}});
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      EXPECT_TRUE(byte == '\n' || (byte >= ' ' && byte <= '~')) << text;
    }
    if (format != Format::journal) EXPECT_EQ(text.find('\n'), text.size() - 1);
    EXPECT_THAT(text, HasSubstr("level=error"));
  }
}

TEST(Line, OfRandomBytesIsAlwaysOneValidLineWithinTheLimit) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string a(random() % 40, '\0');
    std::string b(random() % (round % 10 == 0 ? 9000 : 60), '\0');
    for (char& c : a) c = static_cast<char>(random());
    for (char& c : b) c = static_cast<char>(random() % 5 ? random() : "\"\\\n="[random() % 4]);
    const Fields fields{{"a", a}, {"b", b}, {"c", b}, {"d", b}, {"e", b}, {"last", a}};
    const std::string text = line(Format::text, fields);
    EXPECT_LE(text.size(), kMaxLineBytes);
    EXPECT_EQ(text.find('\n'), text.size() - 1);
    const std::string as_json = line(Format::json, fields);
    EXPECT_LE(as_json.size(), kMaxLineBytes);
    const json::object parsed = object(as_json);
    EXPECT_EQ(parsed.at("event").as_string(), "pull done");
    EXPECT_TRUE(parsed.contains("last") || parsed.contains("cut"));
    const std::string entry = line(Format::journal, fields);
    EXPECT_LE(entry.size(), kMaxLineBytes);
    std::istringstream entries(entry);
    for (std::string one; std::getline(entries, one);) {
      EXPECT_THAT(one, testing::ContainsRegex("^[A-Z_]+=")) << entry;
    }
  }
}

TEST(Line, CutsLongValuesAndSaysWhatWasLeftOut) {
  const std::string huge(100'000, 'x');
  const json::object parsed = object(line(
      Format::json, {{"a", huge}, {"b", huge}, {"c", huge}, {"d", huge}, {"e", huge}, {"f", 1}}));
  EXPECT_EQ(parsed.at("a").as_string().size(), kMaxValueBytes);
  EXPECT_THAT(std::string(parsed.at("a").as_string()), EndsWith("..."));
  EXPECT_FALSE(parsed.contains("e"));
  EXPECT_TRUE(parsed.at("cut").as_bool());
  EXPECT_EQ(parsed.at("f").as_int64(), 1) << "a later field that fits is not given up";
}

TEST(Journal, IsRecognizedByDeviceAndInode) {
  struct stat file{};
  ASSERT_EQ(fstat(STDERR_FILENO, &file), 0);
  const std::string name = std::to_string(file.st_dev) + ":" + std::to_string(file.st_ino);
  EXPECT_TRUE(is_journal(name.c_str(), STDERR_FILENO));
  EXPECT_FALSE(is_journal((name + "0").c_str(), STDERR_FILENO));
  EXPECT_FALSE(is_journal("", STDERR_FILENO));
  EXPECT_FALSE(is_journal(nullptr, STDERR_FILENO));
  EXPECT_FALSE(is_journal(name.c_str(), -1));
}

class Backend : public testing::Test {
 protected:
  Backend() {
    std::string pattern = testing::TempDir() + "/log_testXXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~Backend() override {
    stop(0ms);
    std::filesystem::remove_all(directory_);
  }

  // Logs into a file; read it back by contents().
  Settings to_file(Format format = Format::text) {
    Settings settings;
    settings.format = format;
    settings.fd = open((directory_ / "log").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    settings.journal_socket = directory_ / "journal";
    return settings;
  }
  std::vector<std::string> contents() const {
    std::vector<std::string> lines;
    const int fd = open((directory_ / "log").c_str(), O_RDONLY | O_CLOEXEC);
    std::string text(1 << 22, '\0');
    const ssize_t size = read(fd, text.data(), text.size());
    close(fd);
    std::istringstream stream(text.substr(0, static_cast<std::size_t>(size)));
    for (std::string one; std::getline(stream, one);) lines.push_back(one);
    return lines;
  }

  std::filesystem::path directory_;
};

TEST_F(Backend, WritesWhatIsUrgentEnoughAndFlushesAtItsEnd) {
  start(to_file());
  EXPECT_FALSE(enabled(Level::debug));
  debug("not written");
  info("first", {{"n", 1}});
  set_level(Level::debug);
  debug("second", {{"n", 2}});
  set_level(Level::error);
  warn("not written either");
  stop();
  const auto lines = contents();
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[0], HasSubstr(" info  first n=1"));
  EXPECT_THAT(lines[1], HasSubstr(" debug second n=2"));
  EXPECT_EQ(dropped(), 0u);
}

TEST_F(Backend, KeepsEachThreadsLinesInOrder) {
  Settings settings = to_file(Format::json);
  settings.queue_lines = 100'000;
  start(settings);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 1000; ++i) info("tick", {{"thread", t}, {"i", i}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop(30s);
  std::vector<std::int64_t> next(4, 0);
  const auto lines = contents();
  EXPECT_THAT(lines, SizeIs(4000));
  for (const std::string& text : lines) {
    const json::object parsed = object(text);
    EXPECT_EQ(parsed.at("i").as_int64(), next.at(parsed.at("thread").to_number<std::size_t>())++);
  }
}

TEST_F(Backend, NeverWaitsForABlockedSinkAndCountsWhatItLost) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  ASSERT_GT(fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096), 0);
  Settings settings;
  settings.fd = pipe_fds[1];
  settings.format = Format::text;
  settings.queue_lines = 100;
  start(settings);
  constexpr std::uint64_t kLines = 20'000;
  // It would wait for ever.
  for (std::uint64_t i = 0; i < kLines; ++i) info("nobody reads", {{"i", i}});
  EXPECT_GT(dropped(), kLines - 300);

  // The reader comes back: the newest lines are there, and the gap is told.
  std::string text;
  std::thread reader([&] {
    char buffer[4096];
    ssize_t size = 0;
    while ((size = read(pipe_fds[0], buffer, sizeof buffer)) > 0) {
      text.append(buffer, static_cast<std::size_t>(size));
    }
  });
  stop(30s);
  close(pipe_fds[1]);
  reader.join();
  close(pipe_fds[0]);
  EXPECT_THAT(text, HasSubstr("nobody reads i=" + std::to_string(kLines - 1)));
  EXPECT_THAT(text, HasSubstr("warn  log lines were lost: the sink is too slow lines="));
  const auto written = static_cast<std::uint64_t>(std::ranges::count(text, '\n'));
  EXPECT_LT(written, kLines);
  EXPECT_GT(dropped(), 0u);
}

TEST_F(Backend, EndsInTimeThoughTheSinkTakesNothing) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  ASSERT_GT(fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096), 0);
  Settings settings;
  settings.fd = pipe_fds[1];
  settings.format = Format::text;
  start(settings);
  for (int i = 0; i < 1000; ++i) info("nobody reads", {{"i", i}});
  stop(300ms);  // It would wait for ever.
  EXPECT_GT(dropped(), 0u);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

TEST_F(Backend, SurvivesASinkThatIsClosed) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  close(pipe_fds[0]);
  Settings settings;
  settings.fd = pipe_fds[1];
  settings.format = Format::text;
  start(settings);
  for (int i = 0; i < 10; ++i) info("into nothing", {{"i", i}});
  stop();
  EXPECT_EQ(dropped(), 10u);
  close(pipe_fds[1]);
}

TEST_F(Backend, SpeaksTheJournalsProtocol) {
  const int journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory_ / "journal";
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(bind(journal, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  start(to_file(Format::journal));
  warn("token refused", {{"registry", "a.azurecr.io"}, {"error", "two\nlines"}});
  stop();
  char buffer[8192];
  const ssize_t size = recv(journal, buffer, sizeof buffer, MSG_DONTWAIT);
  ASSERT_GT(size, 0);
  EXPECT_EQ(std::string(buffer, static_cast<std::size_t>(size)),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=staithed\n"
            "MESSAGE=token refused registry=a.azurecr.io error=\"two\\nlines\"\n"
            "STAITHE_EVENT=token refused\nSTAITHE_REGISTRY=a.azurecr.io\n"
            "STAITHE_ERROR=two\\nlines\n");
  EXPECT_THAT(contents(), SizeIs(0));
  close(journal);
}

TEST_F(Backend, FallsBackToStderrWithoutAJournal) {
  start(to_file(Format::journal));
  warn("token refused", {{"registry", "a.azurecr.io"}});
  stop();
  EXPECT_THAT(contents(), ElementsAre("<4>token refused registry=a.azurecr.io"));
}

TEST_F(Backend, CanBeStartedAgain) {
  start(to_file());
  info("one");
  stop();
  start(to_file());
  info("two");
  stop();
  EXPECT_THAT(contents().back(), HasSubstr("two"));
}

TEST(WithoutBackend, OnlyWarningsAndErrorsAreWritten) {
  EXPECT_FALSE(enabled(Level::info));
  EXPECT_TRUE(enabled(Level::warn));
  testing::internal::CaptureStderr();
  info("not written");
  warn("written", {{"n", 1}});
  EXPECT_THAT(testing::internal::GetCapturedStderr(), EndsWith(" warn  written n=1\n"));
}

}  // namespace
}  // namespace staithe::log
