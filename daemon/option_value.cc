// One option's value on its way: what is accepted, into its slot and out of it, and as text.
#include <cassert>
#include <utility>

#include "daemon/option_table.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

using std::chrono::milliseconds;

std::string toml_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (byte < ' ' || byte == 0x7f) {
      result += "\\u00";
      result += {kHex[byte >> 4], kHex[byte & 15]};
    } else {
      result += c;
    }
  }
  return result + "\"";
}

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

}  // namespace

std::string accepted(const Option& option) {
  const auto duration = [](std::int64_t ms) { return format_duration(milliseconds(ms)); };
  switch (option.grammar) {
    case Grammar::flag:
      return "true or false";
    case Grammar::count:
      return std::to_string(option.least) + " to " + std::to_string(option.most);
    case Grammar::duration:
      return duration(option.least) + " to " + duration(option.most);
    case Grammar::size: {
      const std::string least =
          format_size({.bytes = static_cast<std::uint64_t>(option.least), .share = 0});
      return least + " or more, or " + std::to_string(option.least_percent) + "% to " +
             std::to_string(option.most_percent) + "%";
    }
    case Grammar::word: {
      std::string text;
      for (const std::string_view word : option.words)
        text += (text.empty() ? "" : ", ") + toml_string(word);
      return text;
    }
    case Grammar::path:
      return "an absolute path";
    case Grammar::listen_address:
      return "\"127.0.0.1:5050\", \"[::1]:5050\" or \"unix:/path\"";
    case Grammar::host:
      return "host[:port]";
    case Grammar::host_pattern:
      return "a host or \"*.suffix\"";
    case Grammar::host_suffix:
      return "a suffix such as \"azurecr.io\"";
    case Grammar::registry_name:
      return "a registry host as written in image names, or \"*.suffix\"";
    case Grammar::origin_url:
      return "\"https://host[:port]\", or http:// written out";
    case Grammar::upstream_url:
      return "\"https://host[:port][/prefix]\", or http:// written out";
    case Grammar::authority:
      return "\"https://host[:port]\", or http:// with a loopback name";
    case Grammar::audience:
      return "a URI such as \"https://containerregistry.azure.net\"";
    case Grammar::repository_prefix:
      return "repository components such as \"team-a/\"";
    case Grammar::image:
      return "an image's name such as \"contoso.azurecr.io/app:1\"";
    case Grammar::platform:
      return "\"linux/amd64\", \"linux/arm64/v8\" or \"all\" for instance";
    case Grammar::identity_name:
      return "the NAME of an [identity.NAME]";
    case Grammar::account:
      return "a name or a number";
    case Grammar::guid:
      return "a GUID";
    case Grammar::azure_resource_id:
      return "\"/subscriptions/...\"";
    case Grammar::helper_name:
      return "the suffix of a docker-credential program, such as \"ecr-login\"";
    case Grammar::plain_text:
      return "text of at most 255 bytes";
    case Grammar::date:
      return "a date without quotes, such as 2027-01-31";
  }
  std::unreachable();
}

void store(const Option& option, const Target& target, OptionValue value) {
  std::visit(
      Overloaded{
          [&](const Choice& choice) { choice.set(target, std::get<WordIndex>(value).index); },
          [&](Member<std::filesystem::path> member) {
            member(target) = std::get<std::string>(std::move(value));
          },
          [&]<class T>(Member<T> member) { member(target) = std::get<T>(std::move(value)); },
      },
      option.slot);
}

OptionValue fetch(const Option& option, const Target& target) {
  return std::visit(
      Overloaded{
          [&](const Choice& choice) -> OptionValue { return WordIndex{choice.get(target)}; },
          [&](Member<std::filesystem::path> member) -> OptionValue {
            return member(target).string();
          },
          [&]<class T>(Member<T> member) -> OptionValue { return member(target); },
      },
      option.slot);
}

std::string toml_text(const Option& option, const OptionValue& value) {
  return std::visit(
      Overloaded{
          [](bool flag) -> std::string { return flag ? "true" : "false"; },
          [](std::size_t count) { return std::to_string(count); },
          [](milliseconds duration) { return "\"" + format_duration(duration) + "\""; },
          [](const cache::Size& size) {
            const std::string text = format_size(size);
            return text.find_first_not_of("0123456789") == text.npos ? text : "\"" + text + "\"";
          },
          [](const std::string& text) { return toml_string(text); },
          [](const std::vector<std::string>& texts) {
            std::string list;
            for (const std::string& text : texts) {
              list += (list.empty() ? "" : ", ") + toml_string(text);
            }
            return "[" + list + "]";
          },
          [](const std::optional<std::chrono::sys_days>& date) {
            return date ? format_date(*date) : std::string();
          },
          [&](WordIndex word) {
            assert(word.index < option.words.size());
            return toml_string(option.words[word.index]);
          },
      },
      value);
}

}  // namespace staithe::daemon
