#include "daemon/explanation.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>
#include <vector>

#include "cache/escape.h"
#include "daemon/credentials.h"
#include "daemon/platform.h"
#include "daemon/terminal.h"
#include "daemon/warming.h"
#include "proxy/outcome.h"
#include "proxy/url.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

// An image has at most some 130 blobs; what is cut is counted.
constexpr std::size_t most_parts = 1'000;
constexpr std::size_t most_asks = 50;
constexpr std::size_t most_platforms = 200;
// As in cache/image.cc.
constexpr std::size_t most_json_depth = 32;

json::value known(std::uint64_t number) {
  return number > 0 ? json::value(number) : json::value(nullptr);
}

json::value seconds(const std::optional<std::chrono::seconds>& duration) {
  return duration ? json::value(duration->count()) : json::value(nullptr);
}

// As it stands in the document; empty if there is none.
std::string config_digest(std::string_view manifest) {
  json::parse_options options;
  options.max_depth = most_json_depth;
  boost::system::error_code error;
  const json::value root = json::parse(manifest, error, {}, options);
  const json::object* object = error ? nullptr : root.if_object();
  const json::value* config = object ? object->if_contains("config") : nullptr;
  const json::object* descriptor = config ? config->if_object() : nullptr;
  const json::value* digest = descriptor ? descriptor->if_contains("digest") : nullptr;
  return digest && digest->is_string() ? std::string(digest->get_string()) : std::string();
}

}  // namespace

json::object describe_fill(const proxy::Fills::Progress& fill) {
  json::value left = nullptr;
  if (fill.total && fill.bytes_per_second > 0)
    left = (*fill.total - std::min(*fill.total, fill.bytes)) / fill.bytes_per_second;
  return {{"bytes", fill.bytes},
          {"total", fill.total ? json::value(*fill.total) : json::value(nullptr)},
          {"readers", fill.readers},
          {"connections", known(fill.connections)},
          {"bytes_per_second", known(fill.bytes_per_second)},
          {"seconds_left", std::move(left)}};
}

Result<std::string> image_of_query(std::string_view target) {
  constexpr std::string_view form = "ask for /v1/explain?image=NAME, with one image's name";
  const std::size_t begin = target.find('?');
  if (begin == std::string_view::npos) return fail(Errc::bad_request, std::string(form));
  const std::string_view query = target.substr(begin + 1);
  if (!query.starts_with("image=") || query.contains('&'))
    return fail(Errc::bad_request, std::string(form));
  auto name = proxy::percent_decode(query.substr(6));
  if (!name) return fail(Errc::bad_request, std::string(form));
  return name;
}

std::string remedy_for(std::string_view error_class, const std::string& registry,
                       const std::string& upstream) {
  const auto is = [&](Errc code) { return error_class == to_string(code); };
  if (is(Errc::unreachable) || is(Errc::upstream_failed))
    return "pulls try again by themselves; if it lasts, see what this machine gets from it (name "
           "service, proxy, firewall, its status page): curl -sS -o /dev/null -w '%{http_code}' " +
           upstream + "/v2/";
  if (is(Errc::upstream_nonsense))
    return "what it sent was not taken; if it lasts, something between here and " + upstream +
           " changes answers, or its operator has to be told";
  if (is(Errc::throttled))
    return "nothing has to be done: requests go on when the pause has ended; an identity for " +
           registry + " may have a higher limit";
  if (is(Errc::firewall))
    return "let this machine's address, or its virtual network, through the network rules of " +
           registry;
  if (is(Errc::unauthorized))
    return "see that the identity's secret is the current one, then: staithe renew " + registry;
  if (is(Errc::denied))
    return "give the identity the right to pull (AcrPull, or Container Registry Repository Reader "
           "of this repository); a change may take minutes, then: staithe renew " +
           registry;
  if (is(Errc::identity_missing))
    return "assign the managed identity to this machine, or name another one in identity of the "
           "[[registry]] for " +
           registry;
  return {};
}

// An image on its way to an answer.
struct Explainer::Content {
  const ImageName& image;
  std::string scope;
  std::vector<json::object> parts = {};
  json::array platforms = {};
  std::string platform = {};
  std::vector<std::string> asks = {};  // by the next pull
  std::uint64_t bytes_here = 0;
  std::uint64_t bytes_needed = 0;
  std::uint64_t bytes_to_fetch = 0;
  std::size_t fetches = 0;
  std::size_t cached = 0;
  bool whole = true;  // everything that it needs is known
};

