// Files to socket pairs, with a reader that the test plays: on service loops, and without any.
#include "proxy/send.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/system_error.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "cache/disk.h"
#include "cache/error.h"
#include "proxy/connection.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t KiB = 1024;
constexpr std::uint64_t MiB = 1024 * KiB;
constexpr auto patience = 60s;

// Says at each place which place that is.
std::string pattern(std::uint64_t begin, std::uint64_t end) {
  std::string bytes(end - begin, '\0');
  for (std::uint64_t at = begin; at < end; ++at) {
    const std::uint64_t mixed = at * 0x9E3779B97F4A7C15u;
    bytes[at - begin] = static_cast<char>(mixed >> 56U);
  }
  return bytes;
}

cache::File file_of(std::uint64_t bytes) {
  cache::File file(
      ::open(std::filesystem::temp_directory_path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  const std::string text = pattern(0, bytes);
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(file.fd(), text.data() + at, text.size() - at);
    if (n <= 0) std::abort();
    at += static_cast<std::size_t>(n);
  }
  return file;
}

// False if the file system keeps it in memory whatever it is told.
bool drop_from_page_cache(const cache::File& file) {
  ::fdatasync(file.fd());
  ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  return in_page_cache({file.fd(), 0, 1}) == 0;
}

class SendFile : public testing::TestWithParam<bool> {
 protected:
  SendFile() {
    std::signal(SIGPIPE, SIG_IGN);
    if (GetParam()) senders.emplace(loops);
  }
  ~SendFile() override {
    for (const auto& sending : all) sending->give_up();
    run_until([this] { return std::ranges::all_of(all, [](auto& s) { return s->ended; }); });
    EXPECT_TRUE(!senders || senders->jobs() == 0);
    disk.join();
  }

  // One sending, and the other end of its socket.
  struct Sending {
    explicit Sending(asio::io_context& io) : client(io), socket(io) {
      asio::local::stream_protocol::socket served(io);
      asio::local::connect_pair(client, served);
      socket.assign(asio::generic::stream_protocol(AF_UNIX, 0), served.release());
      client.non_blocking(true);
      socket.native_non_blocking(true);
    }
    void give_up() {
      boost::system::error_code ignored;
      socket.shutdown(asio::socket_base::shutdown_both, ignored);
    }
    // Takes as much as there is, `most` at most.
    void take(std::uint64_t most) {
      std::array<char, 64 * KiB> piece;
      boost::system::error_code error;
      const std::size_t n =
          client.read_some(asio::buffer(piece.data(), std::min(most, piece.size())), error);
      taken.append(piece.data(), n);
    }

    asio::local::stream_protocol::socket client;
    Socket socket;
    SendProgress progress;
    std::atomic<bool> stop = false;
    std::string taken;
    bool ended = false;
    bool peer_gone = false;
    std::optional<Errc> failed;
  };

  Sending& start(FileStretch stretch) {
    Sending& sending = *all.emplace_back(std::make_unique<Sending>(io));
    asio::co_spawn(io,
                   send_file(sending.socket, stretch, &sending.stop, senders ? &*senders : nullptr,
                             disk, sending.progress),
                   [&sending](std::exception_ptr error) {
                     sending.ended = true;
                     try {
                       if (error) std::rethrow_exception(error);
                     } catch (const Failure& failure) {
                       sending.failed = failure.code();
                     } catch (const boost::system::system_error&) {
                       sending.peer_gone = true;
                     }
                   });
    return sending;
  }
  template <class Condition>
  void run_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      if (io.stopped()) io.restart();
      io.run_one_for(1ms);
    }
  }
  // Takes `bytes` of it in all.
  void take(Sending& sending, std::uint64_t bytes) {
    run_until([&] {
      if (sending.taken.size() < bytes) sending.take(bytes - sending.taken.size());
      return sending.taken.size() >= bytes;
    });
  }

  asio::io_context io{1};
  Loops loops{2};
  std::optional<Senders> senders;
  asio::thread_pool disk{1};
  std::list<std::unique_ptr<Sending>> all;
};

