// Answers from memory, through the whole proxy: the house serves as the daemon does, with threads
// at the front.
#include "proxy/front.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;

constexpr std::string_view type = "application/vnd.oci.image.manifest.v1+json";

struct Played {
  std::string bytes = R"({"schemaVersion":2})";
  cache::Digest digest = cache::digest_of(cache::Algorithm::sha256, bytes);
};

asio::awaitable<std::optional<Instant>> nobody_may(Caller, std::optional<std::string>) {
  co_return std::nullopt;
}

std::string text_of(const std::string& method, const std::string& target,
                    const std::string& fields = {}) {
  return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
}

class FrontTest : public testing::Test {
 protected:
  FrontTest() {
    // Tags are trusted for a while, so that there is something to keep of them.
    RegistrySettings settings;
    settings.name = "r.example";
    settings.is_default = true;
    settings.freshness.tag_ttl = 1h;
    house.registries.replace({settings}, true);
    house.upstream.on("https://r.example/v2/app/manifests/", [this](const Asked& asked) {
      if (refused) return Reply{.status = 404};
      return Reply{.status = 200,
                   .headers = {{"Content-Type", std::string(type)},
                               {"Docker-Content-Digest", manifest.digest.to_string()}},
                   .body = asked.method == "HEAD" ? "" : manifest.bytes};
    });
    blob = house.play_blob("app", blob_bytes);
  }

  bool kept(const std::string& target) {
    return house.proxy.answers().find(target, house.clock.now()) != nullptr;
  }
  // Asks until the answer is kept, as every hit's is.
  void keep(const std::string& target) {
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(house.get(target).status, 200);
      house.run_until_true([&] { return !house.fills.under_way(blob); });
    }
    ASSERT_TRUE(kept(target)) << target;
  }
  std::uint64_t served_at_front() const { return house.proxy.meter().at_front().requests; }

  // A connection of the test's own.
  asio::ip::tcp::socket connect() {
    asio::ip::tcp::socket socket(house.io);
    socket.connect(house.endpoint());
    return socket;
  }
  // What comes until `size` bytes or the end are there.
  std::string read(asio::ip::tcp::socket& socket, std::size_t size) {
    std::string text(size, '\0');
    std::size_t got = 0;
    bool done = false;
    asio::async_read(socket, asio::buffer(text), [&](boost::system::error_code, std::size_t n) {
      got = n;
      done = true;
    });
    house.run_until_true([&] { return done; });
    text.resize(got);
    return text;
  }
  // The bytes of the answer to a GET on a connection that stays.
  std::string whole(const std::string& target) {
    const auto answer = house.proxy.answers().find(target, house.clock.now());
    return answer ? answer->text : std::string();
  }

  House house;
  bool refused = false;
  Played manifest;
  const std::string blob_bytes = std::string(5000, 'b');
  cache::Digest blob = cache::digest_of(cache::Algorithm::sha256, blob_bytes);
  const std::string by_digest = "/v2/app/manifests/" + manifest.digest.to_string();
  const std::string by_tag = "/v2/app/manifests/latest";
  const std::string of_blob = "/v2/app/blobs/" + blob.to_string();
};

TEST_F(FrontTest, AnswersAsTheMainLoopDid) {
  for (const std::string& target : {by_digest, by_tag, of_blob}) {
    house.get(target);
    house.run_until_true([&] { return !house.fills.under_way(blob); });
    const Answer slow = house.get(target);
    ASSERT_TRUE(kept(target));
    auto socket = connect();
    asio::write(socket, asio::buffer(text_of("GET", target)));
    std::string fast =
        read(socket,
             slow.head.size() + 2 - std::string("Connection: close\r\n").size() + slow.body.size());
    EXPECT_TRUE(fast.ends_with("\r\n\r\n" + slow.body));
    const auto lines = [](const std::string& head) {
      std::set<std::string> all;
      std::istringstream stream(head);
      for (std::string line; std::getline(stream, line);) all.insert(line);
      all.erase("Connection: close\r");
      all.erase("\r");
      return all;
    };
    EXPECT_EQ(lines(fast.substr(0, fast.size() - slow.body.size())), lines(slow.head));
  }
  EXPECT_EQ(served_at_front(), 3U);
}

TEST_F(FrontTest, CountsItsHits) {
  keep(of_blob);
  const Traffic before = house.proxy.traffic();
  auto socket = connect();
  const std::string text = whole(of_blob);
  asio::write(socket, asio::buffer(text_of("GET", of_blob)));
  EXPECT_EQ(read(socket, text.size()), text);
  const Traffic after = house.proxy.traffic();
  EXPECT_EQ(after.requests, before.requests + 1);
  EXPECT_EQ(after.hits, before.hits + 1);
  EXPECT_EQ(after.bytes_served, before.bytes_served + blob_bytes.size());
  EXPECT_EQ(after.bytes_saved, before.bytes_saved + blob_bytes.size());
}

