#include "proxy/manifests.h"

#include <algorithm>
#include <boost/json.hpp>

#include "cache/escape.h"
#include "cache/log.h"
#include "proxy/fills.h"

namespace staithe::proxy {

namespace {

// What containers/image and oras refuse beyond, and the least that the spec asks for.
constexpr std::size_t max_manifest_bytes = 4 * 1024 * 1024;
constexpr std::size_t max_media_type_bytes = 255;
constexpr std::size_t max_json_depth = 64;

// Every type of manifest that a client of today reads; upstream picks none by the order. Constant,
// whatever the client sent, so that the cache has one answer per reference.
constexpr std::string_view accepted_types =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

std::string describe(const Registry& registry, const std::string& repository,
                     const std::string& reference) {
  return "manifest " + reference + " of " + registry.name() + "/" + repository;
}

// Upstream, not the answer, failed: what is cached may stand in.
bool may_stand_in(Errc code) {
  return code == Errc::unreachable || code == Errc::upstream_failed || code == Errc::throttled ||
         code == Errc::upstream_nonsense;
}

std::string_view without_parameters(std::string_view media_type) {
  media_type = media_type.substr(0, media_type.find(';'));
  while (media_type.ends_with(' ') || media_type.ends_with('\t')) media_type.remove_suffix(1);
  return media_type;
}

}  // namespace

Result<cache::Manifest> check_manifest(std::string_view content_type, std::string bytes,
                                       const cache::Digest* wanted, std::string_view told_digest) {
  boost::system::error_code error;
  boost::json::parse_options options;
  options.max_depth = max_json_depth;
  const auto document = boost::json::parse(bytes, error, {}, options);
  if (error || !document.is_object())
    return fail(Errc::upstream_nonsense, "upstream's manifest is not a JSON object");
  const auto& object = document.as_object();
  if (object.contains("manifests") && (object.contains("layers") || object.contains("config")))
    return fail(
        Errc::upstream_nonsense,
        "upstream's manifest is an index and an image manifest at once; which of them it is "
        "would depend on the reader, so it is refused");
  std::string own_type;
  if (const auto* type = object.if_contains("mediaType"); type && type->is_string())
    own_type = std::string_view(type->as_string());
  std::string media_type(content_type);
  if (media_type.empty()) media_type = own_type;
  if (media_type.empty() || media_type.size() > max_media_type_bytes ||
      !std::ranges::all_of(media_type, [](char c) { return c >= ' ' && c < '\x7f'; }))
    return fail(Errc::upstream_nonsense, "upstream sent a manifest without a usable Content-Type");
  if (!own_type.empty() && without_parameters(media_type) != own_type)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of type " +
                                             printable(own_type, 100) + " as " +
                                             printable(media_type, 100) + ", so it is refused");
  std::optional<cache::Digest> told;
  if (!told_digest.empty()) {
    auto parsed = cache::Digest::parse(told_digest);
    if (!parsed)
      return fail(Errc::upstream_nonsense, "upstream sent a Docker-Content-Digest that is none");
    told = *parsed;
  }
  const cache::Algorithm algorithm = wanted ? wanted->algorithm()
                                     : told ? told->algorithm()
                                            : cache::Algorithm::sha256;
  const cache::Digest digest = cache::digest_of(algorithm, bytes);
  if (wanted && digest != *wanted)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of digest " +
                                             digest.to_string() + " for " + wanted->to_string());
  if (!wanted && told && digest != *told)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of digest " +
                                             digest.to_string() + " and called it " +
                                             told->to_string());
  return cache::Manifest{
      .digest = digest, .media_type = std::move(media_type), .bytes = std::move(bytes)};
}

Manifests::Manifests(asio::any_io_executor loop, cache::Store& store, TaskGroup& tasks)
    : store_(store), fetches_(loop, tasks), confirmations_(loop, tasks) {}

asio::awaitable<Outcome> Manifests::serve(Exchange& exchange, RegistryPtr registry,
                                          std::string repository, Reference reference) {
  const Found found = reference.digest()
                          ? co_await by_digest(registry, std::move(repository), *reference.digest())
                          : co_await by_tag(registry, std::move(repository), *reference.tag());
  const std::string digest = found.manifest->digest.to_string();
  exchange.add("Cache-Status", cache_status(found.outcome));
  exchange.add("Docker-Content-Digest", digest);
  exchange.add("Etag", '"' + digest + '"');
  if (found.age) exchange.add("Age", std::to_string(found.age->count()));
  co_await exchange.reply(200, found.manifest->media_type, found.manifest->bytes);
  co_return found.outcome;
}

asio::awaitable<cache::ManifestPtr> Manifests::find(RegistryPtr registry, std::string repository,
                                                    Reference reference) {
  const Found found = reference.digest()
                          ? co_await by_digest(registry, std::move(repository), *reference.digest())
                          : co_await by_tag(registry, std::move(repository), *reference.tag());
  co_return found.manifest;
}

