// What upstreams were asked, counted: one meter for each [[registry]], which outlives the upstreams
// that a reload replaces, so that no count ever falls. Lives on the loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "proxy/auth/token_meter.h"

namespace staithe::proxy {

enum class UpstreamKind { manifest, blob, tags, referrers };
std::string_view to_string(UpstreamKind kind);
// Of what is asked for: "manifests/latest", "blobs/sha256:...".
UpstreamKind upstream_kind_of(std::string_view what);

// The status as a label: itself if it is one that registries use, else its class ("4xx"), and
// "none" for 0, a request that was not answered. No server can make a label.
std::string_view code_label(int status);

class UpstreamMeter {
 public:
  // One request on the wire; status 0: no answer came, or nobody waited for it any more.
  void note(UpstreamKind kind, int status) { ++requests_[{kind, code_label(status)}]; }
  void note_bytes(std::uint64_t bytes) { bytes_ += bytes; }
  // A pause was begun or lengthened by so much.
  void note_pause(std::chrono::nanoseconds by) { paused_ += by; }

  using Requests = std::map<std::pair<UpstreamKind, std::string_view>, std::uint64_t>;
  const Requests& requests() const { return requests_; }
  std::uint64_t bytes() const { return bytes_; }
  std::chrono::nanoseconds paused() const { return paused_; }
  auth::TokenMeter& tokens() { return tokens_; }
  const auth::TokenMeter& tokens() const { return tokens_; }

 private:
  Requests requests_;
  std::uint64_t bytes_ = 0;
  std::chrono::nanoseconds paused_{};
  auth::TokenMeter tokens_;
};

class UpstreamMeters {
 public:
  // `registry`: as a [[registry]] is called.
  std::shared_ptr<UpstreamMeter> of(const std::string& registry) {
    auto& meter = all_[registry];
    if (!meter) meter = std::make_shared<UpstreamMeter>();
    return meter;
  }
  // Its part for the credentials.
  std::shared_ptr<auth::TokenMeter> tokens_of(const std::string& registry) {
    const auto meter = of(registry);
    return {meter, &meter->tokens()};
  }
  const std::map<std::string, std::shared_ptr<UpstreamMeter>>& all() const { return all_; }

 private:
  std::map<std::string, std::shared_ptr<UpstreamMeter>> all_;
};

}  // namespace staithe::proxy