TEST_F(FrontTest, TellsTheStoreOfUses) {
  keep(by_digest);
  keep(of_blob);
  house.proxy.tell_uses();
  auto socket = connect();
  const std::string text = whole(by_digest);
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  EXPECT_EQ(read(socket, text.size()), text);
  const auto used_last = [&] { return house.store.objects().back(); };
  EXPECT_EQ(used_last(), blob);
  house.proxy.tell_uses();
  EXPECT_EQ(used_last(), manifest.digest);
}

TEST_F(FrontTest, TakesPipelinedRequestsAndSendsTheirAnswersInOrder) {
  keep(by_digest);
  keep(of_blob);
  auto socket = connect();
  std::string asked, wanted;
  for (int i = 0; i < 100; ++i) {
    const bool head = i % 3 == 0;
    const std::string& target = i % 2 ? by_digest : of_blob;
    asked += text_of(head ? "HEAD" : "GET", target);
    const std::string text = whole(target);
    wanted += head ? text.substr(0, text.find("\r\n\r\n") + 4) : text;
  }
  asio::write(socket, asio::buffer(asked));
  EXPECT_EQ(read(socket, wanted.size()), wanted);
  EXPECT_EQ(served_at_front(), 100U);
}

TEST_F(FrontTest, TakesRequestsThatComeInTwoParts) {
  keep(by_digest);
  const std::string asked = text_of("GET", by_digest) + text_of("HEAD", by_digest);
  const std::string text = whole(by_digest);
  const std::string wanted = text + text.substr(0, text.find("\r\n\r\n") + 4);
  auto socket = connect();
  socket.set_option(asio::ip::tcp::no_delay(true));
  for (std::size_t at = 1; at < asked.size(); ++at) {
    asio::write(socket, asio::buffer(asked.substr(0, at)));
    asio::write(socket, asio::buffer(asked.substr(at)));
    ASSERT_EQ(read(socket, wanted.size()), wanted) << at;
  }
}

TEST_F(FrontTest, HandsOverWhatItDoesNotAnswerAndNothingIsLost) {
  keep(by_digest);
  const std::string text = whole(by_digest);
  for (std::size_t split : {0UZ, 1UZ, 10UZ, 30UZ}) {
    auto socket = connect();
    socket.set_option(asio::ip::tcp::no_delay(true));
    const std::string other = text_of("GET", "/v2/", "Connection: close\r\n");
    asio::write(socket, asio::buffer(text_of("GET", by_digest) + other.substr(0, split)));
    ASSERT_EQ(read(socket, text.size()), text);
    asio::write(socket, asio::buffer(other.substr(split)));
    const std::string rest = read(socket, 100'000);
    EXPECT_TRUE(rest.starts_with("HTTP/1.1 200 OK\r\n")) << rest;
    EXPECT_TRUE(rest.ends_with("\r\n\r\n{}")) << rest;
  }
}

TEST_F(FrontTest, HasAConnectionBackWhenItsRequestsArePlainAgain) {
  keep(by_digest);
  const std::string text = whole(by_digest);
  auto socket = connect();
  asio::write(socket, asio::buffer(text_of("HEAD", "/healthz")));
  std::string health;
  while (!health.ends_with("\r\n\r\n")) health += read(socket, 1);
  const auto before = served_at_front();
  for (int i = 0; i < 10; ++i) {
    asio::write(socket, asio::buffer(text_of("GET", by_digest)));
    ASSERT_EQ(read(socket, text.size()), text) << i;
  }
  EXPECT_EQ(served_at_front(), before + 8) << "the main loop answered two of them";
  EXPECT_EQ(house.server().connections(), 1U);
}

TEST_F(FrontTest, ForgetsWhatWasPurged) {
  keep(by_digest);
  keep(by_tag);
  keep(of_blob);
  // What is still on its way to the disk stays, and is told to.
  while (house.run(house.store.purge_all()).in_use.objects > 0) continue;
  for (const std::string& target : {by_digest, by_tag, of_blob}) EXPECT_FALSE(kept(target));
  EXPECT_EQ(house.proxy.answers().size(), 0U);
}

TEST_F(FrontTest, ForgetsWhatAnImagesPurgeTookTheRightTo) {
  keep(by_digest);
  keep(by_tag);
  house.run(house.store.purge_image("r.example/app", "latest"));
  EXPECT_FALSE(kept(by_digest));
  EXPECT_FALSE(kept(by_tag));
}

TEST_F(FrontTest, ForgetsWhatIsDoubtedAtOnce) {
  keep(of_blob);
  house.store.doubt(blob);
  EXPECT_FALSE(kept(of_blob));
}

TEST_F(FrontTest, ForgetsWhatIsFoundDamaged) {
  keep(of_blob);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(house.store.directory())) {
    if (entry.path().filename() != blob.hex()) continue;
    std::filesystem::permissions(entry.path(), std::filesystem::perms::owner_all);
    std::FILE* const file = std::fopen(entry.path().c_str(), "r+");
    ASSERT_TRUE(file);
    std::fputs("damage", file);
    std::fclose(file);
  }
  house.store.doubt(blob);
  house.run_until_true([&] { return house.store.stats().quarantined == 1; });
  EXPECT_FALSE(kept(of_blob));
  const std::size_t before = house.upstream_gets(blob);
  EXPECT_EQ(house.get(of_blob).body, blob_bytes);
  EXPECT_EQ(house.upstream_gets(blob), before + 1);
}

