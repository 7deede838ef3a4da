// What clients see of an upstream in trouble: the whole proxy over a played network.
#include <gtest/gtest.h>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;

const std::string digest = "sha256:" + std::string(64, 'a');
const std::string manifest = "/v2/r.example/app/manifests/1";
const std::string manifest_by_digest = "/v2/r.example/app/manifests/" + digest;
const std::string blob = "/v2/r.example/app/blobs/" + digest;
const std::string tags = "/v2/r.example/app/tags/list";
const std::string referrers = "/v2/r.example/app/referrers/" + digest;

// The answers on which containerd and dockerd turn to the registry itself at once
// (registry-clients.md, section 4).
void expect_fallback(House& house) {
  for (const std::string& target : {manifest, manifest_by_digest, tags, referrers}) {
    const int status = house.get(target).status;
    EXPECT_TRUE(status == 502 || status == 503) << status << " for " << target;
  }
  EXPECT_EQ(house.head(manifest).status, 503);
  const Answer missing = house.get(blob);
  EXPECT_EQ(missing.status, 404);
  EXPECT_NE(missing.body.find("BLOB_UNKNOWN"), std::string::npos);
  EXPECT_EQ(house.head(blob).status, 404);
}

TEST(Trouble, ClientsNeverSeeA429AndUpstreamIsAskedOnce) {
  House house;
  house.upstream.on("https://r.example",
                    {Reply{.status = 429, .headers = {{"Retry-After", "200"}}}});
  for (int i = 0; i < 5; ++i) expect_fallback(house);
  EXPECT_EQ(house.upstream.asked().size(), 1U);
  EXPECT_NE(house.get(blob).body.find("asks for a pause of 200 s"), std::string::npos);
}

TEST(Trouble, AThrottledDataHostIsNoThrottledClientEither) {
  House house;
  house.upstream.on("https://r.example",
                    {Reply{.status = 307, .headers = {{"Location", "https://data.example/x"}}}});
  house.upstream.on("https://data.example",
                    {Reply{.status = 429, .headers = {{"Retry-After", "200"}}}});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(house.get(blob).status, 404);
  EXPECT_EQ(house.upstream.count("https://data.example"), 1U);
}

TEST(Trouble, WhileUpstreamIsAwayMissesAreRefusedWithoutAskingIt) {
  House house;
  house.upstream.on("https://r.example", {Reply::failure(Errc::unreachable, "nobody there")});
  house.get(manifest);
  house.get(manifest);
  const UpstreamList& upstream = *house.registries.find("r.example")->upstreams().begin()->second;
  ASSERT_TRUE(upstream.retry_in());
  const std::size_t before = house.upstream.asked().size();
  const std::uint64_t refused = upstream.stats().refused;
  const Answer answer = house.get(manifest);
  EXPECT_EQ(answer.status, 503);
  EXPECT_NE(answer.body.find("nobody there; it is tried again in "), std::string::npos)
      << answer.body;
  // Unless the probe's time had come in between.
  EXPECT_EQ((house.upstream.asked().size() - before) + (upstream.stats().refused - refused), 1U);
}

TEST(Trouble, WhatIsCachedIsServedWhileUpstreamIsAway) {
  House house;
  const auto cached = house.play_blob("app", "some bytes");
  const std::string target = "/v2/r.example/app/blobs/" + cached.to_string();
  EXPECT_EQ(house.get(target).body, "some bytes");
  house.run_until_true([&] { return !house.fills.under_way(cached); });
  house.upstream.on("https://r.example", {Reply::failure(Errc::unreachable, "nobody there")});
  for (int i = 0; i < 3; ++i) house.get(manifest);
  EXPECT_EQ(house.get(target).body, "some bytes");
}

}  // namespace
}  // namespace staithe::proxy
