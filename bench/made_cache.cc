#include "bench/made_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <vector>

#include "cache/disk.h"
#include "cache/error.h"
#include "cache/index.h"
#include "cache/layout.h"

namespace staithe::bench {

std::string made_repository(std::size_t number) {
  return "repository" + std::to_string(number / 10);
}

std::string made_bytes(std::size_t number) { return "blob " + std::to_string(number) + "\n"; }

cache::Digest made_digest(std::size_t number) {
  return cache::digest_of(cache::Algorithm::sha256, made_bytes(number));
}

void make_cache(const std::filesystem::path& root, std::size_t blobs) {
  const cache::Layout layout(root);
  std::filesystem::create_directories(root);
  std::filesystem::permissions(root, std::filesystem::perms::owner_all);
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[3];
    std::snprintf(name, sizeof name, "%02x", byte);
    std::filesystem::create_directories(layout.algorithm(cache::ObjectKind::blob, "sha256") / name);
  }
  std::vector<cache::Change> changes;
  const std::int64_t now = std::chrono::duration_cast<std::chrono::seconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
  for (std::size_t i = 0; i < blobs; ++i) {
    const std::string bytes = made_bytes(i);
    const auto digest = made_digest(i);
    const auto path = layout.object(cache::ObjectKind::blob, digest);
    const cache::File file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (::write(file.fd(), bytes.data(), bytes.size()) != std::ssize(bytes))
      throw Failure(Errc::storage_failed, "cannot write " + path.string());
    const auto order = static_cast<std::int64_t>(i + 1);
    changes.emplace_back(cache::ObjectRow{.digest = digest,
                                          .kind = cache::ObjectKind::blob,
                                          .size_bytes = bytes.size(),
                                          .used_order = order,
                                          .used_unix_seconds = now,
                                          .verified_unix_seconds = now});
    changes.emplace_back(
        cache::LinkRow{std::string(made_registry) + "/" + made_repository(i), digest, now});
  }
  cache::Index(root).apply(changes);
}

void lose_index(const std::filesystem::path& root) {
  for (const char* name : cache::Index::file_names) std::filesystem::remove(root / name);
}

bool drop_page_cache() {
  ::sync();
  std::ofstream file("/proc/sys/vm/drop_caches");
  file << "3\n";
  return static_cast<bool>(file.flush());
}

}  // namespace staithe::bench
