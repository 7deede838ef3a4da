// Connections whose user has to be judged, through the whole proxy: what the threads at the front
// may answer of what is at hand, and what they must not.
#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "proxy/admission.h"
#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::House;

std::string request_for(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
}

class JudgedTest : public testing::Test {
 protected:
  JudgedTest() {
    RegistrySettings ours;
    ours.name = "r.example";
    RegistrySettings other;
    other.name = "q.example";
    house.registries.replace({ours, other}, true);
    const auto digest = house.play_blob("app", bytes);
    house.upstream.on("https://q.example/v2/app/blobs/" + digest.to_string(),
                      [this](const fake::Asked& asked) { return House::blob_reply(asked, bytes); });
    of_ours = "/v2/r.example/app/blobs/" + digest.to_string();
    of_other = "/v2/q.example/app/blobs/" + digest.to_string();
    for (const std::string& target : {of_ours, of_other}) {
      for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(house.get(target).status, 200);
        house.run_until_true([&] { return !house.fills.under_way(digest); });
      }
      EXPECT_TRUE(house.proxy.answers().find(target, house.clock.now())) << target;
    }
  }

  // The rule: who may have what, and how often that was asked.
  void restrict() {
    house.proxy.restrict([this](Caller, std::optional<std::string> registry) {
      return judge(registry.value_or("none"));
    });
  }
  asio::awaitable<std::optional<Instant>> judge(std::string registry) {
    ++judged;
    const auto found = until.find(registry);
    co_return found == until.end() ? std::nullopt : std::optional(found->second);
  }

  asio::ip::tcp::socket connect() {
    asio::ip::tcp::socket socket(house.io);
    socket.connect(house.endpoint());
    return socket;
  }
  // The status and the body of the answer to one more request on the connection.
  std::pair<int, std::string> ask(asio::ip::tcp::socket& socket, const std::string& target) {
    asio::write(socket, asio::buffer(request_for(target)));
    std::string text;
    std::size_t whole = std::string::npos;
    while (text.size() < whole) {
      std::array<char, 4096> piece;
      std::size_t got = 0;
      bool done = false;
      socket.async_read_some(asio::buffer(piece), [&](boost::system::error_code, std::size_t n) {
        got = n;
        done = true;
      });
      house.run_until_true([&] { return done; });
      if (got == 0) break;
      text.append(piece.data(), got);
      const std::size_t head = text.find("\r\n\r\n");
      const std::size_t length = text.find("Content-Length: ");
      if (head != std::string::npos && length < head)
        whole = head + 4 + std::strtoul(text.c_str() + length + 16, nullptr, 10);
    }
    const std::size_t head = text.find("\r\n\r\n");
    if (head == std::string::npos) return {0, text};
    return {std::atoi(text.c_str() + 9), text.substr(head + 4)};
  }
  std::uint64_t at_front() const { return house.proxy.meter().at_front().requests; }

  House house;
  const std::string bytes = std::string(3000, 'b');
  std::string of_ours;
  std::string of_other;
  std::map<std::string, Instant> until{{"r.example", Instant::max()}};
  int judged = 0;
};

TEST_F(JudgedTest, AreAnsweredAtTheFrontOnceTheirUserIsKnownToBeAllowed) {
  restrict();
  auto socket = connect();
  const std::uint64_t before = at_front();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ask(socket, of_ours), std::pair(200, bytes)) << i;
  EXPECT_EQ(judged, 2) << "the main loop answers the first two";
  EXPECT_EQ(at_front(), before + 18);
}

TEST_F(JudgedTest, AreRefusedWhatTheyHaveNoPassForAlthoughItIsAtHand) {
  restrict();
  auto socket = connect();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask(socket, of_ours).first, 200);
  const std::uint64_t before = at_front();
  const auto [status, body] = ask(socket, of_other);
  EXPECT_EQ(status, 403);
  EXPECT_FALSE(body.contains("bbbb"));
  EXPECT_EQ(at_front(), before);
  EXPECT_EQ(ask(socket, of_ours), std::pair(200, bytes));
  EXPECT_EQ(house.proxy.traffic().denied, 1U);
}

