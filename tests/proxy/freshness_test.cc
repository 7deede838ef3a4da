#include "proxy/freshness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <random>

#include "cache/log.h"
#include "proxy/errors.h"
#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;
using testing::HasSubstr;

constexpr auto every_errc =
    std::to_array<Errc>({Errc::bad_request,      Errc::name_invalid,    Errc::digest_invalid,
                         Errc::not_found,        Errc::unsupported,     Errc::range_not_satisfiable,
                         Errc::registry_unknown, Errc::name_unknown,    Errc::manifest_unknown,
                         Errc::blob_unknown,     Errc::denied,          Errc::unauthorized,
                         Errc::identity_missing, Errc::firewall,        Errc::throttled,
                         Errc::unreachable,      Errc::upstream_failed, Errc::upstream_nonsense,
                         Errc::too_large,        Errc::storage_full,    Errc::storage_failed,
                         Errc::in_use,           Errc::cancelled,       Errc::config});

const Freshness week{.tag_ttl = 0ms, .serve_stale = 7 * 24h, .serve_gone = 0ms};

// ---- the rule ----------------------------------------------------------------------------------

TEST(Rule, ServesWhatUpstreamCannotConfirmForAsLongAsIsAllowed) {
  for (const Errc code :
       {Errc::unreachable, Errc::upstream_failed, Errc::throttled, Errc::upstream_nonsense}) {
    EXPECT_EQ(judge(code, 0s, week), Ruling::stale);
    EXPECT_EQ(judge(code, 7 * 24h - 1s, week), Ruling::stale);
    EXPECT_EQ(judge(code, 7 * 24h, week), Ruling::fail);
    EXPECT_EQ(judge(code, std::nullopt, week), Ruling::fail) << "never seen";
  }
}

TEST(Rule, ServesNothingBeyondTheBoundToWhomCannotShowWhoHeIs) {
  for (const Errc code : {Errc::identity_missing, Errc::firewall}) {
    EXPECT_EQ(judge(code, authorization_bound - 1s, week), Ruling::stale);
    EXPECT_EQ(judge(code, authorization_bound, week), Ruling::fail);
    EXPECT_EQ(judge(code, 1h, {.serve_stale = 1h}), Ruling::fail);
  }
}

TEST(Rule, ServesNothingAfterARefusal) {
  for (const Errc code : {Errc::denied, Errc::unauthorized})
    EXPECT_EQ(judge(code, 0s, {.serve_stale = 24h, .serve_gone = 24h}), Ruling::fail_and_drop);
}

TEST(Rule, ServesWhatIsGoneOnlyIfItIsTold) {
  for (const Errc code : {Errc::manifest_unknown, Errc::blob_unknown, Errc::name_unknown}) {
    EXPECT_EQ(judge(code, 0s, week), Ruling::fail_and_drop);
    const Freshness hour{.serve_stale = 0ms, .serve_gone = 1h};
    EXPECT_EQ(judge(code, 1h - 1s, hour), Ruling::stale);
    EXPECT_EQ(judge(code, 1h, hour), Ruling::fail_and_drop);
  }
}

TEST(Rule, NeverServesWhatIsOlderThanAllItsBounds) {
  for (const Errc code : every_errc) {
    EXPECT_NE(judge(code, 0s, {.serve_stale = 0ms, .serve_gone = 0ms}), Ruling::stale);
    EXPECT_NE(judge(code, 8 * 24h, {.serve_stale = 7 * 24h, .serve_gone = 7 * 24h}), Ruling::stale);
    EXPECT_NE(judge(code, std::nullopt, {.serve_stale = 7 * 24h, .serve_gone = 7 * 24h}),
              Ruling::stale);
    if (doubt_of(code) == Doubt::other) {
      EXPECT_EQ(judge(code, 0s, {.serve_stale = 24h, .serve_gone = 24h}), Ruling::fail);
    }
  }
}

TEST(Rule, OfTwoAgesTheYoungerIsServedWhereverTheOlderIs) {
  std::mt19937 random(1);
  const auto some = [&] { return std::chrono::seconds(random() % (10 * 24 * 3600)); };
  for (int i = 0; i < 10'000; ++i) {
    const Freshness settings{.tag_ttl = 0ms, .serve_stale = some(), .serve_gone = some()};
    const auto [young, old] = std::minmax({some(), some()});
    for (const Errc code : every_errc)
      if (judge(code, old, settings) == Ruling::stale)
        ASSERT_EQ(judge(code, young, settings), Ruling::stale);
  }
}

