// The upstreams of a registry in their order: mirrors, and last the registry itself.
//
// A mirror is asked so that the registry need not be, and is never believed about what it lacks:
// only what it has counts. It is waited for a short while; one that does not answer rests, so that
// not every request pays for it. What the last upstream answers is final. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/upstream.h"

namespace staithe::proxy {

// From a mirror's being asked to the head of its answer, with tokens, redirects and the waiting for
// a free connection.
constexpr std::chrono::seconds mirror_answer{5};
// How long a mirror that did not answer is left alone. Then one request tries it.
constexpr std::chrono::seconds mirror_rest{10};
// How long mirrors are left alone after bytes that were not what they were said to be.
constexpr std::chrono::seconds mirror_doubt{60};

// What follows from what one upstream of a list made of a request: pure.
enum class Next {
  take,          // it is the answer
  go_on,         // the next one is asked
  go_on_resting  // likewise, and this one rests
};
Next next_after(int status, bool last);
Next next_after(Errc failed, bool last);

class UpstreamList {
 public:
  struct Member {
    std::string url;  // as configured, for people
    std::unique_ptr<Upstream> upstream;
  };
  // `registry` is the name that clients know; `members` are not empty, and the last is the registry
  // itself.
  UpstreamList(std::string registry, std::vector<Member> members);

  // As Upstream::send(), of the first that has it. If none has: what the last one answered, or, if
  // it did not answer, its failure with what the mirrors said.
  asio::awaitable<std::unique_ptr<HttpResponse>> send(Upstream::Ask ask);

  // As those of Upstream, for a transfer that asks the list: of the first that does not rest, of
  // whoever has a retry left, of all of them, and of the first that may be asked.
  std::size_t free_connections() const;
  bool may_retry();
  void note_progress(std::uint64_t bytes);
  Instant next_try(const Upstream::Place* place = nullptr) const;

  // Bytes that came from here were not what their digest says; nobody knows from whom. All mirrors
  // rest for mirror_doubt. False if there was none to doubt, and another try would bring the same.
  bool doubt();

  struct State {
    std::string url;
    Health health;
    std::chrono::seconds paused;
    std::optional<Error> last_error;
    const Upstream& upstream;
  };
  std::vector<State> states() const;
  // Of the list as a whole: ok while any of them answers, else as the last one fares.
  Health health() const;
  std::chrono::seconds paused() const;                   // until the first of them may be asked
  std::optional<std::chrono::seconds> retry_in() const;  // likewise, if none answers
  std::optional<Error> last_error() const;
  // Of the registry itself.
  const std::optional<PullQuota>& quota() const { return own().quota(); }
  UpstreamStats stats() const;  // of all together
  std::string url() const { return own().url(); }

  // Those of the registry itself.
  auth::Authorizer& authorizer() { return members_.back().upstream->authorizer(); }
  const auth::Authorizer& authorizer() const { return own().authorizer(); }
  // Of all, in their order.
  std::vector<auth::Authorizer*> authorizers() const;

 private:
  // Whether a mirror is left alone. Shared with its answers, whose bodies may still break off.
  class Rest {
   public:
    // False while it rests; once that is over, true for one request, whose answer decides.
    bool may_ask(Instant now);
    void answered() { why_.reset(); }
    bool holds(Instant now) const { return why_ && now < until_; }
    void begin(Instant now, std::chrono::nanoseconds duration, Error why);
    const std::optional<Error>& why() const { return why_; }

   private:
    Instant until_{};
    std::optional<Error> why_;
  };
  struct Listed {
    std::string url;
    std::unique_ptr<Upstream> upstream;
    std::shared_ptr<Rest> rest;
  };
  // Either is set.
  struct Outcome {
    std::unique_ptr<HttpResponse> response = {};
    std::optional<Error> error = {};
  };
  class ListedResponse;

  const Upstream& own() const { return *members_.back().upstream; }
  std::vector<std::size_t> order(const Upstream::Ask& ask) const;
  asio::awaitable<Outcome> ask_one(std::size_t index, Upstream::Ask ask);
  static asio::awaitable<Outcome> attempt(Upstream& upstream, Upstream::Ask ask);
  std::unique_ptr<HttpResponse> listed(std::unique_ptr<HttpResponse> response, std::size_t index,
                                       const Upstream::Ask& ask);
  void rest(std::size_t index, std::chrono::nanoseconds duration, const Error& why);

  std::string registry_;
  std::vector<Listed> members_;
  Clock& clock_;
};

}  // namespace staithe::proxy