INSTANTIATE_TEST_SUITE_P(Jobs, SendFile, testing::Bool(),
                         [](const auto& test) { return test.param ? "OnLoops" : "OnTheCallers"; });

TEST_P(SendFile, SendsAPartOfAFileToAReaderOfAnySpeed) {
  const cache::File file = file_of(9 * MiB + 5);
  for (const auto& [begin, end] :
       std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{{0, 9 * MiB + 5},
                                                                      {1, 2},
                                                                      {3 * MiB - 1, 9 * MiB},
                                                                      {7, 7},
                                                                      {5, 256 * KiB + 5},
                                                                      {0, 256 * KiB + 1}}) {
    Sending& sending = start({file.fd(), begin, end});
    take(sending, end - begin);
    run_until([&] { return sending.ended; });
    EXPECT_FALSE(sending.peer_gone || sending.failed);
    EXPECT_EQ(sending.progress.sent_bytes(), end - begin);
    EXPECT_FALSE(sending.progress.held_up());
    EXPECT_TRUE(sending.taken == pattern(begin, end));
  }
}

TEST_P(SendFile, SendsWhatIsShortAndInMemoryAtOnce) {
  const cache::File file = file_of(64 * KiB);
  const Sending& sending = start({file.fd(), 0, 64 * KiB});
  io.poll();
  EXPECT_TRUE(sending.ended) << "nothing but the caller's loop had to do with it";
  EXPECT_EQ(sending.progress.sent_bytes(), 64 * KiB);
}

TEST_P(SendFile, SendsWhatIsNotInMemory) {
  const cache::File file = file_of(5 * MiB + 77);
  if (!drop_from_page_cache(file)) GTEST_SKIP() << "this file system has its files in memory";
  Sending& small = start({file.fd(), 2 * MiB, 2 * MiB + 10});
  take(small, 10);
  EXPECT_TRUE(small.taken == pattern(2 * MiB, 2 * MiB + 10));
  ASSERT_TRUE(drop_from_page_cache(file));
  Sending& large = start({file.fd(), 0, 5 * MiB + 77});
  take(large, 5 * MiB + 77);
  EXPECT_TRUE(large.taken == pattern(0, 5 * MiB + 77));
}

TEST_P(SendFile, KnowsWhatAReaderThatLeavesHasBeenSent) {
  const cache::File file = file_of(6 * MiB);
  for (const std::uint64_t leaves_at : {0 * KiB, 1 * KiB, 64 * KiB, 3 * MiB, 6 * MiB - 1}) {
    Sending& sending = start({file.fd(), 0, 6 * MiB});
    take(sending, leaves_at);
    sending.client.close();
    run_until([&] { return sending.ended; });
    EXPECT_FALSE(sending.failed) << "the file has nothing to do with it";
    EXPECT_GE(sending.progress.sent_bytes(), leaves_at);
    EXPECT_TRUE(sending.peer_gone || sending.progress.sent_bytes() == 6 * MiB);
  }
}

TEST_P(SendFile, EndsWhenTheSocketIsShutDownWhileItWaits) {
  const cache::File file = file_of(16 * MiB);
  Sending& sending = start({file.fd(), 0, 16 * MiB});
  run_until([&] { return sending.progress.held_up(); });
  sending.give_up();
  run_until([&] { return sending.ended; });
  EXPECT_TRUE(sending.peer_gone);
  EXPECT_FALSE(sending.progress.held_up());
}

TEST_P(SendFile, SaysThatAFileIsTooShortAndHowFarItCame) {
  for (const std::uint64_t there : {0 * KiB, 10 * KiB, 2 * MiB + 3}) {
    const cache::File file = file_of(there);
    for (const std::uint64_t wanted : {there + 1, there + 20 * KiB, there + 5 * MiB}) {
      Sending& sending = start({file.fd(), 0, wanted});
      take(sending, there);
      run_until([&] { return sending.ended; });
      EXPECT_EQ(sending.failed, Errc::storage_failed);
      EXPECT_EQ(sending.progress.sent_bytes(), there);
      EXPECT_TRUE(sending.taken == pattern(0, there));
    }
  }
}

