#include "proxy/request_head.h"

#include <gtest/gtest.h>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <random>
#include <string>
#include <vector>

#include "proxy/plain_request.h"

namespace staithe::proxy {
namespace {

namespace http = boost::beast::http;

const std::string line = "GET /v2/ HTTP/1.1\r\n";
const std::string host = "Host: localhost\r\n";

HeadReading reading_of(const std::string& text, const HeadLimits& limits = {}) {
  return read_request_head(text, limits);
}
int status_of(const std::string& text, const HeadLimits& limits = {}) {
  const HeadReading reading = reading_of(text, limits);
  return reading.verdict == HeadVerdict::refused ? reading.refusal.status : 0;
}

TEST(RequestHead, IsReadWithWhatDecides) {
  const std::string text =
      "HEAD /v2/app/manifests/1?ns=r.example HTTP/1.1\r\nhOsT:   localhost:5050\r\n"
      "Accept: a/b\r\nAccept: c/d\r\nX-Empty:\r\nX-Name: \xc3\xa4\r\n\r\nGET / HTTP";
  const HeadReading reading = reading_of(text);
  ASSERT_EQ(reading.verdict, HeadVerdict::whole);
  EXPECT_EQ(reading.head.method, "HEAD");
  EXPECT_EQ(reading.head.target, "/v2/app/manifests/1?ns=r.example");
  EXPECT_EQ(reading.head.host, "localhost:5050");
  EXPECT_FALSE(reading.head.http_1_0);
  EXPECT_TRUE(reading.head.keep_alive);
  EXPECT_EQ(reading.head.content_length, 0U);
  EXPECT_EQ(reading.head.size, text.size() - std::string("GET / HTTP").size());
}

TEST(RequestHead, SaysWhetherAnotherOneMayFollow) {
  const auto keeps = [](const std::string& fields, const std::string& version = "1.1") {
    const HeadReading reading =
        reading_of("GET /v2/ HTTP/" + version + "\r\n" + host + fields + "\r\n");
    EXPECT_EQ(reading.verdict, HeadVerdict::whole) << fields;
    return reading.head.keep_alive;
  };
  EXPECT_TRUE(keeps(""));
  EXPECT_TRUE(keeps("Connection: Keep-Alive\r\n"));
  EXPECT_FALSE(keeps("", "1.0"));
  EXPECT_FALSE(keeps("Connection: keep-alive\r\n", "1.0"));
  // With any doubt about it none does.
  for (const char* fields :
       {"Connection: close\r\n", "Connection: keep-alive, close\r\n", "Connection: closed\r\n",
        "Connection: ,\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Upgrade: websocket\r\n",
        "Proxy-Connection: keep-alive\r\n", "Connection: keep-alive, x-disclose\r\n"}) {
    EXPECT_FALSE(keeps(fields)) << fields;
    EXPECT_FALSE(keeps(fields, "1.0")) << fields;
  }
}

TEST(RequestHead, WithAnyDoubtIsNone) {
  for (const std::string& text : {
           // Lines and characters.
           std::string("\r\n") + line + host + "\r\n",
           std::string("\n"),
           std::string(" ") + line + host + "\r\n",
           std::string("GET /v2/ HTTP/1.1\nHost: localhost\n\n"),
           line + "Host: localhost\n\r\n",
           line + host + "X: a\nb: c\r\n\r\n",
           line + host + "X: a\rb\r\n\r\n",
           line + host + "X: a\r\r\n\r\n",
           line + host + "X: a" + std::string(1, '\0') + "b\r\n\r\n",
           line + host + "X: a\x01\r\n\r\n",
           line + host + "X: a\x7f\r\n\r\n",
           line + host + "X: a\r\n folded\r\n\r\n",
           line + host + "X: a\r\n\tfolded\r\n\r\n",
           line + " " + host + "\r\n",
           // The request line.
           std::string("hello\r\n"),
           std::string("GET\r\n"),
           std::string("GET /v2/\r\n"),
           std::string("GET  HTTP/1.1\r\n"),
           std::string("GET  /v2/ HTTP/1.1\r\n"),
           std::string("GET /v2/  HTTP/1.1\r\n"),
           std::string("GET\t/v2/ HTTP/1.1\r\n"),
           std::string("GET /v2/\tHTTP/1.1\r\n"),
           std::string("GET /v2/ HTTP/1.1 \r\n"),
           std::string("GET /v2/ HTTP/1.1 x\r\n"),
           std::string("GET /v2/ /x HTTP/1.1\r\n"),
           std::string("G(T /v2/ HTTP/1.1\r\n"),
           std::string(" /v2/ HTTP/1.1\r\n"),
           std::string("GET /v2/ HTTP/0.9\r\n"),
           std::string("GET /v2/ HTTP/1.2\r\n"),
           std::string("GET /v2/ HTTP/2.0\r\n"),
           std::string("GET /v2/ HTTP/1.10\r\n"),
           std::string("GET /v2/ HTTP/01.1\r\n"),
           std::string("GET /v2/ HTTP/1\r\n"),
           std::string("GET /v2/ http/1.1\r\n"),
           std::string("GET /v2/ ICAP/1.1\r\n"),
           std::string("PRI * HTTP/2.0\r\n"),
           // The target.
           std::string("GET v2/ HTTP/1.1\r\n"),
           std::string("GET * HTTP/1.1\r\n"),
           std::string("OPTIONS * HTTP/1.1\r\n"),
           std::string("GET localhost:5050 HTTP/1.1\r\n"),
           std::string("GET http://localhost/v2/ HTTP/1.1\r\n"),
           std::string("GET //localhost/v2/ HTTP/1.1\r\n"),
           std::string("GET /v2/\x80 HTTP/1.1\r\n"),
           std::string("GET /v2/#a HTTP/1.1\r\n"),
           std::string("GET /v2/%zz HTTP/1.1\r\n"),
           std::string("GET /v2/%00 HTTP/1.1\r\n"),
           std::string("GET /v2/../v2/ HTTP/1.1\r\n"),
           std::string("GET /v2/%2e%2E/ HTTP/1.1\r\n"),
           std::string("GET /v2\\app HTTP/1.1\r\n"),
           // Host.
           line + "\r\n",
           std::string("GET /v2/ HTTP/1.0\r\n\r\n"),
           line + host + host + "\r\n",
           line + host + "host: localhost\r\n\r\n",
           line + "Host:\r\n\r\n",
           line + "Host: a b\r\n\r\n",
           line + "Host: localhost, a\r\n\r\n",
           line + "Host: a@localhost\r\n\r\n",
           line + "Host: http://localhost\r\n\r\n",
           line + "Host : localhost\r\n\r\n",
           // Fields.
           line + host + ": nameless\r\n\r\n",
           line + host + "no colon\r\n\r\n",
           line + host + "X : a\r\n\r\n",
           line + host + "X\t: a\r\n\r\n",
           line + host + "X(: a\r\n\r\n",
           line + host + "\x80: a\r\n\r\n",
           // Framing.
           line + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           line + host + "Transfer-Encoding: identity\r\n\r\n",
           line + host + "Transfer-Encoding:\r\n\r\n",
           line + host + "transfer-encoding: xchunked\r\nContent-Length: 0\r\n\r\n",
           line + host + "Transfer_Encoding: chunked\r\n\r\n",
           line + host + "Content_Length: 5\r\n\r\nhello",
           line + host + "Transfer-Encodings: chunked\r\n\r\n",
           line + "Host: localhost\t\r\n\r\n",
           line + "Host: localhost \r\n\r\n",
           line + host + "Trailer: X\r\n\r\n",
           line + host + "Content-Length: 5\r\n\r\nhello",
           line + host + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
           line + host + "Content-Length: 0, 0\r\n\r\n",
           line + host + "Content-Length: +0\r\n\r\n",
           line + host + "Content-Length: -0\r\n\r\n",
           line + host + "Content-Length: 00\r\n\r\n",
           line + host + "Content-Length: 0x0\r\n\r\n",
           line + host + "Content-Length: 0 0\r\n\r\n",
           line + host + "Content-Length: 0;a\r\n\r\n",
           line + host + "Content-Length: 0.0\r\n\r\n",
           line + host + "Content-Length:\r\n\r\n",
           line + host + "Connection: close\r\nConnection: close\r\n\r\n",
           line + host + "Connection: clo se\r\n\r\n",
           line + host + "Connection: \"close\"\r\n\r\n",
           line + host + "Range: bytes=0-1\r\nRange: bytes=1-2\r\n\r\n",
           line + host + "Origin: http://localhost\r\nOrigin: null\r\n\r\n",
           line + host + "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n",
       }) {
    EXPECT_EQ(status_of(text), 400) << text;
    EXPECT_FALSE(reading_of(text).refusal.message.empty()) << text;
  }
}

TEST(RequestHead, IsRefusedWithTheStatusThatSaysWhy) {
  const std::string post = "POST /v2/ HTTP/1.1\r\n" + host;
  EXPECT_EQ(status_of("FOO /v2/ HTTP/1.1\r\n"), 405);
  EXPECT_EQ(status_of("get /v2/ HTTP/1.1\r\n"), 405);
  EXPECT_EQ(status_of("CONNECT localhost:5050 HTTP/1.1\r\n"), 405);
  EXPECT_EQ(status_of("TRACE /v2/ HTTP/1.1\r\n"), 405);
  EXPECT_EQ(status_of(post + "Content-Length: 5\r\n\r\n"), 405);
  EXPECT_EQ(status_of(post + "Content-Length: 0\r\n\r\n"), 0);
  EXPECT_EQ(status_of(line + host + "Expect: 100-continue\r\n\r\n"), 0);
  EXPECT_EQ(status_of(line + host + "Expect: 200-ok\r\n\r\n"), 417);
  const HeadLimits body{.head_bytes = 1000, .body_bytes = 100};
  EXPECT_EQ(status_of(post + "Content-Length: 100\r\n\r\n", body), 0);
  EXPECT_EQ(status_of(post + "Content-Length: 101\r\n\r\n", body), 413);
  EXPECT_EQ(status_of(post + "Content-Length: 18446744073709551617\r\n\r\n", body), 413);
  EXPECT_EQ(status_of(line + host + "Content-Length: 1\r\n\r\n", body), 400);
}

TEST(RequestHead, IsRefusedWithTheByteThatIsOneTooMany) {
  const std::string start = line + host + "X: ";
  const HeadLimits limits{.head_bytes = 1000};
  const std::string fits = start + std::string(1000 - start.size() - 4, 'a') + "\r\n\r\n";
  ASSERT_EQ(fits.size(), 1000U);
  EXPECT_EQ(reading_of(fits, limits).verdict, HeadVerdict::whole);
  EXPECT_EQ(reading_of(start + std::string(1000 - start.size(), 'a'), limits).verdict,
            HeadVerdict::more);
  EXPECT_EQ(status_of(start + std::string(1001 - start.size(), 'a'), limits), 431);

  const std::string target = "/" + std::string(most_target_bytes - 1, 'a');
  EXPECT_EQ(status_of("GET " + target + " HTTP/1.1\r\n" + host + "\r\n"), 0);
  EXPECT_EQ(status_of("GET " + target + "a HTTP/1.1\r\n"), 414);
  EXPECT_EQ(status_of("GET /" + std::string(most_target_bytes + 100, 'a')), 414);

  std::string fields;
  for (std::size_t i = 1; i < most_fields; ++i) fields += "X: a\r\n";
  EXPECT_EQ(status_of(line + host + fields + "\r\n"), 0);
  EXPECT_EQ(status_of(line + host + fields + "X: a\r\n"), 431);
}

TEST(RequestHead, IsRefusedAsSoonAsItIsWrong) {
  EXPECT_EQ(status_of("\n"), 400);
  EXPECT_EQ(status_of(std::string(1, '\0')), 400);
  EXPECT_EQ(status_of("GET /\x01"), 400);
  EXPECT_EQ(status_of("GET v2 HTTP/1.1\r\n"), 400);
  EXPECT_EQ(status_of(line + "Transfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(reading_of("").verdict, HeadVerdict::more);
  EXPECT_EQ(reading_of("GET /v2/ HTTP/1.").verdict, HeadVerdict::more);
}

TEST(Target, HasOneSpelling) {
  for (const char* target :
       {"/", "/v2/", "/v2/app/manifests/1?ns=r.example%3A5000", "/v2/a/tags/list?n=1&last=%C3%A4",
        "/v2/.hidden/x", "/v2/a..b/", "/v2/.../", "/x?a=/../b", "/v2//x", "/~!$&'()*+,;=:@-._"})
    EXPECT_TRUE(is_target(target)) << target;
  for (const char* target :
       {"",      "v2",    "*",     "//",      "//a",  "http://a/", "/.",      "/..",
        "/./a",  "/a/.",  "/a/..", "/a/../b", "/%2e", "/.%2E/a",   "/a/%2e.", "/a/..?b",
        "/%",    "/%2",   "/%2g",  "/%0a",    "/%1F", "/%7f",      "/a#b",    "/a b",
        "/a\tb", "/\x7f", "/\x80", "/a\"b",   "/<",   "/>",        "/\\",     "/^",
        "/`",    "/{",    "/|",    "/}",      "/[",   "/]",        "/a?%zz"})
    EXPECT_FALSE(is_target(target)) << target;
}

TEST(HostField, IsANameAndPerhapsAPort) {
  for (const char* text : {"localhost", "LOCALHOST:5050", "127.0.0.1:1", "a-b.c_d.example.:65535",
                           "[::1]", "[::1]:5050", "[::ffff:127.0.0.1]:80", "staithe"})
    EXPECT_TRUE(is_host(text)) << text;
  for (const char* text : {"",        ":",     ":80",  "a:",       "a:0",    "a:01",
                           "a:65536", "a:+1",  "a: 1", "a:1:2",    "a:1a",   ".a",
                           "a..b",    "a b",   "a,b",  "a/b",      "a@b",    "a#b",
                           "a?b",     "a\\b",  "a%62", "\xc3\xa4", "::1",    "[::1",
                           "::1]",    "[]",    "[a]",  "[::1]a",   "[::1]:", "[fe80::1%eth0]",
                           "[v1.x]",  "a[::1]"})
    EXPECT_FALSE(is_host(text)) << text;
}

// ---- properties --------------------------------------------------------------------------------

// Messages near to good ones: some are, most are wrong in one place or two.
class Messages {
 public:
  explicit Messages(unsigned seed) : random_(seed) {}

  std::string next() {
    std::string text = bases_[roll(bases_.size())];
    for (std::size_t changes = roll(4); changes > 0; --changes) change(text);
    return text;
  }
  std::size_t roll(std::size_t sides) { return static_cast<std::size_t>(random_() % sides); }

 private:
  void change(std::string& text) {
    const std::size_t at = roll(text.size() + 1);
    // Most changes stand where a line begins or ends, which is where they matter.
    const std::size_t end_of_line = text.find("\r\n", at);
    switch (roll(5)) {
      case 0:
        text.insert(at, parts_[roll(parts_.size())]);
        break;
      case 1:
      case 2:
        if (end_of_line != std::string::npos)
          text.insert(end_of_line + 2, parts_[roll(parts_.size())]);
        break;
      case 3:
        text.erase(at, roll(12));
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(roll(256));
        break;
    }
  }

  std::mt19937 random_;
  const std::vector<std::string> bases_ = {
      "GET /v2/app/manifests/sha256:abc?ns=r.example HTTP/1.1\r\nHost: localhost:5050\r\n"
      "User-Agent: containerd/2.0\r\nAccept: a/b, */*\r\nConnection: Keep-Alive\r\n\r\n",
      "HEAD /v2/x%3A HTTP/1.1\r\nHost: h\r\nX-Y: z\r\n\r\n",
      "GET /v2/ HTTP/1.0\r\nHost: [::1]:80\r\n\r\n",
      "POST /v2/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
      "OPTIONS /v2/ HTTP/1.1\r\nHost: h\r\nAccept:\r\n\r\n",
  };
  const std::vector<std::string> parts_ = {
      "GET ",
      "HEAD ",
      "/v2/",
      "/",
      "/../",
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
      "Authorization: Bearer x\r\n",
      "traceparent: x\r\n",
      "Range: bytes=1-\r\n",
      "Content-Length: 3\r\n",
      "Content-Length: 0\r\n",
      "Content_Length: 0\r\n",
      "Accept: */*\r\n",
      "Expect: 100-continue\r\n",
      "Upgrade: h2c\r\n",
      "\t",
      ":",
      "%41",
      "%2e",
      "?ns=x",
      "\x80",
      std::string(1, '\0'),
      "Transfer-Encoding: x\r\n",
      "Transfer-Encoding: chunked\r\n",
      "Sec-X: 1\r\n",
      "Referer: x\r\n",
  };
};

void expect_same(const HeadReading& one, const HeadReading& other, const std::string& text) {
  ASSERT_EQ(one.verdict, other.verdict) << text;
  ASSERT_EQ(one.head.method, other.head.method) << text;
  ASSERT_EQ(one.head.target, other.head.target) << text;
  ASSERT_EQ(one.head.host, other.head.host) << text;
  ASSERT_EQ(one.head.keep_alive, other.head.keep_alive) << text;
  ASSERT_EQ(one.head.size, other.head.size) << text;
  ASSERT_EQ(one.head.content_length, other.head.content_length) << text;
  ASSERT_EQ(one.refusal.status, other.refusal.status) << text;
  ASSERT_EQ(one.refusal.message, other.refusal.message) << text;
}

TEST(RequestHead, IsTheSameInWhateverPiecesItArrives) {
  Messages messages(1);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = messages.next();
    HeadReader reader({});
    HeadReading pieces;
    std::string arrived;
    while (arrived.size() < text.size() && pieces.verdict == HeadVerdict::more) {
      arrived = text.substr(0, arrived.size() + 1 + messages.roll(8));
      pieces.verdict = reader.read(arrived);
    }
    if (pieces.verdict == HeadVerdict::whole) pieces.head = reader.head(arrived);
    if (pieces.verdict == HeadVerdict::refused) pieces.refusal = reader.refusal();
    expect_same(pieces, reading_of(text), text);
    if (HasFatalFailure()) return;
  }
}

TEST(RequestHead, IsJudgedWithoutWhatFollowsIt) {
  Messages messages(2);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = messages.next();
    const HeadReading reading = reading_of(text);
    if (reading.verdict != HeadVerdict::whole) continue;
    expect_same(reading, reading_of(text.substr(0, reading.head.size)), text);
    expect_same(reading, reading_of(text + messages.next()), text);
    if (HasFatalFailure()) return;
    EXPECT_EQ(reading_of(text.substr(0, reading.head.size - 1)).verdict, HeadVerdict::more);
  }
}

// What is accepted Beast accepts, as proxy/connection.cc uses it, and reads the same.
TEST(RequestHead, IsReadAsBeastReadsIt) {
  Messages messages(3);
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    const std::string text = messages.next();
    const HeadReading reading = reading_of(text);
    if (reading.verdict != HeadVerdict::whole) continue;
    ++accepted;
    http::request_parser<http::empty_body> parser;
    parser.header_limit(32 * 1024);
    parser.body_limit(boost::none);
    boost::beast::error_code error;
    const std::size_t used = parser.put(boost::asio::buffer(text.data(), reading.head.size), error);
    ASSERT_FALSE(error) << text << error.message();
    ASSERT_TRUE(parser.is_header_done()) << text;
    const auto& message = parser.get();
    ASSERT_EQ(used, reading.head.size) << text;
    ASSERT_EQ(message.method_string(), reading.head.method) << text;
    ASSERT_EQ(message.target(), reading.head.target) << text;
    ASSERT_EQ(message.version(), reading.head.http_1_0 ? 10U : 11U) << text;
    ASSERT_EQ(message.count(http::field::host), 1U) << text;
    ASSERT_EQ(message[http::field::host], reading.head.host) << text;
    ASSERT_EQ(message.count(http::field::transfer_encoding), 0U) << text;
    ASSERT_EQ(parser.content_length().value_or(0), 0U) << text;
    // Where we go on, Beast would, too.
    ASSERT_LE(reading.head.keep_alive, message.keep_alive()) << text;
  }
  EXPECT_GT(accepted, 20'000);
}

// The front's parser takes nothing that this one does not take, and reads it alike.
TEST(RequestHead, IsReadAsTheFrontReadsIt) {
  Messages messages(4);
  int taken = 0;
  for (int i = 0; i < 300'000; ++i) {
    const std::string text = messages.next();
    PlainRequest plain;
    if (parse_plain(text, plain) != Plain::yes) continue;
    ++taken;
    const HeadReading reading = reading_of(text);
    ASSERT_EQ(reading.verdict, HeadVerdict::whole) << text << reading.refusal.message;
    ASSERT_EQ(reading.head.method, plain.head ? "HEAD" : "GET") << text;
    ASSERT_EQ(reading.head.target, plain.target) << text;
    ASSERT_EQ(reading.head.host, plain.host) << text;
    ASSERT_EQ(reading.head.size, plain.size) << text;
    ASSERT_EQ(reading.head.content_length, 0U) << text;
    ASSERT_TRUE(reading.head.keep_alive) << text;
  }
  EXPECT_GT(taken, 20'000);
}

}  // namespace
}  // namespace staithe::proxy
