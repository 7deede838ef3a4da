// What one stored object is: its bytes, read and hashed, say it.
#include <sys/stat.h>

#include <utility>
#include <vector>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

constexpr std::size_t hash_step_bytes = 1024 * 1024;

// The name still leads to the file that is open.
bool stands_at(const File& file, const std::filesystem::path& path) {
  struct stat opened{};
  struct stat named{};
  return ::fstat(file.fd(), &opened) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

asio::awaitable<std::optional<std::uint64_t>> Store::true_size(const File& file, Digest digest,
                                                               const Pace& pace) {
  Hasher hasher(digest.algorithm());
  std::uint64_t done_bytes = 0;
  for (;;) {
    const std::size_t n = co_await offload(pace.pool, [&] {
      // One buffer per thread of the pool, however many files are read at once.
      static thread_local std::vector<char> piece(hash_step_bytes);
      const std::size_t got = pace.once ? disk_.read_once(file, piece, done_bytes)
                                        : disk_.read(file, piece, done_bytes);
      hasher.update(std::span(piece).first(got));
      return got;
    });
    done_bytes += n;
    if (n < hash_step_bytes) break;
    if (pace.between && !co_await pace.between(done_bytes)) co_return std::nullopt;
  }
  if (hasher.digest() != digest) co_return std::nullopt;
  co_return done_bytes;
}

asio::awaitable<Checked> Store::check(Digest digest, const Pace& pace) {
  const auto settled = [&]() -> const Catalog::Object* {
    if (lost_ || growing_.contains(digest) || storing_.contains(digest) ||
        leaving_.contains(digest))
      return nullptr;
    return catalog_.find(digest);
  };
  Checked checked;
  const Catalog::Object* object = settled();
  if (!object) co_return checked;
  if (object->kind == ObjectKind::manifest) {
    co_await read_manifest(digest, &checked);
    co_return checked;
  }

  const auto path = layout_.object(ObjectKind::blob, digest);
  // A file that was removed is let go at the next step, since only then its space comes back.
  const Pace steps{.pool = pace.pool,
                   .once = pace.once,
                   .between = [&](std::uint64_t done_bytes) -> asio::awaitable<bool> {
                     const bool go_on = !pace.between || co_await pace.between(done_bytes);
                     co_return go_on&& settled();
                   }};
  File file;
  bool opened = false;
  std::uint64_t found_bytes = 0;
  std::optional<std::uint64_t> true_bytes;
  try {
    co_await offload(pace.pool, [&] {
      if (!in_place()) return;
      file = disk_.open(path);
      if (file) found_bytes = disk_.size(file);
      opened = true;
    });
    if (file) true_bytes = co_await true_size(file, digest, steps);
  } catch (const Failure& failure) {
    checked.why = failure.what();
  }
  object = settled();
  if (!object || object->kind != ObjectKind::blob) co_return checked;  // Evicted meanwhile.
  if (!opened) {
    checked.condition = Condition::unreadable;
    co_return checked;
  }
  if (!file) {  // As in find().
    checked.condition = Condition::gone;
    forget_open(digest);
    catalog_.drop(digest);
    co_return checked;
  }
  if (true_bytes) {
    checked.condition = Condition::good;
    if (object->size_bytes != *true_bytes) catalog_.set_size(digest, *true_bytes);
    catalog_.set_verified(digest, unix_now());
    co_return checked;
  }
  // Of a file that was removed or replaced while it was read, nothing is known about what stands
  // there now.
  const bool current = co_await offload(pace.pool, [&] { return stands_at(file, path); });
  object = settled();
  if (!current || !object) co_return checked;
  if (!checked.why.empty()) {
    checked.condition = Condition::failing;
  } else {
    checked.condition = Condition::damaged;
    checked.why = found_bytes == object->size_bytes ? "its bytes do not have its digest any more"
                                                    : "its file has another size than was stored";
  }
  co_await set_aside(ObjectKind::blob, digest, checked.why);
  co_return checked;
}

void Store::doubt(const Digest& digest) {
  tell_gone(digest);
  tasks_.spawn("check", recheck(digest));
}

asio::awaitable<void> Store::recheck(Digest digest) {
  const Pace pace{.pool = disk_pool_};
  co_await check(digest, pace);
}

}  // namespace staithe::cache
