#include "daemon/docker_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "cache/escape.h"
#include "daemon/child.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using proxy::auth::wipe;

constexpr const char* file_name = "docker-logins";
constexpr const char* new_name = "docker-logins.new";
constexpr const char* lock_name = "docker-logins.lock";
constexpr int version = 1;
// systemd-creds takes at most 1 MiB, and gives it back a third longer.
constexpr std::size_t max_plain_bytes = 512 << 10;
constexpr std::size_t max_file_bytes = 1 << 20;
constexpr int most_damaged = 1000;
constexpr std::chrono::seconds lock_patience{20};
constexpr std::chrono::milliseconds lock_interval{10};
// Bound into what is sealed, so that no other credential can be put in its place.
constexpr const char* seal_name = "--name=staithe-docker";

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

std::unexpected<Error> trouble(const std::string& what) { return fail(Errc::storage_failed, what); }
std::unexpected<Error> damaged(const std::string& why) {
  return fail(Errc::upstream_nonsense, why);
}

std::string shown_path(const std::filesystem::path& path) { return printable(path.native(), 300); }

// Ours alone: neither owned nor readable by anybody else.
Result<void> check_private(int fd, const std::string& name, mode_t kind, const char* chmod) {
  struct stat status{};
  if (fstat(fd, &status) != 0)
    return trouble(name + " cannot be examined: " + describe_errno(errno));
  if ((status.st_mode & S_IFMT) != kind)
    return trouble(name + " is of another kind than staithe made it: move it away");
  if (status.st_uid != geteuid())
    return trouble(name + " belongs to another user: move it away, or give it back with chown");
  if ((status.st_mode & 077) != 0)
    return trouble(name + " holds logins and other users may get at it: chmod " + chmod + " " +
                   name);
  return {};
}

// The directory's descriptor; none if it is not there and `create` is false.
Result<Descriptor> open_directory(const std::filesystem::path& path, bool create) {
  if (path.empty())
    return trouble("there is no directory to keep logins in: set HOME or XDG_STATE_HOME");
  if (create) {
    std::filesystem::path made;
    for (const std::filesystem::path& part : path) {
      made /= part;
      if (mkdir(made.c_str(), 0700) == 0 || errno == EEXIST) continue;
      // On a read-only file system mkdir may refuse what is there.
      if (struct stat status{}; stat(made.c_str(), &status) == 0) continue;
      return trouble(shown_path(made) + " cannot be made: " + describe_errno(errno));
    }
  }
  Descriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT && !create) return Descriptor();
    const int error = errno;
    struct stat status{};
    if (lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode))
      return trouble(shown_path(path) +
                     " is a link, and logins are not kept behind links: move it away");
    return trouble(shown_path(path) + " cannot be opened: " + describe_errno(error));
  }
  if (auto good = check_private(fd.get(), shown_path(path), S_IFDIR, "700"); !good)
    return std::unexpected(good.error());
  return fd;
}

// Held as long as the descriptor is open, so also given up by a process that is killed.
Result<Descriptor> lock(int directory, const std::string& name) {
  Descriptor fd(openat(directory, lock_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return trouble(name + " cannot be opened: " + describe_errno(errno));
  const auto deadline = std::chrono::steady_clock::now() + lock_patience;
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      return trouble(name + " cannot be locked: " + describe_errno(errno));
    if (std::chrono::steady_clock::now() > deadline)
      return trouble("another docker login holds " + name + ": end it and try again");
    std::this_thread::sleep_for(lock_interval);
  }
  return fd;
}

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return trouble(describe_errno(count == 0 ? ENOSPC : errno));
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (fsync(fd) != 0) return trouble(describe_errno(errno));
  return {};
}

bool is_base64(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=' || c == '\n';
  });
}

std::string to_text(const std::map<std::string, Login, std::less<>>& logins) {
  const json::storage_ptr memory = proxy::auth::wiping_memory();
  json::object all(memory);
  for (const auto& [key, login] : logins) {
    json::object one(memory);
    one["username"] = login.username;
    one["secret"] = login.secret.reveal();
    all[key] = std::move(one);
  }
  json::object root(memory);
  root["version"] = version;
  root["logins"] = std::move(all);
  return json::serialize(root);
}

}  // namespace

std::string login_key(const ServerUrl& url) {
  std::string key = to_server_url(url.registry);
  const std::string& path = url.note.empty() ? url.repository : url.note;
  if (path.empty()) return key;
  if (!key.ends_with('/')) key += '/';
  return key + path;
}

