#include "daemon/service.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>

#include "cache/log.h"
#include "cache/offload.h"
#include "daemon/loopback.h"
#include "daemon/resident.h"
#include "daemon/status_line.h"
#include "daemon/values.h"
#include "proxy/auth/secret_memory.h"
#include "proxy/peer.h"

namespace staithe::daemon {

namespace {

// The group of the socket may ask; who may do more is checked per request. Where [access] names
// somebody, every user may connect and every request is judged.
constexpr unsigned control_mode = 0660;
constexpr unsigned restricted_control_mode = 0666;
// Clients of all users connect to the registry socket; who they are is asked from the kernel.
constexpr unsigned registry_mode = 0666;
// A node that starts asks for many images at once, each by a helper of its own.
constexpr std::size_t control_connections = 1024;
// Where everybody may connect, nobody can keep the others out.
constexpr std::size_t control_connections_per_user = 512;
// Of the process's descriptors, what clients of the registry may not take: for blobs, upstream, the
// index and the control socket, whose own connections come out of these.
constexpr rlim_t kept_descriptors = 256;
constexpr std::size_t control_spare_descriptors = 8;
// Prometheus, a probe or two, and people who look at the page.
constexpr std::size_t metrics_connections = 64;
constexpr unsigned metrics_mode = 0666;
// The longest is a list of images to warm.
constexpr std::size_t control_body_bytes = most_warm_bytes;

// For what comes after the drain: fills are given up and the index is written.
constexpr auto close_patience = std::chrono::seconds(15);

// Memory is given back when the process has done next to nothing for so long: what is let go and
// wanted again costs a page fault.
constexpr auto rest_interval = std::chrono::minutes(1);
constexpr auto busy_processor_time = std::chrono::milliseconds(300);

// The directory of a Unix socket must be ours or root's: whoever owns it can replace the socket.
void prepare_socket_directory(const std::filesystem::path& directory) {
  const mode_t mode = ::geteuid() == 0 ? 0755 : 0700;
  ::mkdir(directory.c_str(), mode);
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0)
    throw Failure(Errc::config, "the directory " + directory.string() +
                                    " of the socket cannot be used: " + describe_errno(errno) +
                                    "; create it or set listen.control");
  if (status.st_uid != ::geteuid() && status.st_uid != 0)
    throw Failure(Errc::config, "the directory " + directory.string() +
                                    " of the socket belongs to uid " +
                                    std::to_string(status.st_uid) +
                                    ", who could replace the socket: choose another");
}

}  // namespace

