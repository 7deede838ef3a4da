#include "proxy/manifests.h"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "cache/log.h"
#include "proxy/fills.h"
#include "proxy/freshness.h"

namespace staithe::proxy {

namespace {

// What containers/image and oras refuse beyond, and the least that the spec asks for.
constexpr std::size_t max_manifest_bytes = 4 * 1024 * 1024;
// Who has an answer that may be stale does not wait for upstream's full time to answer.
constexpr std::chrono::seconds stale_patience{3};

std::string absence_key(const std::string& scope, const std::string& reference) {
  return scope + "@" + reference;
}

std::string describe(const Registry& registry, const std::string& repository,
                     const std::string& reference) {
  return "manifest " + reference + " of " + registry.name() + "/" + repository;
}

}  // namespace

Manifests::Manifests(asio::any_io_executor loop, cache::Store& store, TaskGroup& tasks,
                     Absences& absences, Clock& clock, Answers& answers)
    : store_(store),
      absences_(absences),
      clock_(clock),
      answers_(answers),
      stale_lines_({.lines = 1, .interval = std::chrono::minutes(1)}),
      fetches_(loop, tasks),
      confirmations_(loop, tasks) {}

asio::awaitable<Outcome> Manifests::serve(Exchange& exchange, RegistryPtr registry,
                                          std::string repository, Reference reference) {
  const std::uint64_t as_of = answers_.taken_back();
  const std::string key = absence_key(scope_of(*registry, repository), reference.to_string());
  if (const auto absent = absences_.find(key)) {
    exchange.add("Cache-Status", negative_cache_status);
    throw Failure(*absent);
  }
  // Who asks for a tag by GET takes config and layers from where he got the manifest, or fails
  // (registry-clients.md, section 4); by HEAD only the digest is wanted.
  const bool whole = !exchange.request().head();
  std::optional<Found> found;
  try {
    const std::string trace = exchange.told_trace();
    found = reference.digest()
                ? co_await by_digest(registry, std::move(repository), *reference.digest(), trace)
                : co_await by_tag(registry, std::move(repository), *reference.tag(), whole, trace);
  } catch (const Failure& failure) {
    absences_.note(key, failure.error());
    throw;
  }
  const std::string digest = found->manifest->digest.to_string();
  std::string status(cache_status(found->outcome));
  if (found->failure) status.append("; detail=").append(to_string(*found->failure));
  exchange.add("Cache-Status", status);
  exchange.add("Docker-Content-Digest", digest);
  exchange.add("Etag", '"' + digest + '"');
  const cache::Manifest& manifest = *found->manifest;
  // Who asks for it again may be another caller, with another right.
  const bool for_everybody = !registry->settings().verify_callers;
  if (for_everybody && found->good_for && store_.has_manifest(manifest.digest)) {
    const auto kept = std::make_shared<Answer>(
        manifest.digest, exchange.head_to_keep(200, manifest.media_type, manifest.bytes.size()),
        manifest.bytes);
    const Instant now = clock_.now();
    kept->until = now + *found->good_for;
    if (found->age) kept->confirmed = now - *found->age;
    kept->registry = exchange.account().registry;
    kept->kind = RequestKind::manifest;
    answers_.put(exchange.request().target, kept, as_of);
  }
  if (found->age) exchange.add_age(*found->age);
  co_await exchange.reply(200, manifest.media_type, manifest.bytes);
  co_return found->outcome;
}

asio::awaitable<cache::ManifestPtr> Manifests::find(RegistryPtr registry, std::string repository,
                                                    Reference reference) {
  const Found found =
      reference.digest()
          ? co_await by_digest(registry, std::move(repository), *reference.digest(), {})
          : co_await by_tag(registry, std::move(repository), *reference.tag(), false, {});
  co_return found.manifest;
}

asio::awaitable<Manifests::Found> Manifests::by_digest(RegistryPtr registry, std::string repository,
                                                       cache::Digest digest, std::string trace) {
  const std::string scope = scope_of(*registry, repository);
  const auto age = store_.link_age(scope, digest);
  if (age && *age < authorization_bound) {
    if (auto manifest = co_await store_.manifest(digest))
      co_return Found{.manifest = std::move(manifest),
                      .outcome = Outcome::hit,
                      .good_for = authorization_bound - *age};
  }
  std::optional<Error> error;
  try {
    auto reference = Reference::parse(digest.to_string());
    auto manifest = co_await fetch(registry, repository, std::move(*reference), trace);
    co_return Found{.manifest = std::move(manifest), .outcome = Outcome::miss};
  } catch (const Failure& failure) {
    error = failure.error();
  }
  const Ruling ruling = judge(error->code, age, registry->settings().freshness);
  if (ruling == Ruling::fail_and_drop) store_.unlink(scope, digest);
  if (ruling == Ruling::stale) {
    if (auto manifest = co_await store_.manifest(digest))
      co_return Found{
          .manifest = std::move(manifest), .outcome = Outcome::stale, .failure = error->code};
  }
  throw Failure(*error);
}

asio::awaitable<Manifests::Found> Manifests::by_tag(RegistryPtr registry, std::string repository,
                                                    std::string tag, bool whole,
                                                    std::string trace) {
  const std::string scope = scope_of(*registry, repository);
  const Freshness& freshness = registry->settings().freshness;
  const auto seen = store_.tag(scope, tag);
  const bool usable = seen && store_.link_age(scope, seen->digest).has_value();
  // However long a tag is trusted, the right to it is looked after in time.
  const auto trusted = std::min<std::chrono::milliseconds>(freshness.tag_ttl, authorization_bound);
  if (usable && seen->age < trusted) {
    if (auto manifest = co_await store_.manifest(seen->digest))
      co_return Found{.manifest = std::move(manifest),
                      .outcome = Outcome::hit,
                      .age = seen->age,
                      .good_for = trusted - seen->age};
  }
  const auto age = seen ? std::optional(seen->age) : std::nullopt;
  const TagQuestion question{
      .registry = registry,
      .repository = repository,
      .tag = tag,
      .known = usable ? std::optional(seen->digest) : std::nullopt,
      .may_be_stale = judge(Errc::unreachable, age, freshness) == Ruling::stale,
      .whole = whole,
      .trace = trace};
  std::optional<Error> error;
  try {
    co_return co_await ask_for_tag(question);
  } catch (const Failure& failure) {
    error = failure.error();
  }
  const Ruling ruling = judge(error->code, age, freshness);
  if (ruling == Ruling::fail_and_drop) store_.drop_tag(scope, tag);
  if (usable && ruling == Ruling::stale) {
    auto manifest = co_await store_.manifest(seen->digest);
    const bool enough =
        manifest && (!whole || !is_down(error->code) || co_await is_whole(manifest));
    // While upstream is down this is every pull's story.
    const auto left_out = stale_lines_.admit(registry->name(), clock_.now());
    const std::initializer_list<log::Field> fields = {
        {"registry", registry->name()},
        {"repository", repository},
        {"tag", tag},
        {"age_seconds", seen->age.count()},
        {"error", *error},
        {"left_out", log::if_any(left_out.value_or(0))},
        {"trace_id", log::if_any(trace)}};
    const log::Level level = left_out ? log::Level::warn : log::Level::debug;
    if (enough) {
      log::write(level, "tag served stale", fields);
      co_return Found{.manifest = std::move(manifest),
                      .outcome = Outcome::stale,
                      .age = seen->age,
                      .failure = error->code};
    }
    if (manifest)
      log::write(level, "tag not served stale, as its image is not wholly here", fields);
  }
  throw Failure(*error);
}

asio::awaitable<Manifests::Found> Manifests::ask_for_tag(const TagQuestion& question) {
  const auto& [registry, repository, tag, known, may_be_stale, whole, trace] = question;
  const std::string scope = scope_of(*registry, repository);
  if (known && store_.has_manifest(*known)) {
    const std::string now = co_await confirm_soon(question);
    if (now == known->to_string()) {
      if (auto manifest = co_await store_.manifest(*known)) {
        store_.link(scope, *known);
        settle_tag(*registry, repository, tag, *known);
        co_return Found{.manifest = std::move(manifest),
                        .outcome = Outcome::hit,
                        .age = std::chrono::seconds(0)};
      }
    }
    if (auto moved = Reference::parse(now); moved && moved->digest()) {
      std::optional<Error> error;
      try {
        auto manifest = co_await fetch(registry, repository, *moved, trace);
        settle_tag(*registry, repository, tag, manifest->digest);
        co_return Found{.manifest = std::move(manifest),
                        .outcome = Outcome::miss,
                        .age = std::chrono::seconds(0)};
      } catch (const Failure& failure) {
        error = failure.error();
      }
      // The tag is there: a replica that has its name before its bytes is no word that it is gone.
      if (doubt_of(error->code) == Doubt::gone)
        throw Failure(Errc::upstream_nonsense, registry->name() + " says that tag " + tag + " of " +
                                                   repository + " is " + now +
                                                   ", and that it has no such manifest");
      throw Failure(*error);
    }
  }
  auto reference = Reference::parse(tag);
  auto manifest = co_await fetch(registry, repository, std::move(*reference), trace);
  co_return Found{
      .manifest = std::move(manifest), .outcome = Outcome::miss, .age = std::chrono::seconds(0)};
}

// Compared with what the store has at this moment, so that of many who asked at once one tells.
void Manifests::settle_tag(const Registry& registry, const std::string& repository,
                           const std::string& tag, const cache::Digest& digest) {
  const std::string scope = scope_of(registry, repository);
  if (const auto before = store_.tag(scope, tag); before && before->digest != digest)
    log::info("tag moved", {{"registry", registry.name()},
                            {"repository", repository},
                            {"tag", tag},
                            {"from", before->digest.to_string()},
                            {"to", digest.to_string()}});
  store_.put_tag(scope, tag, digest);
  absences_.drop(absence_key(scope, tag));
}

asio::awaitable<bool> Manifests::is_whole(cache::ManifestPtr manifest) {
  // What is being fetched counts: that it ends badly is not known yet.
  const auto here = [&](const cache::Digest& digest) {
    return store_.size_of_blob(digest).has_value() || store_.has_manifest(digest);
  };
  const cache::References references = cache::references_of(manifest->bytes);
  if (references.manifests.empty())
    co_return std::ranges::all_of(references.blobs, here, &cache::Descriptor::digest);
  for (const cache::Descriptor& platform : references.manifests) {
    if (!store_.has_manifest(platform.digest)) continue;
    const cache::Image image = co_await store_.image(platform.digest);
    if (!image.cut && std::ranges::all_of(image.parts, here, &cache::Image::Part::digest))
      co_return true;
  }
  co_return false;
}

asio::awaitable<cache::ManifestPtr> Manifests::fetch(RegistryPtr registry, std::string repository,
                                                     Reference reference, std::string trace) {
  const std::string key = scope_of(*registry, repository) + "@" + reference.to_string();
  return fetches_.run(
      key, fetch_once(registry, std::move(repository), std::move(reference), std::move(trace)));
}

asio::awaitable<cache::ManifestPtr> Manifests::fetch_once(RegistryPtr registry,
                                                          std::string repository,
                                                          Reference reference, std::string trace) {
  auto response = co_await registry->upstream(repository)
                      .send({.repository = repository,
                             .what = "manifests/" + reference.to_string(),
                             .accept = std::string(accepted_types),
                             .trace = trace});
  if (response->status() != 200)
    throw Failure(co_await error_of(
        *response, describe(*registry, repository, reference.to_string()), Errc::manifest_unknown));
  std::string bytes = co_await read_all(*response, max_manifest_bytes);
  auto manifest =
      check_manifest(response->headers().get("Content-Type"), std::move(bytes), reference.digest(),
                     response->headers().get("Docker-Content-Digest"));
  if (!manifest && registry->upstream(repository).doubt())
    co_return co_await fetch_once(registry, std::move(repository), std::move(reference),
                                  std::move(trace));
  if (!manifest)
    throw Failure(manifest.error().code, describe(*registry, repository, reference.to_string()) +
                                             ": " + manifest.error().detail);
  auto shared = std::make_shared<const cache::Manifest>(std::move(*manifest));
  const std::string scope = scope_of(*registry, repository);
  store_.put_manifest(shared);
  store_.link(scope, shared->digest);
  absences_.drop(absence_key(scope, shared->digest.to_string()));
  if (reference.tag()) settle_tag(*registry, repository, *reference.tag(), shared->digest);
  co_return shared;
}

asio::awaitable<std::string> Manifests::confirm_soon(const TagQuestion& question) {
  using namespace asio::experimental::awaitable_operators;
  if (!question.may_be_stale) co_return value_or_throw(co_await confirmed(question));
  auto first = co_await (confirmed(question) || clock_.sleep_for(stale_patience));
  if (first.index() == 0) co_return value_or_throw(std::get<0>(std::move(first)));
  // The question stands, for whoever asks next.
  const auto manifest = co_await store_.manifest(*question.known);
  if (!manifest || (question.whole && !co_await is_whole(manifest)))
    co_return value_or_throw(co_await confirmed(question));
  throw Failure(Errc::unreachable, describe(*question.registry, question.repository, question.tag) +
                                       ": no answer within " +
                                       std::to_string(stale_patience.count()) + " s");
}

// An error is an answer too: it has to end the wait.
asio::awaitable<Result<std::string>> Manifests::confirmed(const TagQuestion& question) {
  const std::string key = scope_of(*question.registry, question.repository) + ":" + question.tag;
  try {
    co_return co_await confirmations_.run(
        key, confirm(question.registry, question.repository, question.tag, question.trace));
  } catch (const Failure& failure) {
    co_return std::unexpected(failure.error());
  }
}

asio::awaitable<std::string> Manifests::confirm(RegistryPtr registry, std::string repository,
                                                std::string tag, std::string trace) {
  auto response = co_await registry->upstream(repository)
                      .send({.method = "HEAD",
                             .repository = repository,
                             .what = "manifests/" + tag,
                             .accept = std::string(accepted_types),
                             .patient = false,
                             .trace = std::move(trace)});
  if (response->status() != 200)
    throw Failure(
        co_await error_of(*response, describe(*registry, repository, tag), Errc::manifest_unknown));
  co_return std::string(response->headers().get("Docker-Content-Digest"));
}

}  // namespace staithe::proxy
