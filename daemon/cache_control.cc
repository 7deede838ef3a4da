#include "daemon/cache_control.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <optional>
#include <utility>

#include "cache/escape.h"
#include "cache/log.h"
#include "daemon/image_name.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

// An image's name and the braces around it.
constexpr std::size_t most_body_bytes = 4096;
// What a list is sent in: some 300 blobs at a time, which take about a millisecond to write.
constexpr std::size_t piece_bytes = 64UL * 1024;
// A damaged index may hold any bytes as a name; JSON takes text only.
constexpr std::size_t most_name_bytes = 1024;
// Ten years; more is a slip of the keyboard.
constexpr std::int64_t most_age_seconds = 10LL * 366 * 24 * 3600;

struct Endpoint {
  std::string_view path;
  std::string_view method;
};
constexpr std::array<Endpoint, 5> endpoints{{{"/v1/blobs", "GET"},
                                             {"/v1/images", "GET"},
                                             {"/v1/pin", "POST"},
                                             {"/v1/unpin", "POST"},
                                             {"/v1/purge", "POST"}}};

std::string_view path_of(const proxy::Request& request) {
  return request.target.substr(0, request.target.find('?'));
}

std::string describe(proxy::Peer caller) { return caller ? std::to_string(*caller) : "unknown"; }

json::value known_time(std::int64_t unix_seconds) {
  return unix_seconds > 0 ? json::value(unix_seconds) : json::value(nullptr);
}

// A JSON document with one list, `{"blobs":[...]}`, sent as it is made.
class ListAnswer {
 public:
  ListAnswer(proxy::Exchange& exchange, std::string_view name)
      : exchange_(exchange), piece_("{\"" + std::string(name) + "\":[") {}

  asio::awaitable<void> begin() { return exchange_.begin(200, "application/json", std::nullopt); }
  asio::awaitable<void> add(const json::object& item) {
    if (!first_) piece_ += ',';
    first_ = false;
    piece_ += '\n';
    piece_ += json::serialize(item);
    if (piece_.size() >= piece_bytes) {
      co_await exchange_.send(piece_);
      piece_.clear();
    }
  }
  asio::awaitable<void> finish() {
    piece_ += "]}\n";
    co_await exchange_.send(piece_);
    co_await exchange_.finish();
  }

 private:
  proxy::Exchange& exchange_;
  std::string piece_;
  bool first_ = true;
};

std::string name_of(const std::string& repository, const std::string& reference) {
  return repository + (reference.find(':') == std::string::npos ? ":" : "@") + reference;
}

json::object describe(const cache::ListedImage& listed) {
  const cache::Image& image = listed.image;
  return {
      {"name", name_of(listed.repository, listed.reference)},
      {"digest", listed.digest ? json::value(listed.digest->to_string()) : json::value(nullptr)},
      {"media_type",
       image.media_type.empty() ? json::value(nullptr) : json::value(printable(image.media_type))},
      {"bytes_cached", image.cached_bytes},
      {"bytes_needed",
       image.media_type.empty() ? json::value(nullptr) : json::value(image.needed_bytes)},
      {"complete", image.complete},
      {"last_used_unix_seconds", known_time(listed.used_unix_seconds)},
      {"tag_age_seconds",
       listed.tag_age ? json::value(listed.tag_age->count()) : json::value(nullptr)},
      {"pinned", listed.pinned}};
}

json::object describe(const cache::Purged::Count& count) {
  return {{"objects", count.objects}, {"bytes", count.bytes}};
}

json::object describe(const cache::Purged& purged) {
  json::array faults;
  for (const std::string& fault : purged.faults) faults.emplace_back(fault);
  return {{"removed", json::object{{"blobs", purged.blobs.objects},
                                   {"manifests", purged.manifests.objects},
                                   {"tags", purged.tags},
                                   {"bytes", purged.blobs.bytes + purged.manifests.bytes}}},
          {"kept", json::object{{"pinned", describe(purged.pinned)},
                                {"shared", describe(purged.shared)},
                                {"in_use", describe(purged.in_use)},
                                {"failed", describe(purged.failed)}}},
          {"faults", std::move(faults)}};
}