Service::Service(asio::io_context& context, Config config, LoadConfig load)
    : loop_(context.get_executor()),
      config_(std::move(config)),
      load_(std::move(load)),
      loops_(proxy::Loops::for_this_machine()),
      store_lines_({.lines = 10, .interval = std::chrono::minutes(1)}),
      task_lines_({.lines = 1, .interval = std::chrono::minutes(1)}),
      tasks_(loop_, [this](std::string_view name,
                           std::string_view sentence) { report_task(name, sentence); }),
      access_(loop_, clock_, tasks_, ::geteuid(), Accounts::of_system(), ::getegid()),
      store_(loop_, config_.cache, disk_, clock_,
             [this](std::string_view event, std::string_view sentence) {
               report_store(event, sentence);
             }),
      http_(loop_),
      files_(store_.disk_pool()),
      identities_(config_.proxy.azure, config_.proxy.identities,
                  {.http = http_,
                   .clock = clock_,
                   .tasks = tasks_,
                   .random = random_,
                   .files = files_,
                   .programs = programs_,
                   .limits = http_limits()}),
      registries_(
          config_.proxy.registries,
          [this](const std::string& name, const proxy::RegistrySettings& settings,
                 const std::string& identity) { return make_upstream(name, settings, identity); }),
      caller_proofs_(loop_,
                     {.http = http_,
                      .clock = clock_,
                      .tasks = tasks_,
                      .random = random_,
                      .files = files_,
                      .programs = programs_,
                      .limits = http_limits()},
                     [this](const proxy::Registry& registry) { return caller_door(registry); }),
      fills_(loop_, store_, clock_),
      proxy_(loop_, registries_, store_, fills_, tasks_, clock_),
      credentials_(
          {.loop = loop_,
           .config = config_,
           .registries = registries_,
           .access = access_,
           .tasks = tasks_,
           .doors = {
               .service_account =
                   [this](proxy::RegistryPtr registry, proxy::auth::ServiceAccount account) {
                     return identities_.service_account_login(place(*registry), std::move(account));
                   },
               .sign_in =
                   [this](proxy::RegistryPtr registry, proxy::auth::Secret token) {
                     return sign_in(std::move(registry), std::move(token));
                   },
               .sign_out =
                   [this](proxy::RegistryPtr registry) { return sign_out(std::move(registry)); }}}),
      verifier_({.store = store_, .clock = clock_, .access = access_}),
      warmer_({.clock = clock_,
               .store = store_,
               .registries = registries_,
               .proxy = proxy_,
               .fills = fills_}),
      standing_warm_(loop_, {.clock = clock_, .random = random_, .warmer = warmer_}, config_.warm),
      warm_control_({.warmer = warmer_, .access = access_}),
      ending_watch_(clock_, registries_, identities_,
                    [this] {
                      std::vector<proxy::auth::Ending> endings;
                      if (const auto tls = tls_state()) endings.push_back(ending_of(*tls));
                      return endings;
                    }),
      metrics_({.store = store_,
                .proxy = proxy_,
                .registries = registries_,
                .fills = fills_,
                .upstreams = upstream_meters_,
                .access = access_,
                .connections = [this] { return registry_server_.figures(); },
                .tls = [this] { return tls_state(); },
                .started = clock_.wall()}),
      doctor_({.walk = {.loop = loop_,
                        .config = config_,
                        .clock = clock_,
                        .store = store_,
                        .registries = registries_,
                        .http = http_,
                        .make_upstream =
                            [this](const proxy::UpstreamEntry& entry, const std::string& identity,
                                   proxy::HttpClient& http, TaskGroup& tasks) {
                              return make_fresh_upstream(entry, identity, http, tasks);
                            }},
               .access = access_,
               .check_configuration =
                   [this] {
                     const auto config = load_();
                     return config ? Faults() : config.error();
                   },
               .addresses = [this] { return registry_server_.addresses(); },
               .examine_tls = [this] { return examine_tls(); }}),
      control_({.config = config_,
                .clock = clock_,
                .store = store_,
                .proxy = proxy_,
                .registries = registries_,
                .fills = fills_,
                .access = access_,
                .credentials = credentials_,
                .verifier = verifier_,
                .warm = warm_control_,
                .warm_status =
                    [this] {
                      return boost::json::object{{"configured", standing_warm_.status()},
                                                 {"running", warmer_.running()}};
                    },
                .reload = [this] { return reload(); },
                .connections = [this] { return registry_server_.figures(); },
                .tls = [this] { return tls_state(); },
                .metrics = [this] { return metrics_text(metrics_); },
                .doctor = &doctor_}),
      metrics_door_({.metrics = metrics_,
                     .is_ready = [this] { return proxy_.is_ready(); },
                     .clock = clock_,
                     .status = config_.status_page ? std::function([this] {
                       return boost::json::value(control_.status());
                     })
                                                   : nullptr}),
      front_(loop_, proxy_.answers(), proxy_.admission(), clock_, proxy_.meter(),
             proxy::Loops::beside_clients()),
      registry_server_(loop_,
                       {.connections = config_.proxy.limits.connections,
                        .connections_per_user = config_.proxy.limits.connections_per_user,
                        .connection = {.header_timeout = config_.proxy.limits.header_timeout,
                                       .idle_timeout = config_.proxy.limits.idle_timeout},
                        .kept_descriptors = kept_descriptors},
                       proxy_, store_.disk_pool(), &loops_, &front_),
      control_server_(loop_,
                      {.connections = control_connections,
                       .connections_per_user = control_connections_per_user,
                       .connection = {.body_bytes = control_body_bytes},
                       .spare_descriptors = control_spare_descriptors},
                      control_, store_.disk_pool()),
      metrics_server_(loop_,
                      {.connections = metrics_connections,
                       .connections_per_user = metrics_connections,
                       .connection = {}},
                      metrics_door_, store_.disk_pool()),
      watchdog_(clock_, tasks_, parts(), [this] { notify("WATCHDOG=1\nSTATUS=" + status()); }),
      stop_asked_(loop_) {
  proxy_.judge_callers_by([this](proxy::CallerProofs::Question question) {
    return caller_proofs_.judge(std::move(question));
  });
}