// ---- absences ----------------------------------------------------------------------------------

TEST(Absences, LastAMoment) {
  fake::PassingClock clock;
  Absences absences(clock);
  absences.note("a", {Errc::manifest_unknown, "no"});
  ASSERT_TRUE(absences.find("a"));
  EXPECT_EQ(absences.find("a")->detail, "no");
  EXPECT_FALSE(absences.find("b"));
  clock.pass(absence_lasts);
  EXPECT_FALSE(absences.find("a"));
}

TEST(Absences, AreOnlyOfWhatUpstreamSaysItHasNot) {
  fake::PassingClock clock;
  Absences absences(clock);
  for (const Errc code : every_errc) {
    absences.note("a", {code, ""});
    EXPECT_EQ(absences.find("a").has_value(), doubt_of(code) == Doubt::gone) << to_string(code);
    absences.drop("a");
    EXPECT_FALSE(absences.find("a"));
  }
}

TEST(Absences, AreBounded) {
  fake::PassingClock clock;
  Absences absences(clock);
  for (std::size_t i = 0; i < 3 * most_absences; ++i)
    absences.note(std::to_string(i), {Errc::blob_unknown, ""});
  EXPECT_EQ(absences.size(), most_absences);
  EXPECT_FALSE(absences.find("0"));
  EXPECT_TRUE(absences.find(std::to_string(3 * most_absences - 1)));
  // The same again and again takes no more either.
  for (std::size_t i = 0; i < 3 * most_absences; ++i)
    absences.note("same", {Errc::blob_unknown, ""});
  EXPECT_TRUE(absences.find("same"));
  EXPECT_LE(absences.size(), most_absences);
}

// ---- in the proxy ------------------------------------------------------------------------------

constexpr const char* oci = "application/vnd.oci.image.manifest.v1+json";

std::string digest_of(const std::string& bytes) {
  return cache::digest_of(cache::Algorithm::sha256, bytes).to_string();
}

class Freshly : public testing::Test {
 protected:
  static constexpr const char* tag_url = "https://r.example/v2/app/manifests/1";
  static constexpr const char* tag_path = "/v2/app/manifests/1";
  static constexpr auto upstream_is_tried_again = 10s;

  void configure(const Freshness& freshness) {
    auto settings = house.registries.configured();
    for (auto& registry : settings) registry.freshness = freshness;
    house.registries.replace(std::move(settings), true);
  }
  // Upstream has `content` as tag 1.
  void play(const std::string& content) {
    house.clock.pass(upstream_is_tried_again);
    const auto reply = [content](const Asked& asked) {
      return Reply{
          .status = 200,
          .headers = {{"Content-Type", oci}, {"Docker-Content-Digest", digest_of(content)}},
          .body = asked.method == "HEAD" ? "" : content};
    };
    house.upstream.on(tag_url, reply);
    house.upstream.on("https://r.example/v2/app/manifests/" + digest_of(content), reply);
  }
  void play_failure(Errc code) {
    house.upstream.on("https://r.example/v2/app/", {Reply::failure(code, "as played")});
    house.upstream.on(tag_url, {Reply::failure(code, "as played")});
  }
  void play_status(int status) { house.upstream.on(tag_url, {Reply::json("{}", status)}); }
  // A client has it, and so has the store.
  void pull_blob(const std::string& content) {
    house.play_blob("app", content);
    house.clock.pass(upstream_is_tried_again);
    EXPECT_EQ(house.get("/v2/app/blobs/" + digest_of(content)).body, content);
    const auto digest = cache::digest_of(cache::Algorithm::sha256, content);
    house.run_until_true([&] { return house.store.size_of_blob(digest).has_value(); });
  }
  std::size_t asked() const { return house.upstream.asked().size(); }

  House house;
  const std::string bytes = R"({"layers":[]})";
  const std::string by_digest = "/v2/app/manifests/" + digest_of(bytes);
};

TEST_F(Freshly, ADigestIsAskedForAgainWhenItsBoundHasPassed) {
  play(bytes);
  ASSERT_EQ(house.get(by_digest).status, 200);
  house.clock.pass(authorization_bound - 30s);
  EXPECT_EQ(house.get(by_digest).field("Cache-Status"), "staithe; hit");
  EXPECT_EQ(asked(), 1U);
  house.clock.pass(30s);
  EXPECT_EQ(house.get(by_digest).status, 200);
  EXPECT_EQ(asked(), 2U);
  EXPECT_EQ(house.get(by_digest).field("Cache-Status"), "staithe; hit") << "good for a day again";
  EXPECT_EQ(asked(), 2U);
}

