// What kubelet asks a credential provider (credentialprovider.kubelet.k8s.io), and how it wants to
// be answered. Pure.
//
// The decoder is as strict as kubelet's own: what it does not know, what stands there twice and
// what is of another type is refused with the field's name, because a field that is passed over may
// be the one that says whose credential is meant.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "cache/error.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {

inline constexpr std::size_t kMaxKubeletRequestBytes = 1 << 20;

struct KubeletRequest {
  std::string api_version;  // "credentialprovider.kubelet.k8s.io/v1", v1beta1 or v1alpha1
  std::string image;
  proxy::auth::Secret service_account_token;  // only in v1, and empty outside that mode
  std::map<std::string, std::string, std::less<>> service_account_annotations;
};

// Errc::bad_request; the sentence never quotes a value.
Result<KubeletRequest> parse_kubelet_request(std::string_view text);

enum class CacheKey { image, registry };

struct KubeletAnswer {
  std::string api_version;
  CacheKey cache_key = CacheKey::image;
  std::optional<std::chrono::seconds> cache_duration;  // none: kubelet's configured default
  // One entry of `auth`; an empty host is none at all.
  std::string host;
  std::string username;
  proxy::auth::Secret password;
};
// One line of JSON. It holds the password: wipe it.
std::string to_json(const KubeletAnswer& answer);

// Go's way to write a duration: "2h25m0s", "45s", "0s".
std::string go_duration(std::chrono::seconds duration);

// How long kubelet may keep a credential: five minutes less than it lives, so that the last pull
// that takes it from the cache still has time to end. None for one without a known end.
std::optional<std::chrono::seconds> cache_duration(std::optional<std::chrono::seconds> life);

}  // namespace staithe::daemon
