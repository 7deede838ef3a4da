#include "proxy/auth/identities.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/fake/effort.h"
#include "tests/proxy/auth/fake_azure.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

const Origin contoso{"https", "contoso.azurecr.io", 443};
const std::string host = "contoso.azurecr.io";

const IdentitySettings machine = [] {
  IdentitySettings identity;
  identity.kind = IdentityKind::managed_identity;
  return identity;
}();

// Simulated days: pulls all along, and everything behind them failing at random, in outages and in
// single requests, with clocks that jump and a machine that sleeps.
struct Weather {
  SeededRandom random;
  World& world;
  FakeAzure& azure;
  bool identity_down = false, exchange_down = false, token_down = false;

  Weather(std::uint64_t seed, World& in, FakeAzure& of) : random(seed), world(in), azure(of) {
    azure.fault = [this](const Asked& asked) { return fault(asked); };
  }

  void change() {
    const auto flip = [&](bool& down, std::uint64_t begins, std::uint64_t ends) {
      if (random.next() % (down ? ends : begins) == 0) down = !down;
    };
    flip(identity_down, 60, 15);
    flip(exchange_down, 60, 15);
    flip(token_down, 60, 10);
  }

  std::optional<Reply> fault(const Asked& asked) {
    const bool imds = asked.url.starts_with(FakeAzure::imds);
    const bool entra = asked.url.starts_with(FakeAzure::entra);
    const bool down = imds || entra                       ? identity_down
                      : asked.target.contains("exchange") ? exchange_down
                                                          : token_down;
    if (!down && random.next() % 10 != 0) return std::nullopt;
    switch (random.next() % 7) {
      case 0:
        return Reply{.status = 500};
      case 1:
        return Reply{.status = 503, .headers = {{"Retry-After", "20"}}};
      case 2:
        return Reply{.status = 429, .headers = {{"Retry-After", "10"}}};
      case 3:
        return imds ? Reply{.status = 410} : Reply{.status = 502, .body = "<html>"};
      case 4: {
        Reply reply = Reply::failure(Errc::unreachable, "no answer in time");
        reply.delay = 20s;
        return reply;
      }
      case 5:
        return Reply::failure(Errc::upstream_failed, "the connection broke off");
      default:
        return Reply{.status = 200, .body = "<html>captive portal</html>"};
    }
  }
};

struct Tally {
  int pulls = 0;
  int served = 0;
  int failed = 0;
  int jumps = 0;
  int exchanges = 0;
};

// Lives at least this long before it is renewed (schedule.h: 50 to 60 % of 3 h).
constexpr std::chrono::minutes shortest_renewal_period{90};

struct Course {
  std::uint64_t seed;
  std::chrono::hours length;
  bool clocks_jump;
  IdentitySettings identity;
};