TEST_F(Freshly, ADigestIsNotServedBeyondItsBoundToWhomUpstreamRefuses) {
  play(bytes);
  ASSERT_EQ(house.get(by_digest).status, 200);
  house.upstream.on("https://r.example/v2/app/manifests/", {Reply::json("{}", 403)});
  house.upstream.on("https://r.example/v2/app/manifests/" + digest_of(bytes),
                    {Reply::json("{}", 403)});
  EXPECT_EQ(house.get(by_digest).status, 200) << "within the bound";
  house.clock.pass(authorization_bound);
  EXPECT_EQ(house.get(by_digest).status, 403);
  house.clock.pass(-authorization_bound);
  EXPECT_EQ(house.get(by_digest).status, 403) << "it is forgotten that it was ever shown";
}

TEST_F(Freshly, ADigestIsServedStaleAndSaysWhy) {
  play(bytes);
  ASSERT_EQ(house.get(by_digest).status, 200);
  house.upstream.on("https://r.example/v2/app/manifests/" + digest_of(bytes),
                    {Reply::failure(Errc::unreachable, "down")});
  house.clock.pass(25h);
  const Answer stale = house.get(by_digest);
  EXPECT_EQ(stale.body, bytes);
  EXPECT_EQ(stale.field("Cache-Status"), "staithe; fwd=stale; detail=unreachable");
  house.clock.pass(6 * 24h);
  EXPECT_EQ(house.get(by_digest).status, 503);
}

TEST_F(Freshly, ATagIsAskedForOnceItsTimeHasPassed) {
  configure({.tag_ttl = 10min});
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  house.clock.pass(10min - 30s);
  const Answer trusted = house.get(tag_path);
  EXPECT_EQ(asked(), 1U);
  EXPECT_GE(std::stoi(trusted.field("Age")), 570);
  house.clock.pass(30s);
  EXPECT_EQ(house.get(tag_path).field("Age"), "0");
  ASSERT_EQ(asked(), 2U);
  EXPECT_EQ(house.upstream.asked().back().method, "HEAD");
}

TEST_F(Freshly, ATagIsAskedForWithinTheBoundHoweverLongItIsTrusted) {
  configure({.tag_ttl = 30 * 24h});
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  house.clock.pass(authorization_bound - 30s);
  EXPECT_EQ(house.get(tag_path).status, 200);
  EXPECT_EQ(asked(), 1U);
  house.clock.pass(30s);
  play_status(403);
  EXPECT_EQ(house.get(tag_path).status, 403);
}

TEST_F(Freshly, ATagIsServedStaleWhatTheFailureMayBeAndSaysWhyAndHowOldItIs) {
  for (const Errc code : {Errc::unreachable, Errc::upstream_failed, Errc::throttled,
                          Errc::upstream_nonsense, Errc::identity_missing, Errc::firewall}) {
    play(bytes);
    ASSERT_EQ(house.get(tag_path).field("Age"), "0");
    play_failure(code);
    house.clock.pass(1h);
    const Answer stale = house.head(tag_path);
    EXPECT_EQ(stale.status, 200);
    EXPECT_EQ(stale.field("Cache-Status"),
              std::string("staithe; fwd=stale; detail=") + to_string(code));
    EXPECT_NEAR(std::stoi(stale.field("Age")), 3600, 60);
  }
}

TEST_F(Freshly, ARefusalIsRememberedWhenUpstreamIsDownAfterIt) {
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  play_status(403);
  EXPECT_EQ(house.get(tag_path).status, 403);
  play_failure(Errc::unreachable);
  EXPECT_EQ(house.get(tag_path).status, 503);
}

TEST_F(Freshly, ATagThatIsGoneIsServedForAsLongAsIsConfigured) {
  configure({.serve_gone = 1h});
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  play_status(404);
  house.clock.pass(59min);
  EXPECT_EQ(house.get(tag_path).field("Cache-Status"),
            "staithe; fwd=stale; detail=manifest_unknown");
  house.clock.pass(1min);
  EXPECT_EQ(house.get(tag_path).status, 404);
}

