#include "proxy/http.h"

#include <gtest/gtest.h>

#include "tests/proxy/auth/world.h"

namespace staithe::proxy {
namespace {

using auth::World;
using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

HttpRequest get(std::string_view url) {
  HttpRequest request;
  request.url = Url::parse(url).value();
  return request;
}

asio::awaitable<std::string> fetch(HttpClient& http, HttpRequest request, std::size_t limit) {
  const std::unique_ptr<HttpResponse> response = co_await http.send(std::move(request));
  co_return co_await read_all(*response, limit);
}

TEST(Iequals, IgnoresTheCaseOfAsciiLettersOnly) {
  EXPECT_TRUE(iequals("Www-Authenticate", "WWW-AUTHENTICATE"));
  EXPECT_TRUE(iequals("", ""));
  EXPECT_FALSE(iequals("a", "ab"));
  EXPECT_FALSE(iequals("@", "`"));
  EXPECT_FALSE(iequals("[", "{"));
  EXPECT_FALSE(iequals("\xc3\xa4", "\xc3\x84"));
}

TEST(Headers, AreFoundWithoutRegardToCaseInTheOrderReceived) {
  Headers headers;
  EXPECT_TRUE(headers.empty());
  EXPECT_EQ(headers.find("a"), nullptr);
  EXPECT_EQ(headers.get("a"), "");
  headers.add("WWW-Authenticate", "Basic");
  headers.add("Date", "today");
  headers.add("www-authenticate", "Bearer");
  EXPECT_EQ(*headers.find("Www-Authenticate"), "Basic");
  EXPECT_EQ(headers.all("WWW-AUTHENTICATE"), (std::vector<std::string_view>{"Basic", "Bearer"}));
  EXPECT_EQ(headers.get("date"), "today");
  EXPECT_EQ(headers.get("dat"), "");
  EXPECT_TRUE(headers.all("x").empty());
}

TEST(ReadAll, PutsThePiecesTogether) {
  World world;
  world.http.on("https://h", [](const Asked&) {
    Reply reply{.body = "0123456789"};
    reply.piece_bytes = 3;
    return reply;
  });
  EXPECT_EQ(world.now(fetch(world.http, get("https://h/x"), 10)).value(), "0123456789");
}

TEST(ReadAll, GivesUpBeforeItHoldsMoreThanTheLimit) {
  World world;
  world.http.on("https://h", [](const Asked&) { return Reply{.body = "0123456789"}; });
  const auto body = world.now(fetch(world.http, get("https://h/x"), 9));
  ASSERT_FALSE(body);
  EXPECT_EQ(body.error().code, Errc::too_large);
}

TEST(ReadAll, PassesOnThatTheBodyBrokeOff) {
  World world;
  world.http.on("https://h", [](const Asked&) {
    Reply reply{.body = "0123456789"};
    reply.breaks_after = 5;
    return reply;
  });
  EXPECT_EQ(world.now(fetch(world.http, get("https://h/x"), 100)).error().code,
            Errc::upstream_failed);
}

// The fakes themselves, since so much rests on them.

TEST(FakeHttpClient, RemembersWhatWasAskedOfWhom) {
  World world;
  world.http.on("https://h", [](const Asked&) { return Reply{.body = "root"}; });
  world.http.on("https://h/a/", [](const Asked&) { return Reply{.body = "a"}; });
  EXPECT_EQ(world.now(fetch(world.http, get("https://h/a/b?x=%2F"), 9)).value(), "a");
  EXPECT_EQ(world.now(fetch(world.http, get("https://h/b"), 9)).value(), "root");
  EXPECT_EQ(world.now(fetch(world.http, get("https://h.evil.example/b"), 9)).error().code,
            Errc::unreachable);
  EXPECT_EQ(world.now(fetch(world.http, get("https://h:444/b"), 9)).error().code,
            Errc::unreachable);
  EXPECT_EQ(world.http.asked().size(), 4U);
  EXPECT_EQ(world.http.count("https://h/"), 2U);
  EXPECT_EQ(world.http.asked().front().field("x"), "/");
  EXPECT_EQ(world.http.leaks("/b", "https://h"),
            (std::vector<std::string>{"https://h.evil.example/b", "https://h:444/b"}));
}

TEST(FakeHttpClient, AnswersLateAndAtAGate) {
  World world;
  fake::Gate gate(world.io.get_executor());
  world.http.on("https://h", [&](const Asked&) {
    Reply reply{.body = "x", .delay = 5s};
    reply.gate = &gate;
    return reply;
  });
  const auto first = world.call(fetch(world.http, get("https://h/"), 9));
  const auto second = world.call(fetch(world.http, get("https://h/"), 9));
  EXPECT_EQ(gate.waiting(), 2U);
  EXPECT_EQ(world.http.most_at_once("https://h"), 2U);
  gate.open();
  world.clock.advance(4s);
  EXPECT_FALSE(first->done());
  second->leave();
  world.clock.settle();
  EXPECT_TRUE(second->left);
  world.clock.advance(1s);
  EXPECT_EQ(first->value(), "x");
}

asio::awaitable<int> sleep_and_note(Clock& clock, Instant when, std::vector<int>& woken, int name) {
  co_await clock.sleep_until(when);
  woken.push_back(name);
  co_return name;
}

TEST(ManualClock, WakesSleepersInTheirOrderEachAtItsInstant) {
  World world;
  std::vector<int> woken;
  const Instant start = world.clock.now();
  const auto late = world.call(sleep_and_note(world.clock, start + 3s, woken, 3));
  const auto early = world.call(sleep_and_note(world.clock, start + 1s, woken, 1));
  const auto past = world.call(sleep_and_note(world.clock, start, woken, 0));
  world.clock.advance(999ms);
  EXPECT_EQ(woken, (std::vector<int>{0}));
  EXPECT_TRUE(past->done());
  world.clock.advance(10s);
  EXPECT_EQ(woken, (std::vector<int>{0, 1, 3}));
  EXPECT_EQ(world.clock.now(), start + 999ms + 10s);
  EXPECT_TRUE(early->done() && late->done());
}

TEST(ManualClock, ASleeperThatIsCancelledThrows) {
  World world;
  std::vector<int> woken;
  const auto sleeper = world.call(sleep_and_note(world.clock, world.clock.now() + 1s, woken, 1));
  sleeper->leave();
  world.clock.settle();
  EXPECT_TRUE(sleeper->left);
  EXPECT_EQ(world.clock.sleepers(), 0U);
  EXPECT_TRUE(woken.empty());
}

TEST(ManualClock, TheWallClockCanBeSetWithoutTimePassing) {
  World world;
  const Instant before = world.clock.now();
  const WallTime wall = world.clock.wall();
  world.clock.jump_wall(1h);
  EXPECT_EQ(world.clock.now(), before);
  EXPECT_EQ(world.clock.wall(), wall + 1h);
  world.clock.advance(1min);
  EXPECT_EQ(world.clock.wall(), wall + 1h + 1min);
}

}  // namespace
}  // namespace staithe::proxy
