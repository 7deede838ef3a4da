#include "daemon/doctor.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <utility>

#include "cache/escape.h"
#include "cache/offload.h"
#include "daemon/doctor_disk.h"
#include "daemon/image_name.h"
#include "daemon/owner_request.h"
#include "proxy/auth/json.h"
#include "proxy/reference.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

constexpr std::size_t most_faults_shown = 20;

bool is_registry(std::string_view text, const std::vector<proxy::RegistrySettings>& configured) {
  if (text.contains('/') || text.contains('@')) return false;
  const auto name = proxy::parse_registry(text);
  if (name && proxy::match_registry(configured, *name)) return true;
  return text.substr(0, text.find(':')).contains('.');
}

DoctorStep fault_step(const Fault& fault) {
  return {.step = "configuration",
          .subject = fault.file,
          .state = StepState::warning,
          .finding = fault.to_string() + "; staithed goes on with what it has read before",
          .mend = "correct it before the next restart: staithed --check says what is left",
          .error_class = to_string(Errc::config)};
}

}  // namespace

Result<DoctorOrder> parse_doctor_order(std::string_view body,
                                       const std::vector<proxy::RegistrySettings>& configured) {
  const auto bad =
      fail(Errc::bad_request,
           R"(the request is {"target":"REGISTRY or IMAGE"}, or {} for all that is in )"
           "use");
  const auto document = proxy::auth::parse_json_object(body.empty() ? "{}" : body);
  if (!document) return bad;
  const json::object& question = document->get_object();
  const json::value* target = question.if_contains("target");
  if (question.size() != (target ? 1u : 0u) || (target && !target->is_string())) return bad;
  DoctorOrder order;
  if (!target || target->get_string().empty()) return order;
  const std::string_view text = target->get_string();
  if (is_registry(text, configured)) {
    auto name = proxy::parse_registry(text);
    if (!name) return std::unexpected(name.error());
    order.registry = *std::move(name);
    return order;
  }
  auto image = parse_image_name(text);
  if (!image) return std::unexpected(image.error());
  return DoctorOrder{.registry = std::move(image->registry),
                     .repository = std::move(image->repository),
                     .reference = std::move(image->reference)};
}

// Those that pulls have gone to, those that have images here, and those that are configured by name
// with an identity of their own. An anonymous one that nobody uses may well be out of reach.
asio::awaitable<std::vector<std::string>> Doctor::registries_in_use() {
  std::set<std::string> names;
  const auto& registries = sources_.walk.registries;
  for (const auto& [name, registry] : registries.used())
    if (!registry->upstreams().empty()) names.insert(name);
  for (const cache::ListedImage& image : co_await sources_.walk.store.images()) {
    std::string name = image.repository.substr(0, image.repository.find('/'));
    if (proxy::match_registry(registries.configured(), name)) names.insert(std::move(name));
  }
  for (const auto& entry : registries.configured())
    if (!entry.identity.empty() && !entry.name.starts_with('*')) names.insert(entry.name);
  co_return std::vector<std::string>(names.begin(), names.end());
}

asio::awaitable<void> Doctor::handle(proxy::Exchange& exchange) {
  if (!co_await admit_post(exchange)) co_return;
  if (!co_await sources_.access.allows(Right::credential, exchange.peer())) {
    co_await exchange.reply_error(403, "DENIED",
                                  "only root, the user that staithed runs as, and those whom "
                                  "access.users or access.groups of staithe.toml name may have "
                                  "this machine's identity tried");
    co_return;
  }
  auto order = parse_doctor_order(exchange.request().body, sources_.walk.registries.configured());
  if (!order) {
    co_await exchange.reply_error(400, "UNSUPPORTED", order.error().detail);
    co_return;
  }
  const auto* const entry =
      order->registry.empty() ? nullptr : sources_.walk.registries.entry(order->registry);
  if (entry && !co_await sources_.access.allows(Right::credential, exchange.peer(), entry->name)) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this user may not use this registry here, and so not have its "
                                  "identity tried: its [registry.access], or [access] if it has "
                                  "none, names others");
    co_return;
  }
  if (running_) {
    co_await exchange.reply_error(409, "DENIED",
                                  "another diagnosis is under way: wait until that has ended");
    co_return;
  }
  running_ = true;
  const struct Ended {
    bool& running;
    ~Ended() { running = false; }
  } ended{running_};
  co_await examine(exchange, *std::move(order));
}

asio::awaitable<void> Doctor::examine(proxy::Exchange& exchange, DoctorOrder order) {
  const Instant began = sources_.walk.clock.now();
  DoctorSum sum;
  co_await exchange.begin(200, "application/x-ndjson", std::nullopt);
  const auto send = [&](json::object line) -> asio::awaitable<void> {
    // In the frame, since sending goes on after this expression.
    const std::string text = json::serialize(line) + "\n";
    co_await exchange.send(text);
  };
  const auto tell = [&](DoctorStep step) -> asio::awaitable<void> {
    sum.count(step.state);
    co_await send(to_json(step));
  };

  const Faults faults = sources_.check_configuration();
  for (std::size_t i = 0; i < std::min(faults.size(), most_faults_shown); ++i)
    co_await tell(fault_step(faults[i]));
  if (faults.empty()) co_await tell({.step = "configuration", .finding = "the file has no faults"});

  std::vector<std::string> names;
  if (!order.registry.empty()) {
    names.push_back(order.registry);
  } else {
    std::vector<std::string> in_use = co_await registries_in_use();
    for (std::string& name : in_use) {
      const auto* const entry = sources_.walk.registries.entry(name);
      if (entry &&
          co_await sources_.access.would_allow(Right::credential, exchange.peer(), entry->name))
        names.push_back(std::move(name));
    }
    if (names.empty())
      co_await tell({.step = "registry",
                     .state = StepState::skipped,
                     .finding = "no registry has been asked for, and none is configured by its "
                                "name with an identity: name one, staithe doctor "
                                "contoso.azurecr.io"});
    if (names.size() > most_registries) {
      co_await tell({.step = "registry",
                     .state = StepState::skipped,
                     .finding = std::to_string(names.size()) + " are in use, and the first " +
                                std::to_string(most_registries) +
                                " are tried: name one of the others"});
      names.resize(most_registries);
    }
  }
  for (const std::string& name : names)
    co_await walk_.walk(name, order.repository, order.reference, tell);

  if (sources_.examine_tls) {
    std::optional<DoctorStep> tls = co_await sources_.examine_tls();
    if (tls) co_await tell(*std::move(tls));
  }

  cache::Store& store = sources_.walk.store;
  const Instant disk_began = sources_.walk.clock.now();
  const DiskFacts facts = co_await offload(
      store.disk_pool(), [&] { return examine_disk(store.disk(), store.directory()); });
  const cache::Store::Stats stats = store.stats();
  const DiskUse use{.bytes = stats.bytes,
                    .max_bytes = stats.max_bytes,
                    .mode = cache::to_string(stats.mode),
                    .mode_reason = stats.mode_reason};
  DoctorStep disk = disk_step(facts, &use);
  disk.took = sources_.walk.clock.now() - disk_began;
  co_await tell(std::move(disk));

  json::array listen;
  for (const std::string& address : sources_.addresses()) listen.emplace_back(address);
  json::array registries;
  for (const std::string& name : names) registries.emplace_back(name);
  co_await send(json::object{{"kind", "facts"},
                             {"version", STAITHE_VERSION},
                             {"listen", std::move(listen)},
                             {"registries", std::move(registries)}});
  co_await send(sum.to_json(sources_.walk.clock.now() - began));
  co_await exchange.finish();
}

}  // namespace staithe::daemon
