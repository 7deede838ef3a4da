// TLS in front of the registry's listener, for clients that speak nothing else to loopback.
//
// A TLS connection is ended here, and what is in it goes through a socket pair to the very same
// code that serves plain connections: one strict parser, one set of limits, deadlines and rights.
// Whose it is was asked of the TCP connection before. A client that does not take its answer lets
// the pair fill up, so that its pace is seen behind it as well as ever.
//
// TLS 1.2 and 1.3, HTTP/1.1 by ALPN, no renegotiation, no resumption, no compression, no client
// certificates. The handshake has a deadline. Threads of its own, on epoll: a connection that waits
// holds two descriptors, the state of its session, and no buffer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cache/clock.h"
#include "cache/error.h"

struct ssl_ctx_st;

namespace staithe::proxy {

// A certificate with its key, and all that is decided about TLS. Immutable; any thread.
class TlsContext {
 public:
  // `pem`: the private key, the certificate, and those between it and the CA, if any. Fails with
  // config, in words that quote nothing of it.
  static Result<std::shared_ptr<const TlsContext>> from_pem(std::string_view pem);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  ssl_ctx_st* get() const { return context_; }
  // When the certificate ends.
  std::chrono::sys_seconds not_after() const { return not_after_; }
  // Clients are shown the same certificate.
  bool shows_the_same_as(const TlsContext& other) const;

 private:
  TlsContext(ssl_ctx_st* context, std::chrono::sys_seconds not_after)
      : context_(context), not_after_(not_after) {}

  ssl_ctx_st* const context_;
  const std::chrono::sys_seconds not_after_;
};
using TlsContextPtr = std::shared_ptr<const TlsContext>;

class TlsGate {
 public:
  struct Figures {
    std::size_t open = 0;
    std::uint64_t handshakes = 0;  // that went well
    std::uint64_t failed = 0;      // that did not, or not in time
  };

  // `threads` > 0; they inherit the signal mask.
  explicit TlsGate(std::size_t threads);
  // Ends what is left.
  ~TlsGate();
  TlsGate(const TlsGate&) = delete;
  TlsGate& operator=(const TlsGate&) = delete;

  // For the connections that come from now on. Main loop's, as all that follows.
  void use(TlsContextPtr context) { context_ = std::move(context); }
  const TlsContextPtr& context() const { return context_; }

  // Takes over a connected TCP socket, whatever comes of it, and gives the end of the pair that
  // speaks plainly; its reader decides how long a request may take. Until `handshake` has passed
  // the handshake has to be done. -1 without a context, or without descriptors.
  int admit(int tcp, std::chrono::milliseconds handshake);

  Figures figures() const;

  // Once the plain end has gone: for what the client has still to take, and to say that it ends.
  static constexpr std::chrono::seconds end_patience{30};

 private:
  class Thread;

  TlsContextPtr context_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::size_t next_ = 0;
  std::atomic<std::size_t> open_ = 0;
  std::atomic<std::uint64_t> handshakes_ = 0;
  std::atomic<std::uint64_t> failed_ = 0;
};

}  // namespace staithe::proxy
