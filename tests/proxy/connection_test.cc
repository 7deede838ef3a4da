#include "proxy/connection.h"

#include <gtest/gtest.h>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::House;

Answer ask(House& house, const std::string& text) { return house.run(house.ask(text)); }

TEST(Connection, AnswersATlsHelloInPlainHttpAtOnce) {
  House house;
  const Answer answer = ask(house, std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
  EXPECT_EQ(answer.head.substr(0, 24), "HTTP/1.0 400 Bad Request");
  EXPECT_FALSE(answer.reset);
}

TEST(Connection, KeepsItselfForTheNextRequestAndTakesPipelinedOnes) {
  House house;
  const Answer answer = ask(
      house,
      "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
      "HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const std::string all = answer.head + "\r\n" + answer.body;
  std::size_t answers = 0;
  for (std::size_t at = 0; (at = all.find("HTTP/1.1 200 OK", at)) != std::string::npos; ++at)
    ++answers;
  EXPECT_EQ(answers, 3U);
}

TEST(Connection, SpeaksHttp10) {
  House house;
  const Answer answer = ask(house, "GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("Connection"), "close");
}

TEST(Connection, RefusesAHeadBeyondItsLimitWithoutReset) {
  House house;
  const Answer answer = ask(house, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Long: " +
                                       std::string(1024 * 1024, 'a') + "\r\n\r\n");
  EXPECT_EQ(answer.status, 431);
  EXPECT_TRUE(answer.complete);
  EXPECT_FALSE(answer.reset);
}

TEST(Connection, RefusesEveryDoubtAboutTheFraming) {
  House house;
  const std::string host = "Host: localhost\r\n";
  for (const std::string& text : {
           std::string("GET /v2/ HTTP/1.1\r\n\r\n"),
           "GET v2 HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/ HTTP/1.1\r\n" + host + host + "\r\n",
           "GET /v2/ HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "GET /v2/ HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n",
           "GET /v2/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello",
           "GET /v2/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
           "GET /v2/ HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
           std::string("GET /v2/ HTTP/3.0\r\n\r\n"),
           std::string("GET\r\n\r\n"),
           std::string("\r\n\r\n\r\n\r\nnonsense\r\n\r\n"),
       }) {
    const Answer answer = ask(house, text);
    EXPECT_EQ(answer.status, 400) << text;
    EXPECT_NE(answer.body.find("\"errors\""), std::string::npos) << text;
    EXPECT_FALSE(answer.reset) << text;
  }
}

// However much stands behind it, and whether it came at once or later.
TEST(Connection, ReadsNothingAfterWhatItRefuses) {
  House house;
  const std::string good = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (const std::string& bad : {
           std::string("GET /v2/ HTTP/1.1\r\n\r\n"),
           std::string("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 44\r\n\r\n"),
           std::string("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                       "\r\n0\r\n\r\n"),
           std::string("PUT /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 44\r\n\r\n"),
           std::string("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
           std::string("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n"),
       }) {
    const Answer answer = ask(house, good + bad + good + good);
    const std::string all = answer.head + "\r\n" + answer.body;
    std::size_t answers = 0;
    for (std::size_t at = 0; (at = all.find("HTTP/1.1 ", at)) != std::string::npos; ++at) ++answers;
    EXPECT_EQ(answers, 2U) << bad << all;
    EXPECT_FALSE(answer.reset) << bad;
  }
}

TEST(Connection, CountsWhatItRefuses) {
  House house;
  ask(house, "GET /v2/ HTTP/1.1\r\n\r\n");
  ask(house, "hello\r\n\r\n");
  ask(house, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(house.proxy.traffic().malformed, 2U);
}

TEST(Connection, IsNotOverdueWhileItsAnswerIsBeingFound) {
  House house;
  fake::Gate gate(house.io.get_executor());
  house.upstream.on("https://r.example/v2/app/tags/list",
                    [&](const fake::Asked&) { return fake::Reply{.body = "{}", .gate = &gate}; });
  asio::thread_pool disk(1);
  asio::io_context& io = house.io;
  asio::local::stream_protocol::socket client(io), served(io);
  asio::local::connect_pair(client, served);
  const ConnectionLimits limits;
  Connection connection(Socket(io, asio::generic::stream_protocol(AF_UNIX, 0), served.release()),
                        limits, house.proxy, disk);
  asio::write(client,
              asio::buffer(std::string("GET /v2/app/tags/list HTTP/1.1\r\nHost: localhost\r\n"
                                       "Connection: close\r\n\r\n")));
  bool ended = false;
  asio::co_spawn(io, connection.run(), [&](std::exception_ptr) { ended = true; });
  const auto far = std::chrono::steady_clock::now() + std::chrono::hours(1000);
  EXPECT_TRUE(connection.overdue(far));  // It has no request yet.
  house.run_until_true([&] { return gate.waiting() == 1; });
  EXPECT_FALSE(connection.overdue(far));
  gate.open();
  client.shutdown(asio::socket_base::shutdown_send);
  house.run_until_true([&] { return ended; });
  disk.join();
}

TEST(Connection, RefusesWritesWithABodyWithoutReset) {
  House house;
  const Answer answer = ask(house,
                            "PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Length: 100000\r\n\r\n" +
                                std::string(100'000, 'x'));
  EXPECT_EQ(answer.status, 405);
  EXPECT_TRUE(answer.complete);
  EXPECT_FALSE(answer.reset);
}

}  // namespace
}  // namespace staithe::proxy