TEST_F(Freshly, WhatUpstreamHasNotIsNotAskedForAgainForAMoment) {
  play_status(404);
  const Answer first = house.head(tag_path);
  EXPECT_EQ(first.status, 404);
  EXPECT_EQ(first.field("Cache-Status"), "staithe; fwd=miss; detail=manifest_unknown");
  const Answer again = house.get(tag_path);
  EXPECT_EQ(again.status, 404);
  EXPECT_EQ(again.field("Cache-Status"), "staithe; hit; detail=negative");
  EXPECT_THAT(again.body, HasSubstr("MANIFEST_UNKNOWN"));
  EXPECT_EQ(asked(), 1U);
  EXPECT_EQ(house.get("/v2/other/manifests/1").status, 503) << "another repository's is not meant";
  house.clock.pass(absence_lasts);
  play(bytes);
  EXPECT_EQ(house.get(tag_path).status, 200);
}

TEST_F(Freshly, ABlobThatUpstreamHasNotIsNotAskedForAgainForAMoment) {
  const std::string path = "blobs/" + digest_of("x");
  house.upstream.on("https://r.example/v2/app/" + path, {Reply::json("{}", 404)});
  EXPECT_EQ(house.get("/v2/app/" + path).status, 404);
  const std::size_t before = asked();
  const Answer again = house.get("/v2/app/" + path);
  EXPECT_EQ(again.status, 404);
  EXPECT_EQ(again.field("Cache-Status"), "staithe; hit; detail=negative");
  EXPECT_EQ(asked(), before);
  house.clock.pass(absence_lasts);
  house.play_blob("app", "x");
  EXPECT_EQ(house.get("/v2/app/" + path).body, "x");
}

TEST_F(Freshly, FailuresAreNotRememberedAsAbsences) {
  play_status(403);
  EXPECT_EQ(house.get(tag_path).status, 403);
  play(bytes);
  EXPECT_EQ(house.get(tag_path).status, 200);
}

TEST_F(Freshly, WhatATagShowsIsNotAbsentAnyMore) {
  house.upstream.on("https://r.example/v2/app/manifests/" + digest_of(bytes),
                    {Reply::json("{}", 404)});
  EXPECT_EQ(house.get(by_digest).status, 404);
  play(bytes);
  EXPECT_EQ(house.get(tag_path).status, 200);
  EXPECT_EQ(house.get(by_digest).status, 200);
}

TEST_F(Freshly, AReplicaThatHasTheNameBeforeTheBytesDoesNotTakeTheTagAway) {
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  const std::string next = R"({"layers":[],"annotations":{}})";
  play(next);
  house.upstream.on("https://r.example/v2/app/manifests/" + digest_of(next),
                    {Reply::json("{}", 404)});
  const Answer stale = house.get(tag_path);
  EXPECT_EQ(stale.body, bytes);
  EXPECT_EQ(stale.field("Cache-Status"), "staithe; fwd=stale; detail=upstream_nonsense");
  house.clock.pass(absence_lasts);
  play(next);
  EXPECT_EQ(house.get(tag_path).body, next);
}

TEST_F(Freshly, WhoHasAnAnswerDoesNotWaitLongForASilentUpstream) {
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  fake::Gate gate(house.io.get_executor());
  house.upstream.on(tag_url, [&](const Asked&) {
    return Reply{.headers = {{"Docker-Content-Digest", digest_of(bytes)}}, .gate = &gate};
  });
  std::optional<Answer> answer;
  asio::co_spawn(house.io,
                 house.ask("HEAD /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n"
                           "Connection: close\r\n\r\n"),
                 [&](std::exception_ptr, Answer came) { answer = std::move(came); });
  house.run_until_true([&] { return gate.waiting() == 1; });
  house.clock.pass(3s);
  house.run_until_true([&] { return answer.has_value(); });
  EXPECT_EQ(answer->field("Cache-Status"), "staithe; fwd=stale; detail=unreachable");
  EXPECT_EQ(gate.waiting(), 1U) << "the question stands";
  gate.open();
  EXPECT_EQ(house.get(tag_path).field("Cache-Status"), "staithe; hit");
}

