#include "proxy/proxy.h"

#include <gtest/gtest.h>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::Asked;
using fake::Gate;
using fake::House;
using fake::Reply;

std::string bytes_of(std::size_t size, unsigned seed = 1) {
  std::string bytes(size, '\0');
  std::uint32_t state = seed * 2654435761U + 1;
  for (char& c : bytes) {
    state = state * 1664525U + 1013904223U;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

std::string blob_path(const std::string& repository, const cache::Digest& digest) {
  return "/v2/r.example/" + repository + "/blobs/" + digest.to_string();
}

constexpr const char* oci = "application/vnd.oci.image.manifest.v1+json";

// Plays a tag of `repository` with this manifest.
void play_manifest(House& house, const std::string& repository, const std::string& tag,
                   const std::string& bytes) {
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes).to_string();
  const auto play = [bytes, digest](const Asked& asked) {
    return Reply{.status = 200,
                 .headers = {{"Content-Type", oci}, {"Docker-Content-Digest", digest}},
                 .body = asked.method == "HEAD" ? "" : bytes};
  };
  house.upstream.on("https://r.example/v2/" + repository + "/manifests/" + tag, play);
  house.upstream.on("https://r.example/v2/" + repository + "/manifests/" + digest, play);
}

TEST(Blobs, AMissIsStoredAndTheNextRequestIsAHit) {
  House house;
  const std::string bytes = bytes_of(3'000'000);
  const auto digest = house.play_blob("app", bytes);
  const Answer cold = house.get(blob_path("app", digest));
  EXPECT_EQ(cold.status, 200);
  EXPECT_TRUE(cold.complete);
  EXPECT_EQ(cold.body, bytes);
  EXPECT_EQ(cold.field("Cache-Status"), "staithe; fwd=miss; stored");
  EXPECT_EQ(cold.field("Docker-Content-Digest"), digest.to_string());
  EXPECT_EQ(cold.field("Accept-Ranges"), "bytes");
  EXPECT_EQ(cold.field("Content-Type"), "application/octet-stream");
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  const Answer warm = house.get(blob_path("app", digest));
  EXPECT_EQ(warm.body, bytes);
  EXPECT_EQ(warm.field("Cache-Status"), "staithe; hit");
  EXPECT_EQ(house.upstream.asked().size(), 1U);
}

TEST(Blobs, AnyNumberOfReadersCauseOneTransfer) {
  House house;
  Gate gate(house.io.get_executor());
  const std::string bytes = bytes_of(2'000'000);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
    Reply reply = House::blob_reply(asked, bytes);
    reply.gate = &gate;
    return reply;
  });
  std::vector<Answer> answers;
  for (int i = 0; i < 32; ++i) {
    asio::co_spawn(
        house.io,
        house.ask("GET " + blob_path("app", digest) +
                  " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        [&](std::exception_ptr, Answer answer) { answers.push_back(std::move(answer)); });
  }
  house.run_until_true([&] { return gate.waiting() == 1; });
  gate.open();
  house.run_until_true([&] { return answers.size() == 32; });
  for (const Answer& answer : answers) EXPECT_TRUE(answer.body == bytes);
  EXPECT_EQ(house.upstream_gets(digest), 1U);
  EXPECT_EQ(house.proxy.traffic().misses, 1U);
  EXPECT_EQ(house.proxy.traffic().collapsed, 31U);
}

TEST(Blobs, AReaderThatLeavesStopsNobody) {
  House house;
  Gate gate(house.io.get_executor());
  const std::string bytes = bytes_of(2'000'000);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
    Reply reply = House::blob_reply(asked, bytes);
    reply.gate = &gate;
    return reply;
  });
  {
    asio::ip::tcp::socket leader(house.io);
    leader.connect(house.endpoint());
    asio::write(leader, asio::buffer("GET " + blob_path("app", digest) +
                                     " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    house.run_until_true([&] { return gate.waiting() == 1; });
    leader.set_option(asio::socket_base::linger(true, 0));  // It resets the connection.
  }
  std::optional<Answer> follower;
  asio::co_spawn(house.io,
                 house.ask("GET " + blob_path("app", digest) +
                           " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                 [&](std::exception_ptr, Answer answer) { follower = std::move(answer); });
  gate.open();
  house.run_until_true([&] { return follower.has_value(); });
  EXPECT_TRUE(follower->body == bytes);
  EXPECT_EQ(house.upstream_gets(digest), 1U);
}

TEST(Blobs, WrongBytesNeverMakeACompleteAnswerAndAreNotKept) {
  House house;
  const std::string bytes = bytes_of(1'000'000);
  std::string wrong = bytes;
  wrong[500'000] ^= 1;
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.play_blob_as("app", digest, wrong);
  const Answer answer = house.get(blob_path("app", digest));
  EXPECT_EQ(answer.status, 200);
  EXPECT_FALSE(answer.complete);
  EXPECT_FALSE(answer.reset);
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  EXPECT_FALSE(house.store.size_of_blob(digest));
  house.play_blob_as("app", digest, bytes);
  EXPECT_TRUE(house.get(blob_path("app", digest)).body == bytes);
}

TEST(Blobs, ABrokenTransferGoesOnWhereItStoppedUnseenByItsReaders) {
  House house;
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  int asked_times = 0;
  house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
    Reply reply = House::blob_reply(asked, bytes);
    if (++asked_times <= 2) reply.breaks_after = 200'000;
    return reply;
  });
  const Answer answer = house.get(blob_path("app", digest));
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == bytes);
  ASSERT_EQ(house.upstream.asked().size(), 3U);
  EXPECT_EQ(house.upstream.asked()[1].headers.get("Range"), "bytes=200000-999999");
  EXPECT_EQ(house.upstream.asked()[2].headers.get("Range"), "bytes=400000-999999");
}

TEST(Blobs, AnUpstreamThatIgnoresTheRangeOfAResumptionIsPassedOverNotSpliced) {
  for (const bool lies : {false, true}) {
    SCOPED_TRACE(lies);
    House house;
    const std::string bytes = bytes_of(1'000'000);
    const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
    int asked_times = 0;
    house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
      if (++asked_times == 1) {
        Reply reply = House::blob_reply(asked, bytes);
        reply.breaks_after = 300'000;
        return reply;
      }
      return Reply{.status = 200,
                   .headers = {{"Content-Length", std::to_string(bytes.size())}},
                   .body = lies ? bytes_of(bytes.size(), 2) : bytes};
    });
    const Answer answer = house.get(blob_path("app", digest));
    EXPECT_EQ(answer.complete, !lies);
    if (!lies) EXPECT_TRUE(answer.body == bytes);
    EXPECT_EQ(answer.body.substr(0, 300'000), bytes.substr(0, 300'000));
  }
}

