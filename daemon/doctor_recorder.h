// The network with a witness: what a diagnosis has asked, whom, how long that took and what came
// back. Never what was sent, nor a query, since either may hold a secret.
//
// Bounds the requests of one diagnosis, whatever the code above it would repeat. Lives on the loop.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "proxy/http.h"

namespace staithe::daemon {

class DoctorRecorder final : public proxy::HttpClient {
 public:
  struct Entry {
    std::string method;
    proxy::Origin origin;
    std::string path;  // without query; empty once it is not to be shown
    int status = 0;    // 0: no answer
    std::chrono::nanoseconds took{0};
    // By how much the clock of this machine is ahead of the server's, where the answer tells.
    std::optional<std::chrono::seconds> clock_ahead = {};

    // "GET https://contoso.azurecr.io/v2/: 401", "no answer" in place of a status.
    std::string to_string() const;
  };

  // `http` and `clock` outlive it.
  DoctorRecorder(proxy::HttpClient& http, Clock& clock, std::size_t most_requests)
      : http_(http), clock_(clock), most_requests_(most_requests) {}

  // As HttpClient; Failure(throttled) beyond most_requests.
  asio::awaitable<std::unique_ptr<proxy::HttpResponse>> send(proxy::HttpRequest request) override;

  // Of the requests from `first` on that went elsewhere than `home` the paths are forgotten: where
  // a registry redirects to, they may be a part of a signed link.
  void forget_paths(std::size_t first, const proxy::Origin& home);

  // In the order in which they were sent.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  proxy::HttpClient& http_;
  Clock& clock_;
  const std::size_t most_requests_;
  std::vector<Entry> entries_;
};

// "GET https://a/v2/: 401; POST https://a/oauth2/exchange: 200", those from `first` on; of many the
// first ones and how many more there were.
std::string in_words(const std::vector<DoctorRecorder::Entry>& entries, std::size_t first = 0);

}  // namespace staithe::daemon
