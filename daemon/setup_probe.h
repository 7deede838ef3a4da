// The self-test of `staithe setup`: asks staithed for an image as the client will ask, down to a
// blob, and says what came.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"
#include "daemon/image_name.h"
#include "daemon/setup.h"

namespace staithe::daemon {

struct ListenerAnswer {
  int status = 0;
  std::string digest;        // Docker-Content-Digest
  std::string content_type;  // of the body
  std::string body;
};
// One request at the listener; `accept` may be empty.
using AskListener = std::function<Result<ListenerAnswer>(
    std::string_view method, const std::string& target, std::string_view accept)>;

// Asks over TCP: "127.0.0.1:5050". Blocking; a new connection each time, at most `patience`.
AskListener ask_at(std::string address, std::chrono::milliseconds patience);

// "/v2/app/manifests/1?ns=contoso.azurecr.io", as a client of that kind writes it (registry-clients
// section 2). `kind`: "manifests" or "blobs".
std::string client_target(Asks asks, const ImageName& image, std::string_view kind,
                          std::string_view reference);

struct TestStep {
  std::string what;  // "listener", "manifest", "platform", "blob", "credential"
  bool good = false;
  std::string finding{};  // a sentence; printable, without secrets
  double seconds = 0;
};

// Pulls the manifests and the smallest blob of `image`, checking every digest. Ends at the first
// failure.
std::vector<TestStep> test_pull(Asks asks, const ImageName& image, const AskListener& ask);
// Only that the listener is there, for when no image is known.
TestStep test_listener(const AskListener& ask);
// Asks the helper that the client will run for the credential of `host`; never shows it.
TestStep test_credential(Asks asks, const Machine& machine, const std::string& host);

}  // namespace staithe::daemon
