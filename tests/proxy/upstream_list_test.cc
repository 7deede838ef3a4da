// The upstreams of a registry, in a played network: real authorizers, a clock driven by hand.
#include "proxy/upstream_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "proxy/registries.h"
#include "tests/fake/effort.h"
#include "tests/fake/house.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::Gate;
using fake::Reply;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* first = "https://first.example";
constexpr const char* second = "https://second.example";
constexpr const char* home = "https://hub.example";

TEST(NextUpstream, FollowsFromWhatOneMadeOfTheRequest) {
  for (const int status : {200, 206, 304}) {
    EXPECT_EQ(next_after(status, false), Next::take) << status;
    EXPECT_EQ(next_after(status, true), Next::take) << status;
  }
  for (const int status : {400, 401, 403, 404, 405, 406, 416, 429, 500, 502, 503, 504})
    EXPECT_EQ(next_after(status, false), Next::go_on) << status;
  for (const int status : {400, 401, 403, 404, 405, 416})
    EXPECT_EQ(next_after(status, true), Next::take) << status;
  for (const int status : {429, 500, 503}) EXPECT_EQ(next_after(status, true), Next::go_on);

  for (const Errc code : {Errc::unreachable, Errc::upstream_failed, Errc::upstream_nonsense,
                          Errc::firewall, Errc::unauthorized, Errc::denied, Errc::identity_missing})
    EXPECT_EQ(next_after(code, false), Next::go_on_resting) << to_string(code);
  EXPECT_EQ(next_after(Errc::throttled, false), Next::go_on) << "its pause is kept anyway";
  for (const Errc code : {Errc::unreachable, Errc::upstream_failed, Errc::upstream_nonsense,
                          Errc::firewall, Errc::throttled})
    EXPECT_EQ(next_after(code, true), Next::go_on) << to_string(code);
  for (const Errc code : {Errc::unauthorized, Errc::denied, Errc::identity_missing})
    EXPECT_EQ(next_after(code, true), Next::take) << to_string(code);
  for (const bool last : {false, true}) EXPECT_EQ(next_after(Errc::cancelled, last), Next::take);
}

class UpstreamListTest : public testing::Test {
 protected:
  UpstreamListTest() {
    RegistrySettings hub;
    hub.name = "hub.example";
    hub.upstream = {first, second, home};
    configure({std::move(hub)});
  }

