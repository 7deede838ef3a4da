// Values of Host: whatever is accepted names this machine or what is configured, however it is
// spelled (threat T4: a name that somebody else's DNS may point here is none of them).
#include <array>
#include <string>

#include "proxy/host_policy.h"
#include "proxy/request_head.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

const proxy::HostPolicy& policy() {
  static const proxy::HostPolicy made(
      {"127.0.0.1:5050", "[::1]:5050", "127.0.0.2:5051", "unix:/run/staithe/registry.sock"},
      {"cache.example", "mirror.example:8080"});
  return made;
}

std::string changed_case(std::string_view text) {
  std::string changed(text);
  for (char& c : changed) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) c = static_cast<char>(c ^ 0x20);
  }
  return changed;
}

}  // namespace

void one(std::string_view input) {
  // Before the policy is asked, a request's head is read (target http).
  if (!proxy::is_host(input)) return;
  check(is_printable(input) && input.find_first_of("/@?#\\ ") == std::string_view::npos);
  const bool accepted = policy().accepts(input);
  check(policy().accepts(changed_case(input)) == accepted);
  if (!accepted) return;
  std::string name(input);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  }
  if (name == "mirror.example:8080") return;
  const std::size_t digits = name.find_last_not_of("0123456789") + 1;
  if (digits > 0 && digits < name.size() && name[digits - 1] == ':') name.resize(digits - 1);
  constexpr std::array<std::string_view, 5> local{"localhost", "127.0.0.1", "127.0.0.2", "[::1]",
                                                  "cache.example"};
  check(std::ranges::find(local, name) != local.end());
}

}  // namespace staithe::fuzz
