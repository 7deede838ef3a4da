// What the reader is given: the environment, the file's text and the places that follow from them.
#include "daemon/options.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "cache/error.h"
#include "cache/escape.h"

namespace staithe::daemon {
namespace {

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
       {"CACHE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_CACHE_HOME",
        "XDG_RUNTIME_DIR", "HOME", "STAITHE_SOCKET",
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

std::string Fault::to_string() const {
  std::string text = printable(file, 4096);
  if (line != 0) text += ":" + std::to_string(line);
  if (!key.empty()) text += ": " + key;
  return text + ": " + what;
}

std::expected<Config, Faults> load_config(const std::optional<std::filesystem::path>& file,
                                          const Environment& environment) {
  const std::string name = file ? file->string() : kDefaultConfigFile;
  const auto unreadable = [&](const std::string& why) {
    return std::unexpected(Faults{{name, 0, "", why}});
  };
  const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (!file && errno == ENOENT) return parse_config("", name, environment);
    return unreadable("cannot be read: " + describe_errno(errno) +
                      "; accepted: a TOML file that the daemon's user may read");
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  std::size_t size = 0;
  ssize_t got = 0;
  do {
    got = read(fd, text.data() + size, text.size() - size);
    if (got > 0) size += static_cast<std::size_t>(got);
  } while ((got > 0 && size < text.size()) || (got < 0 && errno == EINTR));
  const int error = errno;
  close(fd);
  if (got < 0) return unreadable("cannot be read: " + describe_errno(error));
  if (size > kMaxConfigBytes) return unreadable("larger than 1 MiB, so not a configuration");
  text.resize(size);
  return parse_config(text, name, environment);
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

}  // namespace staithe::daemon