TEST_P(SendFile, StopsSoonWhenItIsTold) {
  const cache::File file = file_of(32 * MiB);
  Sending& sending = start({file.fd(), 0, 32 * MiB});
  run_until([&] { return sending.progress.held_up(); });
  sending.stop = true;
  const std::uint64_t before = sending.progress.sent_bytes();
  run_until([&] {
    sending.take(32 * MiB);
    return sending.ended;
  });
  EXPECT_FALSE(sending.peer_gone || sending.failed);
  EXPECT_LE(sending.progress.sent_bytes(), before + 4 * MiB);
  take(sending, sending.progress.sent_bytes());
  EXPECT_TRUE(sending.taken == pattern(0, sending.progress.sent_bytes()));
}

TEST_P(SendFile, ManyAtOnceShareTheLoopsAndDelayNobody) {
  const cache::File file = file_of(2 * MiB);
  for (int i = 0; i < 40; ++i) start({file.fd(), 0, 2 * MiB});
  Sending& slow = *all.front();  // It takes nothing before all others have all.
  run_until([&] {
    bool done = true;
    for (const auto& sending : all) {
      if (sending.get() == &slow) continue;
      sending->take(2 * MiB);
      done &= sending->taken.size() == 2 * MiB;
    }
    return done;
  });
  EXPECT_FALSE(slow.ended);
  take(slow, 2 * MiB);
  const std::string whole = pattern(0, 2 * MiB);
  for (const auto& sending : all) EXPECT_TRUE(sending->taken == whole);
}

TEST(SendProgress, CountsForHowLongThePeerHeldItUp) {
  SendProgress progress;
  const SteadyTime begun = std::chrono::steady_clock::now();
  EXPECT_EQ(progress.held_up_for(begun), 0s);
  progress.hold_up(begun + 1s);
  EXPECT_TRUE(progress.held_up());
  EXPECT_EQ(progress.held_up_for(begun + 3s), 2s);
  progress.go_on(begun + 4s);
  EXPECT_FALSE(progress.held_up());
  EXPECT_EQ(progress.held_up_for(begun + 10s), 3s);
  progress.hold_up(begun + 10s);
  EXPECT_EQ(progress.held_up_for(begun + 10s), 3s);
  EXPECT_EQ(progress.held_up_for(begun + 11s), 4s);
}

TEST(InPageCache, IsWhatWasJustWritten) {
  const cache::File file = file_of(3 * MiB);
  for (const FileStretch stretch : {FileStretch{file.fd(), 0, 3 * MiB},
                                    {file.fd(), 5, 6},
                                    {file.fd(), MiB, 3 * MiB - 1},
                                    {file.fd(), 100, 100}})
    EXPECT_EQ(in_page_cache(stretch), stretch.end);
}

TEST(InPageCache, EndsWhereAPageIsMissing) {
  const cache::File file = file_of(6 * MiB);
  if (!drop_from_page_cache(file)) GTEST_SKIP() << "this file system has its files in memory";
  std::string bytes(MiB, '\0');
  for (const std::uint64_t at : {0 * MiB, 1 * MiB})
    ASSERT_EQ(::pread(file.fd(), bytes.data(), MiB, static_cast<off_t>(at)), ssize_t{MiB});
  const std::uint64_t end = in_page_cache({file.fd(), 0, 6 * MiB});
  EXPECT_GE(end, 2 * MiB);
  EXPECT_LE(end, 4 * MiB) << "the kernel has read ahead, but not so far";
}

TEST(InPageCache, IsNothingThatTheFileSystemDoesNotTell) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const cache::File reading(ends[0]);
  const cache::File writing(ends[1]);
  EXPECT_EQ(in_page_cache({reading.fd(), 0, 10}), 0U);
}