asio::awaitable<void> Explainer::handle(proxy::Exchange& exchange) {
  const proxy::Request& request = exchange.request();
  if (request.method != "GET" && !request.head()) {
    exchange.add("Allow", "GET, HEAD");
    co_await exchange.reply_error(405, "UNSUPPORTED", "this path is asked with GET");
    co_return;
  }
  if (!co_await sources_.access.allows(Right::look, exchange.peer())) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this user may not ask this daemon; ask as root, or as a user "
                                  "that access.users or access.groups of staithe.toml names");
    co_return;
  }
  const auto asked = image_of_query(request.target);
  auto image = asked ? parse_image_name(*asked) : Result<ImageName>(std::unexpected(asked.error()));
  if (!image) {
    co_await exchange.reply_error(400, "UNSUPPORTED", image.error().detail);
    co_return;
  }
  json::object answer{{"asked", *asked}};
  for (auto& [key, value] : co_await explain(*std::move(image), exchange.peer()))
    answer[key] = value;
  co_await exchange.reply(200, "application/json", json::serialize(answer) + "\n");
}

asio::awaitable<json::object> Explainer::explain(ImageName image, proxy::Peer caller) {
  if (image.reference.empty()) image.reference = "latest";
  json::object answer{{"image", full_name(image)},
                      {"registry", image.registry},
                      {"repository", image.repository},
                      {"reference", image.reference}};
  const auto& configured = sources_.registries.configured();
  const proxy::RegistrySettings* found = proxy::match_registry(configured, image.registry);
  if (!found) {
    json::array names;
    for (const auto& entry : configured) names.emplace_back(entry.name);
    answer["rule"] = nullptr;
    answer["configured"] = std::move(names);
    co_return answer;
  }
  const proxy::RegistrySettings entry = *found;  // a reload may come
  answer["rule"] = rule(image, entry);
  answer["access"] = co_await access(entry, caller);
  answer["identity"] = identity(image, entry);
  answer["upstreams"] = upstreams(image, entry);
  co_await content(image, entry.freshness, answer);
  co_return answer;
}

json::object Explainer::rule(const ImageName& image, const proxy::RegistrySettings& entry) const {
  const auto& configured = sources_.registries.configured();
  const auto at = std::ranges::find(configured, entry.name, &proxy::RegistrySettings::name);
  return {{"name", entry.name},
          {"number", at - configured.begin() + 1},
          {"wildcard", entry.name.starts_with("*.")},
          {"default", entry.is_default},
          {"upstream_repository", entry.prefix + image.repository}};
}

// Which lists decide who may pull, and whether the one who asks may.
asio::awaitable<json::object> Explainer::access(proxy::RegistrySettings entry, proxy::Peer caller) {
  const proxy::AccessSettings& lists = entry.access ? *entry.access : sources_.config.proxy.access;
  json::array users;
  json::array groups;
  for (const std::string& user : lists.users) users.emplace_back(user);
  for (const std::string& group : lists.groups) groups.emplace_back(group);
  json::object answer{{"by", nullptr}};
  if (!lists.empty()) answer["by"] = entry.access ? "registry.access" : "access";
  answer["users"] = std::move(users);
  answer["groups"] = std::move(groups);
  const bool may_pull = co_await sources_.access.would_allow(Right::pull, caller, entry.name);
  answer["caller"] = json::object{{"uid", caller ? json::value(*caller) : json::value(nullptr)},
                                  {"may_pull", may_pull}};
  co_return answer;
}

json::object Explainer::identity(const ImageName& image,
                                 const proxy::RegistrySettings& entry) const {
  const std::string& name =
      sources_.registries.identity_of(image.registry, entry, image.repository);
  json::object answer;
  answer["name"] = name.empty() ? json::value(nullptr) : json::value(name);
  answer["prefix"] = nullptr;
  if (Credentials::is_sign_in(name)) {
    answer["kind"] = "sign-in";
    return answer;
  }
  const auto& identities = sources_.config.proxy.identities;
  const auto it = identities.find(name);
  answer["kind"] =
      to_string(it == identities.end() ? proxy::IdentityKind::anonymous : it->second.kind);
  const proxy::IdentityFor* best = nullptr;
  for (const proxy::IdentityFor& below : entry.identity_for)
    if (image.repository.starts_with(below.prefix) &&
        (!best || below.prefix.size() > best->prefix.size()))
      best = &below;
  if (best) answer["prefix"] = best->prefix;
  return answer;
}

