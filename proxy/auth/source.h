// Where something kept comes from: one way to get a token.
//
// Managed identity, service principal, token file, ACR's exchange: each is a source, and each gets
// its renewal, its sharing and its patience from the Keeper around it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <optional>
#include <utility>

#include "cache/error.h"
#include "proxy/auth/token.h"

namespace staithe::proxy::auth {

namespace asio = boost::asio;

template <class T>
class Source {
 public:
  virtual ~Source() = default;
  // Fetches a new one, by the schedule of retries that its protocol asks for. Throws Failure. Only
  // one fetch of a source runs at a time.
  virtual asio::awaitable<T> fetch() = 0;
};

using TokenSource = Source<Token>;

// A failure after which the server has said when to come back.
class Postponed : public Failure {
 public:
  Postponed(Errc code, std::string detail, std::chrono::nanoseconds retry_after)
      : Failure(code, std::move(detail)), retry_after_(retry_after) {}
  std::chrono::nanoseconds retry_after() const { return retry_after_; }

 private:
  std::chrono::nanoseconds retry_after_;
};

}  // namespace staithe::proxy::auth
