#include "proxy/request_meter.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "cache/random.h"
#include "proxy/outcome.h"
#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;

TEST(Latency, CountsATimeInTheFirstBucketThatReachesIt) {
  EXPECT_EQ(Latency::bucket_of(0ns), 0U);
  EXPECT_EQ(Latency::bucket_of(100us), 0U) << "a bound belongs to its bucket";
  EXPECT_EQ(Latency::bucket_of(100us + 1ns), 1U);
  EXPECT_EQ(Latency::bucket_of(300s), Latency::bounds.size() - 1);
  EXPECT_EQ(Latency::bucket_of(301s), Latency::bounds.size());
  SeededRandom random(1);
  for (int i = 0; i < 10'000; ++i) {
    const auto took = random.between(0s, random.between(1us, 400s));
    const std::size_t bucket = Latency::bucket_of(took);
    EXPECT_TRUE(bucket == Latency::bounds.size() || took <= Latency::bounds.at(bucket));
    EXPECT_TRUE(bucket == 0 || took > Latency::bounds.at(bucket - 1)) << took.count();
  }
}

TEST(RequestMeter, AddsUpWhatManyThreadsHaveCounted) {
  RequestMeter meter;
  RequestMeter::Registry& registry = meter.registry("r.example");
  std::vector<std::thread> threads;
  for (std::size_t slot = 0; slot < RequestMeter::most_threads; ++slot) {
    threads.emplace_back([&meter, &registry, slot] {
      RequestMeter::Thread& mine = meter.thread(slot);
      for (int i = 0; i < 1000; ++i) {
        registry.add_hits(slot, RequestKind::blob, 2);
        mine.requests.add(2);
        mine.body_bytes.add(10);
        mine.hits[static_cast<std::size_t>(RequestKind::blob)].add(1ms, 2);
      }
    });
  }
  meter.add(&registry, RequestKind::blob, RequestResult::hit, 1s);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry.count(RequestKind::blob, RequestResult::hit), 32'001U);
  EXPECT_EQ(registry.count(RequestKind::manifest, RequestResult::hit), 0U);
  EXPECT_EQ(meter.at_front().requests, 32'000U);
  EXPECT_EQ(meter.at_front().body_bytes, 160'000U);
  EXPECT_EQ(meter.bytes(BytesSource::cache), 160'000U);
  const Latency::Sums sums = meter.latency(RequestKind::blob, RequestResult::hit);
  EXPECT_EQ(sums.count(), 32'001U);
  EXPECT_EQ(sums.nanoseconds, 33'000'000'000U);
}

TEST(RequestResult, TellsFaultsFromWhatIsNotThere) {
  EXPECT_EQ(result_of(Errc::manifest_unknown), RequestResult::not_found);
  EXPECT_EQ(result_of(Errc::blob_unknown), RequestResult::not_found);
  EXPECT_EQ(result_of(Errc::registry_unknown), RequestResult::refused);
  EXPECT_EQ(result_of(Errc::bad_request), RequestResult::refused);
  for (const Errc fault : {Errc::unreachable, Errc::throttled, Errc::unauthorized, Errc::denied,
                           Errc::storage_failed, Errc::upstream_nonsense, Errc::firewall})
    EXPECT_EQ(result_of(fault), RequestResult::error) << to_string(fault);
}

TEST(BytesSource, IsWhereTheBodyWas) {
  EXPECT_EQ(source_of(200, cache_status(Outcome::hit)), BytesSource::cache);
  EXPECT_EQ(source_of(206, "staithe; fwd=stale; detail=unreachable"), BytesSource::cache);
  EXPECT_EQ(source_of(200, cache_status(Outcome::collapsed)), BytesSource::shared);
  EXPECT_EQ(source_of(200, cache_status(Outcome::miss)), BytesSource::upstream);
  EXPECT_EQ(source_of(200, cache_status(Outcome::pass)), BytesSource::upstream);
  EXPECT_EQ(source_of(200, cache_status(Outcome::local)), BytesSource::local);
  EXPECT_EQ(source_of(404, negative_cache_status), BytesSource::local);
  EXPECT_EQ(source_of(416, cache_status(Outcome::hit)), BytesSource::local);
}

class MeteredHouse : public testing::Test {
 protected:
  void play_manifest(const std::string& url) {
    house.upstream.on(url, [this](const Asked& asked) {
      return Reply{.status = 200,
                   .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                               {"Docker-Content-Digest", digest.to_string()}},
                   .body = asked.method == "HEAD" ? "" : bytes};
    });
  }
  std::uint64_t count(const std::string& registry, RequestKind kind, RequestResult result) {
    return house.proxy.meter().registry(registry).count(kind, result);
  }
  // Of all registries, kinds and results.
  std::uint64_t all_requests() {
    std::uint64_t sum = 0;
    const auto add = [&](const RequestMeter::Registry& registry) {
      for (std::size_t k = 0; k < request_kinds; ++k)
        for (std::size_t r = 0; r < request_results; ++r)
          sum += registry.count(static_cast<RequestKind>(k), static_cast<RequestResult>(r));
    };
    for (const auto& [name, registry] : house.proxy.meter().registries()) add(registry);
    add(house.proxy.meter().of_no_registry());
    return sum;
  }
  std::uint64_t all_times() {
    std::uint64_t sum = 0;
    for (std::size_t k = 0; k < request_kinds; ++k)
      for (std::size_t r = 0; r < request_results; ++r)
        sum += house.proxy.meter()
                   .latency(static_cast<RequestKind>(k), static_cast<RequestResult>(r))
                   .count();
    return sum;
  }

  House house;
  const std::string bytes = R"({"schemaVersion":2})";
  const cache::Digest digest = cache::digest_of(cache::Algorithm::sha256, bytes);
};

TEST_F(MeteredHouse, CountsEveryRequestOnceByRegistryKindAndResult) {
  play_manifest("https://r.example/v2/app/manifests/");
  house.upstream.on("https://docker.io/v2/", {Reply{.status = 404}});
  const std::string target = "/v2/app/manifests/" + digest.to_string();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(house.get(target).status, 200);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(house.get_kept(target).ends_with(bytes));
  EXPECT_EQ(house.get("/v2/docker.io/none/manifests/1").status, 404);
  EXPECT_EQ(house.get("/v2/unknown.example/app/manifests/1").status, 404);
  EXPECT_EQ(house.get("/v2/").status, 200);
  EXPECT_EQ(house.get("/nowhere").status, 404);
  EXPECT_EQ(house.get("/v2/app/manifests/1", "Origin: https://evil.example\r\n").status, 403);
  EXPECT_EQ(count("r.example", RequestKind::manifest, RequestResult::miss), 1U);
  EXPECT_EQ(count("r.example", RequestKind::manifest, RequestResult::hit), 3U);
  EXPECT_EQ(count("docker.io", RequestKind::manifest, RequestResult::not_found), 1U);
  const auto& none = house.proxy.meter().of_no_registry();
  EXPECT_EQ(none.count(RequestKind::manifest, RequestResult::refused), 1U);
  EXPECT_EQ(none.count(RequestKind::other, RequestResult::local), 1U);
  EXPECT_EQ(none.count(RequestKind::other, RequestResult::refused), 1U);
  EXPECT_EQ(none.count(RequestKind::other, RequestResult::denied), 1U);
  EXPECT_EQ(house.proxy.meter().at_front().requests, 2U);
  EXPECT_EQ(all_requests(), house.proxy.traffic().requests);
  house.run_until_true([&] { return all_times() == all_requests(); });
  const RequestMeter& meter = house.proxy.meter();
  std::uint64_t sent = 0;
  for (std::size_t s = 0; s < bytes_sources; ++s) sent += meter.bytes(static_cast<BytesSource>(s));
  EXPECT_EQ(sent, house.proxy.traffic().bytes_served);
}

TEST_F(MeteredHouse, KeepsOneSeriesForAllNamesBelowAWildcard) {
  RegistrySettings wildcard;
  wildcard.name = "*.acr.example";
  house.registries.replace({wildcard}, true);
  for (const std::string name : {"a", "b", "c"}) {
    play_manifest("https://" + name + ".acr.example/v2/app/manifests/");
    EXPECT_EQ(house.get("/v2/" + name + ".acr.example/app/manifests/1").status, 200);
  }
  EXPECT_EQ(house.proxy.meter().registries().size(), 1U);
  EXPECT_EQ(count("*.acr.example", RequestKind::manifest, RequestResult::miss), 3U);
}

TEST_F(MeteredHouse, GoesOnCountingWhereAReloadTookARegistryAway) {
  play_manifest("https://r.example/v2/app/manifests/");
  RegistrySettings ours;
  ours.name = "r.example";
  ours.is_default = true;
  RegistrySettings other;
  other.name = "other.example";
  const std::string target = "/v2/r.example/app/manifests/" + digest.to_string();
  for (int i = 0; i < 3; ++i) house.get(target);
  const auto before = count("r.example", RequestKind::manifest, RequestResult::hit);
  house.registries.replace({other}, true);
  EXPECT_EQ(house.get(target).status, 404);
  EXPECT_EQ(count("r.example", RequestKind::manifest, RequestResult::hit), before);
  house.registries.replace({ours}, true);
  EXPECT_EQ(house.get(target).status, 200);
  EXPECT_EQ(count("r.example", RequestKind::manifest, RequestResult::hit), before + 1);
}

}  // namespace
}  // namespace staithe::proxy
