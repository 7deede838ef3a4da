// What docker, podman and Nomad write to docker-credential-staithe (threat T21), with no daemon and
// no login there: an answer in whole lines of plain text, and nothing of a secret.
//
// The first letter is the action; behind it stands what comes on stdin.
#include "daemon/docker_credential.h"

#include <array>
#include <boost/json/parse.hpp>
#include <sstream>
#include <string>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

constexpr std::string_view secret = "Xq7vKm2pZr9sWd4t";

const daemon::Environment& environment() {
  // Places where nothing can be, not even for root.
  static const daemon::Environment made{.variables = {{"STAITHE_SOCKET", "/dev/null/control.sock"},
                                                      {"XDG_STATE_HOME", "/dev/null/state"},
                                                      {"HOME", "/dev/null"},
                                                      {"PATH", ""}},
                                        .uid = 1000,
                                        .why_unreadable = {}};
  return made;
}

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  const std::uint8_t action = input.byte();
  const char* const name = action == 'g' || action == 'n' ? "get"
                           : action == 's'                ? "store"
                           : action == 'e'                ? "erase"
                                                          : "list";
  const char* const program =
      action == 'n' ? "docker-credential-staithe-nomad" : "docker-credential-staithe";
  const std::string_view given = input.rest();
  std::istringstream in{std::string(given)};
  std::ostringstream out;
  std::ostringstream err;
  const std::array<const char*, 2> arguments{program, name};
  const int status = daemon::run_docker_credential(
      2, arguments.data(), {.in = in, .out = out, .err = err, .environment = environment()});
  check(status == 0 || status == 1);
  const std::string said = out.str();
  const std::string noted = err.str();
  for (const std::string& text : {said, noted}) {
    check(text.empty() || text.ends_with('\n'));
    if (status == 0 && &text == &said) continue;
    for (const char c : text) check(c == '\n' || (c >= ' ' && c <= '~'));
  }
  if (action == 's') check(!said.contains(secret) && !noted.contains(secret));
  if (status != 0) return;
  // Docker reads JSON of a get and a list.
  if (name == std::string_view("get") || name == std::string_view("list")) {
    boost::system::error_code error;
    const auto value = boost::json::parse(said, error);
    check(!error && value.is_object());
  }
}

}  // namespace staithe::fuzz
