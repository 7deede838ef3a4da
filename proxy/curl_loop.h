// HttpClient by libcurl's multi interface on Asio's loop; with url.cc the only user of curl.h.
//
// libcurl says which descriptors to watch and when to wake it; every callback only notes what
// happened, and coroutines are woken through timers, so nothing resumes on curl's stack. Removing a
// transfer cancels it. Verification of certificates cannot be switched off; nothing from the
// environment is used; plain HTTP only to URLs that say http. Every address is judged before it is
// dialled (dial_policy.h), and a connection that was opened for a host of one kind is never used
// for one of another: each kind has a pool of its own. Lives on the loop.
#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <unordered_map>

#include "proxy/http.h"

namespace staithe::proxy {

class CurlLoop final : public HttpClient {
 public:
  explicit CurlLoop(asio::any_io_executor loop);
  // Every response is gone by then.
  ~CurlLoop() override;

  asio::awaitable<std::unique_ptr<HttpResponse>> send(HttpRequest request) override;

 private:
  class Impl;
  class Transfer;
  std::array<std::shared_ptr<Impl>, 3> pools_;  // by HostNamedBy
};

}  // namespace staithe::proxy
