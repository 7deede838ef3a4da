// What the figures of the traffic count.
#include <gtest/gtest.h>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::Asked;
using fake::Gate;
using fake::House;
using fake::Reply;

std::string path_of(const cache::Digest& digest) {
  return "/v2/r.example/app/blobs/" + digest.to_string();
}

void play_manifest(House& house, const std::string& bytes) {
  house.upstream.on("https://r.example/v2/app/manifests/", [bytes](const Asked& asked) {
    return Reply{.status = 200,
                 .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                             {"Docker-Content-Digest",
                              cache::digest_of(cache::Algorithm::sha256, bytes).to_string()}},
                 .body = asked.method == "HEAD" ? "" : bytes};
  });
}

TEST(HitRatio, IsThatOfAnswersWithContent) {
  Traffic traffic;
  EXPECT_FALSE(traffic.hit_ratio());
  traffic.requests = 10;
  traffic.errors = 10;
  EXPECT_FALSE(traffic.hit_ratio()) << "errors and pings say nothing about the cache";
  traffic.misses = 3;
  EXPECT_EQ(traffic.hit_ratio(), 0.0);
  traffic.hits = 4;
  traffic.collapsed = 2;
  traffic.stale = 3;
  EXPECT_EQ(traffic.hit_ratio(), 0.75);
}

TEST(BytesSaved, AreTheBodiesOfHitsAndPartsOfThem) {
  House house;
  const auto digest = house.play_blob("app", std::string(100'000, 'x'));
  house.get(path_of(digest));
  house.run_until_true([&] { return !house.fills.under_way(digest); });
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 0U) << "upstream sent it for this request";
  house.get(path_of(digest));
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 100'000U);
  house.get(path_of(digest), "Range: bytes=10-29\r\n");
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 100'020U);
  house.head(path_of(digest));
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 100'020U) << "a HEAD has no body";
  EXPECT_EQ(house.get(path_of(digest), "Range: bytes=100000-\r\n").status, 416);
  house.get("/v2/");
  house.get("/v2/r.example/app/blobs/" +
            cache::digest_of(cache::Algorithm::sha256, "unknown").to_string());
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 100'020U) << "errors and pings save nothing";
  EXPECT_GT(house.proxy.traffic().bytes_served, 200'020U);
  EXPECT_EQ(house.proxy.traffic().hit_ratio(), 0.75)
      << "of two GETs, a part and a HEAD, and a miss";
}

TEST(BytesSaved, AreThoseOfReadersOfAnotherRequestsTransfer) {
  House house;
  Gate gate(house.io.get_executor());
  const std::string bytes(500'000, 'x');
  const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  house.upstream.on("https://r.example/v2/app/blobs/", [&](const Asked& asked) {
    Reply reply = House::blob_reply(asked, bytes);
    reply.gate = &gate;
    return reply;
  });
  int answers = 0;
  for (int i = 0; i < 4; ++i)
    asio::co_spawn(house.io,
                   house.ask("GET " + path_of(digest) +
                             " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                   [&](std::exception_ptr, const Answer&) { ++answers; });
  house.run_until_true([&] { return gate.waiting() == 1; });
  gate.open();
  house.run_until_true([&] { return answers == 4; });
  EXPECT_EQ(house.proxy.traffic().bytes_served, 4 * bytes.size());
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 3 * bytes.size());
  EXPECT_EQ(house.proxy.traffic().hit_ratio(), 0.75);
}

TEST(BytesSaved, AreThoseOfStaleAnswers) {
  House house;
  const std::string bytes = R"({"layers":[]})";
  play_manifest(house, bytes);
  ASSERT_EQ(house.get("/v2/app/manifests/1").status, 200);
  EXPECT_EQ(house.proxy.traffic().bytes_saved, 0U);
  house.upstream.on("https://r.example/v2/app/manifests/",
                    {Reply::failure(Errc::unreachable, "r.example is down")});
  const Answer stale = house.get("/v2/app/manifests/1");
  ASSERT_TRUE(stale.field("Cache-Status").starts_with("staithe; fwd=stale")) << stale.head;
  EXPECT_EQ(house.proxy.traffic().bytes_saved, bytes.size());
}

}  // namespace
}  // namespace staithe::proxy