// Images whose layers are not all here help nobody while upstream is down, who takes config and
// layers from where he got the manifest.
TEST_F(Freshly, AnImageThatIsNotWholeIsRefusedToAGetWhileUpstreamIsDown) {
  const std::string image = R"({"config":{"digest":")" + digest_of("config") +
                            R"(","size":6},"layers":[{"digest":")" + digest_of("layer") +
                            R"(","size":5}]})";
  play(image);
  ASSERT_EQ(house.get(tag_path).status, 200);
  pull_blob("config");
  house.upstream.on(tag_url, {Reply::failure(Errc::unreachable, "down")});
  const Answer refused = house.get(tag_path);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(house.head(tag_path).status, 200) << "the digest is all that is wanted";
  house.clock.pass(upstream_is_tried_again);
  house.upstream.on(tag_url, {Reply::failure(Errc::throttled, "busy")});
  EXPECT_EQ(house.get(tag_path).status, 200) << "the layer can be had";
  pull_blob("layer");
  house.upstream.on(tag_url, {Reply::failure(Errc::unreachable, "down")});
  EXPECT_EQ(house.get(tag_path).status, 200);
}

TEST_F(Freshly, AnIndexIsWholeWithOnePlatformOfIt) {
  const std::string image =
      R"({"config":{"digest":")" + digest_of("config") + R"(","size":6},"layers":[]})";
  const std::string index = R"({"manifests":[{"digest":")" + digest_of("elsewhere") +
                            R"(","size":9},{"digest":")" + digest_of(image) + R"(","size":9}]})";
  play(image);
  const std::string platform = "/v2/app/manifests/" + digest_of(image);
  play(index);
  ASSERT_EQ(house.get(tag_path).status, 200);
  const auto down = [&] {
    house.upstream.on(tag_url, {Reply::failure(Errc::upstream_failed, "down")});
  };
  down();
  EXPECT_EQ(house.get(tag_path).status, 502) << "no platform is here";
  ASSERT_EQ(house.get(platform).status, 200);
  EXPECT_EQ(house.get(tag_path).status, 502) << "its config is not here";
  pull_blob("config");
  EXPECT_EQ(house.get(tag_path).status, 200);
}

TEST_F(Freshly, ManyWhoAskForATagAtOnceCostOneHead) {
  configure({.tag_ttl = 1min});
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  house.clock.pass(1min);
  fake::Gate gate(house.io.get_executor());
  house.upstream.on(tag_url, [&](const Asked&) {
    return Reply{.headers = {{"Docker-Content-Digest", digest_of(bytes)}}, .gate = &gate};
  });
  constexpr int crowd = 200;
  int answered = 0;
  for (int i = 0; i < crowd; ++i)
    asio::co_spawn(house.io,
                   house.ask("GET /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n"
                             "Connection: close\r\n\r\n"),
                   [&](std::exception_ptr, const Answer& answer) {
                     EXPECT_EQ(answer.body, bytes);
                     ++answered;
                   });
  house.run_until_true([&] { return house.proxy.traffic().requests == crowd + 1; });
  EXPECT_EQ(gate.waiting(), 1U);
  gate.open();
  house.run_until_true([&] { return answered == crowd; });
  EXPECT_EQ(asked(), 2U);
}

// What the log says while it is told to say it here.
class Logged {
 public:
  Logged() { log::start({.format = log::Format::text, .fd = ::fileno(file_)}); }
  std::string text() {
    log::stop();
    std::rewind(file_);
    std::string all(1 << 20, '\0');
    all.resize(std::fread(all.data(), 1, all.size(), file_));
    return all;
  }
  ~Logged() { std::fclose(file_); }

 private:
  std::FILE* file_ = std::tmpfile();
};

TEST_F(Freshly, ATagThatMovedIsOneLineInTheLogHoweverThatIsSeen) {
  Logged logged;
  play(bytes);
  ASSERT_EQ(house.get(tag_path).status, 200);
  const std::string second = R"({"layers":[],"annotations":{"n":"2"}})";
  play(second);
  ASSERT_EQ(house.get(tag_path).body, second) << "by HEAD";
  const std::string third = R"({"layers":[],"annotations":{"n":"3"}})";
  // As if its manifest had been evicted: the tag is asked for by GET.
  house.store.unlink("r.example/app", *cache::Digest::parse(digest_of(second)));
  play(third);
  ASSERT_EQ(house.get(tag_path).body, third);
  ASSERT_EQ(house.get(tag_path).body, third);
  const std::string text = logged.text();
  EXPECT_THAT(text, HasSubstr("tag=1 from=" + digest_of(bytes) + " to=" + digest_of(second)));
  EXPECT_THAT(text, HasSubstr("tag=1 from=" + digest_of(second) + " to=" + digest_of(third)));
  std::size_t moves = 0;
  for (std::size_t at = 0; (at = text.find("tag moved", at)) != std::string::npos; ++at) ++moves;
  EXPECT_EQ(moves, 2U);
}