Service::~Service() = default;

proxy::HttpLimits Service::http_limits() const {
  return {.connect = config_.proxy.limits.upstream_connect,
          .first_byte = config_.proxy.limits.upstream_first_byte,
          .stall = config_.proxy.limits.upstream_stall};
}

proxy::auth::Place Service::place(const std::string& name,
                                  const proxy::RegistrySettings& settings) {
  const std::string text = settings.upstream.empty() ? "https://" + name : settings.upstream.back();
  // Docker Hub's registry has another host than its name.
  const proxy::Url base = value_or_throw(
      proxy::Url::parse(text == "https://docker.io" ? "https://registry-1.docker.io" : text));
  return {.name = name,
          .upstream = base.origin(),
          .ca_file = settings.ca_file,
          .token_hosts = settings.token_hosts,
          .meter = upstream_meters_.tokens_of(settings.name)};
}

proxy::auth::Place Service::place(const proxy::Registry& registry) {
  return place(registry.name(), registry.settings());
}

proxy::CallerDoor Service::caller_door(const proxy::Registry& registry) {
  const proxy::UpstreamEntry& own = registry.entries().back();
  const proxy::auth::Place where = place(own.registry, own.settings);
  return {.origin = where.upstream,
          .prefix = own.settings.prefix,
          .ca_file = where.ca_file,
          .password_rule = identities_.password_rule(where),
          .token_hosts = identities_.token_hosts(where)};
}

asio::awaitable<proxy::auth::Identities::SignIn> Service::sign_in(proxy::RegistryPtr registry,
                                                                  proxy::auth::Secret token) {
  auto made = value_or_throw(identities_.sign_in(place(*registry), std::move(token)));
  registries_.use_identity(registry->name(), std::string(proxy::auth::Identities::signed_in));
  co_return made;
}

asio::awaitable<bool> Service::sign_out(proxy::RegistryPtr registry) {
  const bool was = identities_.sign_out(registry->name());
  registries_.use_identity(registry->name(), {});
  co_return was;
}

std::unique_ptr<proxy::Upstream> Service::make_upstream(const std::string& name,
                                                        const proxy::RegistrySettings& settings,
                                                        const std::string& identity) {
  return make_upstream(name, settings, identities_.make_authorizer(place(name, settings), identity),
                       http_);
}

std::unique_ptr<proxy::Upstream> Service::make_fresh_upstream(const proxy::UpstreamEntry& entry,
                                                              const std::string& identity,
                                                              proxy::HttpClient& http,
                                                              TaskGroup& tasks) {
  const proxy::auth::Place where = place(entry.registry, entry.settings);
  // A sign-in is where it was put, and nowhere else.
  if (identity == proxy::auth::Identities::signed_in)
    return make_upstream(entry.registry, entry.settings,
                         identities_.make_authorizer(where, identity), http);
  proxy::auth::Identities fresh(config_.proxy.azure, config_.proxy.identities,
                                {.http = http,
                                 .clock = clock_,
                                 .tasks = tasks,
                                 .random = random_,
                                 .files = files_,
                                 .programs = programs_,
                                 .limits = http_limits()});
  return make_upstream(entry.registry, entry.settings, fresh.make_authorizer(where, identity),
                       http);
}

