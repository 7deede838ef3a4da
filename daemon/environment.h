// What a program of Staithe was given by whoever started it, and the places that follow from it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace staithe::daemon {

// What the process was given besides its arguments and files.
struct Environment {
  std::map<std::string, std::string, std::less<>> variables;
  unsigned uid = 0;
  // Why a file that the configuration names cannot be read; empty if it can. Absent: not asked.
  std::function<std::string(const std::filesystem::path&)> why_unreadable;

  static Environment of_process();
  // Empty if not set.
  std::string_view get(std::string_view name) const;
};

// Where the control socket is unless configured: $RUNTIME_DIRECTORY (systemd), /run/staithe for
// root, $XDG_RUNTIME_DIR/staithe, else /tmp/staithe-<uid>. The directory may not exist yet; whoever
// listens there creates it with mode 0700 and refuses one that it does not own.
std::filesystem::path default_control_socket(const Environment& environment);
// Where the cache is unless configured: $CACHE_DIRECTORY (systemd), /var/cache/staithe for root,
// $XDG_CACHE_HOME/staithe, ~/.cache/staithe; empty if none of these can be told.
std::filesystem::path default_cache_directory(const Environment& environment);

// Where a client looks for the control socket: $STAITHE_SOCKET, else the default; for a user other
// than root the system's daemon, if the user has none of his own and the system's is there.
std::filesystem::path control_socket_of(const Environment& environment);
// Where docker-credential-staithe keeps what `docker login` gives it for registries that are not
// the daemon's: $STATE_DIRECTORY/staithe-docker, /var/lib/staithe-docker for root,
// $XDG_STATE_HOME/staithe, ~/.local/state/staithe; empty if none of these can be told. Not the
// daemon's own state directory: with DynamicUser= that is a link to a directory whose owner systemd
// changes from start to start.
std::filesystem::path docker_store_directory(const Environment& environment);

}  // namespace staithe::daemon
