// Entra's token endpoint as the tests play it: who may have a token, by which proof, and what it
// says to everybody else.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/auth/jwt.h"
#include "tests/fake/clock.h"
#include "tests/fake/http.h"
#include "tests/proxy/auth/make_jwt.h"

namespace staithe::proxy::auth {

class FakeEntra {
 public:
  static constexpr std::string_view authority = "https://login.microsoftonline.com";

  FakeEntra(fake::FakeHttpClient& http, fake::ManualClock& clock,
            std::string origin = std::string(authority))
      : http_(http), clock_(clock) {
    http_.on(std::move(origin), [this](const fake::Asked& request) { return answer(request); });
  }

  std::string secret = "s3cr3t";  // the client_secret that is accepted; assertions all are
  // Once, before anything else.
  std::vector<fake::Reply> next;
  // Ahead of this machine's wall clock.
  std::chrono::seconds clock_ahead{0};
  bool sends_date = true;
  fake::Gate* gate = nullptr;
  std::chrono::seconds life{3599};
  int calls = 0, issued = 0;
  std::vector<fake::Asked> asked;

  std::int64_t time() const {
    return std::chrono::floor<std::chrono::seconds>(clock_.wall().time_since_epoch()).count() +
           clock_ahead.count();
  }
  static std::string oauth_error(std::string_view error, std::string_view description) {
    return R"({"error":")" + std::string(error) + R"(","error_description":")" +
           std::string(description) +
           R"(","error_codes":[1],"timestamp":"2026-01-01 00:00:00Z","trace_id":"x"})";
  }
  static fake::Reply refusal(std::string_view error, std::string_view description,
                             int status = 401) {
    return fake::Reply::json(oauth_error(error, description), status);
  }

 private:
  fake::Reply answer(const fake::Asked& request) {
    ++calls;
    asked.push_back(request);
    fake::Reply reply = plain_answer(request);
    if (sends_date) {
      const std::time_t now = time();
      char text[40];
      std::tm parts{};
      (void)std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", ::gmtime_r(&now, &parts));
      reply.headers.emplace_back("Date", text);
    }
    reply.gate = gate;
    return reply;
  }
  fake::Reply plain_answer(const fake::Asked& request) {
    if (!next.empty()) {
      fake::Reply reply = next.front();
      next.erase(next.begin());
      return reply;
    }
    if (request.field("grant_type") != "client_credentials")
      return refusal("unsupported_grant_type", "AADSTS70003", 400);
    if (request.field("client_assertion").empty() && request.field("client_secret") != secret)
      return refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.");
    ++issued;
    return fake::Reply::json(
        R"({"token_type":"Bearer","expires_in":)" + std::to_string(life.count()) +
        R"(,"ext_expires_in":3599,"access_token":")" +
        make_jwt(
            R"({"iss":"https://sts.windows.net/t/","aud":"https://containerregistry.azure.net",)"
            R"("iat":)" +
            std::to_string(time()) + R"(,"exp":)" + std::to_string(time() + life.count()) +
            R"(,"serial":)" + std::to_string(issued) + "}") +
        "\"}");
  }

  fake::FakeHttpClient& http_;
  fake::ManualClock& clock_;
};

// The time of servers that agree with this machine's wall clock.
inline std::int64_t server_time(const Clock& clock) {
  return std::chrono::floor<std::chrono::seconds>(clock.wall().time_since_epoch()).count();
}

// A token that says who has made it, for whom, and until when.
inline std::string token_by(std::string_view issuer, std::string_view audience, std::int64_t ends,
                            int serial = 0) {
  return make_jwt(R"({"iss":")" + std::string(issuer) + R"(","aud":")" + std::string(audience) +
                  R"(","exp":)" + std::to_string(ends) + R"(,"serial":)" + std::to_string(serial) +
                  "}");
}
inline std::string refresh_token_of(std::string_view registry, std::int64_t ends, int serial = 0) {
  return token_by("Azure Container Registry", registry, ends, serial);
}
inline std::string entra_token(std::int64_t ends, int serial = 0) {
  return token_by("https://sts.windows.net/t/", "https://containerregistry.azure.net", ends,
                  serial);
}

// A registry of Azure that takes whatever token has not ended, and notes which.
class FakeAcr {
 public:
  FakeAcr(fake::FakeHttpClient& http, fake::ManualClock& clock, std::string host)
      : clock_(clock), host_(std::move(host)) {
    http.on("https://" + host_, [this](const fake::Asked& request) { return answer(request); });
  }

  std::optional<fake::Reply> exchange_refusal;
  std::optional<fake::Reply> token_refusal;
  std::chrono::seconds refresh_life{10'800}, access_life{4500};
  int exchanges = 0, tokens = 0;
  std::string last_entra, last_refresh, last_tenant;
  int used_after_end = 0;

 private:
  fake::Reply answer(const fake::Asked& request) {
    if (request.target == "/v2/")
      return {.status = 401,
              .headers = {{"WWW-Authenticate", "Bearer realm=\"https://" + host_ +
                                                   "/oauth2/token\",service=\"" + host_ + "\""}}};
    const std::int64_t now = server_time(clock_);
    if (request.target == "/oauth2/exchange") {
      ++exchanges;
      last_entra = request.field("access_token");
      last_tenant = request.field("tenant");
      if (exchange_refusal) return *exchange_refusal;
      return fake::Reply::json(R"({"refresh_token":")" +
                               refresh_token_of(host_, now + refresh_life.count(), exchanges) +
                               "\"}");
    }
    ++tokens;
    last_refresh = request.field("refresh_token");
    if (token_refusal) return *token_refusal;
    const auto claims = read_jwt(last_refresh);
    if (!claims || !claims->expires || *claims->expires <= now) {
      ++used_after_end;
      return fake::Reply::json(R"({"errors":[{"code":"UNAUTHORIZED","message":"ended"}]})", 401);
    }
    const std::string scope = request.field("scope");
    const std::size_t colon = scope.find(':'), end = scope.rfind(':');
    return fake::Reply::json(
        R"({"access_token":")" +
        make_jwt(R"({"exp":)" + std::to_string(now + access_life.count()) + R"(,"iat":)" +
                 std::to_string(now) + R"(,"access":[{"type":"repository","name":")" +
                 scope.substr(colon + 1, end - colon - 1) + R"(","actions":["pull"]}],"serial":)" +
                 std::to_string(tokens) + "}") +
        "\"}");
  }

  fake::ManualClock& clock_;
  std::string host_;
};

}  // namespace staithe::proxy::auth