TEST_F(FrontTest, ForgetsWhereTheRightWasTakenBack) {
  keep(by_digest);
  keep(by_tag);
  house.store.unlink("r.example/app", manifest.digest);
  EXPECT_FALSE(kept(by_digest));
  EXPECT_FALSE(kept(by_tag));
}

TEST_F(FrontTest, AsksAgainWhenTheRightHasToBeProvenAgain) {
  keep(by_digest);
  refused = true;
  house.clock.pass(25h);
  EXPECT_FALSE(kept(by_digest));
  EXPECT_EQ(house.get(by_digest).status, 404);
}

TEST_F(FrontTest, TrustsATagForAsLongAsIsConfiguredAndSaysItsAge) {
  keep(by_tag);
  house.clock.pass(10min);
  EXPECT_GE(std::stoi(house.get(by_tag).field("Age")), 600);
  house.clock.pass(51min);
  EXPECT_FALSE(kept(by_tag));
}

TEST_F(FrontTest, ForgetsATagThatMoved) {
  keep(by_tag);
  keep(by_digest);
  const Played other{.bytes = R"({"schemaVersion":2,"x":1})"};
  house.store.put_tag("r.example/app", "latest", other.digest);
  EXPECT_FALSE(kept(by_tag));
  EXPECT_TRUE(kept(by_digest)) << "its digest means what it did";
  house.store.drop_tag("r.example/app", "latest");
  EXPECT_FALSE(kept(by_tag));
}

TEST_F(FrontTest, ForgetsAllWhenNamesMayMeanSomethingElse) {
  keep(by_digest);
  house.registries.replace({}, true);
  EXPECT_FALSE(kept(by_digest));
  EXPECT_EQ(house.get(by_digest).status, 404);
}

TEST_F(FrontTest, RefusesHostsAndUsersByTheRulesOfTheMoment) {
  keep(by_digest);
  auto socket = connect();
  const std::string text = whole(by_digest);
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  ASSERT_EQ(read(socket, text.size()), text);
  const std::string foreign = "GET " + by_digest + " HTTP/1.1\r\nHost: evil.example\r\n";
  EXPECT_EQ(house.run(house.ask(foreign + "Connection: close\r\n\r\n")).status, 403);
  house.proxy.restrict(nobody_may);
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  EXPECT_EQ(read(socket, 12), "HTTP/1.1 403");
}

