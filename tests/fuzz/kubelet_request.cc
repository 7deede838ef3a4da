// kubelet's requests: good ones have an image and a version, bad ones a sentence in one line.
#include "daemon/kubelet_request.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const auto request = daemon::parse_kubelet_request(input);
  if (request) {
    check(!request->image.empty());
    check(request->api_version.starts_with("credentialprovider.kubelet.k8s.io/v1"));
    check(input.find("CredentialProviderRequest") != std::string_view::npos ||
          input.find('\\') != std::string_view::npos);
  } else {
    check(!request.error().detail.empty());
    for (const char c : request.error().detail) check(c >= ' ' && c <= '~');
  }
}