// Those that have been asked with this identity; else one that is idle.
json::array Explainer::upstreams(const ImageName& image,
                                 const proxy::RegistrySettings& entry) const {
  const std::string& identity =
      sources_.registries.identity_of(image.registry, entry, image.repository);
  const auto text = [](const json::object& object, std::string_view key) {
    const json::value* value = object.if_contains(key);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  json::array urls;
  for (const std::string& url : entry.upstream) urls.emplace_back(url);
  if (urls.empty()) urls.emplace_back("https://" + image.registry);
  json::array result;
  for (json::value& one : sources_.upstreams()) {
    json::object& upstream = one.as_object();
    if (text(upstream, "name") != image.registry || text(upstream, "identity") != identity)
      continue;
    if (text(upstream, "state") == "idle") upstream["upstream"] = urls;
    std::string url(urls.front().get_string());
    if (const json::value* list = upstream.if_contains("upstream"))
      if (list->is_array() && !list->get_array().empty() && list->get_array()[0].is_string())
        url = std::string_view(list->get_array()[0].get_string());
    const std::string remedy = remedy_for(text(upstream, "last_error_class"), image.registry, url);
    upstream["remedy"] = remedy.empty() ? json::value(nullptr) : json::value(remedy);
    result.push_back(std::move(upstream));
  }
  if (result.empty()) {
    result.push_back(json::object{{"name", image.registry},
                                  {"upstream", std::move(urls)},
                                  {"state", "idle"},
                                  {"paused_seconds", 0},
                                  {"last_error", nullptr},
                                  {"last_error_class", nullptr},
                                  {"remedy", nullptr},
                                  {"tokens", json::array()},
                                  {"credentials", json::array()}});
  }
  return result;
}

asio::awaitable<void> Explainer::content(const ImageName& image, const proxy::Freshness& freshness,
                                         json::object& answer) {
  const cache::Store& store = sources_.store;
  Content content{.image = image, .scope = image.registry + "/" + image.repository};
  const auto named = cache::Digest::parse(image.reference);
  std::optional<cache::Digest> root;
  bool trusted = false;  // without a question
  if (named) {
    root = *named;
    trusted = may_be_shown(content, *root) && store.has_manifest(*root);
    answer["tag"] = nullptr;
  } else {
    const auto seen = store.tag(content.scope, image.reference);
    const auto ttl = std::chrono::duration_cast<std::chrono::seconds>(freshness.tag_ttl);
    json::object tag{{"digest", nullptr},
                     {"age_seconds", nullptr},
                     {"ttl_seconds", ttl.count()},
                     {"stale_for_seconds", nullptr}};
    if (seen) {
      root = seen->digest;
      const auto stale =
          std::chrono::duration_cast<std::chrono::seconds>(freshness.serve_stale) - seen->age;
      tag["digest"] = seen->digest.to_string();
      tag["age_seconds"] = seen->age.count();
      tag["stale_for_seconds"] = std::max<std::int64_t>(stale.count(), 0);
      trusted = seen->age < freshness.tag_ttl && store.has_manifest(*root) &&
                store.link_age(content.scope, *root).has_value();
    }
    answer["tag"] = std::move(tag);
  }
  answer["pinned"] = store.pinned(content.scope, image.reference);
  const bool here = root && store.has_manifest(*root);
  if (!here) {
    content.asks.push_back("GET manifests/" + image.reference);
    ++content.fetches;
    content.whole = false;
  } else if (!trusted) {
    content.asks.push_back((named ? "GET manifests/" : "HEAD manifests/") + image.reference);
    if (named) ++content.fetches;
  }
  if (here) co_await walk(content, *root);

  json::array parts;
  for (json::object& part : content.parts) parts.push_back(std::move(part));
  json::array asks;
  for (std::string& ask : content.asks) asks.emplace_back(std::move(ask));
  answer["platform"] =
      content.platform.empty() ? json::value(nullptr) : json::value(content.platform);
  answer["platforms"] = std::move(content.platforms);
  answer["parts"] = std::move(parts);
  answer["bytes_here"] = content.bytes_here;
  answer["bytes_needed"] = content.whole ? json::value(content.bytes_needed) : json::value(nullptr);
  answer["next_pull"] =
      json::object{{"result", content.fetches == 0 ? "hit"
                              : content.cached > 0 ? "partly"
                                                   : "miss"},
                   {"asks", std::move(asks)},
                   {"bytes_to_fetch",
                    content.whole ? json::value(content.bytes_to_fetch) : json::value(nullptr)}};
}

asio::awaitable<void> Explainer::walk(Content& content, cache::Digest root) {
  const cache::ManifestPtr manifest = co_await sources_.store.peek_manifest(root);
  if (!manifest) co_return;
  ++content.cached;
  const auto entries = index_entries(manifest->bytes);
  json::object first = describe(content, root, std::nullopt);
  first["kind"] = entries.empty() ? "manifest" : "index";
  content.parts.push_back(std::move(first));
  if (entries.empty()) {
    add_blobs(content, *manifest);
    co_return;
  }
  const Platform own = own_platform();
  const auto taken = chosen(entries, {own});
  content.platform = taken.empty() || !taken.front().platform ? own.to_string()
                                                              : taken.front().platform->to_string();
  for (const IndexEntry& entry : entries) {
    if (!entry.platform || content.platforms.size() == most_platforms) continue;
    const bool stored = sources_.store.has_manifest(entry.digest);
    content.platforms.push_back(json::object{{"platform", entry.platform->to_string()},
                                             {"digest", entry.digest.to_string()},
                                             {"state", stored ? "cached" : "missing"}});
  }
  for (const IndexEntry& entry : taken) {
    json::object part = describe(content, entry.digest, std::nullopt);
    part["kind"] = "manifest";
    content.parts.push_back(std::move(part));
    const cache::ManifestPtr child = co_await sources_.store.peek_manifest(entry.digest);
    if (!child || !may_be_shown(content, entry.digest)) {
      content.asks.push_back("GET manifests/" + entry.digest.to_string());
      ++content.fetches;
    }
    if (!child) {
      content.whole = false;
      continue;
    }
    ++content.cached;
    add_blobs(content, *child);
  }
}

void Explainer::add_blobs(Content& content, const cache::Manifest& manifest) {
  const std::string config = config_digest(manifest.bytes);
  for (const cache::Descriptor& blob : cache::references_of(manifest.bytes).blobs) {
    if (content.parts.size() == most_parts) {
      content.whole = false;
      return;
    }
    const std::string digest = blob.digest.to_string();
    json::object part = describe(content, blob.digest, blob.size_bytes);
    part["kind"] = digest == config ? "config" : "layer";
    boost::system::error_code ignored;
    const auto bytes = part.at("bytes").to_number<std::uint64_t>(ignored);
    const json::value& total = part.at("total");
    const std::uint64_t all = total.is_null() ? bytes : total.to_number<std::uint64_t>(ignored);
    const json::string& state = part.at("state").get_string();
    content.bytes_here += bytes;
    content.bytes_needed += std::max(bytes, all);
    if (state == "cached") {
      ++content.cached;
      if (!may_be_shown(content, blob.digest) && content.asks.size() < most_asks)
        content.asks.push_back("HEAD blobs/" + digest);
    } else {
      ++content.fetches;
      content.bytes_to_fetch += all - std::min(all, bytes);
      if (state != "fetching" && content.asks.size() < most_asks)
        content.asks.push_back("GET blobs/" + digest);
    }
    content.parts.push_back(std::move(part));
  }
}

// Upstream has shown it within this repository lately enough.
bool Explainer::may_be_shown(const Content& content, const cache::Digest& digest) const {
  const auto age = sources_.store.link_age(content.scope, digest);
  return age && *age < proxy::authorization_bound;
}

json::object Explainer::describe(const Content& content, const cache::Digest& digest,
                                 std::optional<std::uint64_t> said_bytes) const {
  const cache::Store& store = sources_.store;
  const auto said = said_bytes ? json::value(*said_bytes) : json::value(nullptr);
  json::object part{{"kind", nullptr},
                    {"digest", digest.to_string()},
                    {"state", "missing"},
                    {"bytes", 0},
                    {"total", said},
                    {"last_used_seconds_ago", nullptr},
                    {"shown_seconds_ago", seconds(store.link_age(content.scope, digest))},
                    {"pinned", store.pinned(digest)}};
  if (const cache::Catalog::Object* object = store.object(digest)) {
    part["state"] = "cached";
    part["bytes"] = part["total"] = object->size_bytes;
    if (object->used_unix_seconds > 0) {
      const auto now = std::chrono::duration_cast<std::chrono::seconds>(
          sources_.clock.wall().time_since_epoch());
      part["last_used_seconds_ago"] =
          std::max<std::int64_t>(0, now.count() - object->used_unix_seconds);
    }
    return part;
  }
  if (store.has_manifest(digest)) {  // On its way to the disk.
    part["state"] = "cached";
    return part;
  }
  for (const auto& fill : sources_.fills.progress()) {
    if (fill.digest != digest) continue;
    part["state"] = "fetching";
    for (auto& [key, value] : describe_fill(fill)) part[key] = value;
    if (part["total"].is_null()) part["total"] = said;
    return part;
  }
  if (const auto bytes = store.resumable(digest)) {
    part["state"] = "partial";
    part["bytes"] = *bytes;
  }
  return part;
}

}  // namespace staithe::daemon