// An upstream that has 2 of 3 MB, then is away until it is `back`.
class BrokenOff {
 public:
  BrokenOff() {
    house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
      if (!back && asked_times_++ > 0) return Reply{.status = 500};
      Reply reply = House::blob_reply(asked, bytes);
      if (!back) reply.breaks_after = 2'000'000;
      return reply;
    });
    house.upstream.on("https://r.example/v2/other/blobs/",
                      [](const Asked&) { return Reply{.status = 404}; });
    EXPECT_FALSE(house.get(blob_path("app", digest)).complete);
    house.run_until_true([&] { return !house.fills.under_way(digest); });
    before = house.upstream.asked().size();
    back = true;
  }

  bool back = false;
  House house;
  const std::string bytes = bytes_of(3'000'000);
  const cache::Digest digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  std::size_t before = 0;

 private:
  int asked_times_ = 0;
};

TEST(Blobs, ATransferThatBrokeOffIsGoneOnWithByTheNextPull) {
  BrokenOff scene;
  const Answer answer = scene.house.get(blob_path("app", scene.digest));
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == scene.bytes);
  const auto& asked = scene.house.upstream.asked();
  ASSERT_EQ(asked.size(), scene.before + 2);
  EXPECT_EQ(asked[scene.before].method, "HEAD");
  EXPECT_EQ(asked[scene.before + 1].headers.get("Range"), "bytes=2000000-2999999");
  scene.house.run_until_true([&] { return !scene.house.fills.under_way(scene.digest); });
  EXPECT_EQ(scene.house.get(blob_path("app", scene.digest)).field("Cache-Status"), "staithe; hit");
}

