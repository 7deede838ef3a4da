// `staithe doctor`, the way of a pull: identity, Entra, challenge, exchange, token, manifest, blob
// host, each asked for now, by the code that pulls use, with nothing that is kept from before.
//
// The steps of one registry, in this order:
//
//   pause      skipped unless the registry has asked staithed for one: then it is not asked
//   mirror     one for each upstream before the registry itself
//   identity   the identity service, secret file, helper or sign-in
//   entra      Entra itself, where it is asked by us and not by an identity service
//   challenge  GET /v2/ without credentials
//   exchange   of ACR: the refresh token
//   token      the access token for one repository
//   manifest   of one image: by its tag, and of an index the one of this machine's platform
//   blob-host  the first byte of its largest layer, by redirect or not
//   clock      ours against the servers'
//
// A step whose ground is missing is skipped and says why. What is asked is bounded: per registry
// most_requests, each with the limits of the configuration, and step_time a step. Lives on the
// loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/event.h"
#include "cache/store.h"
#include "cache/task_group.h"
#include "daemon/doctor_step.h"
#include "daemon/options.h"
#include "proxy/http.h"
#include "proxy/registries.h"
#include "proxy/upstream.h"

namespace staithe::daemon {

namespace asio = boost::asio;

class DoctorWalk {
 public:
  // A pull by digest takes about ten.
  static constexpr std::size_t most_requests = 32;
  static constexpr std::chrono::seconds step_time{40};

  using Tell = std::function<asio::awaitable<void>(DoctorStep)>;
  // An upstream as pulls have one, that holds no tokens yet, does its background work in `tasks`
  // and asks by `http`; all of these outlive it.
  using MakeUpstream = std::function<std::unique_ptr<proxy::Upstream>(
      const proxy::UpstreamEntry& entry, const std::string& identity, proxy::HttpClient& http,
      TaskGroup& tasks)>;

  // All outlive it.
  struct Sources {
    asio::any_io_executor loop;
    const Config& config;
    Clock& clock;
    cache::Store& store;
    proxy::Registries& registries;
    proxy::HttpClient& http;
    MakeUpstream make_upstream;
  };
  explicit DoctorWalk(Sources sources) : sources_(std::move(sources)), stopped_(sources_.loop) {}

  // Walks the registry `name`, with the image `repository`:`reference` if that is not empty, else
  // with one of its images that is cached. Throws what `tell` throws.
  asio::awaitable<void> walk(std::string name, std::string repository, std::string reference,
                             Tell tell);

  // What is under way ends soon, as cancelled.
  void stop();

 private:
  class Session;

  asio::awaitable<void> walk_in(Session& session, proxy::RegistryPtr registry);
  Sources sources_;
  Event stopped_;
  bool stopping_ = false;
};

// Pure: the finding about a clock that is so far ahead of a server's (negative: behind).
DoctorStep clock_step(std::chrono::seconds ahead, const std::string& server);

}  // namespace staithe::daemon