std::unique_ptr<proxy::Upstream> Service::make_upstream(
    const std::string& name, const proxy::RegistrySettings& settings,
    std::unique_ptr<proxy::auth::Authorizer> authorizer, proxy::HttpClient& http) {
  const proxy::auth::Place where = place(name, settings);
  proxy::Url base = value_or_throw(proxy::Url::parse(where.upstream.to_string()));
  proxy::RedirectPolicy redirects{.registry = base.origin(),
                                  .data_hosts = settings.data_hosts,
                                  .acr_suffixes = config_.proxy.azure.acr_suffixes};
  return std::make_unique<proxy::Upstream>(
      loop_,
      proxy::Upstream::Settings{.base = std::move(base),
                                .prefix = settings.prefix,
                                .ca_file = settings.ca_file,
                                .redirects = std::move(redirects),
                                .max_connections = settings.max_connections,
                                .limits = http_limits(),
                                .meter = upstream_meters_.of(settings.name)},
      std::move(authorizer), http, clock_, random_);
}

void Service::report_store(std::string_view event, std::string_view sentence) {
  if (event == "cache mode") {  // A change of state; no two are alike.
    const bool back = sentence.starts_with(cache::to_string(cache::Store::Mode::read_write));
    log::write(back ? log::Level::info : log::Level::warn, "cache mode changed",
               {{"detail", sentence}});
    return;
  }
  if (const auto left_out = store_lines_.admit(event, clock_.now()))
    log::warn("cache",
              {{"what", event}, {"detail", sentence}, {"left_out", log::if_any(*left_out)}});
}

void Service::report_task(std::string_view name, std::string_view sentence) {
  const auto left_out = task_lines_.admit(name, clock_.now());
  log::write(
      left_out ? log::Level::warn : log::Level::debug, "background task failed",
      {{"task", name}, {"error", sentence}, {"left_out", log::if_any(left_out.value_or(0))}});
}

void Service::listen() {
  const PassedSockets passed = passed_sockets();
  if (passed.peers) proxy::ask_peers_through(*passed.peers);
  for (const int fd : passed.registry) registry_server_.adopt(fd);
  for (const int fd : passed.control) control_server_.adopt(fd);
  for (const int fd : passed.metrics) metrics_server_.adopt(fd);
  // Sockets that the service manager holds stand for those of the configuration.
  if (passed.registry.empty()) {
    for (const std::string& text : config_.proxy.listen)
      registry_server_.listen(value_or_throw(proxy::ListenAddress::parse(text)), registry_mode);
  }
  // The service manager knows nothing of TLS.
  for (const std::string& text : config_.tls_addresses)
    registry_server_.listen(value_or_throw(proxy::ListenAddress::parse("tls:" + text)),
                            registry_mode);
  if (passed.control.empty()) {
    prepare_socket_directory(config_.control_socket.parent_path());
    control_server_.listen(
        value_or_throw(proxy::ListenAddress::parse("unix:" + config_.control_socket.string())),
        access_.restricted() ? restricted_control_mode : control_mode);
    owns_control_socket_ = true;
  }
  if (passed.metrics.empty() && !config_.metrics_address.empty())
    metrics_server_.listen(value_or_throw(proxy::ListenAddress::parse(config_.metrics_address)),
                           metrics_mode);
  admit_hosts();
  const std::vector<std::string> addresses = registry_server_.addresses();
  const bool asked_for = config_.proxy.listen != proxy::ProxySettings{}.listen;
  for (const std::string& wanted : config_.proxy.listen) {
    if (passed.registry.empty() || !asked_for) break;
    if (std::ranges::find(addresses, wanted) == addresses.end())
      log::warn("an address of listen.registry is not served: staithed.socket has the addresses",
                {{"address", wanted},
                 {"remedy", "set ListenStream= by systemctl edit staithed.socket, or disable it"}});
  }
  control_.set_addresses(addresses);
}

