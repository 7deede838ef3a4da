#include "daemon/setup_service.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <utility>

#include "cache/escape.h"
#include "daemon/image_name.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr std::size_t most_seen_hosts = 100;

const json::value* at(const json::value* value, std::string_view key) {
  const json::object* object = value ? value->if_object() : nullptr;
  return object ? object->if_contains(key) : nullptr;
}

std::string text(const json::value* value) {
  return value && value->is_string() ? std::string(value->get_string()) : std::string();
}

const json::array& items(const json::value* value) {
  static const json::array none;
  return value && value->is_array() ? value->get_array() : none;
}

// The listener that every client can be told of: loopback by its number, IPv4 first.
Result<std::string> choose_listener(const std::vector<std::string>& listeners) {
  std::string chosen;
  for (const std::string& listener : listeners) {
    if (listener.starts_with("unix:") || listener.ends_with(":0")) continue;
    const auto canonical = parse_listen_address(listener);
    if (!canonical) continue;
    if (chosen.empty() || (chosen.starts_with('[') && !canonical->starts_with('[')))
      chosen = *canonical;
  }
  if (chosen.empty()) {
    return fail(Errc::config,
                "staithed has no listener that clients can be told of: they need a loopback "
                "address with a port in listen.registry, \"127.0.0.1:5050\" for instance");
  }
  return chosen;
}

void note_hosts(FoundService& found) {
  for (const std::string& name : found.images) {
    const auto image = parse_image_name(name);
    if (!image || found.service.seen.size() >= most_seen_hosts) continue;
    if (std::ranges::find(found.service.seen, image->registry) == found.service.seen.end())
      found.service.seen.push_back(image->registry);
  }
  std::ranges::sort(found.service.seen);
}

}  // namespace

Result<FoundService> service_of(const json::value& config, const json::value& status,
                                const json::value& images) {
  FoundService found{.service = {}, .is_running = true, .images = {}};
  std::vector<std::string> listeners;
  for (const json::value& address : items(at(&status, "listen")))
    listeners.push_back(text(&address));
  auto address = choose_listener(listeners);
  if (!address) return std::unexpected(address.error());
  found.service.address = *std::move(address);

  const json::value* values = at(&config, "json");
  const json::value* identities = at(values, "identity");
  for (const json::value& entry : items(at(values, "registry"))) {
    // A name goes into files of others, so it is one or it is left out.
    const auto name = parse_registry_name(text(at(&entry, "name")));
    if (!name) continue;
    const json::value* is_default = at(&entry, "default");
    const std::string identity = text(at(&entry, "identity"));
    const std::string kind = text(at(at(identities, identity), "kind"));
    found.service.registries.push_back(
        {.name = *name,
         .is_default = is_default && is_default->is_bool() && is_default->get_bool(),
         .has_identity = !identity.empty() && kind != "anonymous"});
  }
  for (const json::value& image : items(at(&images, "images")))
    if (std::string name = text(at(&image, "name")); !name.empty())
      found.images.push_back(std::move(name));
  note_hosts(found);
  return found;
}

Result<FoundService> service_of(const Config& config) {
  FoundService found;
  auto address = choose_listener(config.proxy.listen);
  if (!address) return std::unexpected(address.error());
  found.service.address = *std::move(address);
  for (const proxy::RegistrySettings& registry : config.proxy.registries) {
    const auto identity = config.proxy.identities.find(registry.identity);
    found.service.registries.push_back(
        {.name = registry.name,
         .is_default = registry.is_default,
         .has_identity = identity != config.proxy.identities.end() &&
                         identity->second.kind != proxy::IdentityKind::anonymous});
  }
  found.images = config.warm.images;
  note_hosts(found);
  return found;
}

std::expected<FoundService, ControlError> ask_service(const std::filesystem::path& socket) {
  const auto config = control_get(socket, "/v1/config");
  if (!config) return std::unexpected(config.error());
  const auto status = control_get(socket, "/v1/status");
  if (!status) return std::unexpected(status.error());
  const auto images = control_get(socket, "/v1/images");
  if (!images) return std::unexpected(images.error());
  auto found = service_of(*config, *status, *images);
  if (!found) return std::unexpected(ControlError{false, found.error().detail});
  return *std::move(found);
}

Result<Served> only(const Served& service, const std::vector<std::string>& hosts) {
  Served result{.address = service.address, .registries = {}, .seen = {}};
  for (const std::string& text : hosts) {
    const auto host = parse_registry_name(text);
    if (!host || host->starts_with('*')) {
      return fail(Errc::name_invalid, shown(text) +
                                          " is no registry's host name: write it as image names "
                                          "do, contoso.azurecr.io for instance");
    }
    const auto exact = std::ranges::find(service.registries, *host, &ServedRegistry::name);
    const auto wildcard = std::ranges::find_if(
        service.registries, [&](const ServedRegistry& r) { return serves({r}, *host); });
    const auto found = exact != service.registries.end() ? exact : wildcard;
    if (found == service.registries.end()) {
      return fail(Errc::registry_unknown, "staithed does not serve " + printable(*host, 200) +
                                              ": add a [[registry]] with that name to "
                                              "staithe.toml and reload it");
    }
    if (std::ranges::find(result.registries, *host, &ServedRegistry::name) !=
        result.registries.end()) {
      continue;
    }
    result.registries.push_back(
        {.name = *host, .is_default = found->is_default, .has_identity = found->has_identity});
  }
  return result;
}

}  // namespace staithe::daemon
