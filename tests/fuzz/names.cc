// Names, tags and digests, by the grammar as the distribution spec prints it; and no path that is
// made of them leaves its directory (threat T15).
#include <filesystem>
#include <regex>
#include <string>

#include "cache/layout.h"
#include "proxy/reference.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

bool matches(std::string_view text, const std::regex& grammar) {
  return std::regex_match(text.begin(), text.end(), grammar);
}

}  // namespace

void one(std::string_view input) {
  static const std::regex repository(
      R"([a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*)",
      std::regex::optimize);
  static const std::regex tag("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", std::regex::optimize);
  static const std::regex digest("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", std::regex::optimize);
  // Beyond that std::regex runs out of stack.
  if (input.size() > 512) return;
  check(proxy::is_repository(input) == (input.size() <= 255 && matches(input, repository)));
  check(proxy::is_tag(input) == matches(input, tag));

  const auto parsed = cache::Digest::parse(input);
  check(parsed.has_value() == matches(input, digest));
  if (parsed) {
    check(parsed->to_string() == input);
    const cache::Layout layout("/cache");
    const auto path = layout.object(cache::ObjectKind::blob, *parsed);
    check(path.lexically_normal() == path && path.native().starts_with("/cache/blobs/"));
    const auto partial = layout.partial(*parsed, 7);
    check(partial.parent_path() == layout.partial());
    const auto back = cache::Layout::parse_partial(partial.filename().native());
    check(back.digest == *parsed && back.number == 7);
  } else {
    check(is_printable(parsed.error().detail));
  }
  if (const auto partial = cache::Layout::parse_partial(input); partial.digest)
    check(partial.number <= cache::Layout::max_partial_number);

  const auto reference = proxy::Reference::parse(input);
  check(reference.has_value() == (proxy::is_tag(input) || parsed.has_value()));
  if (reference) check(reference->to_string() == input);

  const auto registry = proxy::parse_registry(input);
  if (registry) {
    check(proxy::parse_registry(*registry).value_or("") == *registry);
    check(registry->find_first_of("/@?#% ") == std::string::npos && is_printable(*registry));
  } else {
    check(is_printable(registry.error().detail));
  }
}

}  // namespace staithe::fuzz