asio::awaitable<Manifests::Found> Manifests::by_digest(RegistryPtr registry, std::string repository,
                                                       cache::Digest digest) {
  const std::string scope = scope_of(*registry, repository);
  const auto age = store_.link_age(scope, digest);
  if (age && *age < authorization_bound) {
    if (auto manifest = co_await store_.manifest(digest))
      co_return Found{std::move(manifest), Outcome::hit, std::nullopt};
  }
  std::optional<Error> error;
  try {
    auto reference = Reference::parse(digest.to_string());
    auto manifest = co_await fetch(registry, repository, std::move(*reference));
    co_return Found{std::move(manifest), Outcome::miss, std::nullopt};
  } catch (const Failure& failure) {
    error = failure.error();
  }
  if (error->code == Errc::manifest_unknown || error->code == Errc::denied ||
      error->code == Errc::unauthorized)
    store_.unlink(scope, digest);
  if (age && *age < registry->settings().freshness.serve_stale && may_stand_in(error->code)) {
    if (auto manifest = co_await store_.manifest(digest))
      co_return Found{std::move(manifest), Outcome::stale, std::nullopt};
  }
  throw Failure(*error);
}

asio::awaitable<Manifests::Found> Manifests::by_tag(RegistryPtr registry, std::string repository,
                                                    std::string tag) {
  const std::string scope = scope_of(*registry, repository);
  const Freshness& freshness = registry->settings().freshness;
  const auto seen = store_.tag(scope, tag);
  const bool usable = seen && store_.link_age(scope, seen->digest).has_value();
  if (usable && seen->age < freshness.tag_ttl) {
    if (auto manifest = co_await store_.manifest(seen->digest))
      co_return Found{std::move(manifest), Outcome::hit, seen->age};
  }
  std::optional<Error> error;
  try {
    if (usable && store_.has_manifest(seen->digest)) {
      const std::string now =
          co_await confirmations_.run(scope + ":" + tag, confirm(registry, repository, tag));
      if (now == seen->digest.to_string()) {
        if (auto manifest = co_await store_.manifest(seen->digest)) {
          store_.link(scope, seen->digest);
          store_.put_tag(scope, tag, seen->digest);
          co_return Found{std::move(manifest), Outcome::hit, std::chrono::seconds(0)};
        }
      }
      if (auto moved = Reference::parse(now); moved && moved->digest()) {
        log::info("tag moved", {{"registry", registry->name()},
                                {"repository", repository},
                                {"tag", tag},
                                {"from", seen->digest.to_string()},
                                {"to", now}});
        auto manifest = co_await fetch(registry, repository, *moved);
        store_.put_tag(scope, tag, manifest->digest);
        co_return Found{std::move(manifest), Outcome::miss, std::chrono::seconds(0)};
      }
    }
    auto reference = Reference::parse(tag);
    auto manifest = co_await fetch(registry, repository, std::move(*reference));
    co_return Found{std::move(manifest), Outcome::miss, std::chrono::seconds(0)};
  } catch (const Failure& failure) {
    error = failure.error();
  }
  if (error->code == Errc::manifest_unknown || error->code == Errc::name_unknown)
    store_.drop_tag(scope, tag);
  if (usable && seen->age < freshness.serve_stale && may_stand_in(error->code)) {
    if (auto manifest = co_await store_.manifest(seen->digest)) {
      log::warn("tag served stale", {{"registry", registry->name()},
                                     {"repository", repository},
                                     {"tag", tag},
                                     {"age_seconds", seen->age.count()},
                                     {"error", *error}});
      co_return Found{std::move(manifest), Outcome::stale, seen->age};
    }
  }
  throw Failure(*error);
}

asio::awaitable<cache::ManifestPtr> Manifests::fetch(RegistryPtr registry, std::string repository,
                                                     Reference reference) {
  const std::string key = scope_of(*registry, repository) + "@" + reference.to_string();
  return fetches_.run(key, fetch_once(registry, std::move(repository), std::move(reference)));
}

asio::awaitable<cache::ManifestPtr> Manifests::fetch_once(RegistryPtr registry,
                                                          std::string repository,
                                                          Reference reference) {
  auto response = co_await registry->upstream(repository)
                      .send({.repository = repository,
                             .what = "manifests/" + reference.to_string(),
                             .accept = std::string(accepted_types)});
  if (response->status() != 200)
    throw Failure(co_await error_of(
        *response, describe(*registry, repository, reference.to_string()), Errc::manifest_unknown));
  std::string bytes = co_await read_all(*response, max_manifest_bytes);
  auto manifest =
      check_manifest(response->headers().get("Content-Type"), std::move(bytes), reference.digest(),
                     response->headers().get("Docker-Content-Digest"));
  if (!manifest)
    throw Failure(manifest.error().code, describe(*registry, repository, reference.to_string()) +
                                             ": " + manifest.error().detail);
  auto shared = std::make_shared<const cache::Manifest>(std::move(*manifest));
  const std::string scope = scope_of(*registry, repository);
  store_.put_manifest(shared);
  store_.link(scope, shared->digest);
  if (reference.tag()) store_.put_tag(scope, *reference.tag(), shared->digest);
  co_return shared;
}

asio::awaitable<std::string> Manifests::confirm(RegistryPtr registry, std::string repository,
                                                std::string tag) {
  auto response = co_await registry->upstream(repository)
                      .send({.method = "HEAD",
                             .repository = repository,
                             .what = "manifests/" + tag,
                             .accept = std::string(accepted_types),
                             .patient = false});
  if (response->status() != 200)
    throw Failure(
        co_await error_of(*response, describe(*registry, repository, tag), Errc::manifest_unknown));
  co_return std::string(response->headers().get("Docker-Content-Digest"));
}

}  // namespace staithe::proxy
