// The daemon's parts, put together, and their life from start to end.
//
//   open    the cache directory, then the sockets; a failure here ends the start with a sentence
//   serve   until asked to stop
//   drain   no new connections; those that are being answered go on, at most drain_timeout
//   close   what is left is cut, fills are given up, the index is written
//
// Lives on the loop of the io_context it is given; run() returns when all has ended.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/event.h"
#include "cache/random.h"
#include "cache/sparing.h"
#include "cache/store.h"
#include "cache/task_group.h"
#include "daemon/access.h"
#include "daemon/control.h"
#include "daemon/doctor.h"
#include "daemon/ending_watch.h"
#include "daemon/metrics.h"
#include "daemon/metrics_door.h"
#include "daemon/options.h"
#include "daemon/standing_warm.h"
#include "daemon/systemd.h"
#include "daemon/tls_certificate.h"
#include "daemon/warm_control.h"
#include "daemon/warming.h"
#include "daemon/watchdog.h"
#include "proxy/auth/identities.h"
#include "proxy/caller_proofs.h"
#include "proxy/curl_loop.h"
#include "proxy/fills.h"
#include "proxy/front.h"
#include "proxy/loops.h"
#include "proxy/proxy.h"
#include "proxy/registries.h"
#include "proxy/server.h"
#include "proxy/tls_gate.h"

namespace staithe::daemon {

class Service {
 public:
  using LoadConfig = std::function<std::expected<Config, Faults>()>;

  // `load` reads the configuration again, for reload().
  Service(asio::io_context& context, Config config, LoadConfig load);
  ~Service();

  // Throws Failure: in_use (the cache directory), config (an address), storage_failed.
  asio::awaitable<void> run();

  // Asks run() to drain and return.
  void stop();
  // Takes the new configuration over: registries, identities, hosts, cache bounds and log level at
  // once; for the rest the log says that a restart is needed. Faults change nothing, and are logged
  // and returned; empty if there are none.
  Faults reload();

 private:
  // What happens beside the requests.
  void report_store(std::string_view event, std::string_view sentence);
  void report_task(std::string_view name, std::string_view sentence);
  void listen();
  // Under which names the listeners are known.
  void admit_hosts();
  // Has access_ take over whom the configuration names, and the listeners act on it. What is closed
  // from now on is so when this returns, the rest when it has been awaited.
  asio::awaitable<void> reload_access();
  asio::awaitable<void> finish_access(asio::awaitable<void> loading);
  void restrict_proxy();
  // Reads listen.tls_file for the connections that come from then on. Throws Failure.
  asio::awaitable<void> load_tls();
  asio::awaitable<void> reload_tls();
  // None where nothing listens with TLS.
  std::optional<TlsState> tls_state() const;
  asio::awaitable<std::optional<DoctorStep>> examine_tls();
  asio::awaitable<void> drain();
  asio::awaitable<void> close();
  std::vector<Watchdog::Part> parts();
  // For `systemctl status`.
  std::string status() const;
  // Gives memory back that only busier times needed.
  asio::awaitable<void> rest();
  proxy::auth::Place place(const std::string& name, const proxy::RegistrySettings& settings);
  proxy::auth::Place place(const proxy::Registry& registry);
  // Where its callers are judged: by the registry itself, and no mirror of it.
  proxy::CallerDoor caller_door(const proxy::Registry& registry);
  asio::awaitable<proxy::auth::Identities::SignIn> sign_in(proxy::RegistryPtr registry,
                                                           proxy::auth::Secret token);
  asio::awaitable<bool> sign_out(proxy::RegistryPtr registry);
  std::unique_ptr<proxy::Upstream> make_upstream(const std::string& name,
                                                 const proxy::RegistrySettings& settings,
                                                 const std::string& identity);
  std::unique_ptr<proxy::Upstream> make_upstream(
      const std::string& name, const proxy::RegistrySettings& settings,
      std::unique_ptr<proxy::auth::Authorizer> authorizer, proxy::HttpClient& http);
  // One that holds nothing from before, for a diagnosis; see DoctorWalk::MakeUpstream.
  std::unique_ptr<proxy::Upstream> make_fresh_upstream(const proxy::UpstreamEntry& entry,
                                                       const std::string& identity,
                                                       proxy::HttpClient& http, TaskGroup& tasks);
  proxy::HttpLimits http_limits() const;

  asio::any_io_executor loop_;
  Config config_;
  LoadConfig load_;
  SystemClock clock_;
  SystemRandom random_;
  cache::PosixDisk disk_;
  // Before, and so after, all that has anything on them.
  proxy::Loops loops_;
  Sparing store_lines_;  // by what happened
  Sparing task_lines_;   // by the task
  TaskGroup tasks_;
  Access access_;
  cache::Store store_;
  proxy::UpstreamMeters upstream_meters_;
  proxy::CurlLoop http_;
  proxy::auth::PosixFiles files_;
  proxy::auth::PosixPrograms programs_;
  proxy::auth::Identities identities_;
  proxy::Registries registries_;
  proxy::CallerProofs caller_proofs_;
  proxy::Fills fills_;
  proxy::Proxy proxy_;
  Credentials credentials_;
  Verifier verifier_;
  Warmer warmer_;
  StandingWarm standing_warm_;
  WarmControl warm_control_;
  EndingWatch ending_watch_;
  MetricSources metrics_;
  Doctor doctor_;
  Control control_;
  MetricsDoor metrics_door_;
  proxy::Front front_;
  std::optional<proxy::TlsGate> tls_;  // where listen.tls has addresses; before its server
  std::string tls_fault_;              // of its file, when that was last read
  proxy::Server registry_server_;
  proxy::Server control_server_;
  proxy::Server metrics_server_;
  Watchdog watchdog_;
  std::string fault_;  // of the configuration, when it was last read again
  bool owns_control_socket_ = false;
  bool stopping_ = false;
  Event stop_asked_;
};

}  // namespace staithe::daemon