// Throws Failure(bad_request).
json::object parse_question(std::string_view body) {
  if (body.size() > most_body_bytes)
    throw Failure(Errc::bad_request,
                  "the request is larger than " + std::to_string(most_body_bytes) + " bytes");
  auto document = proxy::auth::parse_json_object(body);
  if (!document) throw Failure(Errc::bad_request, "the request is not a JSON object");
  return json::object(document->get_object());
}

}  // namespace

// As the store knows it.
struct CacheControl::Name {
  // Throws Failure(bad_request or name_invalid).
  static Name parse(const json::object& question) {
    const json::value* text = question.if_contains("image");
    if (!text || !text->is_string() || question.size() != 1)
      throw Failure(Errc::bad_request,
                    "the request is {\"image\":\"NAME\"}, with the name of one image");
    const ImageName image = value_or_throw(parse_image_name(std::string_view(text->get_string())));
    return {.registry = image.registry,
            .repository = image.registry + "/" + image.repository,
            .reference = image.reference.empty() ? "latest" : image.reference};
  }
  std::string to_string() const { return name_of(repository, reference); }

  std::string registry;
  std::string repository;  // "registry/repository"
  std::string reference;
};

bool CacheControl::answers(std::string_view path) {
  return std::ranges::find(endpoints, path, &Endpoint::path) != endpoints.end();
}

asio::awaitable<void> CacheControl::handle(proxy::Exchange& exchange) {
  const proxy::Request& request = exchange.request();
  const std::string_view path = path_of(request);
  const Endpoint& endpoint = *std::ranges::find(endpoints, path, &Endpoint::path);
  const bool looks = endpoint.method == "GET";
  if (request.method != endpoint.method && !(looks && request.head())) {
    exchange.add("Allow", looks ? "GET, HEAD" : "POST");
    co_await exchange.reply_error(
        405, "UNSUPPORTED", std::string(path) + " is asked with " + std::string(endpoint.method));
    co_return;
  }
  if (!co_await sources_.access.allows(looks ? Right::look : Right::own, exchange.peer())) {
    co_await exchange.reply_error(
        403, "DENIED",
        looks ? "this user may not ask this daemon; ask as root, or as a user that access.users or "
                "access.groups of staithe.toml names"
              : "only root and the user that staithed runs as may change what is cached");
    co_return;
  }
  if (looks) {
    if (path == "/v1/blobs") co_await list_blobs(exchange);
    if (path == "/v1/images") co_await list_images(exchange);
    co_return;
  }
  std::optional<Error> failed;
  try {
    const json::object result = co_await answer(path, request.body, exchange.peer());
    co_await exchange.reply(200, "application/json", json::serialize(result) + "\n");
    co_return;
  } catch (const Failure& failure) {
    failed = failure.error();
  }
  if (exchange.answered()) throw Failure(*failed);
  switch (failed->code) {
    case Errc::bad_request:
    case Errc::name_invalid:
      co_await exchange.reply_error(400, "UNSUPPORTED", failed->detail);
      break;
    case Errc::registry_unknown:
    case Errc::not_found:
      co_await exchange.reply_error(404, "NAME_UNKNOWN", failed->detail);
      break;
    case Errc::in_use:
    case Errc::too_large:
      co_await exchange.reply_error(409, "DENIED", failed->detail);
      break;
    case Errc::storage_full:
    case Errc::storage_failed:
      co_await exchange.reply_error(507, "UNAVAILABLE", failed->detail);
      break;
    default:
      co_await exchange.reply_error(503, "UNAVAILABLE", failed->detail);
      break;
  }
}

asio::awaitable<json::object> CacheControl::answer(std::string_view path, std::string_view body,
                                                   proxy::Peer caller) {
  json::object question = parse_question(body);
  if (path == "/v1/pin") co_return co_await pin(Name::parse(question), caller);
  if (path == "/v1/unpin") co_return co_await unpin(Name::parse(question), caller);
  co_return co_await purge(std::move(question), caller);
}

