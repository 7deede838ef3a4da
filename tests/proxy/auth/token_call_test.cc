#include "proxy/auth/token_call.h"

#include <gtest/gtest.h>

#include <string>

#include "proxy/auth/source.h"
#include "proxy/auth/token_server.h"
#include "tests/proxy/auth/make_jwt.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

Answer answer(int status, std::string_view body, std::vector<Headers::Field> headers = {}) {
  Answer made;
  made.status = status;
  made.body = Secret(body);
  for (auto& [name, value] : headers) made.headers.add(name, value);
  return made;
}

HttpRequest request(std::string_view url) {
  HttpRequest made;
  made.url = Url::parse(url).value();
  return made;
}

TEST(Form, EncodesNamesAndValues) {
  Form form;
  form.add("grant_type", "refresh_token").add("scope", "repository:a/b:pull").add("x", "&= +");
  EXPECT_EQ(form.text(), "grant_type=refresh_token&scope=repository%3Aa%2Fb%3Apull&x=%26%3D%20%2B");
}

TEST(Describe, ShowsWhatTheServerSaysInEachOfItsShapes) {
  const struct {
    Answer answer;
    std::string_view expected;
  } table[] = {
      {answer(401, R"({"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]})"),
       "401 UNAUTHORIZED: authentication required"},
      {answer(400, R"({"error":"invalid_request","error_description":"Identity not found"})"),
       "400 invalid_request: Identity not found"},
      {answer(403, R"({"details":"no access"})"), "403 no access"},
      {answer(429, "Too many requests. Ref A: 12 Ref B: 34"),
       "429 Too many requests. Ref A: 12 Ref B: 34"},
      {answer(502, "<html><body>bad gateway</body></html>"), "502"},
      {answer(500, ""), "500"},
      {answer(500, "{\"broken"), "500"},
      {answer(400, R"({"errors":[7]})"), "400"},
      {answer(400, R"({"errors":[]})"), "400"},
      {answer(400, R"({"error":{"code":1}})"), "400"},
      {answer(302, "moved", {{"Location", "https://evil.example/?token=x"}}),
       "302 a redirect, which is not followed with credentials"},
      {answer(401, "", {{"X-Ms-Correlation-Request-Id", "0b4c9a52-0000-4000-8000-2d7cd011db47"}}),
       "401; correlation id 0b4c9a52-0000-4000-8000-2d7cd011db47"},
      {answer(400, "{\"error\":\"a\\nb\\u001b[2J\"}"), "400 a\\nb\\x1b[2J"},
  };
  for (const auto& row : table) EXPECT_EQ(describe(row.answer), row.expected);
}

