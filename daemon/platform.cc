#include "daemon/platform.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <set>
#include <utility>

#include "cache/escape.h"
#include "cache/image.h"
#include "daemon/values.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

// What `go tool dist list` names, besides what no image is made for.
constexpr std::array<std::string_view, 15> systems{
    "linux",   "windows", "darwin",  "freebsd", "netbsd", "openbsd", "dragonfly", "solaris",
    "illumos", "aix",     "android", "ios",     "plan9",  "js",      "wasip1"};
constexpr std::array<std::string_view, 14> architectures{
    "amd64",   "arm64",   "arm",      "386",    "ppc64le", "ppc64", "s390x",
    "riscv64", "loong64", "mips64le", "mips64", "mipsle",  "mips",  "wasm"};
constexpr std::size_t most_variant_bytes = 16;
// As in cache/image.cc.
constexpr std::size_t most_json_depth = 32;
// Real indexes have a dozen.
constexpr std::size_t most_platforms_named = 30;
constexpr std::string_view forms = "\"linux/amd64\", \"linux/arm64/v8\" or \"all\" for instance";

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  return result;
}

std::unexpected<Error> refuse(std::string_view text, const std::string& why) {
  return fail(Errc::bad_request,
              shown(text) + " is not a platform (" + why + "): write " + std::string(forms));
}

std::string unknown(std::string_view what, std::string_view name, const auto& known) {
  std::string why = "there is no " + std::string(what) + " " + shown(name);
  if (const std::string_view near = nearest(name, known); !near.empty())
    why += "; did you mean \"" + std::string(near) + "\"?";
  return why;
}

// 7 of "v7"; 0 if it is not one digit.
int number_of(std::string_view variant) {
  if (variant.starts_with('v')) variant.remove_prefix(1);
  return variant.size() == 1 && variant[0] >= '1' && variant[0] <= '9' ? variant[0] - '0' : 0;
}

std::string text_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? printable(value->get_string(), 40) : std::string();
}

std::optional<Platform> platform_of(const json::object& descriptor) {
  const json::value* value = descriptor.if_contains("platform");
  const json::object* object = value ? value->if_object() : nullptr;
  if (!object) return std::nullopt;
  Platform platform{.os = text_of(*object, "os"),
                    .architecture = text_of(*object, "architecture"),
                    .variant = text_of(*object, "variant")};
  if (platform.os.empty() || platform.architecture.empty() || platform.os == "unknown" ||
      platform.architecture == "unknown")
    return std::nullopt;
  return normalized(std::move(platform));
}

}  // namespace

std::string Platform::to_string() const {
  return os + "/" + architecture + (variant.empty() ? "" : "/" + variant);
}

Platform normalized(Platform platform) {
  platform.os = lower(platform.os);
  platform.architecture = lower(platform.architecture);
  platform.variant = lower(platform.variant);
  if (platform.os == "macos") platform.os = "darwin";
  std::string& architecture = platform.architecture;
  std::string& variant = platform.variant;
  if (architecture == "i386" || architecture == "i686") architecture = "386";
  if (architecture == "x86_64" || architecture == "x86-64") architecture = "amd64";
  if (architecture == "aarch64") architecture = "arm64";
  if (architecture == "armhf" || architecture == "armv7l") {
    architecture = "arm";
    variant = "v7";
  }
  if (architecture == "armel" || architecture == "armv6l") {
    architecture = "arm";
    variant = "v6";
  }
  if (architecture == "386" || (architecture == "amd64" && variant == "v1") ||
      (architecture == "arm64" && (variant == "8" || variant == "v8" || variant == "v8.0")))
    variant.clear();
  if (architecture == "arm") {
    if (variant.empty()) variant = "v7";
    if (const int number = number_of(variant); number > 0) variant = "v" + std::to_string(number);
  }
  return platform;
}

