#include "proxy/plain_request.h"

#include <gtest/gtest.h>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <random>
#include <string>

namespace staithe::proxy {
namespace {

namespace http = boost::beast::http;

Plain verdict_on(const std::string& text) {
  PlainRequest request;
  return parse_plain(text, request);
}

const std::string usual =
    "GET /v2/app/manifests/sha256:abc?ns=r.example HTTP/1.1\r\nHost: localhost:5050\r\n"
    "User-Agent: containerd/2.0\r\nAccept: a/b, */*\r\nConnection: Keep-Alive\r\n\r\n";

TEST(PlainRequest, IsReadWithWhatMatters) {
  PlainRequest request;
  const std::string two = usual + "GET /next";
  ASSERT_EQ(parse_plain(two, request), Plain::yes);
  EXPECT_FALSE(request.head);
  EXPECT_EQ(request.target, "/v2/app/manifests/sha256:abc?ns=r.example");
  EXPECT_EQ(request.host, "localhost:5050");
  EXPECT_EQ(request.size, usual.size());
  const std::string head = "HEAD / HTTP/1.1\r\nhost:h  \r\n\r\n";
  ASSERT_EQ(parse_plain(head, request), Plain::yes);
  EXPECT_TRUE(request.head);
  EXPECT_EQ(request.target, "/");
  EXPECT_EQ(request.host, "h");
}

TEST(PlainRequest, IsBegunByEachOfItsBeginnings) {
  for (std::size_t size = 0; size < usual.size(); ++size)
    EXPECT_EQ(verdict_on(usual.substr(0, size)), Plain::begun) << size;
}

TEST(PlainRequest, IsNoneThatNeedsThought) {
  const std::string line = "GET /v2/ HTTP/1.1\r\n";
  const std::string host = "Host: localhost\r\n";
  for (const std::string& text : {
           "POST /v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET  /v2/ HTTP/1.1\r\n" + host + "\r\n",
           "get /v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET v2 HTTP/1.1\r\n" + host + "\r\n",
           "GET http://localhost/v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/ HTTP/1.0\r\n" + host + "\r\n",
           "GET /v2/ HTTP/1.1\n" + host + "\r\n",
           "\r\n" + line + host + "\r\n",
           "GET /v2/\x80 HTTP/1.1\r\n" + host + "\r\n",
           line + "\r\n",
           line + host + host + "\r\n",
           line + "Host:\r\n\r\n",
           line + "Host: \r\n" + host + "\r\n",
           line + "Host : localhost\r\n\r\n",
           line + host + " folded\r\n\r\n",
           line + host + ": nameless\r\n\r\n",
           line + host + "X: a\tb\r\n\r\n",
           line + host + "X: a\nb\r\n\r\n",
           line + host + "X: \xc3\xa4\r\n\r\n",
           line + host + "Range: bytes=0-1\r\n\r\n",
           line + host + "if-none-match: *\r\n\r\n",
           line + host + "If-Range: x\r\n\r\n",
           line + host + "Content-Length: 0\r\n\r\n",
           line + host + "Transfer-Encoding: chunked\r\n\r\n",
           line + host + "Connection: close\r\n\r\n",
           line + host + "Connection: keep-alive, upgrade\r\n\r\n",
           line + host + "Proxy-Connection: close\r\n\r\n",
           line + host + "Expect: 100-continue\r\n\r\n",
           line + host + "Upgrade: h2c\r\n\r\n",
           line + host + "Sec-Fetch-Site: cross-site\r\n\r\n",
           line + host + "Origin: http://a.example\r\n\r\n",
           line + host + "X: " + std::string(most_plain_bytes, 'a') + "\r\n\r\n",
           "GET /" + std::string(most_plain_bytes, 'a'),
           std::string("\x16\x03\x01\x02"),
       }) {
    EXPECT_EQ(verdict_on(text), Plain::no) << text;
  }
}

// Beast, as proxy/connection.cc uses it, accepts what this accepts, and reads the same.
TEST(PlainRequest, IsReadAsBeastReadsIt) {
  std::mt19937 random(11);
  const auto roll = [&](std::size_t sides) { return static_cast<std::size_t>(random() % sides); };
  const std::vector<std::string> parts = {"GET ",
                                          "HEAD ",
                                          "/v2/",
                                          "/",
                                          " ",
                                          " HTTP/1.1",
                                          "\r\n",
                                          "\n",
                                          "\r",
                                          "Host: a\r\n",
                                          "Host:",
                                          "host: b:1\r\n",
                                          "Connection: keep-alive\r\n",
                                          "Connection: close\r\n",
                                          "X-A: b\r\n",
                                          "X-A:\r\n",
                                          "Range: bytes=1-\r\n",
                                          "Content-Length: 3\r\n",
                                          "Accept: */*\r\n",
                                          "\t",
                                          ":",
                                          "%41",
                                          "?ns=x",
                                          "\x80",
                                          std::string(1, '\0'),
                                          "Transfer-Encoding: x\r\n",
                                          "Sec-X: 1\r\n"};
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text = usual;
    if (roll(2)) text = "HEAD /v2/x HTTP/1.1\r\nHost: h\r\nX-Y: z\r\n\r\n";
    for (std::size_t changes = roll(4); changes > 0; --changes) {
      const std::size_t at = roll(text.size() + 1);
      switch (roll(3)) {
        case 0:
          text.insert(at, parts[roll(parts.size())]);
          break;
        case 1:
          text.erase(at, roll(12));
          break;
        default:
          if (at < text.size()) text[at] = static_cast<char>(roll(256));
          break;
      }
    }
    PlainRequest request;
    if (parse_plain(text, request) != Plain::yes) continue;
    ++accepted;
    http::request_parser<http::empty_body> parser;
    parser.header_limit(32 * 1024);
    parser.body_limit(boost::none);
    boost::beast::error_code error;
    const std::size_t used = parser.put(boost::asio::buffer(text), error);
    ASSERT_TRUE(parser.is_header_done()) << text << error.message();
    const auto& message = parser.get();
    ASSERT_EQ(used, request.size) << text;
    ASSERT_EQ(message.method(), request.head ? http::verb::head : http::verb::get) << text;
    ASSERT_EQ(message.target(), request.target) << text;
    ASSERT_EQ(message.version(), 11U) << text;
    ASSERT_EQ(message.count(http::field::host), 1U) << text;
    ASSERT_EQ(message[http::field::host], request.host) << text;
    ASSERT_TRUE(message.keep_alive()) << text;
    for (const auto field : {http::field::range, http::field::if_range, http::field::if_none_match,
                             http::field::content_length, http::field::transfer_encoding,
                             http::field::expect, http::field::upgrade, http::field::origin})
      ASSERT_EQ(message.count(field), 0U) << text;
    ASSERT_FALSE(parser.content_length()) << text;
  }
  EXPECT_GT(accepted, 10'000);
}

}  // namespace
}  // namespace staithe::proxy
