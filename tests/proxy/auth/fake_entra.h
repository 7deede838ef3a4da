// Entra's token endpoint as the tests play it: who may have a token, by which proof, and what it
// says to everybody else.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

}  // namespace staithe::proxy::auth
