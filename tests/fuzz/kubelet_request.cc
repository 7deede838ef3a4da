// kubelet's requests: good ones mean what any reader of JSON finds in them, bad ones are told in
// one line; and what is answered is JSON whatever the credential is made of.
#include "daemon/kubelet_request.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <string>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/json.h"

namespace staithe::fuzz {

namespace {

namespace json = boost::json;

void check_answer(std::string_view input) {
  Input halves(input);
  daemon::KubeletAnswer answer;
  answer.api_version = "credentialprovider.kubelet.k8s.io/v1";
  answer.cache_key = input.size() % 2 == 0 ? daemon::CacheKey::image : daemon::CacheKey::registry;
  answer.host = "contoso.azurecr.io";
  answer.username = std::string(halves.line());
  answer.password = proxy::auth::Secret(halves.rest());
  const std::string text = to_json(answer);
  check(text.find('\n') == text.size() - 1 || text.find('\n') == std::string::npos);
  json::error_code error;
  const json::value parsed = json::parse(text, error);
  // Secrets are text; what is not UTF-8 is no JSON, and kubelet says so.
  if (error) {
    check(!std::ranges::all_of(input, [](char c) { return c >= 0; }));
    return;
  }
  const auto& entry =
      parsed.as_object().at("auth").as_object().at("contoso.azurecr.io").as_object();
  check(says(entry.at("username"), answer.username));
  check(says(entry.at("password"), answer.password.reveal()));
}

}  // namespace

void one(std::string_view input) {
  const auto request = daemon::parse_kubelet_request(input);
  if (!request) {
    check(!request.error().detail.empty() && is_printable(request.error().detail));
    check_answer(input);
    return;
  }
  json::error_code error;
  const json::value parsed = json::parse(input, error);
  check(!error && parsed.is_object());
  const auto& object = parsed.as_object();
  check(says(object.at("kind"), "CredentialProviderRequest"));
  check(says(object.at("apiVersion"), request->api_version));
  check(says(object.at("image"), request->image) && !request->image.empty());
  check(request->api_version.starts_with("credentialprovider.kubelet.k8s.io/v1"));
  if (!request->service_account_token.empty())
    check(says(object.at("serviceAccountToken"), request->service_account_token.reveal()));
  for (const auto& [name, value] : request->service_account_annotations)
    check(says(object.at("serviceAccountAnnotations").as_object().at(name), value));
}

}  // namespace staithe::fuzz
