#include "proxy/plain_request.h"

#include <gtest/gtest.h>

#include <string>

#include "proxy/request_head.h"

namespace staithe::proxy {
namespace {

Plain verdict_on(const std::string& text) {
  PlainRequest request;
  return parse_plain(text, request);
}

std::string many_fields() {
  std::string fields;
  for (std::size_t i = 0; i < most_fields; ++i) fields += "X: a\r\n";
  return fields;
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
  const std::string head = "HEAD / HTTP/1.1\r\nhost:   h\r\n\r\n";
  ASSERT_EQ(parse_plain(head, request), Plain::yes);
  EXPECT_TRUE(request.head);
  EXPECT_EQ(request.target, "/");
  EXPECT_EQ(request.host, "h");
}

TEST(PlainRequest, IsBegunByEachOfItsBeginnings) {
  for (std::size_t size = 0; size < usual.size(); ++size)
    EXPECT_EQ(verdict_on(usual.substr(0, size)), Plain::begun) << size;
}

TEST(PlainRequest, IsOneWithAllThatClientsUsuallySay) {
  EXPECT_EQ(
      verdict_on("GET /v2/app/blobs/sha256:abc?ns=localhost%3A5000 HTTP/1.1\r\n"
                 "Host: [::1]:5050\r\nUser-Agent: Go-http-client/1.1\r\n"
                 "Accept-Encoding: gzip\r\n"
                 "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\r\n"),
      Plain::yes);
}

TEST(PlainRequest, IsNoneThatNeedsThought) {
  const std::string line = "GET /v2/ HTTP/1.1\r\n";
  const std::string host = "Host: localhost\r\n";
  for (const std::string& text : {
           "POST /v2/ HTTP/1.1\r\n" + host + "\r\n",
           line + host + "Authorization: Basic eDp5\r\n\r\n",
           line + host + "authorization: Bearer x\r\n\r\n",
           "GET  /v2/ HTTP/1.1\r\n" + host + "\r\n",
           "get /v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET v2 HTTP/1.1\r\n" + host + "\r\n",
           "GET http://localhost/v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/ HTTP/1.0\r\n" + host + "\r\n",
           "GET /v2/ HTTP/1.1\n" + host + "\r\n",
           "\r\n" + line + host + "\r\n",
           "GET /v2/\x80 HTTP/1.1\r\n" + host + "\r\n",
           "GET //v2/ HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/../x HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/%2e%2e/x HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/%zz HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/#x HTTP/1.1\r\n" + host + "\r\n",
           "GET /v2/| HTTP/1.1\r\n" + host + "\r\n",
           line + "\r\n",
           line + host + host + "\r\n",
           line + "Host: a b\r\n\r\n",
           line + "Host: a \r\n\r\n",
           line + "Host: localhost:\r\n\r\n",
           line + host + "Content_Length: 5\r\n\r\n",
           line + host + "Connection: keep-alive\r\nConnection: keep-alive\r\n\r\n",
           line + host + "Authorization: a\r\nAuthorization: b\r\n\r\n",
           line + host + "Referer: http://localhost/\r\n\r\n",
           line + host + many_fields() + "\r\n",
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

}  // namespace
}  // namespace staithe::proxy
