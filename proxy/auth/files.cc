#include "proxy/auth/files.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "cache/error.h"
#include "cache/escape.h"
#include "cache/offload.h"

namespace staithe::proxy::auth {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view why) {
  throw Failure(Errc::identity_missing,
                "the file " + printable(path.native()) + " " + std::string(why));
}

Secret read_now(const std::filesystem::path& path, const FileRules& rules) {
  struct Descriptor {
    int fd;
    ~Descriptor() {
      if (fd >= 0) ::close(fd);
    }
  };
  // Not waiting for the writer of a FIFO that somebody has put there.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (rules.may_be_link ? 0 : O_NOFOLLOW);
  const Descriptor file{::open(path.c_str(), flags)};
  if (file.fd < 0) {
    if (errno == ELOOP && !rules.may_be_link) refuse(path, "is a link, which is not followed here");
    refuse(path, "cannot be read: " + describe_errno(errno) +
                     "; create it, or let the user of staithed read it");
  }
  struct stat status{};
  if (::fstat(file.fd, &status) != 0) refuse(path, "cannot be read: " + describe_errno(errno));
  if (!S_ISREG(status.st_mode)) refuse(path, "is not a regular file");
  if (rules.is_private) {
    if (status.st_uid != 0 && status.st_uid != ::geteuid())
      refuse(path, "belongs to another user, who could change it: give it to root (chown root)");
    if ((status.st_mode & (S_IRWXO | S_IWGRP)) != 0)
      refuse(path, "may be read or written by others than its owner: chmod 0600 it");
  }
  if (static_cast<std::uint64_t>(status.st_size) > rules.max_bytes)
    refuse(path, "is longer than " + std::to_string(rules.max_bytes) + " bytes");
  // The size may be wrong by now, so one byte more is asked for.
  const std::size_t room = rules.max_bytes + 1;
  const auto wiped = [room](char* bytes) {
    OPENSSL_cleanse(bytes, room);
    delete[] bytes;
  };
  const std::unique_ptr<char[], decltype(wiped)> bytes(new char[room], wiped);
  std::size_t size = 0;
  while (size < room) {
    const ssize_t n = ::read(file.fd, bytes.get() + size, room - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path, "cannot be read: " + describe_errno(errno));
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > rules.max_bytes)
    refuse(path, "is longer than " + std::to_string(rules.max_bytes) + " bytes");
  return Secret(std::string_view(bytes.get(), size));
}

}  // namespace

asio::awaitable<Secret> PosixFiles::read(std::filesystem::path path, FileRules rules) {
  co_return co_await offload(pool_, [&] { return read_now(path, rules); });
}

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

}  // namespace staithe::proxy::auth