TEST(Senders, TakeTheLoopThatSendsTheFewest) {
  Loops loops(3);
  Senders senders(loops);
  std::list<Senders::Place> places;
  std::map<asio::io_context*, int> by_loop;
  for (int i = 0; i < 6; ++i) ++by_loop[&places.emplace_back(senders).loop()];
  EXPECT_EQ(by_loop.size(), 3U);
  for (const auto& [loop, jobs] : by_loop) EXPECT_EQ(jobs, 2);
  asio::io_context* const left = &places.front().loop();
  places.pop_front();
  EXPECT_EQ(&places.emplace_back(senders).loop(), left);
  EXPECT_EQ(senders.jobs(), 6U);
  places.clear();
  EXPECT_EQ(senders.jobs(), 0U);
}

// A connection whose files are sent on a service loop, with a client that takes nothing.
class HeldUp : public testing::Test, protected Handler {
 protected:
  HeldUp() {
    std::signal(SIGPIPE, SIG_IGN);
    asio::local::stream_protocol::socket served(io);
    asio::local::connect_pair(client, served);
    client.non_blocking(true);
    connection.emplace(Socket(io, asio::generic::stream_protocol(AF_UNIX, 0), served.release()),
                       limits, static_cast<Handler&>(*this), disk, &senders);
    asio::co_spawn(io, connection->run(), [this](std::exception_ptr) { ended = true; });
    asio::write(client, asio::buffer(std::string("GET /file HTTP/1.1\r\nHost: x\r\n\r\n")));
    // Behind the head, which has its own moment in this phase.
    run_until([this] {
      return client.available() > 4 * KiB && connection->phase() == Connection::Phase::send;
    });
  }
  ~HeldUp() override {
    connection->shut_down();
    run_until([this] { return ended; });
    disk.join();
  }
  asio::awaitable<void> handle(Exchange& exchange) override {
    co_await exchange.begin(200, "text/plain", large, true);
    co_await exchange.send_file(file.fd(), 0, large);
  }
  void handled(const Exchange& exchange, std::chrono::microseconds, const Error*) override {
    body_bytes = exchange.body_bytes_sent();
  }
  template <class Condition>
  void run_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      if (io.stopped()) io.restart();
      io.run_one_for(1ms);
    }
  }
  std::uint64_t take() {
    std::array<char, 64 * KiB> piece;
    boost::system::error_code error;
    return client.read_some(asio::buffer(piece), error);
  }

  static constexpr std::uint64_t large = 32 * MiB;
  const cache::File file = file_of(large);
  asio::io_context io{1};
  Loops loops{1};
  Senders senders{loops};
  asio::thread_pool disk{1};
  const ConnectionLimits limits;
  asio::local::stream_protocol::socket client{io};
  std::optional<Connection> connection;
  std::uint64_t body_bytes = 0;
  bool ended = false;
};

TEST_F(HeldUp, AClientHasTheSameTimeAsOnTheMainLoop) {
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_FALSE(connection->overdue(begun + 100s));
  EXPECT_TRUE(connection->overdue(begun + 151s + patience));
}

TEST_F(HeldUp, OneThatTakesTheLeastIsWaitedFor) {
  const auto begun = std::chrono::steady_clock::now();
  std::uint64_t taken = 0;
  const auto take_a_window = [&] {
    for (const std::uint64_t until = taken + MiB; taken < until;)
      run_until([&] {
        const std::uint64_t n = take();
        taken += n;
        return n > 0;
      });
    run_until([this] { return connection->phase() == Connection::Phase::send; });
  };
  take_a_window();
  EXPECT_FALSE(connection->overdue(begun + 151s + patience));
  take_a_window();
  EXPECT_FALSE(connection->overdue(begun + 2 * (151s + patience)));
  EXPECT_TRUE(connection->overdue(begun + 3 * (151s + patience))) << "nothing since";
}

TEST_F(HeldUp, ItIsAnsweredInFullOnceItTakesTheRest) {
  run_until([&] {
    take();
    return body_bytes > 0;
  });
  EXPECT_EQ(body_bytes, large);
}

TEST_F(HeldUp, AConnectionThatIsShutDownKnowsWhatItHasSent) {
  connection->shut_down();
  run_until([this] { return ended; });
  EXPECT_GT(body_bytes, 0U);
  EXPECT_LT(body_bytes, large);
}

}  // namespace
}  // namespace staithe::proxy