// ---- over everything ---------------------------------------------------------------------------

// Upstream changes its mind, time passes, and clients ask: every answer is what the rule says of
// what upstream has said so far.
class Seasons : public Freshly, public testing::WithParamInterface<unsigned> {
 protected:
  struct Seen {
    std::string bytes;
    WallTime at;
  };
  std::optional<Seen> seen_;
  std::optional<WallTime> absent_since_;
};

TEST_P(Seasons, EveryAnswerIsWhatTheRuleSays) {
  std::mt19937 random(GetParam());
  const Freshness settings{.tag_ttl = std::chrono::minutes(random() % 90),
                           .serve_stale = std::chrono::hours(random() % 100),
                           .serve_gone = std::chrono::hours(random() % 3 * 20)};
  configure(settings);
  constexpr auto failures = std::to_array<Errc>(
      {Errc::unreachable, Errc::upstream_failed, Errc::throttled, Errc::upstream_nonsense,
       Errc::identity_missing, Errc::firewall, Errc::denied, Errc::unauthorized,
       Errc::manifest_unknown, Errc::cancelled});
  std::string current;
  std::optional<Errc> failing;
  int version = 0;
  for (int step = 0; step < 120; ++step) {
    if (!failing && (version == 0 || random() % 4 == 0))
      current = R"({"layers":[],"n":)" + std::to_string(++version) + "}";
    if (random() % 2 == 0)
      failing.reset();
    else if (random() % 2 == 0)
      failing = failures.at(random() % failures.size());
    if (failing)
      play_failure(*failing);
    else
      play(current);
    // Minutes or hours, off by half a minute, so that no bound is met exactly; or no time at all.
    const auto passes = std::array<std::chrono::seconds, 4>{
        0s, 30s + std::chrono::minutes(random() % 60), 30s + std::chrono::hours(random() % 12), 0s};
    house.clock.pass(passes.at(random() % passes.size()));

    const std::size_t before = asked();
    const bool head = random() % 2 == 0;
    const Answer answer = head ? house.head(tag_path) : house.get(tag_path);
    const WallTime now = house.clock.wall();
    const std::string status = answer.field("Cache-Status");
    SCOPED_TRACE("step " + std::to_string(step) + ": " + std::to_string(answer.status) + " " +
                 status + (failing ? std::string(" upstream ") + to_string(*failing) : ""));
    const bool was_asked = asked() > before;
    const auto age = seen_
                         ? std::optional(std::chrono::floor<std::chrono::seconds>(now - seen_->at))
                         : std::nullopt;
    const auto served = [&](const std::string& what) {
      ASSERT_EQ(answer.status, 200);
      ASSERT_EQ(answer.field("Docker-Content-Digest"), digest_of(what));
      if (!head) ASSERT_EQ(answer.body, what);
    };
    if (absent_since_ && now - *absent_since_ < absence_lasts) {
      ASSERT_EQ(answer.status, 404);
      ASSERT_EQ(status, negative_cache_status);
      ASSERT_FALSE(was_asked);
      continue;
    }
    if (age && *age < settings.tag_ttl) {
      served(seen_->bytes);
      ASSERT_FALSE(was_asked);
      continue;
    }
    // Not asked although it should be: upstream's own policy holds questions back for now.
    const std::optional<Errc> came = was_asked ? failing : Errc::unreachable;
    if (!came) {
      served(current);
      seen_ = Seen{current, now};
      absent_since_.reset();
      continue;
    }
    switch (judge(*came, age, settings)) {
      case Ruling::stale:
        served(seen_->bytes);
        ASSERT_TRUE(status.starts_with("staithe; fwd=stale; detail=")) << status;
        break;
      case Ruling::fail_and_drop:
        seen_.reset();
        [[fallthrough]];
      case Ruling::fail:
        ASSERT_GE(answer.status, 400);
        if (was_asked) ASSERT_EQ(answer.status, reply_for(*came).status);
        break;
    }
    if (answer.status == 404 && doubt_of(*came) == Doubt::gone) absent_since_ = now;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Seasons, testing::Range(1U, 13U));

}  // namespace
}  // namespace staithe::proxy