TEST_F(JudgedTest, LoseTheirPassWithTheRules) {
  restrict();
  auto socket = connect();
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 4; ++i) ASSERT_EQ(ask(socket, of_ours), std::pair(200, bytes));
    const std::uint64_t before = at_front();
    until.clear();
    restrict();
    ASSERT_EQ(ask(socket, of_ours).first, 403) << round;
    EXPECT_EQ(at_front(), before);
    until["r.example"] = Instant::max();
    restrict();
  }
}

TEST_F(JudgedTest, LoseTheirPassWhenOnlyTheHostsOfARuleChange) {
  restrict();
  auto socket = connect();
  for (int i = 0; i < 4; ++i) ASSERT_EQ(ask(socket, of_ours).first, 200);
  const int before = judged;
  house.proxy.admit(HostPolicy(house.server().addresses(), {"other.example"}));
  ASSERT_EQ(ask(socket, of_ours).first, 200);
  EXPECT_EQ(judged, before + 1);
}

TEST_F(JudgedTest, AreJudgedAgainWhenWhatWasKnownHasAged) {
  until["r.example"] = house.clock.now() + 1min;
  restrict();
  auto socket = connect();
  for (int i = 0; i < 5; ++i) ASSERT_EQ(ask(socket, of_ours).first, 200);
  EXPECT_EQ(judged, 2);
  until.clear();  // the user has left the group
  house.clock.pass(61s);
  EXPECT_EQ(ask(socket, of_ours).first, 403);
  EXPECT_EQ(judged, 3);
}

TEST_F(JudgedTest, BeginAtTheMainLoopAndAreFreeAgainWithoutRules) {
  auto open = connect();
  std::uint64_t before = at_front();
  EXPECT_EQ(ask(open, of_other).first, 200);
  EXPECT_EQ(at_front(), before + 1);
  restrict();
  EXPECT_EQ(ask(open, of_other).first, 403) << "it was at the front before there was a rule";
  house.proxy.restrict({});
  before = at_front();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask(open, of_other).first, 200);
  EXPECT_EQ(at_front(), before + 3);
}

TEST_F(JudgedTest, AreToldWhichListDecides) {
  RegistrySettings ours;
  ours.name = "r.example";
  RegistrySettings other;
  other.name = "*.example";
  other.access.emplace();
  house.registries.replace({ours, other}, true);
  until.clear();
  until["none"] = Instant::max();
  restrict();
  const std::string uid = std::to_string(::geteuid());
  fake::Answer answer = house.get(of_ours);
  EXPECT_EQ(answer.status, 403);
  EXPECT_TRUE(answer.body.contains("the user with uid " + uid + " may not use this machine"))
      << answer.body;
  EXPECT_TRUE(answer.body.contains("access.users")) << answer.body;
  answer = house.get(of_other);
  EXPECT_EQ(answer.status, 403);
  EXPECT_TRUE(answer.body.contains("may not pull from *.example here")) << answer.body;
  EXPECT_TRUE(answer.body.contains("[registry.access]")) << answer.body;
  // Every way to name a registry leads to its own list; what names none is for who may something.
  EXPECT_EQ(house.get("/v2/app/blobs/" + of_other.substr(of_other.rfind('/') + 1) + "?ns=q.example")
                .status,
            403);
  EXPECT_EQ(house.get("/q.example/v2/app/tags/list").status, 403);
  EXPECT_EQ(house.get("/v2/").status, 200);
  EXPECT_EQ(house.get("/v2/elsewhere.test/app/tags/list").status, 404);
  until.clear();
  EXPECT_EQ(house.get("/v2/").status, 403);
  EXPECT_EQ(house.get("/v2/elsewhere.test/app/tags/list").status, 403)
      << "nothing is said about registries to who may nothing";
  EXPECT_EQ(house.get("/healthz").status, 200);
}

// The list of a registry changes, and its tokens, pauses and memory of failures stay.
TEST_F(JudgedTest, CostNoUpstreamItsStateWhenAListChanges) {
  const auto registry = house.registries.find("r.example");
  std::vector<RegistrySettings> settings = house.registries.configured();
  settings.front().access = AccessSettings{.users = {"1"}, .groups = {}};
  house.registries.replace(settings, true);
  EXPECT_EQ(house.registries.find("r.example"), registry);
  settings.front().prefix = "other/";
  house.registries.replace(settings, true);
  EXPECT_NE(house.registries.find("r.example"), registry);
}

}  // namespace
}  // namespace staithe::proxy
