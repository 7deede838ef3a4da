#include "daemon/credential_client.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "cache/escape.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr std::size_t max_username_bytes = 255;
constexpr std::size_t max_listed = 10'000;

ControlError other_version() {
  return {.unreachable = true,
          .message =
              "staithed's answer is not a credential: the client and staithed are of different "
              "versions, restart the older one (systemctl restart staithed)"};
}

std::string text_of(const json::object& object, std::string_view name) {
  return std::string(proxy::auth::text_field(object, name).value_or(std::string_view()));
}

// A user name reaches protocols that put it before a colon, into a header or into a line.
bool is_username(std::string_view text) {
  return !text.empty() && text.size() <= max_username_bytes &&
         std::ranges::none_of(text, [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == ':';
         });
}

}  // namespace

std::expected<std::optional<Credential>, ControlError> ask_credential(
    const std::filesystem::path& socket, const CredentialRequest& request,
    std::chrono::milliseconds timeout) {
  json::object question(proxy::auth::wiping_memory());
  question["registry"] = request.registry;
  if (!request.repository.empty()) question["repository"] = request.repository;
  question["purpose"] = request.expose_token ? "expose-token" : "pull";
  if (request.service_account) {
    question["service_account_token"] = request.service_account->token.reveal();
    question["client_id"] = request.service_account->client_id;
    question["tenant_id"] = request.service_account->tenant_id;
  }
  const auto answer = control_post(socket, "/v1/credential", json::serialize(question), timeout);
  if (!answer) {
    if (answer.error().code == "NOT_MANAGED") return std::nullopt;
    return std::unexpected(answer.error());
  }
  const json::object& object = answer->get_object();
  Credential credential;
  credential.username = text_of(object, "username");
  const auto password = proxy::auth::text_field(object, "password");
  if (!password || password->empty() || !is_username(credential.username)) {
    return std::unexpected(other_version());
  }
  credential.password = proxy::auth::Secret(*password);
  if (const json::value* flag = object.if_contains("identity_token")) {
    credential.identity_token = flag->is_bool() && flag->get_bool();
  }
  const auto seconds = proxy::auth::number_field(object, "expires_in_seconds");
  if (!seconds) return std::unexpected(other_version());
  if (*seconds) credential.expires_in = std::chrono::seconds(std::max<std::int64_t>(**seconds, 0));
  return credential;
}

std::expected<std::vector<ManagedRegistry>, ControlError> list_credentials(
    const std::filesystem::path& socket, std::chrono::milliseconds timeout) {
  const auto answer = control_get(socket, "/v1/credentials", timeout);
  if (!answer) return std::unexpected(answer.error());
  const json::object* object = answer->if_object();
  const json::value* list = object ? object->if_contains("credentials") : nullptr;
  if (!list || !list->is_array()) return std::unexpected(other_version());
  std::vector<ManagedRegistry> result;
  for (const json::value& item : list->get_array()) {
    if (result.size() == max_listed) break;
    if (!item.is_object()) continue;
    result.push_back(
        {text_of(item.get_object(), "registry"), text_of(item.get_object(), "username")});
  }
  return result;
}

bool identity_failed(const ControlError& error) {
  return !error.unreachable && error.status >= 500;
}

}  // namespace staithe::daemon