TEST(Blobs, WhatATransferHasLeftIsGivenToNobodyWhoMayNotHaveTheBlob) {
  BrokenOff scene;
  const Answer answer = scene.house.get(blob_path("other", scene.digest));
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(scene.house.upstream.asked().size(), scene.before + 1);
  EXPECT_TRUE(scene.house.store.resumable(scene.digest)) << "others may still want it";
}

TEST(Blobs, RangesOfAMissAreAnsweredFromTheSameTransfer) {
  House house;
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  const Answer part = house.get(blob_path("app", digest), "Range: bytes=1000-1999\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.field("Content-Range"), "bytes 1000-1999/1000000");
  EXPECT_EQ(part.body, bytes.substr(1000, 1000));
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=-5\r\n").body, bytes.substr(999'995));
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=999999-\r\n").body,
            bytes.substr(999'999));
  const Answer beyond = house.get(blob_path("app", digest), "Range: bytes=1000000-\r\n");
  EXPECT_EQ(beyond.status, 416);
  EXPECT_EQ(beyond.field("Content-Range"), "bytes */1000000");
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=0-1,5-6\r\n").status, 200);
  EXPECT_EQ(
      house.get(blob_path("app", digest), "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n").status,
      200);
  EXPECT_EQ(house.upstream_gets(digest), 1U);
}

TEST(Blobs, KnowingADigestIsNoRightToIt) {
  House house;
  const std::string bytes = bytes_of(10'000);
  const auto digest = house.play_blob("private", bytes);
  ASSERT_EQ(house.get(blob_path("private", digest)).status, 200);
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  house.upstream.on("https://r.example/v2/other/blobs/", {Reply::json("{}", 404)});
  const Answer refused = house.get(blob_path("other", digest));
  EXPECT_EQ(refused.status, 404);
  EXPECT_NE(refused.body.find("BLOB_UNKNOWN"), std::string::npos);
  EXPECT_EQ(house.head(blob_path("other", digest)).status, 404);
  // Once upstream shows it there, the stored bytes serve, and no second transfer is made.
  house.clock.pass(absence_lasts);
  house.play_blob_as("other", digest, bytes);
  EXPECT_EQ(house.get(blob_path("other", digest)).body, bytes);
  EXPECT_EQ(house.upstream_gets(digest), 1U);
}

TEST(Blobs, AHeadTellsTheLengthAndStartsNoTransfer) {
  House house;
  const auto digest = house.play_blob("app", bytes_of(12'345));
  const Answer answer = house.head(blob_path("app", digest));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("Content-Length"), "12345");
  EXPECT_TRUE(answer.body.empty());
  EXPECT_EQ(house.upstream_gets(digest), 0U);
}

TEST(Blobs, WhatTheCacheCannotTakeIsPassedOnCheckedAndNotStored) {
  House house(cache::Size{.bytes = 100'000});
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  const Answer answer = house.get(blob_path("app", digest));
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == bytes);
  EXPECT_EQ(answer.field("Cache-Status"), "staithe; fwd=bypass");
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=5-9\r\n").body, bytes.substr(5, 5));
  EXPECT_FALSE(house.store.size_of_blob(digest));
  std::string wrong = bytes;
  wrong.back() ^= 1;
  house.play_blob_as("app", digest, wrong);
  EXPECT_FALSE(house.get(blob_path("app", digest)).complete);
}

// The soak found it: an answer of no byte was passed on as one, whole with its head.
TEST(Blobs, NothingIsNotPassedOnForABlobThatIsSomething) {
  House house(cache::Size{.bytes = 100'000});
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  int good_answers = 0;
  house.upstream.on("https://r.example/v2/app/blobs/" + digest.to_string(),
                    [&](const fake::Asked& asked) {
                      if (good_answers-- > 0) return House::blob_reply(asked, bytes);
                      return fake::Reply{.status = 200, .headers = {{"Content-Length", "0"}}};
                    });
  for (const char* range : {"", "Range: bytes=-52\r\n"}) {
    good_answers = 1;  // The transfer, for which there is no room.
    const Answer answer = house.get(blob_path("app", digest), range);
    EXPECT_EQ(good_answers, -1) << range;
    EXPECT_EQ(answer.status, 404) << range;
    EXPECT_TRUE(answer.body.contains("has no byte")) << answer.body;
  }
  EXPECT_EQ(house.head(blob_path("app", digest)).status, 404);
}

// The soak found it: the HEAD joined the GET's transfer, was passed on as one, and its body, which
// it must not have, ended the daemon.
TEST(Blobs, AHeadBesideAGetThatTheCacheCannotTakeHasNoBody) {
  House house(cache::Size{.bytes = 100'000});
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  fake::Gate gate(house.io.get_executor());
  house.upstream.on("https://r.example/v2/app/blobs/" + digest.to_string(),
                    [&](const fake::Asked& asked) {
                      fake::Reply reply = House::blob_reply(asked, bytes);
                      reply.gate = &gate;
                      return reply;
                    });
  const auto begin = [&](const std::string& method, std::optional<Answer>& to) {
    asio::co_spawn(house.io,
                   house.ask(method + " " + blob_path("app", digest) +
                             " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                   [&to](std::exception_ptr, Answer answer) { to = std::move(answer); });
  };
  std::optional<Answer> got;
  std::optional<Answer> told;
  begin("GET", got);
  house.run_until_true([&] { return gate.waiting() == 1; });
  begin("HEAD", told);
  // Who comes after it has been answered, so it has been taken up, and waits for the transfer.
  ASSERT_EQ(house.get("/v2/").status, 200);
  ASSERT_EQ(house.get("/v2/").status, 200);
  gate.open();
  house.run_until_true([&] { return got && told; });
  EXPECT_TRUE(got->body == bytes);
  EXPECT_EQ(told->status, 200);
  EXPECT_EQ(told->field("Content-Length"), std::to_string(bytes.size()));
  EXPECT_TRUE(told->body.empty());
}

TEST(Blobs, APartOfMoreBytesThanItsRangeIsCutWhereItIsPassedOn) {
  House house(cache::Size{.bytes = 100'000});
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  house.upstream.on("https://r.example/v2/app/blobs/" + digest.to_string(),
                    [&](const fake::Asked& asked) {
                      fake::Reply reply = House::blob_reply(asked, bytes);
                      for (auto& [name, value] : reply.headers)
                        if (name == "Content-Range" && asked.headers.get("Range") == "bytes=5-999")
                          value = "bytes 5-9/1000000";
                      return reply;
                    });
  const Answer answer = house.get(blob_path("app", digest), "Range: bytes=5-999\r\n");
  EXPECT_EQ(answer.status, 206);
  EXPECT_FALSE(answer.complete);
  // It goes on.
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=5-9\r\n").body, bytes.substr(5, 5));
}

TEST(Blobs, AnotherPartThanWasAskedForIsNotPassedOn) {
  House house(cache::Size{.bytes = 100'000});
  const std::string bytes = bytes_of(1'000'000);
  const auto digest = house.play_blob("app", bytes);
  house.upstream.on("https://r.example/v2/app/blobs/" + digest.to_string(),
                    [&](const fake::Asked& asked) {
                      // The transfer, for which there is no room, begins as it should.
                      if (asked.headers.get("Range") == "bytes=0-4194303")
                        return House::blob_reply(asked, bytes);
                      fake::Asked another;
                      another.headers.add("Range", "bytes=100-104");
                      return House::blob_reply(another, bytes);
                    });
  for (const char* range : {"bytes=5-9", "bytes=5-", "bytes=-5", "bytes=99-104", "bytes=100-103"})
    EXPECT_EQ(house.get(blob_path("app", digest), "Range: " + std::string(range) + "\r\n").status,
              404)
        << range;
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=100-104\r\n").body,
            bytes.substr(100, 5));
  // Its end may be nearer than was asked for.
  EXPECT_EQ(house.get(blob_path("app", digest), "Range: bytes=100-\r\n").status, 206);
}

TEST(Blobs, WithoutALengthUpstreamTheBodyIsChunkedAndTheEndStillHeldBack) {
  House house;
  const std::string bytes = bytes_of(100'000);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.upstream.on("https://r.example/v2/app/blobs/",
                    [&](const Asked&) { return Reply{.body = bytes}; });
  const Answer answer = house.get(blob_path("app", digest));
  EXPECT_EQ(answer.field("Transfer-Encoding"), "chunked");
  EXPECT_TRUE(answer.body.ends_with("0\r\n\r\n"));
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  EXPECT_EQ(house.get(blob_path("app", digest)).body, bytes);
}

TEST(Blobs, OfNoBytesAtAllAreBlobsToo) {
  House house;
  const auto digest = house.play_blob("app", "");
  const Answer cold = house.get(blob_path("app", digest));
  EXPECT_EQ(cold.status, 200);
  EXPECT_TRUE(cold.complete);
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  EXPECT_TRUE(house.get(blob_path("app", digest)).complete);
}

TEST(Blobs, FollowARedirectToTheDataHost) {
  House house;
  const std::string bytes = bytes_of(10'000);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.upstream.on("https://r.example/v2/app/blobs/", [](const Asked&) {
    return Reply{.status = 307, .headers = {{"Location", "https://data.example/x?sig=geheim"}}};
  });
  house.upstream.on("https://data.example/",
                    [&](const Asked& asked) { return House::blob_reply(asked, bytes); });
  EXPECT_EQ(house.get(blob_path("app", digest)).body, bytes);
}

TEST(Blobs, ARedirectToAnUnknownHostIsNotFollowedAndSaysSo) {
  House house;
  const auto digest = cache::digest_of(cache::Algorithm::sha256, "x");
  house.upstream.on("https://r.example/v2/app/blobs/", [](const Asked&) {
    return Reply{.status = 307, .headers = {{"Location", "https://evil.example/x?sig=geheim"}}};
  });
  const Answer answer = house.get(blob_path("app", digest));
  EXPECT_EQ(answer.status, 404);
  EXPECT_NE(answer.body.find("data_hosts"), std::string::npos);
  EXPECT_EQ(answer.body.find("geheim"), std::string::npos);
  EXPECT_EQ(house.upstream.count("https://evil.example"), 0U);
}

TEST(Manifests, ByTagCostOneHeadWhenTheyAreKnown) {
  House house;
  const std::string bytes = R"({"schemaVersion":2,"layers":[]})";
  play_manifest(house, "app", "1", bytes);
  const Answer cold = house.get("/v2/r.example/app/manifests/1");
  EXPECT_EQ(cold.status, 200);
  EXPECT_EQ(cold.body, bytes);
  EXPECT_EQ(cold.field("Content-Type"), oci);
  EXPECT_EQ(house.upstream.asked().size(), 1U);
  const Answer warm = house.get("/v2/app/manifests/1");
  EXPECT_EQ(warm.body, bytes);
  EXPECT_EQ(warm.field("Cache-Status"), "staithe; hit");
  ASSERT_EQ(house.upstream.asked().size(), 2U);
  EXPECT_EQ(house.upstream.asked()[1].method, "HEAD");
  const Answer head = house.head("/v2/app/manifests/1");
  EXPECT_EQ(head.field("Content-Length"), std::to_string(bytes.size()));
  EXPECT_EQ(head.field("Docker-Content-Digest"), cold.field("Docker-Content-Digest"));
  EXPECT_EQ(head.field("Content-Type"), oci);
  EXPECT_TRUE(head.body.empty());
}

TEST(Manifests, ByDigestAreAskedForOnce) {
  House house;
  const std::string bytes = R"({"schemaVersion":2,"layers":[]})";
  play_manifest(house, "app", "1", bytes);
  const std::string path = "/v2/r.example/app/manifests/" +
                           cache::digest_of(cache::Algorithm::sha256, bytes).to_string();
  EXPECT_EQ(house.get(path).body, bytes);
  EXPECT_EQ(house.get(path).body, bytes);
  EXPECT_EQ(house.upstream.asked().size(), 1U);
  // Another repository has to be shown it by upstream itself.
  EXPECT_EQ(house
                .get("/v2/r.example/other/manifests/" +
                     cache::digest_of(cache::Algorithm::sha256, bytes).to_string())
                .status,
            503);
}

TEST(Manifests, OfATagThatMovedAreTheNewOnes) {
  House house;
  play_manifest(house, "app", "1", R"({"layers":[]})");
  ASSERT_EQ(house.get("/v2/app/manifests/1").status, 200);
  play_manifest(house, "app", "1", R"({"layers":[1]})");
  EXPECT_EQ(house.get("/v2/app/manifests/1").body, R"({"layers":[1]})");
}

TEST(Manifests, OfATagAreServedStaleAndMarkedWhileUpstreamFails) {
  House house;
  play_manifest(house, "app", "1", R"({"layers":[]})");
  ASSERT_EQ(house.get("/v2/app/manifests/1").status, 200);
  house.upstream.on("https://r.example/v2/app/manifests/",
                    {Reply::failure(Errc::unreachable, "r.example is down")});
  house.upstream.on("https://r.example/v2/app/manifests/1",
                    {Reply::failure(Errc::unreachable, "r.example is down")});
  const Answer stale = house.get("/v2/app/manifests/1");
  EXPECT_EQ(stale.status, 200);
  EXPECT_EQ(stale.body, R"({"layers":[]})");
  EXPECT_TRUE(stale.field("Cache-Status").starts_with("staithe; fwd=stale"));
  EXPECT_FALSE(stale.field("Age").empty());
  EXPECT_EQ(house.get("/v2/app/manifests/2").status, 503);
}

TEST(Manifests, AreNotServedStaleToWhomUpstreamRefuses) {
  House house;
  play_manifest(house, "app", "1", R"({"layers":[]})");
  ASSERT_EQ(house.get("/v2/app/manifests/1").status, 200);
  house.upstream.on("https://r.example/v2/app/manifests/1",
                    {Reply::json(R"({"errors":[{"code":"DENIED","message":"no"}]})", 403)});
  const Answer denied = house.get("/v2/app/manifests/1");
  EXPECT_EQ(denied.status, 403);
  EXPECT_NE(denied.body.find("AcrPull"), std::string::npos);
  house.upstream.on("https://r.example/v2/app/manifests/1", {Reply::json("{}", 401)});
  EXPECT_EQ(house.get("/v2/app/manifests/1").status, 403);
  house.upstream.on("https://r.example/v2/app/manifests/1", {Reply::json("{}", 404)});
  EXPECT_EQ(house.get("/v2/app/manifests/1").status, 404);
}

TEST(Manifests, AskUpstreamWithoutWhatTheClientSent) {
  House house;
  play_manifest(house, "app", "1", R"({"layers":[]})");
  house.get("/v2/app/manifests/1",
            "Authorization: Basic Z2VoZWlt\r\nAccept: text/x-odd\r\nCookie: a=b\r\n"
            "X-Forwarded-For: 1.2.3.4\r\n");
  ASSERT_EQ(house.upstream.asked().size(), 1U);
  const std::string sent = house.upstream.asked()[0].everything();
  for (const char* secret : {"Z2VoZWlt", "text/x-odd", "Cookie", "X-Forwarded-For"})
    EXPECT_EQ(sent.find(secret), std::string::npos) << secret;
}

TEST(Proxy, NamesTheConfiguredRegistriesToWhoAsksForAnother) {
  House house;
  const Answer answer = house.get("/v2/evil.example/app/manifests/1");
  EXPECT_EQ(answer.status, 404);
  EXPECT_NE(answer.body.find("NAME_UNKNOWN"), std::string::npos);
  EXPECT_NE(answer.body.find("r.example, docker.io"), std::string::npos);
  EXPECT_TRUE(house.upstream.asked().empty());
}

TEST(Proxy, EchoesTheNamespaceThatItUsed) {
  House house;
  play_manifest(house, "app", "1", R"({"layers":[]})");
  EXPECT_EQ(house.get("/v2/app/manifests/1?ns=r.example").field("OCI-Namespace"), "r.example");
  EXPECT_EQ(house.get("/v2/app/manifests/1").field("OCI-Namespace"), "");
}

TEST(Proxy, KnowsDockerHubsOfficialImagesByTheirLongName) {
  House house;
  house.upstream.on("https://docker.io/v2/library/busybox/manifests/1", [](const Asked&) {
    return Reply{.headers = {{"Content-Type", oci}}, .body = R"({"layers":[]})"};
  });
  EXPECT_EQ(house.get("/v2/busybox/manifests/1?ns=docker.io").status, 200);
  EXPECT_EQ(house.get("/v2/library/busybox/manifests/1?ns=docker.io").status, 200);
}

TEST(Proxy, AnswersPingHealthAndNothingToWrites) {
  House house;
  const Answer ping = house.get("/v2/");
  EXPECT_EQ(ping.status, 200);
  EXPECT_EQ(ping.body, "{}");
  EXPECT_EQ(ping.field("Docker-Distribution-Api-Version"), "registry/2.0");
  EXPECT_EQ(house.head("/v2/").field("Content-Length"), "2");
  EXPECT_EQ(house.get("/healthz").status, 200);
  EXPECT_EQ(house.get("/readyz").status, 200);
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH"}) {
    const Answer answer = house.run(house.ask(
        std::string(method) +
        " /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    EXPECT_EQ(answer.status, 405) << method;
    EXPECT_NE(answer.body.find("UNSUPPORTED"), std::string::npos);
    EXPECT_EQ(answer.field("Allow"), "GET, HEAD");
  }
}

TEST(Proxy, RefusesWebPages) {
  House house;
  EXPECT_EQ(
      house.run(house.ask("GET /v2/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"))
          .status,
      403);
  EXPECT_EQ(house.get("/v2/", "Origin: https://evil.example\r\n").status, 403);
  EXPECT_EQ(house.get("/v2/", "Sec-Fetch-Site: cross-site\r\n").status, 403);
}

TEST(Listings, ArePassedOnWithTheLinkRewritten) {
  House house;
  house.upstream.on("https://r.example/v2/app/tags/list", [](const Asked&) {
    return Reply{.headers = {{"Link", "</v2/app/tags/list?last=b&n=2>; rel=\"next\""}},
                 .body = R"({"name":"app","tags":["a","b"]})"};
  });
  const Answer answer = house.get("/v2/r.example/app/tags/list?n=2");
  EXPECT_EQ(answer.body, R"({"name":"app","tags":["a","b"]})");
  EXPECT_EQ(answer.field("Link"), "</v2/r.example/app/tags/list?last=b&n=2>; rel=\"next\"");
  EXPECT_EQ(house.upstream.asked()[0].target, "/v2/app/tags/list?n=2");
}

}  // namespace
}  // namespace staithe::proxy
