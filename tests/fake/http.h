// The network, played by a test: every URL has an answer, every request is remembered.
//
//   FakeHttpClient http(clock);
//   http.on("https://contoso.azurecr.io/v2/", [](const Asked&) { return Reply{.status = 401}; });
//   http.on("https://contoso.azurecr.io", ...);     the longest prefix of the URL wins
//
// A reply can come late (on the test's clock), wait at a Gate, break off, or fail. A request to an
// address that nobody plays fails as unreachable and is remembered as well, so that a test can show
// that a credential went nowhere else.
#pragma once

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/clock.h"
#include "cache/error.h"
#include "cache/event.h"
#include "proxy/http.h"
#include "proxy/url.h"

namespace staithe::fake {

// Holds replies until a test opens it. Closed gates may be opened once, or closed again.
class Gate {
 public:
  explicit Gate(asio::any_io_executor loop) : changed_(std::move(loop)) {}
  void open() {
    open_ = true;
    changed_.notify_all();
  }
  void close() { open_ = false; }
  asio::awaitable<void> pass() {
    ++waiting_;
    struct Leave {
      std::size_t& waiting;
      ~Leave() { --waiting; }
    } leave{waiting_};
    while (!open_) co_await changed_.wait();
  }
  std::size_t waiting() const { return waiting_; }

 private:
  bool open_ = false;
  std::size_t waiting_ = 0;
  Event changed_;
};

// A request as it went out.
struct Asked {
  std::string method;
  std::string url;  // as on the wire, query included
  proxy::Origin origin;
  std::string target;
  proxy::Headers headers;
  std::string body;
  std::string ca_file;
  std::string ca_pem, certificate_thumbprint, connect_to;
  proxy::HostNamedBy host_named_by;
  proxy::HttpLimits limits;
  Instant at;

  // A field of the form or of the query, decoded; "" if there is none.
  std::string field(std::string_view name) const {
    const std::size_t query = target.find('?');
    const std::string text =
        (query == std::string::npos ? "" : target.substr(query + 1)) + "&" + body;
    for (std::size_t at_byte = 0; at_byte < text.size();) {
      const std::size_t end = std::min(text.find('&', at_byte), text.size());
      const std::string_view pair = std::string_view(text).substr(at_byte, end - at_byte);
      const std::size_t equals = pair.find('=');
      if (equals != std::string_view::npos && pair.substr(0, equals) == name)
        return proxy::percent_decode(pair.substr(equals + 1)).value_or("?");
      at_byte = end + 1;
    }
    return {};
  }

  // Every byte that left us, as one text, escapes undone too: where a test looks for secrets.
  std::string everything() const {
    std::string all = method + " " + url + "\n";
    for (const auto& [name, value] : headers.fields()) all += name + ": " + value + "\n";
    all += "\n" + body + "\n";
    return all + proxy::percent_decode(url).value_or("") + "\n" +
           proxy::percent_decode(body).value_or("");
  }
};

struct Reply {
  int status = 200;
  std::vector<proxy::Headers::Field> headers = {};
  std::string body = {};
  std::chrono::nanoseconds delay{0};        // before the head, on the clock
  std::chrono::nanoseconds piece_delay{0};  // before each piece of the body
  std::size_t piece_bytes = 16 * 1024;
  Gate* gate = nullptr;                          // before the head
  std::optional<Error> error = {};               // instead of a response
  std::optional<std::size_t> breaks_after = {};  // bytes of the body, then upstream_failed

  static Reply json(std::string text, int status = 200) {
    return {.status = status,
            .headers = {{"Content-Type", "application/json"}},
            .body = std::move(text)};
  }
  static Reply failure(Errc code, std::string detail) {
    Reply reply;
    reply.error = Error{code, std::move(detail)};
    return reply;
  }
};

class FakeHttpClient final : public proxy::HttpClient {
 public:
  using Play = std::function<Reply(const Asked&)>;

  explicit FakeHttpClient(Clock& clock) : clock_(clock) {}

  // Plays all URLs that begin with `prefix`, from now on. A prefix without path covers the origin.
  void on(std::string prefix, Play play) { plays_[std::move(prefix)] = std::move(play); }
  // These replies, one after the other; the last one stays.
  void on(std::string prefix, std::vector<Reply> replies) {
    auto next = std::make_shared<std::size_t>(0);
    on(std::move(prefix), [replies = std::move(replies), next](const Asked&) {
      return replies.at(std::min((*next)++, replies.size() - 1));
    });
  }

