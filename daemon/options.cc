// The configuration's file, and a fault as a line.
#include "daemon/options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "cache/error.h"
#include "cache/escape.h"

namespace staithe::daemon {

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

}  // namespace staithe::daemon