void Service::admit_hosts() {
  proxy_.admit(proxy::HostPolicy(registry_server_.addresses(), config_.proxy.hosts));
  metrics_door_.admit(proxy::HostPolicy(metrics_server_.addresses(), config_.proxy.hosts));
}

void Service::restrict_proxy() {
  if (!access_.restricted()) {
    proxy_.restrict({});
    return;
  }
  proxy_.restrict([this](proxy::Caller caller, std::optional<std::string> registry) {
    return access_.allows_until(Right::pull, caller, std::move(registry));
  });
}

// No coroutine: see access_.load().
asio::awaitable<void> Service::reload_access() {
  asio::awaitable<void> loading = access_.load(AccessLists::of(config_.proxy));
  restrict_proxy();
  return finish_access(std::move(loading));
}

asio::awaitable<void> Service::finish_access(asio::awaitable<void> loading) {
  co_await std::move(loading);
  restrict_proxy();
  if (owns_control_socket_)
    ::chmod(config_.control_socket.c_str(),
            access_.restricted() ? restricted_control_mode : control_mode);
}

asio::awaitable<void> Service::load_tls() {
  tls_->use(co_await read_tls_file(files_, config_.tls_file));
}

asio::awaitable<void> Service::reload_tls() {
  std::string fault;
  try {
    co_await load_tls();
  } catch (const Failure& failure) {
    fault = failure.error().detail;
    log::error("TLS file not reloaded", {{"error", failure.error()}});
  }
  tls_fault_ = std::move(fault);
}

std::optional<TlsState> Service::tls_state() const {
  if (!tls_ || !tls_->context()) return std::nullopt;
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.wall());
  return TlsState{.file = config_.tls_file,
                  .expires_in = tls_->context()->not_after() - now,
                  .fault = tls_fault_,
                  .figures = tls_->figures()};
}

asio::awaitable<std::optional<DoctorStep>> Service::examine_tls() {
  if (!tls_) co_return std::nullopt;
  co_return co_await examine_tls_file(files_, config_.tls_file, true, tls_->context(),
                                      clock_.wall());
}

asio::awaitable<void> Service::run() {
  std::exception_ptr failed;
  try {
    co_await store_.open();
    co_await reload_access();
    if (!config_.tls_addresses.empty()) {
      tls_.emplace(proxy::Loops::beside_clients());
      co_await load_tls();
      registry_server_.end_tls_by(*tls_);
    }
    listen();
    const std::string protection = proxy::auth::SecretMemory::of_process().describe();
    if (protection.starts_with("locked")) {
      log::info("memory for secrets", {{"protection", protection}});
    } else {
      log::warn("memory for secrets", {{"protection", protection}});
    }
    warn_of_loopback_routes();
    release_program_pages();  // Of the start.
    registry_server_.start();
    control_server_.start();
    metrics_server_.start();
    proxy_.set_ready(true);
    control_.set_state(Control::State::ready);
    for (const std::string& address : registry_server_.addresses())
      log::info("serving", {{"address", address}});
    for (const std::string& address : metrics_server_.addresses())
      log::info("serving metrics", {{"address", address}});
    notify("READY=1\nSTATUS=" + status());
    if (const auto interval = watchdog_interval())
      tasks_.spawn("watchdog", watchdog_.run(*interval));
    tasks_.spawn("rest", rest());
    tasks_.spawn("watching for ends", ending_watch_.run());
    tasks_.spawn("warming", standing_warm_.run());
    while (!stopping_) co_await stop_asked_.wait();
    co_await drain();
  } catch (...) {
    failed = std::current_exception();
  }
  co_await close();
  if (failed) std::rethrow_exception(failed);
}