Result<std::string> Sealer::run(std::string_view verb, std::string_view input) const {
  if (program_.empty()) return trouble("systemd-creds is not on this machine's PATH");
  ChildCall call{.program = program_, .arguments = {seal_name}, .input = input};
  if (verb == "encrypt") call.arguments.push_back("--with-key=host");
  // Since systemd 256 users who are not root may seal for themselves; before, they cannot at all.
  if (!for_system_) call.arguments.push_back("--user");
  call.arguments.insert(call.arguments.end(), {std::string(verb), "-", "-"});
  call.most_bytes = max_file_bytes;
  auto result = run_child(call);
  if (!result) return std::unexpected(result.error());
  if (result->status != 0 || result->output.empty()) {
    wipe(result->output);
    return trouble("systemd-creds " + std::string(verb) + " ended with status " +
                   std::to_string(result->status));
  }
  return std::move(result->output);
}

Result<std::string> Sealer::open(std::string_view sealed) const { return run("decrypt", sealed); }

std::string Sealer::seal(std::string_view text) const {
  auto sealed = run("encrypt", text);
  if (!sealed || !is_base64(*sealed)) return {};
  auto opened = open(*sealed);
  const bool same = opened && *opened == text;
  if (opened) wipe(*opened);
  return same ? *std::move(sealed) : std::string();
}

bool Sealer::works() const { return !seal("probe").empty(); }

std::string DockerStore::where(std::string_view name) const {
  return shown_path(directory_ / name);
}

