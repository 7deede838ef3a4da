#include "daemon/environment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "cache/error.h"

namespace staithe::daemon {
namespace {

constexpr const char* kSystemSocket = "/run/staithe/control.sock";

// systemd gives several directories with colons between; the first is ours.
std::string_view first_directory(std::string_view list) { return list.substr(0, list.find(':')); }

// The XDG specification: "All paths set in these environment variables must be absolute. If an
// implementation encounters a relative path [...] it should consider the path invalid and ignore
// it."
std::string_view absolute(std::string_view path) { return path.starts_with('/') ? path : ""; }

}  // namespace

Environment Environment::of_process() {
  Environment environment;
  environment.uid = geteuid();
  // Only what is asked for: the rest of the environment may hold secrets.
  for (const char* name :
       {"CACHE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY",
        "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME", "PATH", "STAITHE_SOCKET",
        "STAITHE_DOCKER_STORE", "STAITHE_DOCKER_USERNAME", "STAITHE_KUBELET_FALLBACK",
        // Workload identity, and where managed identities are (azure-protocol.md sections 6.5 to
        // 6.7). IDENTITY_HEADER and MSI_SECRET are secrets of this machine alone; nothing shows
        // them.
        "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST",
        "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT",
        "MSI_ENDPOINT", "MSI_SECRET", "AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_KUBERNETES_SNI_NAME",
        "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA"}) {
    if (const char* value = std::getenv(name)) environment.variables[name] = value;
  }
  environment.why_unreadable = [](const std::filesystem::path& path) -> std::string {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return describe_errno(errno);
    struct stat status{};
    const bool is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    close(fd);
    return is_file ? "" : "not a regular file";
  };
  return environment;
}

std::string_view Environment::get(std::string_view name) const {
  const auto found = variables.find(name);
  return found == variables.end() ? std::string_view() : std::string_view(found->second);
}

std::filesystem::path default_cache_directory(const Environment& environment) {
  if (const auto given = absolute(first_directory(environment.get("CACHE_DIRECTORY")));
      !given.empty()) {
    return given;
  }
  if (environment.uid == 0) return "/var/cache/staithe";
  if (const auto given = absolute(environment.get("XDG_CACHE_HOME")); !given.empty()) {
    return std::filesystem::path(given) / "staithe";
  }
  if (const auto home = absolute(environment.get("HOME")); !home.empty()) {
    return std::filesystem::path(home) / ".cache" / "staithe";
  }
  return {};
}

std::filesystem::path default_control_socket(const Environment& environment) {
  constexpr const char* kName = "control.sock";
  if (const auto given = absolute(first_directory(environment.get("RUNTIME_DIRECTORY")));
      !given.empty()) {
    return std::filesystem::path(given) / kName;
  }
  if (environment.uid == 0) return std::filesystem::path("/run/staithe") / kName;
  if (const auto given = absolute(environment.get("XDG_RUNTIME_DIR")); !given.empty()) {
    return std::filesystem::path(given) / "staithe" / kName;
  }
  return std::filesystem::path("/tmp/staithe-" + std::to_string(environment.uid)) / kName;
}

std::filesystem::path control_socket_of(const Environment& environment) {
  if (const auto given = environment.get("STAITHE_SOCKET"); !given.empty()) return given;
  std::filesystem::path own = default_control_socket(environment);
  std::error_code ignored;
  if (!std::filesystem::exists(own, ignored) && std::filesystem::exists(kSystemSocket, ignored)) {
    return kSystemSocket;
  }
  return own;
}

std::filesystem::path docker_store_directory(const Environment& environment) {
  constexpr const char* kName = "staithe-docker";
  if (const auto given = absolute(first_directory(environment.get("STATE_DIRECTORY")));
      !given.empty()) {
    return std::filesystem::path(given) / kName;
  }
  if (environment.uid == 0) return std::filesystem::path("/var/lib") / kName;
  if (const auto given = absolute(environment.get("XDG_STATE_HOME")); !given.empty()) {
    return std::filesystem::path(given) / "staithe";
  }
  if (const auto home = absolute(environment.get("HOME")); !home.empty()) {
    return std::filesystem::path(home) / ".local" / "state" / "staithe";
  }
  return {};
}

}  // namespace staithe::daemon