void live_through(const Course& course, Tally& tally) {
  const std::uint64_t seed = course.seed;
  World world(seed);
  FakeAzure azure(world.http, world.clock);
  azure.add_registry(host);
  world.files.write("/secret", std::string(FakeAzure::client_secret));
  Identities identities(AzureSettings{}, {}, world.environment());
  const auto authorizer = identities.make_authorizer(at(contoso), course.identity);
  Weather weather(seed * 31, world, azure);
  SeededRandom random(seed * 17);

  std::map<std::string, Authorization> held;
  const Instant begin = world.clock.now();
  int jumps = 0;
  while (world.clock.now() < begin + course.length) {
    weather.change();
    const std::string repository = "app" + std::to_string(random.next() % 3);
    // Tokens are used until 30 s before their end. A pull that has to wait, because the wall clock
    // makes its token doubtful, may see the end come.
    const std::int64_t margin = course.clocks_jump ? 340 : 32;
    const bool must_serve = held.contains(repository) &&
                            azure.time() < azure.end_of(held[repository]->reveal()) - margin;
    const auto call = world.call(authorizer->for_pull(repository));
    ++tally.pulls;
    if (must_serve && !course.clocks_jump) {
      ASSERT_TRUE(call->outcome) << seed << ": a pull waits while a valid token is kept";
    }
    for (int second = 0; second < 300 && !call->outcome; ++second) world.clock.advance(1s);
    ASSERT_TRUE(call->outcome) << seed << ": a pull hangs";
    if (*call->outcome) {
      ++tally.served;
      const Authorization header = call->value();
      // The registry, on its own clock, takes it: nothing is handed out past its end.
      ASSERT_EQ(azure.data_status(host, repository, header->reveal()), 200) << seed;
      held[repository] = header;
    } else {
      ++tally.failed;
      ASSERT_FALSE(must_serve) << seed << ": " << call->outcome->error().detail;
      for (const auto& [token, what] : azure.tokens())
        ASSERT_FALSE(call->outcome->error().detail.contains(token.substr(0, 60))) << what;
    }
    if (course.clocks_jump) {
      const std::uint64_t event = random.next() % 200;
      if (event < 5) ++jumps;
      switch (event) {
        case 0:
          world.clock.jump_wall(1h);
          break;
        case 1:
          world.clock.jump_wall(-1h);
          break;
        case 2:
          world.clock.jump_wall(std::chrono::hours(87'600));
          break;
        case 3:
          world.clock.jump_wall(-std::chrono::hours(87'600));
          break;
        case 4:
          world.clock.suspend(4h);
          break;
        default:
          break;
      }
    }
    world.clock.advance(random.between(1s, 90s));
  }
  EXPECT_EQ(azure.used_after_end, 0) << seed;
  EXPECT_EQ(world.http.most_at_once(std::string(FakeAzure::imds)),
            course.identity.kind == IdentityKind::managed_identity ? 1U : 0U)
      << seed;
  // A refresh token is doubtful after a jump, and is then renewed once.
  const auto periods = (world.clock.now() - begin) / shortest_renewal_period;
  EXPECT_LE(azure.exchanges, periods + 1 + jumps) << seed;
  tally.jumps += jumps;
  tally.exchanges += azure.exchanges;
  for (const auto& [token, what] : azure.tokens()) {
    // The registry alone is sent tokens; what an identity service gives, it never gets back.
    ASSERT_TRUE(world.http.leaks(token, "https://" + host).empty()) << what;
  }
}

// Seeds from here on take a managed identity and an application in turn.
IdentitySettings identity_of(std::uint64_t seed) {
  if (seed % 2 == 0) return machine;
  IdentitySettings application;
  application.kind = IdentityKind::service_principal;
  application.tenant_id = "contoso-tenant";
  application.client_id = std::string(FakeAzure::client_id);
  application.client_secret_file = "/secret";
  return application;
}

Course course_of(int seed, bool clocks_jump) {
  const auto number = static_cast<std::uint64_t>(seed);
  return {number, 72h, clocks_jump, identity_of(number)};
}

TEST(CredentialsOverTime, ForSeventyTwoHoursPullsGoOnWhileAnythingValidIsHeld) {
  Tally tally;
  const int seeds = fake::effort(12);
  for (int seed = 1; seed <= seeds; ++seed) {
    ASSERT_NO_FATAL_FAILURE(live_through(course_of(seed, false), tally));
  }
  EXPECT_GT(tally.pulls, 2'500 * seeds);
  EXPECT_GT(tally.served, tally.pulls * 95 / 100) << tally.failed;
}

TEST(CredentialsOverTime, AndWhileClocksJumpAndTheMachineSleeps) {
  Tally tally;
  const int seeds = fake::effort(12);
  for (int seed = 101; seed <= 100 + seeds; ++seed) {
    ASSERT_NO_FATAL_FAILURE(live_through(course_of(seed, true), tally));
  }
  EXPECT_GT(tally.jumps, 8 * seeds);
  EXPECT_GT(tally.served, tally.pulls * 90 / 100) << tally.failed;
}

TEST(CredentialsOverTime, AQuietDayCostsOneExchangeForEachRenewalPeriod) {
  World world;
  FakeAzure azure(world.http, world.clock);
  azure.add_registry(host);
  Identities identities(AzureSettings{}, {}, world.environment());
  const auto authorizer = identities.make_authorizer(at(contoso), machine);
  const auto first = world.call(authorizer->for_pull("app"));
  EXPECT_TRUE(first->value());
  for (int minute = 0; minute < 24 * 60; ++minute) {
    world.clock.advance(1min);
    EXPECT_TRUE(world.now(authorizer->for_pull("app")));
  }
  // Every 90 to 108 minutes, every 56 to 60, every 52 to 60.
  EXPECT_GE(world.http.count("https://contoso.azurecr.io/oauth2/exchange"), 14U);
  EXPECT_LE(world.http.count("https://contoso.azurecr.io/oauth2/exchange"), 17U);
  EXPECT_GE(world.http.count("https://contoso.azurecr.io/oauth2/token"), 24U);
  EXPECT_LE(world.http.count("https://contoso.azurecr.io/oauth2/token"), 27U);
  EXPECT_LE(world.http.count(FakeAzure::imds), 60U);
  EXPECT_EQ(world.http.count("https://contoso.azurecr.io/v2/"), 1U);
  EXPECT_TRUE(world.reports.empty());
}

// The demo's case: lives of 20 s, 90 s of continuous pulls, answers that take their time.
TEST(CredentialsOverTime, WithLivesOfTwentySecondsNoPullWaitsOrSeesA401) {
  World world;
  FakeAzure azure(world.http, world.clock);
  azure.entra_life = azure.refresh_life = azure.access_life = 20;
  azure.add_registry(host);
  Identities identities(AzureSettings{}, {}, world.environment());
  const auto authorizer = identities.make_authorizer(at(contoso), machine);
  const auto first = world.call(authorizer->for_pull("app"));
  EXPECT_TRUE(first->value());
  for (int i = 0; i < 900; ++i) {
    const auto call = world.call(authorizer->for_pull("app"));
    ASSERT_TRUE(call->outcome) << i;
    EXPECT_EQ(azure.data_status(host, "app", call->value()->reveal()), 200) << i;
    world.clock.advance(100ms);
  }
  EXPECT_EQ(azure.used_after_end, 0);
  EXPECT_TRUE(world.reports.empty());
}

}  // namespace
}  // namespace staithe::proxy::auth
