// Azure as the tests play it: the metadata service and container registries, with a true time of
// their own, that refuse what Azure refuses.
//
// All tokens are JWTs. Lives are counted on the server's clock, which is the boot clock plus a
// constant; the machine's wall clock may say what it likes.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "tests/fake/clock.h"
#include "tests/fake/http.h"
#include "tests/proxy/auth/make_jwt.h"

namespace staithe::proxy::auth {

class FakeAzure {
 public:
  static constexpr std::string_view imds = "http://169.254.169.254";
  static constexpr std::string_view entra = "https://login.microsoftonline.com";
  static constexpr std::string_view client_id = "33333333-0000-4000-8000-000000000003";
  static constexpr std::string_view client_secret = "the~application's+secret=";
  static constexpr std::string_view audience = "https://containerregistry.azure.net";

  FakeAzure(fake::FakeHttpClient& http, fake::ManualClock& clock) : http_(http), clock_(clock) {
    http_.on(std::string(imds), [this](const fake::Asked& asked) { return metadata(asked); });
    http_.on(std::string(entra), [this](const fake::Asked& asked) { return application(asked); });
  }

  // A registry, under its login server's name.
  void add_registry(const std::string& host) {
    http_.on("https://" + host,
             [this, host](const fake::Asked& asked) { return acr(host, asked); });
  }

  // What a registry thinks of a data request: 200, 401 or 403.
  int data_status(const std::string& host, std::string_view repository,
                  std::string_view authorization) const {
    constexpr std::string_view bearer = "Bearer ";
    if (!authorization.starts_with(bearer)) return 401;
    const Issued* token = find(authorization.substr(bearer.size()), "access", host);
    return token && token->grants == repository ? 200 : 401;
  }

  // When this Authorization ends, on the server's clock.
  std::int64_t end_of(std::string_view authorization) const {
    return issued_.at(std::string(authorization.substr(authorization.find(' ') + 1))).end;
  }

  // Seconds of what is issued from now on.
  std::int64_t entra_life = 3600, refresh_life = 10'800, access_life = 4500;
  // Returns the answer that goes wrong, or nothing.
  std::function<std::optional<fake::Reply>(const fake::Asked&)> fault = [](const fake::Asked&) {
    return std::nullopt;
  };
  std::set<std::string> denied;              // repositories without rights
  bool role_missing = false;                 // the exchange refuses the identity
  std::map<std::string, std::string> realm;  // by host, another than the true one
  // The server's clock when all tokens of a kind issued so far were revoked.
  std::map<std::string, int> revoked_up_to;  // kind -> serial
  void revoke(const std::string& kind) { revoked_up_to[kind] = serial_; }

  std::int64_t time() const {
    return 1'760'000'000 +
           std::chrono::floor<std::chrono::seconds>(clock_.now().time_since_epoch()).count();
  }
  // Every token that was ever issued, for the search for leaks.
  std::map<std::string, std::string> tokens() const {
    std::map<std::string, std::string> all;
    for (const auto& [text, issued] : issued_)
      all.emplace(text, issued.kind + " " + issued.audience);
    return all;
  }
  int exchanges = 0;  // how many refresh tokens were given
  // How often a token of this kind was accepted after its true end (a client's fault).
  int used_after_end = 0;

 private:
  struct Issued {
    std::string kind, audience, grants;
    std::int64_t end;
    int serial;
  };

  const Issued* find(std::string_view text, std::string_view kind, std::string_view who) const {
    const auto found = issued_.find(std::string(text));
    if (found == issued_.end()) return nullptr;
    const Issued& token = found->second;
    if (token.kind != kind || token.audience != who) return nullptr;
    if (time() >= token.end) {
      ++const_cast<FakeAzure*>(this)->used_after_end;
      return nullptr;
    }
    const auto revoked = revoked_up_to.find(token.kind);
    if (revoked != revoked_up_to.end() && token.serial <= revoked->second) return nullptr;
    return &token;
  }

  std::string issue(const std::string& kind, const std::string& who, std::int64_t life,
                    const std::string& grants = "", const std::string& more = "") {
    const std::string text = make_jwt("{\"kind\":\"" + kind + "\",\"aud\":\"" + who +
                                      "\",\"iat\":" + std::to_string(time()) +
                                      ",\"exp\":" + std::to_string(time() + life) +
                                      ",\"serial\":" + std::to_string(++serial_) + more + "}");
    issued_[text] = Issued{
        .kind = kind, .audience = who, .grants = grants, .end = time() + life, .serial = serial_};
    return text;
  }

