#include "proxy/route.h"

#include <algorithm>
#include <vector>

#include "proxy/url.h"

namespace staithe::proxy {

namespace {

constexpr std::size_t max_target_bytes = 8 * 1024;

struct Query {
  std::optional<std::string> ns, n, last, artifact_type;
};

Result<Query> parse_query(std::string_view text) {
  Query query;
  while (!text.empty()) {
    const std::size_t end = text.find('&');
    const std::string_view pair = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t equals = pair.find('=');
    const std::string_view name = pair.substr(0, equals);
    std::optional<std::string>* slot = name == "ns"             ? &query.ns
                                       : name == "n"            ? &query.n
                                       : name == "last"         ? &query.last
                                       : name == "artifactType" ? &query.artifact_type
                                                                : nullptr;
    if (!slot) continue;  // Unknown parameters mean nothing here and go nowhere.
    if (*slot)
      return fail(Errc::bad_request, "the parameter " + std::string(name) + " is given twice");
    auto value = percent_decode(equals == std::string_view::npos ? std::string_view()
                                                                 : pair.substr(equals + 1));
    if (!value) return std::unexpected(std::move(value.error()));
    *slot = std::move(*value);
  }
  return query;
}

void append_parameter(std::string& query, std::string_view name,
                      const std::optional<std::string>& value) {
  if (!value) return;
  query += query.empty() ? '?' : '&';
  query += name;
  query += '=';
  query += percent_encode(*value);
}

// The name between "/v2/" and the verb, with the registry told apart.
Result<ImageName> parse_name(std::string_view path_registry, std::string_view text,
                             const Query& query) {
  ImageName name;
  std::string_view registry = path_registry;
  if (query.ns) {
    registry = *query.ns;
    name.by_ns = true;
  } else if (registry.empty()) {
    const std::size_t slash = text.find('/');
    if (slash != std::string_view::npos && looks_like_registry(text.substr(0, slash))) {
      registry = text.substr(0, slash);
      text.remove_prefix(slash + 1);
    }
  }
  if (!registry.empty() || name.by_ns) {
    auto parsed = parse_registry(registry);
    if (!parsed) return std::unexpected(std::move(parsed.error()));
    name.registry = std::move(*parsed);
  }
  if (!is_repository(text))
    return fail(Errc::name_invalid,
                "a repository is written in lower-case letters, digits and single separators "
                "('.', '_', '__', '-') between '/', and has at most 255 characters");
  name.repository = std::string(text);
  return name;
}

}  // namespace

Result<Route> parse_route(std::string_view target) {
  if (!target.starts_with('/'))
    return fail(Errc::bad_request, "the request target is not a path beginning with '/'");
  if (target.size() > max_target_bytes)
    return fail(Errc::bad_request,
                "the request target is longer than " + std::to_string(max_target_bytes) + " bytes");
  if (!std::ranges::all_of(target, [](char c) { return c > ' ' && c < '\x7f'; }))
    return fail(Errc::bad_request, "the request target has characters that must be escaped");
  const std::size_t question = target.find('?');
  auto query = parse_query(question == std::string_view::npos ? std::string_view()
                                                              : target.substr(question + 1));
  if (!query) return std::unexpected(std::move(query.error()));
  auto decoded = percent_decode(target.substr(0, question));
  if (!decoded) return std::unexpected(std::move(decoded.error()));
  std::string_view path = *decoded;

  if (path == "/healthz") return LiveRoute{};
  if (path == "/readyz") return ReadyRoute{};

  std::string_view path_registry;
  if (const std::size_t second = path.find('/', 1);
      second != std::string_view::npos && looks_like_registry(path.substr(1, second - 1)) &&
      (path.substr(second).starts_with("/v2/") || path.substr(second) == "/v2")) {
    path_registry = path.substr(1, second - 1);
    path.remove_prefix(second);
  }
  if (path == "/v2/" || path == "/v2") return PingRoute{};
  if (!path.starts_with("/v2/"))
    return fail(Errc::not_found, "there is nothing at this path; the registry begins at /v2/");
  path.remove_prefix(4);

  if (path.ends_with("/tags/list")) {
    auto name = parse_name(path_registry, path.substr(0, path.size() - 10), *query);
    if (!name) return std::unexpected(std::move(name.error()));
    TagsRoute route{.name = std::move(*name), .query = {}};
    append_parameter(route.query, "n", query->n);
    append_parameter(route.query, "last", query->last);
    return route;
  }
  // The verb is the last but one component; a repository may have parts named like verbs.
  const std::size_t last = path.rfind('/');
  const std::size_t verb_begin =
      last == std::string_view::npos || last == 0 ? last : path.rfind('/', last - 1);
  if (last == std::string_view::npos || verb_begin == std::string_view::npos)
    return fail(Errc::not_found, "the registry has manifests, blobs, tags and referrers only");
  const std::string_view verb = path.substr(verb_begin + 1, last - verb_begin - 1);
  const std::string_view argument = path.substr(last + 1);
  if (verb != "manifests" && verb != "blobs" && verb != "referrers")
    return fail(Errc::not_found, "the registry has manifests, blobs, tags and referrers only");
  auto name = parse_name(path_registry, path.substr(0, verb_begin), *query);
  if (!name) return std::unexpected(std::move(name.error()));
  if (verb == "manifests") {
    auto reference = Reference::parse(argument);
    if (!reference) return std::unexpected(std::move(reference.error()));
    return ManifestRoute{.name = std::move(*name), .reference = std::move(*reference)};
  }
  auto digest = cache::Digest::parse(argument);
  if (!digest) return std::unexpected(std::move(digest.error()));
  if (verb == "blobs") return BlobRoute{.name = std::move(*name), .digest = *digest};
  ReferrersRoute route{.name = std::move(*name), .digest = *digest, .query = {}};
  append_parameter(route.query, "artifactType", query->artifact_type);
  return route;
}

}  // namespace staithe::proxy