Result<Platform> parse_platform(std::string_view text) {
  const std::size_t first = text.find('/');
  if (first == std::string_view::npos) return refuse(text, "it has an OS and an architecture");
  const std::size_t second = std::min(text.find('/', first + 1), text.size());
  const std::string_view variant = text.substr(std::min(second + 1, text.size()));
  Platform platform =
      normalized({.os = std::string(text.substr(0, first)),
                  .architecture = std::string(text.substr(first + 1, second - first - 1)),
                  .variant = std::string(variant)});
  if (std::ranges::find(systems, platform.os) == systems.end())
    return refuse(text, unknown("OS", platform.os, systems));
  if (std::ranges::find(architectures, platform.architecture) == architectures.end())
    return refuse(text, unknown("architecture", platform.architecture, architectures));
  const bool has_variant = second < text.size();
  if ((has_variant && variant.empty()) || variant.size() > most_variant_bytes ||
      !std::ranges::all_of(variant, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.';
      }))
    return refuse(text, "what follows the architecture is no variant such as v8");
  return platform;
}

Result<PlatformChoice> parse_platform_choice(std::string_view text) {
  if (text == "all") return PlatformChoice{};
  if (text.empty()) return PlatformChoice{own_platform()};
  auto platform = parse_platform(text);
  if (!platform) return std::unexpected(platform.error());
  return PlatformChoice{*std::move(platform)};
}

Platform own_platform() {
  utsname name{};
  ::uname(&name);
  return normalized({.os = "linux", .architecture = name.machine, .variant = {}});
}

std::vector<Platform> runnable_on(const Platform& platform) {
  std::vector<Platform> result{platform};
  const auto add = [&](std::string_view architecture, std::string variant) {
    Platform other = normalized({.os = platform.os,
                                 .architecture = std::string(architecture),
                                 .variant = std::move(variant)});
    if (std::ranges::find(result, other) == result.end()) result.push_back(std::move(other));
  };
  const auto add_arm_below = [&](int number) {
    for (int lower_one = number - 1; lower_one >= 5; --lower_one)
      add("arm", "v" + std::to_string(lower_one));
  };
  if (platform.architecture == "amd64") {
    for (int number = number_of(platform.variant) - 1; number >= 1; --number)
      add("amd64", "v" + std::to_string(number));
    add("386", "");
  } else if (platform.architecture == "arm64") {
    add("arm64", "");
    add_arm_below(9);
  } else if (platform.architecture == "arm") {
    add_arm_below(number_of(platform.variant));
  }
  return result;
}

std::vector<IndexEntry> index_entries(std::string_view document) {
  std::vector<IndexEntry> entries;
  json::parse_options options;
  options.max_depth = most_json_depth;
  boost::system::error_code error;
  const json::value root = json::parse(document, error, {}, options);
  const json::object* object = error ? nullptr : root.if_object();
  const json::value* list = object ? object->if_contains("manifests") : nullptr;
  const json::array* manifests = list ? list->if_array() : nullptr;
  if (!manifests) return entries;
  std::set<cache::Digest> seen;  // ordered: see Digest::hash()
  for (const json::value& item : *manifests) {
    if (entries.size() == cache::most_references) break;
    const json::object* descriptor = item.if_object();
    const json::value* text = descriptor ? descriptor->if_contains("digest") : nullptr;
    if (!text || !text->is_string()) continue;
    const auto digest = cache::Digest::parse(text->get_string());
    if (!digest || !seen.insert(*digest).second) continue;
    entries.push_back({.digest = *digest, .platform = platform_of(*descriptor)});
  }
  return entries;
}

std::vector<IndexEntry> chosen(const std::vector<IndexEntry>& entries,
                               const PlatformChoice& choice) {
  const bool has_platforms = std::ranges::any_of(
      entries, [](const IndexEntry& entry) { return entry.platform.has_value(); });
  if (!choice.platform || !has_platforms) return entries;
  for (const Platform& platform : runnable_on(*choice.platform)) {
    std::vector<IndexEntry> found;
    std::ranges::copy_if(entries, std::back_inserter(found),
                         [&](const IndexEntry& entry) { return entry.platform == platform; });
    if (!found.empty()) return found;
  }
  return {};
}

std::string platforms_of(const std::vector<IndexEntry>& entries) {
  std::set<std::string> names;
  std::string text;
  for (const IndexEntry& entry : entries) {
    if (!entry.platform) continue;
    std::string name = entry.platform->to_string();
    if (names.size() < most_platforms_named && !names.contains(name))
      text += (text.empty() ? "" : ", ") + name;
    names.insert(std::move(name));
  }
  if (names.size() > most_platforms_named)
    text += " and " + std::to_string(names.size() - most_platforms_named) + " more";
  return text;
}

}  // namespace staithe::daemon