  static fake::Reply error(int status, std::string_view code, std::string_view message) {
    return fake::Reply::json("{\"errors\":[{\"code\":\"" + std::string(code) + "\",\"message\":\"" +
                                 std::string(message) + "\"}]}",
                             status);
  }

  fake::Reply metadata(const fake::Asked& asked) {
    if (auto wrong = fault(asked)) return *wrong;
    if (asked.headers.get("metadata") != "true" || asked.field("resource") != audience)
      return fake::Reply::json(R"({"error":"invalid_request"})", 400);
    // From the platform's cache until half of its life is over.
    if (entra_.empty() || time() >= issued_.at(entra_).end - entra_life / 2)
      entra_ = issue("entra", std::string(audience), entra_life);
    const std::int64_t end = issued_.at(entra_).end;
    return fake::Reply::json("{\"access_token\":\"" + entra_ + "\",\"expires_in\":\"" +
                             std::to_string(end - time()) + "\",\"expires_on\":\"" +
                             std::to_string(end) + "\",\"token_type\":\"Bearer\"}");
  }

  // Client credentials with the one application's secret; a new token for each call.
  fake::Reply application(const fake::Asked& asked) {
    if (auto wrong = fault(asked)) return *wrong;
    if (asked.method != "POST" || asked.field("grant_type") != "client_credentials" ||
        asked.field("scope") != std::string(audience) + "/.default")
      return fake::Reply::json(R"({"error":"invalid_request"})", 400);
    if (asked.field("client_id") != client_id || asked.field("client_secret") != client_secret)
      return fake::Reply::json(R"({"error":"invalid_client"})", 401);
    return fake::Reply::json(
        "{\"token_type\":\"Bearer\",\"expires_in\":" + std::to_string(entra_life) +
        ",\"access_token\":\"" + issue("entra", std::string(audience), entra_life) + "\"}");
  }

  fake::Reply acr(const std::string& host, const fake::Asked& asked) {
    if (auto wrong = fault(asked)) return *wrong;
    if (asked.target == "/v2/") {
      const auto other = realm.find(host);
      fake::Reply reply = error(401, "UNAUTHORIZED", "authentication required");
      reply.headers.emplace_back(
          "Www-Authenticate",
          "Bearer realm=\"" +
              (other == realm.end() ? "https://" + host + "/oauth2/token" : other->second) +
              "\",service=\"" + host + "\"");
      return reply;
    }
    if (asked.method != "POST" || asked.field("service") != host)
      return error(404, "NOT_FOUND", "404 page not found");
    if (asked.target == "/oauth2/exchange") {
      if (role_missing || asked.field("grant_type") != "access_token" ||
          !find(asked.field("access_token"), "entra", audience))
        return error(401, "UNAUTHORIZED", "the Entra token is not accepted");
      ++exchanges;
      return fake::Reply::json("{\"refresh_token\":\"" + issue("refresh", host, refresh_life) +
                               "\"}");
    }
    if (asked.target == "/oauth2/token") {
      if (asked.field("grant_type") != "refresh_token" ||
          !find(asked.field("refresh_token"), "refresh", host))
        return error(401, "UNAUTHORIZED", "the refresh token is not accepted");
      const std::string scope = asked.field("scope");
      constexpr std::string_view start = "repository:", end = ":pull";
      if (!scope.starts_with(start) || !scope.ends_with(end))
        return error(400, "BAD_REQUEST", "scope");
      const std::string name = scope.substr(start.size(), scope.size() - start.size() - end.size());
      const std::string access = denied.contains(name)
                                     ? ",\"access\":[]"
                                     : ",\"access\":[{\"type\":\"repository\",\"name\":\"" + name +
                                           "\",\"actions\":[\"pull\"]}]";
      return fake::Reply::json(
          "{\"access_token\":\"" +
          issue("access", host, access_life, denied.contains(name) ? "" : name, access) + "\"}");
    }
    return error(404, "NOT_FOUND", "404 page not found");
  }

  fake::FakeHttpClient& http_;
  fake::ManualClock& clock_;
  std::map<std::string, Issued> issued_;
  std::string entra_;
  int serial_ = 0;
};

}  // namespace staithe::proxy::auth