  asio::awaitable<std::unique_ptr<proxy::HttpResponse>> send(proxy::HttpRequest request) override {
    asked_.push_back(Asked{.method = request.method,
                           .url = request.url.wire(),
                           .origin = request.url.origin(),
                           .target = request.url.target(),
                           .headers = request.headers,
                           .body = request.body,
                           .ca_file = request.ca_file,
                           .ca_pem = request.ca_pem,
                           .certificate_thumbprint = request.certificate_thumbprint,
                           .connect_to = request.connect_to,
                           .host_named_by = request.host_named_by,
                           .limits = request.limits,
                           .at = clock_.now()});
    const Asked asked = asked_.back();
    const auto [prefix, play] = find(asked.url);
    if (!play) {
      throw Failure(Errc::unreachable, "nobody plays " + request.url.printable());
    }
    InFlight in_flight(flights_[prefix]);
    const Reply reply = (*play)(asked);
    if (reply.gate) co_await reply.gate->pass();
    if (reply.delay.count() > 0) co_await clock_.sleep_for(reply.delay);
    if (reply.error) throw Failure(*reply.error);
    co_return std::make_unique<Response>(reply, clock_);
  }

  const std::vector<Asked>& asked() const { return asked_; }
  // How many requests went to URLs that begin with `prefix`.
  std::size_t count(std::string_view prefix) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        asked_, [&](const Asked& asked) { return asked.url.starts_with(prefix); }));
  }
  const Asked* last(std::string_view prefix) const {
    for (auto it = asked_.rbegin(); it != asked_.rend(); ++it) {
      if (it->url.starts_with(prefix)) return &*it;
    }
    return nullptr;
  }
  // The most requests that were ever unanswered at once for what is played as `prefix`.
  std::size_t most_at_once(const std::string& prefix) const {
    const auto found = flights_.find(prefix);
    return found == flights_.end() ? 0 : found->second.most;
  }
  // The URLs outside `owner` (an origin, "https://contoso.azurecr.io") that were sent `secret`.
  std::vector<std::string> leaks(std::string_view secret, std::string_view owner) const {
    std::vector<std::string> urls;
    for (const Asked& asked : asked_) {
      if (asked.origin.to_string() != owner && asked.everything().contains(secret))
        urls.push_back(asked.url);
    }
    return urls;
  }
  void forget() { asked_.clear(); }

 private:
  struct Flights {
    std::size_t now = 0;
    std::size_t most = 0;
  };
  struct InFlight {
    explicit InFlight(Flights& of) : flights(of) {
      flights.most = std::max(flights.most, ++flights.now);
    }
    ~InFlight() { --flights.now; }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
    Flights& flights;
  };

  class Response final : public proxy::HttpResponse {
   public:
    Response(Reply reply, Clock& clock) : reply_(std::move(reply)), clock_(clock) {
      for (const auto& [name, value] : reply_.headers) headers_.add(name, value);
    }
    int status() const override { return reply_.status; }
    const proxy::Headers& headers() const override { return headers_; }
    asio::awaitable<bool> read(std::vector<char>& piece) override {
      if (reply_.piece_delay.count() > 0) co_await clock_.sleep_for(reply_.piece_delay);
      const std::size_t whole =
          std::min(reply_.body.size(), reply_.breaks_after.value_or(reply_.body.size()));
      if (sent_ == whole) {
        if (reply_.breaks_after) throw Failure(Errc::upstream_failed, "the connection broke off");
        piece.clear();
        co_return false;
      }
      const std::size_t length = std::min(reply_.piece_bytes, whole - sent_);
      const auto begin = reply_.body.begin() + static_cast<std::ptrdiff_t>(sent_);
      piece.assign(begin, begin + static_cast<std::ptrdiff_t>(length));
      sent_ += length;
      co_return true;
    }

   private:
    Reply reply_;
    Clock& clock_;
    proxy::Headers headers_;
    std::size_t sent_ = 0;
  };

  // The longest prefix that the URL begins with, at the end of an origin only as a whole.
  std::pair<std::string, Play*> find(const std::string& url) {
    std::pair<std::string, Play*> best{"", nullptr};
    for (auto& [prefix, play] : plays_) {
      if (!url.starts_with(prefix) || (best.second && prefix.size() < best.first.size())) continue;
      const bool origin_only = std::ranges::count(prefix, '/') == 2;
      if (origin_only && url.size() > prefix.size() && url[prefix.size()] != '/') continue;
      best = {prefix, &play};
    }
    return best;
  }

  Clock& clock_;
  std::map<std::string, Play> plays_;
  std::map<std::string, Flights> flights_;
  std::vector<Asked> asked_;
};

}  // namespace staithe::fake