asio::awaitable<void> CacheControl::list_blobs(proxy::Exchange& exchange) {
  const cache::Store& store = sources_.store;
  ListAnswer list(exchange, "blobs");
  co_await list.begin();
  if (exchange.request().head()) co_return;
  // Most recently used first. What goes while this is sent is left out.
  const std::vector<cache::Digest> objects = store.objects();
  for (auto it = objects.rbegin(); it != objects.rend(); ++it) {
    const cache::Catalog::Object* object = store.object(*it);
    if (!object) continue;
    json::array repositories;
    for (const std::string& repository : store.repositories_of(*it))
      repositories.emplace_back(printable(repository, most_name_bytes));
    const json::object item{{"digest", it->to_string()},
                            {"kind", object->kind == cache::ObjectKind::blob ? "blob" : "manifest"},
                            {"bytes", object->size_bytes},
                            {"last_used_unix_seconds", known_time(object->used_unix_seconds)},
                            {"verified", object->verified},
                            {"verified_unix_seconds", known_time(object->verified_unix_seconds)},
                            {"pinned", store.pinned(*it)},
                            {"repositories", std::move(repositories)}};
    co_await list.add(item);
  }
  co_await list.finish();
}

asio::awaitable<void> CacheControl::list_images(proxy::Exchange& exchange) {
  const std::vector<cache::ListedImage> images = co_await sources_.store.images();
  ListAnswer list(exchange, "images");
  co_await list.begin();
  if (exchange.request().head()) co_return;
  for (const cache::ListedImage& image : images) {
    const json::object item = describe(image);
    co_await list.add(item);
  }
  co_await list.finish();
}

asio::awaitable<json::object> CacheControl::pin(Name name, proxy::Peer caller) {
  // A name with a slip in it would be kept for ever, for an image that never comes.
  sources_.registries.find(name.registry);
  const cache::Image image = co_await sources_.store.pin(name.repository, name.reference);
  log::info("image pinned", {{"image", name.to_string()}, {"user", describe(caller)}});
  const auto stats = sources_.store.stats();
  const bool known = !image.parts.empty();
  co_return json::object{
      {"image", name.to_string()},
      {"digest",
       known ? json::value(image.parts.front().digest.to_string()) : json::value(nullptr)},
      {"complete", image.complete},
      {"bytes_cached", image.cached_bytes},
      {"bytes_needed", known ? json::value(image.needed_bytes) : json::value(nullptr)},
      {"pinned_bytes", stats.pinned_bytes},
      {"max_bytes", stats.max_bytes}};
}

asio::awaitable<json::object> CacheControl::unpin(Name name, proxy::Peer caller) {
  if (!co_await sources_.store.unpin(name.repository, name.reference))
    throw Failure(Errc::not_found,
                  name.to_string() + " is not pinned: staithe ls shows which images are");
  log::info("image unpinned", {{"image", name.to_string()}, {"user", describe(caller)}});
  co_return json::object{{"image", name.to_string()},
                         {"pinned_bytes", sources_.store.stats().pinned_bytes}};
}

asio::awaitable<json::object> CacheControl::purge(json::object question, proxy::Peer caller) {
  cache::Store& store = sources_.store;
  const json::value* all = question.if_contains("all");
  const json::value* age = question.if_contains("older_than_seconds");
  std::string what;
  cache::Purged purged;
  if (question.contains("image")) {
    const Name name = Name::parse(question);
    what = name.to_string();
    purged = co_await store.purge_image(name.repository, name.reference);
  } else if (question.size() == 1 && all && all->is_bool() && all->get_bool()) {
    what = "all";
    purged = co_await store.purge_all();
  } else if (question.size() == 1 && age && age->is_int64() && age->get_int64() > 0 &&
             age->get_int64() <= most_age_seconds) {
    what = "unused for " + std::to_string(age->get_int64()) + " seconds";
    purged = co_await store.purge_unused(std::chrono::seconds(age->get_int64()));
  } else {
    throw Failure(Errc::bad_request,
                  "the request is one of {\"image\":\"NAME\"}, {\"all\":true} and "
                  "{\"older_than_seconds\":N}, with a whole number of at most ten years");
  }
  log::info("cache purged", {{"what", what},
                             {"user", describe(caller)},
                             {"objects", purged.blobs.objects + purged.manifests.objects},
                             {"bytes", purged.blobs.bytes + purged.manifests.bytes},
                             {"faults", purged.faults.size()}});
  co_return describe(purged);
}

}  // namespace staithe::daemon
