// Blobs that come over several connections, out of order, broken, or not as they should.
#include "proxy/transfer.h"

#include <gtest/gtest.h>

#include <random>

#include "proxy/range.h"
#include "tests/fake/disk.h"
#include "tests/fake/effort.h"
#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;

constexpr std::uint64_t KiB = 1024;
constexpr SegmentSizes small{.first_bytes = 128 * KiB,
                             .least_bytes = 64 * KiB,
                             .most_bytes = 256 * KiB,
                             .near_bytes = 8 * KiB};

std::string bytes_of(std::size_t size, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class SegmentedTransferTest : public testing::Test {
 protected:
  SegmentedTransferTest() { house_.fills.set_segment_sizes(small); }

  // `change` makes what upstream answers of what an honest one would.
  void play(std::function<void(const Asked&, Reply&)> change) {
    house_.upstream.on("https://r.example/v2/app/blobs/", [this, change](const Asked& asked) {
      Reply reply = House::blob_reply(asked, bytes_);
      reply.piece_bytes = 4 * KiB;
      change(asked, reply);
      return reply;
    });
  }
  Answer get(const std::string& fields = {}) { return house_.get(path(), fields); }
  std::string path() const { return "/v2/app/blobs/" + digest_.to_string() + "?ns=r.example"; }
  void wait_until_filled() {
    house_.run_until_true([&] { return !house_.fills.under_way(digest_); });
  }
  std::uint64_t bytes_from_upstream() {
    return house_.registries.find("r.example")->upstream("app").stats().bytes;
  }
  // What the next pull gets of an honest upstream.
  void expect_right_afterwards() {
    wait_until_filled();
    play([](const Asked&, Reply&) {});
    const Answer answer = get();
    EXPECT_TRUE(answer.complete);
    EXPECT_TRUE(answer.body == bytes_);
  }
  static ByteRange range_of(const Asked& asked, std::uint64_t size) {
    const auto range = parse_range(asked.headers.get("Range"), size);
    return range && *range ? **range : ByteRange{0, size};
  }

  bool done_ = false;  // a client that may be there until the end
  const std::string bytes_ = bytes_of(3'000'000);
  const cache::Digest digest_ = cache::digest_of(cache::Algorithm::sha256, bytes_);
  House house_{{.bytes = 1 << 30}, nullptr, 10};
};

TEST_F(SegmentedTransferTest, ASlowUpstreamIsAskedOnSeveralConnectionsAndForNoByteTwice) {
  play([](const Asked&, Reply& reply) { reply.piece_delay = 2ms; });
  std::size_t most = 0;
  bool done = false;
  asio::co_spawn(
      house_.io,
      house_.ask("GET " + path() + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
      [&](std::exception_ptr, Answer answer) {
        EXPECT_TRUE(answer.body == bytes_);
        done = true;
      });
  house_.run_until_true([&] {
    for (const auto& fill : house_.fills.progress()) most = std::max(most, fill.connections);
    return done;
  });
  EXPECT_EQ(most, 4u);
  EXPECT_EQ(bytes_from_upstream(), bytes_.size());
}

TEST_F(SegmentedTransferTest, ARangeOfAMissingBlobDoesNotWaitForWhatLiesBeforeIt) {
  // What is asked for from the start has a first piece and no second one.
  play([](const Asked& asked, Reply& reply) {
    if (asked.headers.get("Range").starts_with("bytes=0-")) reply.piece_delay = 1h;
  });
  asio::co_spawn(house_.io, house_.ask("GET " + path() + " HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                 [&](std::exception_ptr, Answer) { done_ = true; });
  house_.run_until_true([&] { return house_.fills.under_way(digest_); });
  for (const auto& [range, begin, length] :
       std::vector<std::tuple<std::string, std::size_t, std::size_t>>{
           {"bytes=1000000-1000999", 1'000'000, 1000},
           {"bytes=2000000-2999999", 2'000'000, 1'000'000},
           {"bytes=-5", 2'999'995, 5}}) {
    const Answer answer = get("Range: " + range + "\r\n");
    EXPECT_EQ(answer.status, 206) << range;
    EXPECT_TRUE(answer.complete);
    EXPECT_TRUE(answer.body == bytes_.substr(begin, length)) << range;
  }
  EXPECT_FALSE(done_);
}

TEST_F(SegmentedTransferTest, AColdRangeIsTheFirstThatUpstreamIsAskedFor) {
  play([](const Asked&, Reply&) {});
  const Answer answer = get("Range: bytes=1500000-1500009\r\n");
  EXPECT_EQ(answer.status, 206);
  EXPECT_EQ(answer.body, bytes_.substr(1'500'000, 10));
  EXPECT_TRUE(house_.upstream.asked().front().headers.get("Range").starts_with("bytes=1500000-"));
  wait_until_filled();
  EXPECT_EQ(bytes_from_upstream(), bytes_.size());
  EXPECT_TRUE(get().body == bytes_);
}

TEST_F(SegmentedTransferTest, AColdRangeBehindTheEndDoesNotCostTheFillItsRanges) {
  play([this](const Asked& asked, Reply& reply) {
    if (range_of(asked, bytes_.size()).begin == 0) return;
    reply = {.status = 416, .body = ""};
  });
  EXPECT_EQ(get("Range: bytes=5000000-\r\n").status, 416);
  wait_until_filled();
  EXPECT_TRUE(house_.upstream.asked().at(1).headers.get("Range").starts_with("bytes=0-"));
}

// containerd 2 asks for all chunks at once, each to the end, and resets each connection after its
// chunk.
TEST_F(SegmentedTransferTest, ParallelOpenEndedRangesAreOneFill) {
  play([](const Asked&, Reply& reply) { reply.piece_delay = 1ms; });
  constexpr std::size_t chunks = 8;
  const std::size_t chunk = bytes_.size() / chunks;
  std::size_t done = 0;
  const auto fetch = [&](std::size_t i) -> asio::awaitable<void> {
    asio::ip::tcp::socket socket(house_.io);
    co_await socket.async_connect(house_.endpoint(), asio::use_awaitable);
    const std::string text = "GET " + path() + " HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" +
                             std::to_string(i * chunk) + "-\r\n\r\n";
    co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
    std::string all;
    std::array<char, 16 * 1024> piece;
    std::size_t head = std::string::npos;
    while (head == std::string::npos || all.size() < head + 4 + chunk) {
      all.append(piece.data(),
                 co_await socket.async_read_some(asio::buffer(piece), asio::use_awaitable));
      head = all.find("\r\n\r\n");
    }
    EXPECT_TRUE(all.starts_with("HTTP/1.1 206"));
    EXPECT_TRUE(all.substr(head + 4, chunk) == bytes_.substr(i * chunk, chunk));
    socket.set_option(asio::socket_base::linger(true, 0));  // A reset, not an end.
    socket.close();
    ++done;
  };
  for (std::size_t i = 0; i < chunks; ++i)
    asio::co_spawn(house_.io, fetch(i), [](std::exception_ptr error) { EXPECT_FALSE(error); });
  house_.run_until_true([&] { return done == chunks; });
  wait_until_filled();
  EXPECT_LT(bytes_from_upstream(), bytes_.size() * 102 / 100);
  const std::size_t asked = house_.upstream.asked().size();
  EXPECT_TRUE(get().body == bytes_);
  EXPECT_EQ(house_.upstream.asked().size(), asked) << "a hit by now";
}

TEST_F(SegmentedTransferTest, AnUpstreamThatDripsIsGivenUp) {
  play([](const Asked&, Reply& reply) {
    reply.piece_bytes = 10;
    reply.breaks_after = 10;
  });
  EXPECT_FALSE(get().complete);
  wait_until_filled();
  EXPECT_LT(house_.upstream.asked().size(), 20u);
  expect_right_afterwards();
}

TEST_F(SegmentedTransferTest, ManyCutsAreUnseenAndCostNoByteTwice) {
  play([](const Asked&, Reply& reply) { reply.breaks_after = 100'000; });
  const Answer answer = get();
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == bytes_);
  EXPECT_EQ(bytes_from_upstream(), bytes_.size());
}

TEST_F(SegmentedTransferTest, WhatWasJoinedWrongIsFetchedInOneAnswerTheNextTime) {
  play([this](const Asked& asked, Reply& reply) {
    const ByteRange range = range_of(asked, bytes_.size());
    if (range.begin > 0) reply.body[0] ^= 1;  // It lies in all but the first.
  });
  EXPECT_FALSE(get().complete);
  wait_until_filled();
  const std::size_t before = house_.upstream.asked().size();
  const Answer answer = get();
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == bytes_);
  ASSERT_EQ(house_.upstream.asked().size(), before + 1);
  EXPECT_EQ(house_.upstream.asked().back().headers.get("Range"), "");
}

TEST_F(SegmentedTransferTest, AChangedValidatorEndsItUnspliced) {
  int times = 0;
  play([&](const Asked&, Reply& reply) {
    reply.headers.emplace_back("ETag", ++times == 1 ? "\"a\"" : "\"b\"");
  });
  EXPECT_FALSE(get().complete);
  wait_until_filled();
  EXPECT_FALSE(house_.store.resumable(digest_));
  expect_right_afterwards();
}

// What is on its way to the disk is neither waited for nor asked for again.
TEST_F(SegmentedTransferTest, TheNextRangeIsAskedForWhileTheLastIsWritten) {
  const fake::TemporaryDirectory directory;
  fake::Disk disk(directory.path());
  House house({.bytes = 1 << 30}, &disk, 10);
  house.fills.set_segment_sizes(small);
  house.upstream.on("https://r.example/v2/app/blobs/", [this](const Asked& asked) {
    Reply reply = House::blob_reply(asked, bytes_);
    reply.piece_bytes = 1024 * KiB;
    return reply;
  });
  const auto gate = disk.hold(fake::Call::write);
  Answer answer;
  asio::co_spawn(
      house.io,
      house.ask("GET " + path() + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
      [&](std::exception_ptr, Answer given) {
        answer = std::move(given);
        done_ = true;
      });
  house.run_until_true([&] { return gate->reached() && house.upstream.asked().size() > 1; });
  gate->open();
  house.run_until_true([&] { return done_; });
  EXPECT_TRUE(answer.body == bytes_);
  EXPECT_EQ(house.registries.find("r.example")->upstream("app").stats().bytes, bytes_.size());
}

TEST_F(SegmentedTransferTest, AStopLosesNothingThatHasCome) {
  play([](const Asked& asked, Reply& reply) {
    if (!asked.headers.get("Range").starts_with("bytes=0-")) reply.piece_delay = 1h;
  });
  asio::co_spawn(house_.io, house_.ask("GET " + path() + " HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                 [&](std::exception_ptr, Answer) { done_ = true; });
  house_.run_until_true([&] {
    const auto fills = house_.fills.progress();
    return !fills.empty() && fills.front().bytes == small.first_bytes;
  });
  house_.run(house_.fills.stop());
  EXPECT_FALSE(house_.fills.under_way(digest_));
}

// An upstream that does what it wants with each request: what a client gets complete is right, and
// every request ends.
TEST_F(SegmentedTransferTest, NoLieMakesAWrongByte) {
  const auto seeds = static_cast<unsigned>(fake::effort(25));
  std::size_t complete = 0;
  for (unsigned seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    House house({.bytes = 1 << 30}, nullptr, 100);
    house.fills.set_segment_sizes(small);
    std::mt19937 random(seed);
    const std::string bytes = bytes_of(1'000'000 + random() % 1'000'000, seed);
    const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
    const unsigned honest = random() % 10;  // of ten
    house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
      Reply reply = House::blob_reply(asked, bytes);
      reply.piece_bytes = 1 + random() % (64 * KiB);
      if (random() % 10 < honest) return reply;
      const auto set = [&](const std::string& name, const std::string& value) {
        std::erase_if(reply.headers, [&](const auto& field) { return field.first == name; });
        reply.headers.emplace_back(name, value);
      };
      const std::uint64_t some = random() % bytes.size();
      switch (random() % 14) {
        case 0:
          reply.breaks_after = random() % (reply.body.size() + 1);
          break;
        case 1:
          return Reply::failure(Errc::unreachable, "played");
        case 2:
          return Reply{.status = static_cast<int>(400 + random() % 120)};
        case 3:
          set("Content-Range", "bytes " + std::to_string(some) + "-" + std::to_string(some) + "/" +
                                   std::to_string(bytes.size()));
          break;
        case 4:
          set("Content-Range", "bytes 0-" + std::to_string(some) + "/" + std::to_string(some + 1));
          break;
        case 5:
          if (!reply.body.empty()) reply.body[some % reply.body.size()] ^= 1;
          break;
        case 6:
          reply.body += "more";
          break;
        case 7:
          reply.body.resize(some % (reply.body.size() + 1));
          break;
        case 8:
          reply.status = 200;
          break;
        case 9:
          reply.status = 206;
          break;
        case 10: {
          Asked plain = asked;
          plain.headers = {};
          return House::blob_reply(plain, bytes);
        }
        case 11:
          set("ETag", "\"" + std::to_string(random() % 3) + "\"");
          break;
        case 12:
          set("Content-Length", std::to_string(some));
          break;
        default:
          std::erase_if(reply.headers, [](const auto&) { return true; });
      }
      return reply;
    });
    for (int pull = 0; pull < 6; ++pull) {
      const std::uint64_t begin = pull % 2 ? random() % bytes.size() : 0;
      const Answer answer =
          house.get("/v2/app/blobs/" + digest.to_string() + "?ns=r.example",
                    pull % 2 ? "Range: bytes=" + std::to_string(begin) + "-\r\n" : "");
      if (answer.status / 100 != 2 || !answer.complete) continue;
      ++complete;
      EXPECT_TRUE(answer.body == bytes.substr(answer.status == 206 ? begin : 0));
    }
  }
  EXPECT_GT(complete, seeds / 2) << "or nothing was tried";
}

}  // namespace
}  // namespace staithe::proxy