void Service::stop() {
  stopping_ = true;
  stop_asked_.notify_all();
}

Faults Service::reload() {
  notify_reloading();
  const std::expected<Config, Faults> config = load_();
  fault_ = config ? std::string() : config.error().front().to_string();
  if (!config) {
    for (const Fault& fault : config.error())
      log::error("configuration not reloaded", {{"fault", fault.to_string()}});
    notify("READY=1\nSTATUS=" + status());
    return config.error();
  }
  const bool same_identities = config->proxy.identities == config_.proxy.identities;
  const AccessLists access_before = AccessLists::of(config_.proxy);
  // What is taken over now becomes the configuration in force; what then still differs waits.
  take_over(config_, *config);
  if (AccessLists::of(config_.proxy) != access_before) tasks_.spawn("access", reload_access());
  identities_.replace(config_.proxy.identities);
  registries_.replace(config_.proxy.registries, same_identities);
  admit_hosts();
  warn_of_loopback_routes();
  if (tls_) tasks_.spawn("tls", reload_tls());
  store_.set_bounds(config_.cache.max_size, config_.cache.min_free);
  standing_warm_.set(config_.warm);
  store_.scrub().set_interval(config_.cache.scrub_interval);
  log::set_level(config_.log.level);
  log::info("configuration reloaded", {{"restart_needed", to_toml(*config) != to_toml(config_)}});
  notify("READY=1\nSTATUS=" + status());
  return {};
}

asio::awaitable<void> Service::drain() {
  using namespace asio::experimental::awaitable_operators;
  // However long a transfer may take to end here, the manager waits for it.
  const auto patience =
      std::chrono::duration_cast<std::chrono::microseconds>(config_.drain_timeout + close_patience);
  notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(patience.count()) +
         "\nSTATUS=draining: what is being sent may end, at most " +
         format_duration(config_.drain_timeout));
  log::info("draining", {{"connections", registry_server_.connections()}});
  proxy_.set_ready(false);
  warmer_.stop();
  doctor_.stop();
  control_.set_state(Control::State::draining);
  registry_server_.drain();
  asio::steady_timer timer(loop_, config_.drain_timeout);
  co_await (registry_server_.drained() || timer.async_wait(asio::use_awaitable));
}

asio::awaitable<void> Service::close() {
  // What connections may be waiting for ends first: an identity service takes up to a minute, and
  // an upstream that is silent in the middle of a blob is waited for longer.
  warmer_.stop();
  doctor_.stop();
  tasks_.cancel();
  programs_.stop();
  co_await fills_.stop();
  co_await registry_server_.stop();
  co_await control_server_.stop();
  co_await metrics_server_.stop();
  co_await tasks_.join();
  co_await store_.close();
}

std::vector<Watchdog::Part> Service::parts() {
  return {{.name = "disk", .come_round = [this] { return offload(store_.disk_pool(), [] {}); }},
          {.name = "loops", .come_round = [this] { return loops_.come_round(); }},
          {.name = "front", .come_round = [this] { return front_.come_round(); }}};
}

std::string Service::status() const {
  return status_line({.connections = registry_server_.connections(),
                      .transfers = fills_.progress().size(),
                      .cache = store_.stats(),
                      .hit_ratio = proxy_.traffic().hit_ratio(),
                      .fault = fault_});
}

asio::awaitable<void> Service::rest() {
  std::chrono::nanoseconds seen = processor_time();
  bool rested = true;  // The start has let go of what it needed.
  for (;;) {
    co_await clock_.sleep_for(rest_interval);
    const std::chrono::nanoseconds used = processor_time() - std::exchange(seen, processor_time());
    const bool busy = used > busy_processor_time;
    if (!busy && !rested) co_await offload(store_.disk_pool(), [] { release_unused_memory(); });
    rested = !busy;
  }
}

}  // namespace staithe::daemon