TEST(Describe, ShowsNoSecretThatTheServerEchoes) {
  const std::string token = make_jwt(R"({"exp":1,"secret":"SECRET"})");
  const std::string password = "s3cr3t";
  for (const std::string& body :
       {R"({"error":"bad token )" + token + R"("})",
        R"({"errors":[{"code":")" + token + R"(","message":"x)" + token + R"("}]})",
        "plain " + token + " text", "plain access_token=" + token + "&x", token,
        R"({"error":"user:)" + password + R"( is wrong"})", "password=" + password}) {
    const std::string shown = describe(answer(400, body, {{"X-Ms-Correlation-Request-Id", token}}),
                                       {password, std::string_view()});
    EXPECT_FALSE(shown.contains(token.substr(0, 40))) << shown;
    EXPECT_FALSE(shown.contains(token.substr(30, 40))) << shown;
    EXPECT_FALSE(shown.contains(password)) << shown;
    EXPECT_TRUE(shown.contains("[hidden]")) << shown;
  }
  EXPECT_LT(describe(answer(400, std::string(60'000, '!'))).size(), 320U);
}

TEST(Describe, ShowsNoPieceOfASecret) {
  const std::string secret = "abc8Q~defgh-ijklm.nopqr";
  for (std::size_t from = 0; from < secret.size(); ++from) {
    for (std::size_t size = 8; from + size <= secret.size(); ++size) {
      const std::string piece = secret.substr(from, size);
      const std::string body = "no: '" + piece + "' and " + piece + piece + " are wrong";
      EXPECT_EQ(describe(answer(401, body), {secret}), "401 no: '[hidden]' and [hidden] are wrong");
    }
  }
  EXPECT_EQ(describe(answer(401, "abc8Q~d is short"), {secret}), "401 abc8Q~d is short");
  // Beyond what is looked through, nothing is shown, and what was cut in two is not shown either.
  const std::string long_token(1500, 'x');
  EXPECT_EQ(describe(answer(401, long_token), {secret}), "401");
  EXPECT_EQ(describe(answer(401, "a " + std::string(1000, 'x') + " " + secret), {secret}),
            "401 a [hidden] ");
}

TEST(Classify, GoesByTheStatusAlone) {
  const std::pair<int, Errc> table[] = {
      {401, Errc::unauthorized},      {403, Errc::denied},           {404, Errc::upstream_nonsense},
      {429, Errc::throttled},         {400, Errc::unauthorized},     {410, Errc::unauthorized},
      {500, Errc::upstream_failed},   {503, Errc::upstream_failed},  {302, Errc::upstream_nonsense},
      {204, Errc::upstream_nonsense}, {307, Errc::upstream_nonsense}};
  for (const auto& [status, code] : table) EXPECT_EQ(classify(status), code) << status;
}

TEST(ThrowRefused, NamesTheStepTheCauseAndTheRemedy) {
  try {
    throw_refused(answer(429, "slow", {{"Retry-After", "17"}}), "asking", "Wait");
    FAIL();
  } catch (const Postponed& postponed) {
    EXPECT_EQ(postponed.error().code, Errc::throttled);
    EXPECT_EQ(postponed.error().detail, "asking: 429 slow. Wait");
    EXPECT_EQ(postponed.retry_after(), 17s);
  }
  try {
    throw_refused(answer(401, "", {{"Retry-After", "17"}}), "asking", "");
    FAIL();
  } catch (const Postponed&) {
    FAIL() << "only throttling names a time";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().detail, "asking: 401");
  }
}

TEST(Answer, ReadsRetryAfterInSeconds) {
  const auto after = [](std::string_view value) {
    return answer(429, "", {{"Retry-After", std::string(value)}}).retry_after();
  };
  EXPECT_EQ(after("0"), 0s);
  EXPECT_EQ(after("120"), 120s);
  EXPECT_EQ(after("99999999"), 24h);
  for (const auto* bad :
       {"", "-1", "1.5", "soon", "1 ", "Sun, 06 Nov 1994 08:49:37 GMT", "99999999999999999999"}) {
    EXPECT_FALSE(after(bad)) << bad;
  }
}

TEST(TokenText, IsVisibleAscii) {
  EXPECT_TRUE(is_token_text("abc.DEF-_~+/="));
  for (const std::string& text :
       {std::string(), std::string("a b"), std::string("a\r\nX: y"), std::string("a\x80"),
        std::string("a\0b", 3), std::string("\x7f"), std::string(max_token_bytes + 1, 'a')}) {
    EXPECT_FALSE(is_token_text(text));
  }
}

TEST(Ask, ReadsTheAnswerWithinItsLimit) {
  World world;
  world.http.on("https://h",
                [](const Asked&) { return Reply{.body = std::string(max_answer_bytes, 'a')}; });
  const auto most = world.now(ask(world.environment(), request("https://h/t"), "asking h"));
  EXPECT_EQ(most->body.size_bytes(), max_answer_bytes);
  world.http.on("https://h",
                [](const Asked&) { return Reply{.body = std::string(max_answer_bytes + 1, 'a')}; });
  const auto more = world.now(ask(world.environment(), request("https://h/t"), "asking h"));
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, Errc::upstream_nonsense);
  EXPECT_EQ(more.error().detail, "asking h: the answer is longer than 64 KiB");
}

TEST(Ask, GivesUpOnAServerThatDrips) {
  World world;
  world.http.on("https://h", [](const Asked&) {
    Reply reply{.body = std::string(1000, 'a'), .piece_delay = 10s};
    reply.piece_bytes = 1;
    return reply;
  });
  const auto call = world.call(ask(world.environment(), request("https://h/t"), "asking h"));
  world.clock.advance(71s);
  EXPECT_EQ(call->error().code, Errc::unreachable);
}

TEST(Ask, SaysWhichStepFailed) {
  World world;
  const auto nobody =
      world.now(ask(world.environment(), request("https://h/t?q=SECRET"), "asking h"));
  EXPECT_EQ(nobody.error().code, Errc::unreachable);
  EXPECT_EQ(nobody.error().detail, "asking h: nobody plays https://h/t");
}

TEST(TokenServer, TriesWhatIsOverInAMomentOnceMore) {
  for (const Reply& failure : {Reply{.status = 503}, Reply{.status = 500, .body = "x"},
                               Reply::failure(Errc::upstream_failed, "the connection broke off")}) {
    World world;
    world.http.on("https://h", {failure, Reply{.body = "fine"}});
    TokenServer server(world.environment(), "/etc/ca.pem");
    Form form;
    form.add("a", "b");
    const auto call = world.call(server.post(request("https://h/t"), std::move(form), "asking h"));
    EXPECT_FALSE(call->done());
    world.clock.advance(1s);
    EXPECT_EQ(call->value().status, 200);
    ASSERT_EQ(world.http.asked().size(), 2U);
    for (const Asked& asked : world.http.asked()) {
      EXPECT_EQ(asked.body, "a=b");
      EXPECT_EQ(asked.ca_file, "/etc/ca.pem");
      EXPECT_EQ(asked.headers.get("content-type"), "application/x-www-form-urlencoded");
    }
  }
}

TEST(TokenServer, DoesNotTryTwiceWhatWillNotHelp) {
  for (const Reply& failure : {Reply{.status = 401}, Reply{.status = 404}, Reply{.status = 302},
                               Reply{.status = 503, .headers = {{"Retry-After", "9"}}},
                               Reply::failure(Errc::unreachable, "no route")}) {
    World world;
    world.http.on("https://h", {failure});
    TokenServer server(world.environment(), "");
    const auto call = world.call(server.get(request("https://h/t"), "asking h"));
    EXPECT_TRUE(call->done());
    EXPECT_EQ(world.http.asked().size(), 1U);
  }
}

TEST(TokenServer, APauseAfter429HoldsForAllItsCalls) {
  World world;
  world.http.on("https://h", {Reply{.status = 429, .headers = {{"Retry-After", "60"}}}, Reply{}});
  TokenServer server(world.environment(), "");
  EXPECT_EQ(world.now(server.get(request("https://h/t"), "one")).value().status, 429);
  const auto paused = world.now(server.get(request("https://h/t"), "two"));
  EXPECT_EQ(paused.error().code, Errc::throttled);
  EXPECT_TRUE(paused.error().detail.starts_with("two: not asked again for "))
      << paused.error().detail;
  world.clock.advance(60s);
  world.clock.advance(12s);
  EXPECT_EQ(world.now(server.get(request("https://h/t"), "three")).value().status, 200);
  EXPECT_EQ(world.http.asked().size(), 2U);
}

}  // namespace
}  // namespace staithe::proxy::auth