TEST_F(FrontTest, KeepsNoRangeForAWhole) {
  keep(of_blob);
  const Answer part = house.get(of_blob, "Range: bytes=0-9\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "bbbbbbbbbb");
}

TEST_F(FrontTest, EndsIdleConnectionsWhenItDrains) {
  keep(by_digest);
  auto socket = connect();
  const std::string text = whole(by_digest);
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  ASSERT_EQ(read(socket, text.size()), text);
  auto half = connect();
  asio::write(half, asio::buffer(text_of("HEAD", by_digest) + "GET /healthz HT"));
  ASSERT_EQ(read(half, 15), "HTTP/1.1 200 OK");
  house.server().drain();
  EXPECT_EQ(read(socket, 1), "");
  // What had begun is answered.
  asio::write(half, asio::buffer(std::string("TP/1.1\r\nHost: localhost\r\n\r\n")));
  const std::string rest = read(half, 100'000);
  EXPECT_NE(rest.find("live"), std::string::npos) << rest;
  EXPECT_NE(rest.find("Connection: close\r\n"), std::string::npos) << rest;
  house.run(house.server().drained());
  EXPECT_EQ(house.server().connections(), 0U);
}

// Nobody tries again by himself when the first request on a connection comes to nothing.
TEST_F(FrontTest, AnswersWhoHasJustComeWhenItDrains) {
  keep(by_digest);
  RequestMeter meter;
  Front front(house.io.get_executor(), house.proxy.answers(), house.proxy.admission(), house.clock,
              meter, 2);
  Server server(house.io.get_executor(), {.connections = 2, .connection = {}}, house.proxy,
                house.store.disk_pool(), nullptr, &front);
  server.listen(*ListenAddress::parse("127.0.0.1:0"), 0);
  server.start();
  asio::ip::tcp::socket socket(house.io);
  socket.connect(House::endpoint_of(server.addresses().front()));
  house.run_until_true([&] { return server.figures().accepted > 0; });
  server.drain();
  house.run(front.come_round());
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  const std::string answer = read(socket, 100'000);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos) << answer;
  house.run(server.drained());
  house.run(server.stop());
}

TEST_F(FrontTest, AnswersARequestThatIsOnItsWayInWhenItDrains) {
  keep(by_digest);
  const std::string text = whole(by_digest);
  auto socket = connect();
  for (int i = 0; i < 20; ++i) {
    asio::write(socket, asio::buffer(text_of("GET", by_digest)));
    ASSERT_EQ(read(socket, text.size()), text);
  }
  asio::write(socket, asio::buffer(text_of("GET", by_digest)));
  house.server().drain();
  EXPECT_TRUE(read(socket, 100'000).starts_with("HTTP/1.1 200 OK\r\n"));
  house.run(house.server().drained());
}

TEST_F(FrontTest, GivesUpTheConnectionThatRestedLongestForANewcomer) {
  keep(by_digest);
  const std::string text = whole(by_digest);
  RequestMeter meter;
  Front front(house.io.get_executor(), house.proxy.answers(), house.proxy.admission(), house.clock,
              meter, 2);
  Server server(house.io.get_executor(),
                {.connections = 2, .connections_per_user = 10, .connection = {}}, house.proxy,
                house.store.disk_pool(), nullptr, &front);
  server.listen(*ListenAddress::parse("127.0.0.1:0"), 0);
  server.start();
  const auto join = [&] {
    asio::ip::tcp::socket socket(house.io);
    const auto before = server.figures().accepted;
    socket.connect(House::endpoint_of(server.addresses().front()));
    house.run_until_true([&] { return server.figures().accepted > before; });
    return socket;
  };
  const auto ask = [&](asio::ip::tcp::socket& socket) {
    asio::write(socket, asio::buffer(text_of("GET", by_digest)));
    return read(socket, text.size());
  };
  auto first = join();
  auto second = join();
  EXPECT_EQ(ask(first), text);
  auto third = join();
  EXPECT_EQ(read(second, 1), "") << "it had no request, and the first had one";
  EXPECT_EQ(ask(first), text);
  EXPECT_EQ(ask(third), text);
  EXPECT_EQ(server.figures().shed, 1U);
  EXPECT_EQ(server.figures().open, 2U);
  house.run(server.stop());
  EXPECT_EQ(server.connections(), 0U);
}

TEST_F(FrontTest, SendsTheRestToAClientThatTakesItLate) {
  const std::string large(Answers::most_body_bytes, 'l');
  blob = house.play_blob("app", large);
  const std::string target = "/v2/app/blobs/" + blob.to_string();
  keep(target);
  const std::string text = whole(target);
  auto socket = connect();
  std::string asked;
  constexpr std::size_t requests = 400;  // more than sockets hold
  for (std::size_t i = 0; i < requests; ++i) asked += text_of("GET", target);
  bool written = false;
  asio::async_write(socket, asio::buffer(asked),
                    [&](boost::system::error_code, std::size_t) { written = true; });
  house.run_until_true([&] { return written; });
  for (std::size_t i = 0; i < requests; ++i) ASSERT_EQ(read(socket, text.size()), text) << i;
  EXPECT_EQ(served_at_front(), requests);
  // Each is counted with its time, also those that had to wait for the client.
  const RequestMeter& meter = house.proxy.meter();
  const auto hits = meter.registries().at("r.example").count(RequestKind::blob, RequestResult::hit);
  EXPECT_GE(hits, requests);
  house.run_until_true(
      [&] { return meter.latency(RequestKind::blob, RequestResult::hit).count() == hits; });
}

}  // namespace
}  // namespace staithe::proxy