  void configure(std::vector<RegistrySettings> configured) {
    registries_.emplace(
        std::move(configured),
        [this](const std::string& name, const RegistrySettings& settings,
               const std::string& identity) { return make_upstream(name, settings, identity); });
  }
  std::unique_ptr<Upstream> make_upstream(const std::string& name, const RegistrySettings& settings,
                                          const std::string& identity) {
    Url base =
        *Url::parse(settings.upstream.empty() ? "https://" + name : settings.upstream.front());
    std::unique_ptr<auth::Authorizer> authorizer = std::make_unique<fake::NoCredentials>();
    if (with_credentials_)
      authorizer = identities_.make_authorizer({.name = name,
                                                .upstream = base.origin(),
                                                .ca_file = settings.ca_file,
                                                .token_hosts = settings.token_hosts},
                                               identity);
    RedirectPolicy redirects{
        .registry = base.origin(), .data_hosts = settings.data_hosts, .acr_suffixes = {}};
    return std::make_unique<Upstream>(
        world_.io.get_executor(),
        Upstream::Settings{.base = std::move(base),
                           .prefix = settings.prefix,
                           .ca_file = settings.ca_file,
                           .redirects = std::move(redirects),
                           .max_connections = settings.max_connections,
                           .limits = {.first_byte = 2'000ms}},
        std::move(authorizer), world_.http, world_.clock);
  }
  UpstreamList& list(const std::string& repository = "app") {
    return registries_->find("hub.example")->upstream(repository);
  }

  struct Got {
    int status = 0;
    std::string body = {};
    std::optional<Error> error = {};
  };
  asio::awaitable<Got> ask(Upstream::Ask ask) {
    Got got;
    try {
      auto response = co_await list(ask.repository).send(std::move(ask));
      got.status = response->status();
      std::vector<char> piece;
      while (co_await response->read(piece)) got.body.append(piece.begin(), piece.end());
    } catch (const Failure& failure) {
      got.error = failure.error();
    }
    co_return got;
  }
  Got get(Upstream::Ask asked) {
    const auto caller = world_.call(ask(std::move(asked)));
    while (!caller->done() && world_.clock.advance_to_next()) {
    }
    return caller->value();
  }
  Got get(const std::string& what = "manifests/1") {
    return get({.repository = "app", .what = what});
  }
  // The hosts that were asked since the last call, in their order.
  std::vector<std::string> asked() {
    std::vector<std::string> hosts;
    for (const Asked& one : world_.http.asked()) hosts.push_back(one.origin.host);
    world_.http.forget();
    return hosts;
  }
  static Reply says(std::string body) { return {.body = std::move(body)}; }

  auth::World world_;
  auth::Identities identities_{
      AzureSettings{},
      {{"us", {.kind = IdentityKind::basic, .username = "us", .password_file = "/ours"}},
       {"them", {.kind = IdentityKind::basic, .username = "them", .password_file = "/theirs"}}},
      world_.environment()};
  std::optional<Registries> registries_;
  bool with_credentials_ = false;
};

TEST_F(UpstreamListTest, AsksInOrderAndStopsAtTheFirstThatHasIt) {
  world_.http.on(first, {says("first")});
  EXPECT_EQ(get().body, "first");
  EXPECT_THAT(asked(), ElementsAre("first.example"));
  EXPECT_EQ(list().health(), Health::ok);
}

// Every class of failure, of one mirror and of two.
TEST_F(UpstreamListTest, GoesOnToTheNextWhateverAMirrorMakesOfIt) {
  Gate never(world_.io.get_executor());
  const std::vector<std::pair<std::string, Reply>> failures{
      {"unreachable", Reply::failure(Errc::unreachable, "refused")},
      {"broken off", Reply::failure(Errc::upstream_failed, "reset")},
      {"nonsense", Reply::failure(Errc::upstream_nonsense, "no HTTP")},
      {"silent", {.gate = &never}},
      {"redirect to a stranger",
       {.status = 307, .headers = {{"Location", "https://evil.example"}}}},
      {"not there", {.status = 404}},
      {"401", {.status = 401}},
      {"403", {.status = 403}},
      {"firewall", {.status = 403, .body = "client with IP '1.2.3.4' is not allowed access"}},
      {"no HEAD", {.status = 405}},
      {"throttled", {.status = 429, .headers = {{"Retry-After", "5"}}}},
      {"throttled for long", {.status = 429, .headers = {{"Retry-After", "3000"}}}},
      {"500", {.status = 500}},
      {"503", {.status = 503}}};
  for (const auto& [name, failure] : failures) {
    for (const auto& answering : {std::string(second), std::string(home)}) {
      RegistrySettings hub;
      hub.name = "hub.example";
      hub.upstream = {first, second, home};
      configure({hub});
      world_.http.on(first, {failure});
      world_.http.on(second, {failure});
      world_.http.on(home, {failure});
      world_.http.on(answering, {says("bytes")});
      const Instant begun = world_.clock.now();
      EXPECT_EQ(get().body, "bytes") << name << " until " << answering;
      EXPECT_LE(world_.clock.now() - begun, 2 * mirror_answer) << name;
      EXPECT_EQ(list().health(), Health::ok) << name;
    }
  }
}

TEST_F(UpstreamListTest, TellsWhatTheLastOneSaysIfNobodyHasIt) {
  world_.http.on(first, {Reply{.status = 404}});
  world_.http.on(second, {Reply{.status = 403}});
  for (const int status : {401, 403, 404, 500}) {
    world_.http.on(home, {Reply{.status = status, .body = "no"}});
    const Got got = get();
    EXPECT_EQ(got.status, status);
    EXPECT_EQ(got.body, "no");
  }
  world_.http.on(home, {Reply{.status = 429, .headers = {{"Retry-After", "3000"}}}});
  const Got got = get();
  ASSERT_TRUE(got.error);
  EXPECT_EQ(got.error->code, Errc::throttled);
  EXPECT_THAT(got.error->detail, HasSubstr("; the mirror https://second.example answered 403"));
}

// What a mirror lacks may be there all the same; so a client is not told that it is not there.
TEST_F(UpstreamListTest, NeverBelievesAMirrorAboutWhatItLacks) {
  world_.http.on(first, {Reply{.status = 404}});
  world_.http.on(second, {Reply::failure(Errc::unreachable, "second.example refuses")});
  world_.http.on(home, {Reply::failure(Errc::unreachable, "hub.example refuses")});
  const Got got = get();
  ASSERT_TRUE(got.error);
  EXPECT_EQ(got.error->code, Errc::unreachable);
  EXPECT_EQ(got.error->detail,
            "hub.example refuses; the mirror https://first.example answered 404; the mirror "
            "https://second.example failed: second.example refuses");
}

TEST_F(UpstreamListTest, WaitsShortlyForAMirrorAndLongForTheLast) {
  world_.http.on(home, {says("bytes")});
  EXPECT_EQ(get().body, "bytes");
  const auto limits = [&](const std::string& of) { return world_.http.last(of)->limits; };
  EXPECT_EQ(limits(first).connect, mirror_connect);
  EXPECT_EQ(limits(first).first_byte, 2s) << "never above what is configured";
  EXPECT_EQ(limits(home).connect, HttpLimits{}.connect);
  EXPECT_EQ(limits(home).first_byte, 2s);
}

// Tokens are fetched before the request, each with limits of its own.
TEST_F(UpstreamListTest, BoundsTheWholeOfWhatAMirrorTakes) {
  Gate never(world_.io.get_executor());
  world_.http.on(first, {Reply{.gate = &never}});
  world_.http.on(home, {says("bytes")});
  const Instant begun = world_.clock.now();
  EXPECT_EQ(get().body, "bytes");
  EXPECT_EQ(world_.clock.now() - begun, mirror_answer);
  EXPECT_EQ(never.waiting(), 0U) << "it is given up";
  EXPECT_THAT(list().states()[0].last_error->detail, HasSubstr("did not answer within 5 s"));
}

TEST_F(UpstreamListTest, LeavesAMirrorThatDoesNotAnswerAloneForAWhile) {
  world_.http.on(home, {says("bytes")});
  EXPECT_EQ(get().body, "bytes");
  EXPECT_THAT(asked(), ElementsAre("first.example", "second.example", "hub.example"));
  EXPECT_EQ(get().body, "bytes");
  EXPECT_THAT(asked(), ElementsAre("hub.example"));
  EXPECT_EQ(list().states()[0].health, Health::unreachable);
  // Then one request tries it, and the others do not wait for what comes of that.
  world_.clock.advance(mirror_rest);
  Gate slow(world_.io.get_executor());
  world_.http.on(first, {Reply{.body = "first", .gate = &slow}});
  const auto trying = world_.call(ask({.repository = "app", .what = "manifests/1"}));
  EXPECT_EQ(get().body, "bytes");
  slow.open();
  world_.clock.settle();
  EXPECT_EQ(trying->value().body, "first");
  asked();
  EXPECT_EQ(get().body, "first");
  EXPECT_THAT(asked(), ElementsAre("first.example"));
  EXPECT_EQ(list().states()[0].health, Health::ok);
}

TEST_F(UpstreamListTest, LetsAMirrorRestForNothingThatItAnswered) {
  world_.http.on(home, {says("bytes")});
  for (const int status : {401, 403, 404, 405, 500}) {
    world_.http.on(first, {Reply{.status = status}});
    EXPECT_EQ(get().body, "bytes");
    asked();
    EXPECT_EQ(get().body, "bytes");
    EXPECT_EQ(asked().front(), "first.example") << status;
  }
}

TEST_F(UpstreamListTest, AsksThoseThatRestIfNobodyElseIsLeft) {
  EXPECT_EQ(get().error->code, Errc::unreachable);  // Nobody plays any of them.
  world_.http.on(second, {says("second")});
  EXPECT_EQ(get().body, "second");
  world_.http.on(second, {Reply::failure(Errc::unreachable, "refused")});
  EXPECT_EQ(get().error->code, Errc::unreachable);
  // But not after a final word, once the breaker of the last one lets it say that.
  world_.clock.advance(2s);
  world_.http.on(second, {says("second")});
  world_.http.on(home, {Reply{.status = 404}});
  EXPECT_EQ(get().status, 404);
}

TEST_F(UpstreamListTest, NamesTheRegistryToMirrorsOnly) {
  world_.http.on(home, {says("bytes")});
  get();
  EXPECT_THAT(world_.http.last(first)->target, "/v2/app/manifests/1?ns=hub.example");
  EXPECT_THAT(world_.http.last(home)->target, "/v2/app/manifests/1");
  world_.clock.advance(mirror_rest);
  world_.http.on(home, {Reply{.status = 503}});
  get("tags/list?n=5");
  EXPECT_THAT(world_.http.last(first)->target, "/v2/app/tags/list?n=5&ns=hub.example");
  EXPECT_THAT(world_.http.last(home)->target, "/v2/app/tags/list?n=5");
}

// What a list leaves out cannot be seen.
TEST_F(UpstreamListTest, AsksTheRegistryItselfForListsAndMirrorsInItsPlace) {
  world_.http.on(first, {says("some tags")});
  world_.http.on(home, {says("all tags")});
  EXPECT_EQ(get("tags/list").body, "all tags");
  EXPECT_EQ(get("referrers/sha256:00").body, "all tags");
  EXPECT_THAT(asked(), Each("hub.example"));
  world_.http.on(home, {Reply{.status = 500}});
  EXPECT_EQ(get("tags/list").body, "some tags");
  EXPECT_THAT(asked(), ElementsAre("hub.example", "first.example"));
}

TEST_F(UpstreamListTest, OfOneIsThatUpstreamItself) {
  RegistrySettings hub;
  hub.name = "hub.example";
  hub.upstream = {std::string(home) + "/cache/rule"};
  configure({hub});
  world_.http.on(home, {says("bytes")});
  EXPECT_EQ(get().body, "bytes");
  EXPECT_EQ(world_.http.last(home)->target, "/v2/cache/rule/app/manifests/1");
  EXPECT_EQ(world_.http.last(home)->limits.connect, HttpLimits{}.connect);
  EXPECT_FALSE(list().doubt()) << "there is nobody else";
}

std::size_t below(Random& random, std::size_t bound) {
  return static_cast<std::size_t>(random.next() % bound);
}

// ---- transfers ---------------------------------------------------------------------------------

Reply to(const std::string& location) {
  return {.status = 307, .headers = {{"Location", location}}};
}

class TransferTest : public UpstreamListTest {
 protected:
  TransferTest() {
    RegistrySettings hub;
    hub.name = "hub.example";
    hub.upstream = {first, second, home};
    hub.data_hosts = {"data.example"};
    configure({std::move(hub)});
  }
  Got range(std::size_t begin) {
    return get({.repository = "app",
                .what = "blobs/x",
                .range = "bytes=" + std::to_string(begin) + "-",
                .place = place_});
  }
  std::shared_ptr<Upstream::Place> place_ = std::make_shared<Upstream::Place>();
};

TEST_F(TransferTest, StaysWithTheMirrorThatBeganItWhileThatOneIsWell) {
  world_.http.on(second, {to("https://data.example/second?sig=2")});
  world_.http.on("https://data.example", [](const Asked& one) {
    return Reply{.status = 206, .body = std::string(one.target)};
  });
  EXPECT_EQ(range(0).body, "/second?sig=2");
  // Another one that comes first in the list has become well.
  world_.clock.advance(mirror_rest);
  world_.http.on(first, {says("first")});
  asked();
  EXPECT_EQ(range(1).body, "/second?sig=2");
  EXPECT_THAT(asked(), ElementsAre("data.example")) << "at once, where it was found";
  EXPECT_EQ(get("blobs/x").body, "first") << "a new one begins with the first";
}

TEST_F(TransferTest, GoesOnAtAnotherAndNeverAtThePlaceThatAThirdOneGave) {
  world_.http.on(first, {to("https://data.example/first?sig=1")});
  world_.http.on(second, {to("https://data.example/second?sig=2")});
  world_.http.on("https://data.example", [](const Asked& one) {
    return Reply{.status = 206, .body = std::string(one.target)};
  });
  EXPECT_EQ(range(0).body, "/first?sig=1");
  world_.http.on("https://data.example/first",
                 {Reply{.status = 206, .body = "half", .breaks_after = 2}});
  EXPECT_EQ(range(1).error->code, Errc::upstream_failed);
  asked();
  EXPECT_EQ(range(3).body, "/second?sig=2");
  EXPECT_THAT(asked(), ElementsAre("second.example", "data.example"));
  EXPECT_EQ(range(4).body, "/second?sig=2");
  EXPECT_THAT(asked(), ElementsAre("data.example"));
  // The first one's place is dead for long when the second one fails too.
  world_.http.on(second, {Reply{.status = 404}});
  world_.http.on("https://data.example/second", {Reply{.status = 403}});
  world_.http.on(home, {Reply{.status = 206, .body = "home"}});
  EXPECT_EQ(range(5).body, "home");
  EXPECT_THAT(asked(), ElementsAre("data.example", "second.example", "hub.example"));
}

TEST_F(TransferTest, AsksAMirrorWhoseBodiesBreakNotAgainAndAgain) {
  world_.http.on(first, {Reply{.body = "bytes", .breaks_after = 0}});
  world_.http.on(second, {says("bytes")});
  EXPECT_EQ(range(0).error->code, Errc::upstream_failed);
  EXPECT_EQ(range(0).body, "bytes");
  EXPECT_EQ(list().states()[0].health, Health::unreachable);
}

TEST_F(TransferTest, LeavesAllMirrorsAloneAfterWrongBytes) {
  world_.http.on(first, {says("wrong")});
  world_.http.on(home, {says("right")});
  EXPECT_EQ(range(0).body, "wrong");
  EXPECT_TRUE(list().doubt());
  EXPECT_EQ(range(0).body, "right");
  EXPECT_FALSE(list().doubt()) << "nobody is left who could have been it";
  world_.clock.advance(mirror_doubt);
  EXPECT_EQ(get("blobs/x").body, "wrong");
}

// Any history of failures: whoever gets no bytes was told so by the registry itself, or nobody had
// them; and what is joined of ranges from many is the blob.
TEST_F(TransferTest, BringsTheBytesIfAnybodyHasThem) {
  const std::string blob = [] {
    std::string bytes;
    SeededRandom random(7);
    while (bytes.size() < 10'000) bytes += std::to_string(below(random, 1'000'000'000));
    return bytes;
  }();
  enum State { well, breaks, absent, denied, failing, dead, silent, states };
  Gate never(world_.io.get_executor());
  for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(fake::effort(300)); ++seed) {
    SeededRandom random(seed);
    RegistrySettings hub;
    hub.name = "hub.example";
    hub.upstream = {first, second, home};
    configure({hub});
    std::map<std::string, State> state;
    for (const std::string& url : hub.upstream) {
      world_.http.on(url, [&, url](const Asked& one) -> Reply {
        switch (state[url]) {
          case well:
            return fake::House::blob_reply(one, blob);
          case breaks: {
            Reply reply = fake::House::blob_reply(one, blob);
            reply.breaks_after = below(random, reply.body.size() + 1);
            return reply;
          }
          case absent:
            return {.status = 404};
          case denied:
            return {.status = 403};
          case failing:
            return {.status = 503};
          case silent:
            return {.gate = &never};
          default:
            return Reply::failure(Errc::unreachable, "refused");
        }
      });
    }
    const auto place = std::make_shared<Upstream::Place>();
    std::string bytes;
    for (int step = 0; step < 40 && bytes.size() < blob.size(); ++step) {
      for (const std::string& url : hub.upstream)
        state[url] = static_cast<State>(below(random, states));
      // The registry itself is played as one that answers or fails: a body of its own that breaks,
      // or silence for ever, is nothing that a list could mend.
      if (state[home] == silent || state[home] == breaks) state[home] = dead;
      world_.clock.advance(std::chrono::seconds(below(random, 15)));
      // One that is known to be away, or wants a pause, is not asked; that has an end of its own.
      bool had_it = false;
      bool registry_had_it = false;
      for (const auto& one : list().states()) {
        const bool may = !one.upstream.retry_in() && one.paused == 0s && state[one.url] == well;
        had_it = had_it || may;
        registry_had_it = registry_had_it || (may && one.url == home);
      }
      const std::size_t begin = bytes.size();
      const bool sparse = below(random, 2) == 0;
      const auto wanted = std::min<std::size_t>(blob.size() - begin, 1 + below(random, 4'000));
      std::string part;
      const auto transfer = [&]() -> asio::awaitable<int> {
        auto response = co_await list().send(
            {.repository = "app",
             .what = "blobs/x",
             .range = "bytes=" + std::to_string(begin) + "-" + std::to_string(begin + wanted - 1),
             .place = sparse ? place : nullptr});
        if (response->status() != 206) throw Failure(Errc::blob_unknown, "");
        std::vector<char> piece;
        while (co_await response->read(piece)) part.append(piece.begin(), piece.end());
        co_return response->status();
      };
      const auto caller = world_.call(transfer());
      while (!caller->done() && world_.clock.advance_to_next()) {
      }
      ASSERT_TRUE(caller->done());
      bytes += part;
      const bool got_all = part.size() == wanted;
      const bool registry_refused = state[home] == absent || state[home] == denied;
      const bool broke =
          caller->outcome && !*caller->outcome && caller->error().code == Errc::upstream_failed;
      if (had_it && !registry_refused && !broke)
        ASSERT_TRUE(got_all) << "seed " << seed << " step " << step;
      if (registry_had_it && !broke) ASSERT_TRUE(got_all);
    }
    EXPECT_TRUE(blob.starts_with(bytes)) << "seed " << seed;
  }
}

// ---- identities --------------------------------------------------------------------------------

class MirrorIdentityTest : public UpstreamListTest {
 protected:
  MirrorIdentityTest() {
    with_credentials_ = true;
    world_.files.write("/ours", "0ur-s3cret");
    world_.files.write("/theirs", "th31r-s3cret");
    // Everybody asks for a password, and takes any.
    for (const std::string url : {first, second, home}) {
      world_.http.on(url, [](const Asked& one) {
        if (one.headers.get("Authorization").empty())
          return Reply{.status = 401, .headers = {{"WWW-Authenticate", "Basic realm=\"r\""}}};
        return Reply{.status = 503};
      });
    }
    hub_.name = "hub.example";
    hub_.upstream = {first, second, home};
    hub_.identity = "us";
    hub_.ca_file = "/hub.pem";
  }
  RegistrySettings hub_;
};

constexpr const char* our_password = "0ur-s3cret";
// "us:0ur-s3cret" and "them:th31r-s3cret".
constexpr const char* our_basic = "dXM6MHVyLXMzY3JldA==";
constexpr const char* their_basic = "dGhlbTp0aDMxci1zM2NyZXQ=";

TEST_F(MirrorIdentityTest, OfTheRegistryGoesToTheLastAndToNobodyElse) {
  configure({hub_});
  get();
  EXPECT_THAT(world_.http.last(home)->everything(), HasSubstr(our_basic));
  EXPECT_THAT(world_.http.leaks(our_basic, home), IsEmpty());
  EXPECT_THAT(world_.http.leaks(our_password, home), IsEmpty());
  EXPECT_GT(world_.http.count(first), 0U);
  EXPECT_GT(world_.http.count(second), 0U);
  EXPECT_EQ(world_.http.last(first)->ca_file, "/hub.pem");
}

TEST_F(MirrorIdentityTest, OfAMirrorIsThatOfTheRegistryWhoseOriginItIs) {
  RegistrySettings other;
  other.name = "*.example";
  other.identity = "nobody";
  RegistrySettings theirs;
  theirs.name = "second.example";
  theirs.identity = "them";
  theirs.ca_file = "/second.pem";
  hub_.prefix = "hub/";
  identities_.replace(
      {{"us", {.kind = IdentityKind::basic, .username = "us", .password_file = "/ours"}},
       {"them", {.kind = IdentityKind::basic, .username = "them", .password_file = "/theirs"}},
       {"nobody", {.kind = IdentityKind::anonymous}}});
  configure({other, theirs, hub_});
  get();
  EXPECT_THAT(world_.http.last(second)->everything(), HasSubstr(their_basic));
  EXPECT_THAT(world_.http.leaks(their_basic, second), IsEmpty());
  EXPECT_THAT(world_.http.leaks(our_basic, home), IsEmpty());
  EXPECT_EQ(world_.http.last(second)->ca_file, "/second.pem");
  EXPECT_EQ(world_.http.last(second)->target, "/v2/hub/app/manifests/1?ns=hub.example")
      << "the prefix is the list's, not that registry's";
}

TEST_F(MirrorIdentityTest, GoesToNoOtherPortOrSchemeOfThatHost) {
  RegistrySettings theirs;
  theirs.name = "second.example";
  theirs.identity = "them";
  RegistrySettings moved;  // Its identity is for another origin than its name.
  moved.name = "first.example";
  moved.upstream = {"https://elsewhere.example"};
  moved.identity = "them";
  hub_.upstream = {"http://second.example", "https://second.example:8443", first, home};
  configure({theirs, moved, hub_});
  world_.http.on("http://second.example", {Reply{.status = 401}});
  world_.http.on("https://second.example:8443", {Reply{.status = 401}});
  get();
  EXPECT_THAT(world_.http.leaks(their_basic, "nobody"), IsEmpty());
  EXPECT_THAT(world_.http.leaks(our_basic, home), IsEmpty());
  EXPECT_EQ(world_.http.count("http://second.example/"), 1U);
  EXPECT_EQ(world_.http.count("https://second.example:8443/"), 1U);
}

TEST_F(MirrorIdentityTest, IsTheRegistrysOwnAtAnotherPathOfItsOrigin) {
  hub_.upstream = {std::string(home) + "/cached", home};
  configure({hub_});
  get();
  EXPECT_EQ(world_.http.count(std::string(home) + "/v2/cached/app/"), 1U);
  EXPECT_THAT(world_.http.leaks(our_basic, home), IsEmpty());
}

// At a mirror the longest prefix is sought in the name that the repository has there.
TEST_F(MirrorIdentityTest, FollowsTheRepositoryAsTheMirrorKnowsIt) {
  RegistrySettings theirs;
  theirs.name = "second.example";
  theirs.identity_for = {{.prefix = "hub/", .identity = "them"}};
  hub_.upstream = {std::string(second) + "/hub", home};
  hub_.identity_for = {{.prefix = "team/", .identity = ""}};
  configure({theirs, hub_});
  get();
  EXPECT_THAT(world_.http.last(second)->everything(), HasSubstr(their_basic));
  EXPECT_NE(&list("app"), &list("team/app"));
  EXPECT_EQ(&list("app"), &list("other"));
  world_.http.forget();
  get({.repository = "team/app", .what = "manifests/1"});
  EXPECT_THAT(world_.http.leaks(our_basic, "nobody"), IsEmpty());
}

TEST_F(MirrorIdentityTest, IsForgottenWithTheRegistryThatItCameFrom) {
  RegistrySettings theirs;
  theirs.name = "second.example";
  theirs.identity = "them";
  configure({theirs, hub_});
  const RegistryPtr before = registries_->find("hub.example");
  registries_->replace({theirs, hub_}, true);
  EXPECT_EQ(registries_->find("hub.example"), before);
  theirs.identity = "us";
  registries_->replace({theirs, hub_}, true);
  EXPECT_NE(registries_->find("hub.example"), before);
  const RegistryPtr again = registries_->find("hub.example");
  registries_->use_identity("second.example", "them");
  EXPECT_NE(registries_->find("hub.example"), again);
  get();
  EXPECT_THAT(world_.http.last(second)->everything(), HasSubstr(their_basic));
}

}  // namespace
}  // namespace staithe::proxy
