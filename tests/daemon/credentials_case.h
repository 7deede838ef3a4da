// The control socket's credentials, over a real socket and with callers of other users, behind
// authorizers that are played.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/auth/secret.h"
#include "tests/daemon/control_plane.h"

namespace staithe::daemon {

namespace json = boost::json;
namespace auth = proxy::auth;

// What the authorizers of one identity do.
struct PlayedPart {
  std::string username = "00000000-0000-0000-0000-000000000000";
  std::shared_ptr<const auth::Secret> secret = {};
  bool identity_token = false;
  bool renewable = true;
  std::optional<std::chrono::seconds> expires_in = std::chrono::seconds(9000);
  std::optional<Error> error = {};
  std::vector<auth::Ending> endings = {};
  std::optional<Error> last_error = {};
  fake::Gate* gate = nullptr;  // before a renewal ends
  int logins = 0;
  int renewals = 0;
};

class PlayedAuthorizer final : public auth::Authorizer {
 public:
  explicit PlayedAuthorizer(PlayedPart& part) : part_(part) {}
  asio::awaitable<auth::Authorization> for_pull(std::string) override { co_return nullptr; }
  bool refused(const std::string&, const auth::Authorization&, const proxy::Headers&) override {
    return false;
  }
  bool forbidden(const auth::Authorization&) override { return false; }
  asio::awaitable<auth::Login> login() override {
    ++part_.logins;
    if (part_.error) throw Failure(*part_.error);
    co_return auth::Login{.username = part_.username,
                          .secret = part_.secret,
                          .identity_token = part_.identity_token,
                          .renewable = part_.renewable,
                          .expires_in = part_.expires_in};
  }
  std::string login_name() const override { return part_.username; }
  asio::awaitable<std::string> probe(auth::Part, std::string) override { co_return ""; }
  asio::awaitable<void> renew() override {
    ++part_.renewals;
    if (part_.gate) co_await part_.gate->pass();
    if (part_.error) throw Failure(*part_.error);
  }
  std::vector<auth::TokenStatus> tokens() const override { return {}; }
  std::vector<auth::Ending> endings() const override { return part_.endings; }
  std::optional<Error> last_error() const override { return part_.last_error; }

 private:
  PlayedPart& part_;
};

class CredentialsTest : public testing::Test {
 protected:
  static constexpr const char* config_text = R"(
[[registry]]
name = "*.azurecr.io"
identity = "vm"
[[registry]]
name = "contoso.azurecr.io"
identity = "vm"
[[registry.identity_for]]
prefix = "team-a/"
identity = "a"
[[registry]]
name = "docker.io"
identity = "hub"
[[registry.identity_for]]
prefix = "library/"
identity = "official"
[[registry]]
name = "quay.io"
[identity.vm]
kind = "managed-identity"
[identity.a]
kind = "managed-identity"
[identity.official]
kind = "docker-config"
file = "/c"
[identity.hub]
kind = "basic"
username = "me"
password_file = "/p"
)";

  CredentialsTest() {
    parts_["vm"].secret = secret("refresh-of-vm");
    parts_["a"].secret = secret("refresh-of-a");
    parts_["official"].secret = secret("official-password");
    parts_["hub"] = PlayedPart{.username = "me",
                               .secret = secret("hub-password"),
                               .renewable = false,
                               .expires_in = std::nullopt};
    parts_[""] = PlayedPart{.username = "", .error = Error{Errc::not_found, "used anonymously"}};
  }

  std::string address() const { return socket_.address(); }

  static std::shared_ptr<const auth::Secret> secret(std::string_view text) {
    return std::make_shared<const auth::Secret>(text);
  }
  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body) {
    return ControlSocket::request(method, path, body);
  }
  std::string ask_as(unsigned uid, const std::string& method, const std::string& path,
                     const std::string& body = {}) {
    return socket_.ask_as(uid, method, path, body);
  }
  std::string post(const std::string& path, const std::string& body) {
    return socket_.post(path, body);
  }
  static int status_of(const std::string& answer) { return ControlSocket::status_of(answer); }
  static json::object body_of(const std::string& answer) {
    boost::system::error_code error;
    const json::value value = json::parse(answer.substr(answer.find("\r\n\r\n") + 4), error);
    EXPECT_FALSE(error) << answer;
    return value.is_object() ? value.get_object() : json::object();
  }
  // "404 NOT_MANAGED sentence"
  static std::string error_of(const std::string& answer) {
    const json::object body = body_of(answer);
    const auto& error = body.at("errors").at(0);
    return std::to_string(status_of(answer)) + " " + std::string(error.at("code").as_string()) +
           " " + std::string(error.at("message").as_string());
  }

  proxy::Registry::MakeUpstream make_upstream() {
    return [this](const std::string& name, const proxy::RegistrySettings&,
                  const std::string& identity) {
      proxy::Url base = *proxy::Url::parse("https://" + name);
      const proxy::RedirectPolicy redirects{
          .registry = base.origin(), .data_hosts = {}, .acr_suffixes = {}};
      return std::make_unique<proxy::Upstream>(house_.io.get_executor(),
                                               proxy::Upstream::Settings{.base = std::move(base),
                                                                         .prefix = {},
                                                                         .ca_file = {},
                                                                         .redirects = redirects,
                                                                         .max_connections = 4,
                                                                         .limits = {}},
                                               std::make_unique<PlayedAuthorizer>(parts_[identity]),
                                               house_.upstream, house_.clock);
    };
  }
  Credentials::Doors doors() {
    return {.service_account =
                [this](proxy::RegistryPtr registry, auth::ServiceAccount account) {
                  return serve_account(std::move(registry), std::move(account));
                },
            .sign_in =
                [this](proxy::RegistryPtr registry, auth::Secret token) {
                  return sign_in(std::move(registry), std::move(token));
                },
            .sign_out = [this](proxy::RegistryPtr registry) { return sign_out(registry); }};
  }
  asio::awaitable<auth::Login> serve_account(proxy::RegistryPtr registry,
                                             auth::ServiceAccount account) {
    doors_used_.push_back(registry->name() + " " + account.client_id + " " + account.tenant_id +
                          " " + std::to_string(account.token.size_bytes()));
    co_return auth::Login{
        .username = "pod", .secret = secret("refresh-of-pod"), .expires_in = std::nullopt};
  }
  asio::awaitable<auth::Identities::SignIn> sign_in(proxy::RegistryPtr registry,
                                                    auth::Secret token) {
    doors_used_.push_back(registry->name() + " " + std::to_string(token.size_bytes()));
    if (token.reveal() == "ended") throw Failure(Errc::bad_request, "this token has ended");
    co_return auth::Identities::SignIn{"refresh", std::chrono::seconds(10700)};
  }
  asio::awaitable<bool> sign_out(proxy::RegistryPtr registry) {
    doors_used_.push_back(registry->name());
    co_return registry->name() == "contoso.azurecr.io";
  }

  fake::House house_;
  const Config config_ = *parse_config(config_text, "staithe.toml", Environment());
  std::map<std::string, PlayedPart> parts_;
  std::vector<std::string> doors_used_;
  proxy::Registries registries_{config_.proxy.registries, make_upstream()};
  ControlPlane plane_{house_, config_, registries_, doors()};
  Access& access_ = plane_.access;
  ControlSocket socket_{house_, plane_};
};

}  // namespace staithe::daemon