Result<DockerStore::Logins> DockerStore::load(int directory) const {
  const std::string name = where(file_name);
  const Descriptor fd(openat(directory, file_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return Logins();
    if (errno == ELOOP)
      return trouble(name + " is a link, and logins are not kept behind links: move it away");
    return trouble(name + " cannot be opened: " + describe_errno(errno));
  }
  if (auto good = check_private(fd.get(), name, S_IFREG, "600"); !good)
    return std::unexpected(good.error());
  std::string text(max_file_bytes + 1, '\0');
  std::size_t size = 0;
  ssize_t got = 0;
  do {
    got = read(fd.get(), text.data() + size, text.size() - size);
    if (got > 0) size += static_cast<std::size_t>(got);
  } while ((got > 0 && size < text.size()) || (got < 0 && errno == EINTR));
  if (got < 0) return trouble(name + " cannot be read: " + describe_errno(errno));
  if (size > max_file_bytes) return damaged("it is larger than 1 MiB");
  text.resize(size);

  if (!text.starts_with('{')) {
    if (text.empty()) return damaged("it is empty");
    if (!is_base64(text)) return damaged("it is neither JSON nor sealed");
    auto opened = sealer_.open(text);
    if (!opened) {
      if (sealer_.works()) return damaged("systemd-creds of this machine cannot open it");
      return trouble(name + " is sealed and cannot be opened (" + opened.error().detail +
                     "): mend systemd-creds, or move the file away and log in again");
    }
    text = *std::move(opened);
  }
  auto value = proxy::auth::parse_json_object(text);
  wipe(text);
  if (!value) return damaged("it is not JSON");
  const json::object& root = value->get_object();
  const auto number = proxy::auth::number_field(root, "version");
  if (!number || !*number) return damaged("it has no version");
  if (**number > version)
    return trouble(name + " was written by a newer staithe: install that one again");
  const json::value* all = root.if_contains("logins");
  if (!all || !all->is_object()) return damaged("it has no logins");
  Logins logins;
  for (const auto& [key, one] : all->get_object()) {
    const json::object* fields = one.if_object();
    if (!fields) return damaged("a login in it is no object");
    const auto username = proxy::auth::text_field(*fields, "username");
    const auto secret = proxy::auth::text_field(*fields, "secret");
    if (!username || !secret) return damaged("a login in it has no text");
    logins.emplace(std::string(key), Login{std::string(*username), proxy::auth::Secret(*secret)});
  }
  return logins;
}

Result<std::string> DockerStore::set_aside(int directory, const std::string& why) const {
  for (int n = 1; n <= most_damaged; ++n) {
    const std::string name = std::string(file_name) + ".damaged-" + std::to_string(n);
    // A second name first: nothing is replaced, on any file system.
    if (linkat(directory, file_name, directory, name.c_str(), 0) != 0) {
      if (errno == EEXIST) continue;
      return trouble(where(file_name) + " cannot be used (" + why + ") and not be set aside (" +
                     describe_errno(errno) + "): move it away");
    }
    unlinkat(directory, file_name, 0);
    return where(file_name) + " cannot be used (" + why + ") and is now " + where(name) +
           ": log in again where it is needed";
  }
  return trouble(where(file_name) + " cannot be used (" + why +
                 ") and there are too many .damaged files beside it: remove them");
}

Result<DockerStore::Logins> DockerStore::load_to_read() {
  const auto directory = open_directory(directory_, false);
  if (!directory) return std::unexpected(directory.error());
  if (!*directory) return Logins();
  auto logins = load(directory->get());
  if (logins || logins.error().code != Errc::upstream_nonsense) return logins;
  // Another process may be setting it aside, or has just logged in anew.
  const auto held = lock(directory->get(), where(lock_name));
  if (!held) return std::unexpected(held.error());
  logins = load(directory->get());
  if (logins || logins.error().code != Errc::upstream_nonsense) return logins;
  const auto said = set_aside(directory->get(), logins.error().detail);
  if (!said) return std::unexpected(said.error());
  return trouble(*said);
}

Result<DockerStore::Logins> DockerStore::load_to_change(int directory) {
  auto logins = load(directory);
  if (logins || logins.error().code != Errc::upstream_nonsense) return logins;
  const auto said = set_aside(directory, logins.error().detail);
  if (!said) return std::unexpected(said.error());
  notes_ << "staithe: " << *said << "\n";
  return Logins();
}

Result<void> DockerStore::save(int directory, const Logins& logins) const {
  std::string text = to_text(logins);
  if (text.size() > max_plain_bytes) {
    wipe(text);
    return trouble(where(file_name) +
                   " would be larger than 512 KiB: docker logout where a login "
                   "is no longer needed");
  }
  if (std::string sealed = sealer_.seal(text); !sealed.empty()) {
    wipe(text);
    text = std::move(sealed);
  }
  unlinkat(directory, new_name, 0);
  Result<void> done;
  {
    const Descriptor fd(
        openat(directory, new_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    done = fd ? write_all(fd.get(), text) : trouble(describe_errno(errno));
  }
  wipe(text);
  if (done && (renameat(directory, new_name, directory, file_name) != 0 || fsync(directory) != 0))
    done = trouble(describe_errno(errno));
  if (done) return {};
  unlinkat(directory, new_name, 0);
  return trouble(where(file_name) + " cannot be written: " + done.error().detail);
}

Result<std::optional<Login>> DockerStore::get(const Server& server) {
  auto logins = load_to_read();
  if (!logins) return std::unexpected(logins.error());
  auto found = logins->find(login_key(server.url));
  if (found == logins->end() && !server.url.repository.empty())
    found = logins->find(to_server_url(server.url.registry));
  if (found == logins->end()) return std::nullopt;
  return std::move(found->second);
}

Result<void> DockerStore::put(const Server& server, const Login& login) {
  const auto directory = open_directory(directory_, true);
  if (!directory) return std::unexpected(directory.error());
  const auto held = lock(directory->get(), where(lock_name));
  if (!held) return std::unexpected(held.error());
  auto logins = load_to_change(directory->get());
  if (!logins) return std::unexpected(logins.error());
  logins->insert_or_assign(login_key(server.url),
                           Login{login.username, proxy::auth::Secret(login.secret.reveal())});
  return save(directory->get(), *logins);
}

Result<void> DockerStore::erase(const Server& server) {
  const auto directory = open_directory(directory_, false);
  if (!directory) return std::unexpected(directory.error());
  if (!*directory) return {};
  const auto held = lock(directory->get(), where(lock_name));
  if (!held) return std::unexpected(held.error());
  auto logins = load_to_change(directory->get());
  if (!logins) return std::unexpected(logins.error());
  if (logins->erase(login_key(server.url)) == 0) return {};
  return save(directory->get(), *logins);
}

Result<std::vector<std::pair<std::string, std::string>>> DockerStore::list() {
  const auto logins = load_to_read();
  if (!logins) return std::unexpected(logins.error());
  std::vector<std::pair<std::string, std::string>> result;
  for (const auto& [key, login] : *logins) result.emplace_back(key, login.username);
  return result;
}

}  // namespace staithe::daemon
