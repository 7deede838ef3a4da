#include "proxy/auth/secret_memory.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(0))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(0))
#endif

namespace staithe::proxy::auth {

namespace {

constexpr std::size_t granule_bytes = 64;
// Holds a token of the largest size (64 KiB) with room beside it, and 64 of them fit into the 8 MiB
// that RLIMIT_MEMLOCK is by default.
constexpr std::size_t region_bytes = 128UL * 1024;

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

// With the byte behind the slot that nobody may touch.
std::size_t granules_of(std::size_t size_bytes) { return size_bytes / granule_bytes + 1; }

int make_memfd_secret() {
#ifdef SYS_memfd_secret
  return static_cast<int>(::syscall(SYS_memfd_secret, O_CLOEXEC));
#else
  return -1;
#endif
}

}  // namespace

SecretMemory::SecretMemory(Settings settings) : settings_(settings) {}

SecretMemory::~SecretMemory() {
  for (Region& region : regions_) {
    assert(region.used == 0);
    unmap(region);
  }
}

SecretMemory& SecretMemory::of_process() {
  // Never destroyed: secrets of other static objects may go after it.
  static SecretMemory* const memory = [] {
    auto* made = new SecretMemory(Settings{});
    // Only one thread lives on in a forked child, so the lock is taken across the fork.
    ::pthread_atfork([] { of_process().mutex_.lock(); }, [] { of_process().mutex_.unlock(); },
                     [] {
                       of_process().forget();
                       of_process().mutex_.unlock();
                     });
    return made;
  }();
  return *memory;
}

char* SecretMemory::allocate(std::size_t size_bytes) {
  if (size_bytes > settings_.most_bytes) throw std::bad_alloc();
  const std::size_t granules = granules_of(size_bytes);
  const std::lock_guard lock(mutex_);
  char* slot = nullptr;
  for (Region& region : regions_) {
    slot = take(region, granules);
    if (slot) break;
  }
  if (!slot) slot = take(grow(granules * granule_bytes), granules);
  assert(slot);
  ASAN_UNPOISON_MEMORY_REGION(slot, size_bytes);
  return slot;
}

void SecretMemory::release(char* bytes, std::size_t size_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const auto region = std::ranges::find_if(regions_, [&](const Region& candidate) {
    return bytes >= candidate.base && bytes < candidate.base + candidate.bytes;
  });
  if (region == regions_.end()) return;  // the parent's
  OPENSSL_cleanse(bytes, size_bytes);
  ASAN_POISON_MEMORY_REGION(bytes, granules_of(size_bytes) * granule_bytes);
  const std::size_t first = static_cast<std::size_t>(bytes - region->base) / granule_bytes;
  for (std::size_t i = 0; i < granules_of(size_bytes); ++i) {
    assert(region->taken[first + i]);
    region->taken[first + i] = false;
  }
  region->used -= granules_of(size_bytes);
  // One empty region is kept for the next secret; a second one, and any of unusual size, goes back.
  const bool another_is_empty = std::ranges::any_of(
      regions_, [&](const Region& other) { return &other != &*region && other.used == 0; });
  if (region->used == 0 && (another_is_empty || region->bytes > region_bytes)) {
    unmap(*region);
    bytes_ -= region->bytes;
    regions_.erase(region);
  }
}

// First fit: there are few slots, and they live for minutes to hours.
char* SecretMemory::take(Region& region, std::size_t granules) {
  std::size_t run = 0;
  for (std::size_t i = 0; i < region.taken.size(); ++i) {
    run = region.taken[i] ? 0 : run + 1;
    if (run < granules) continue;
    const std::size_t first = i + 1 - granules;
    for (std::size_t j = first; j <= i; ++j) region.taken[j] = true;
    region.used += granules;
    return region.base + first * granule_bytes;
  }
  return nullptr;
}

SecretMemory::Region& SecretMemory::grow(std::size_t least_bytes) {
  const std::size_t bytes = std::max(region_bytes, round_up(least_bytes, page_bytes()));
  if (bytes > settings_.most_bytes - std::min(bytes_, settings_.most_bytes)) throw std::bad_alloc();
  Region region = map(bytes);
  try {
    region.taken.resize(bytes / granule_bytes);
    regions_.push_back(region);
  } catch (...) {
    unmap(region);
    throw;
  }
  bytes_ += bytes;
  ASAN_POISON_MEMORY_REGION(regions_.back().base, bytes);
  return regions_.back();
}

SecretMemory::Region SecretMemory::map(std::size_t bytes) const {
  // The pages before and behind stay without access.
  const std::size_t page = page_bytes();
  void* const reserved = ::mmap(nullptr, bytes + 2 * page, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw std::bad_alloc();
  Region region;
  region.base = static_cast<char*>(reserved) + page;
  region.bytes = bytes;
  if (settings_.memfd_secret && settings_.lock) {
    const int fd = make_memfd_secret();
    if (fd >= 0) {
      // Such pages are born locked and out of cores; where RLIMIT_MEMLOCK has no room for them,
      // this mmap fails and the reservation stays as it was.
      if (::ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
          ::mmap(region.base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
              MAP_FAILED) {
        region.hidden = region.locked = region.out_of_cores = true;
        region.gone_on_fork = ::madvise(region.base, bytes, MADV_DONTFORK) == 0;
      }
      ::close(fd);
    }
  }
  if (!region.hidden) {
    if (::mmap(region.base, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
               -1, 0) == MAP_FAILED) {
      ::munmap(reserved, bytes + 2 * page);
      throw std::bad_alloc();
    }
    region.out_of_cores = ::madvise(region.base, bytes, MADV_DONTDUMP) == 0;
    region.gone_on_fork = ::madvise(region.base, bytes, MADV_WIPEONFORK) == 0;
    // Not mlock(): the sanitizers put a function in its place that says yes and does nothing.
    region.locked = settings_.lock && ::syscall(SYS_mlock, region.base, bytes) == 0;
  }
  return region;
}

void SecretMemory::unmap(Region& region) noexcept {
  ASAN_UNPOISON_MEMORY_REGION(region.base, region.bytes);
  ::munmap(region.base - page_bytes(), region.bytes + 2 * page_bytes());
}

void SecretMemory::forget() {
  for (Region& region : regions_) {
    ASAN_UNPOISON_MEMORY_REGION(region.base, region.bytes);
    // What was not copied leaves a hole. It is closed, so that no new region comes to stand where
    // somebody still gives back an old slot.
    if (region.hidden) {
      const void* const closed = ::mmap(region.base, region.bytes, PROT_NONE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      assert(closed == region.base);
    }
  }
  regions_.clear();
  bytes_ = 0;
}

SecretMemory::Report SecretMemory::report() const {
  const std::lock_guard lock(mutex_);
  Report report;
  for (const Region& region : regions_) {
    report.bytes += region.bytes;
    report.used_bytes += region.used * granule_bytes;
    if (region.locked) report.locked_bytes += region.bytes;
    if (region.hidden) report.hidden_bytes += region.bytes;
    report.out_of_cores = report.out_of_cores && region.out_of_cores;
    report.gone_on_fork = report.gone_on_fork && region.gone_on_fork;
  }
  return report;
}

std::string SecretMemory::describe() {
  {
    const std::lock_guard lock(mutex_);
    if (regions_.empty()) grow(1);
  }
  const Report held = report();
  std::string text = held.locked_bytes == held.bytes ? "locked"
                     : held.locked_bytes > 0
                         ? "partly locked (RLIMIT_MEMLOCK is used up: raise LimitMEMLOCK)"
                         : "not locked (RLIMIT_MEMLOCK is too small: raise LimitMEMLOCK)";
  text += held.out_of_cores ? ", out of cores" : ", not out of cores";
  if (!held.gone_on_fork) text += ", copied by fork";
  if (held.hidden_bytes == held.bytes) text += ", out of other processes' reach";
  return text;
}

bool SecretMemory::unused_is_wiped() const {
  const std::lock_guard lock(mutex_);
  for (const Region& region : regions_) {
    for (std::size_t i = 0; i < region.taken.size(); ++i) {
      if (region.taken[i]) continue;
      const char* const granule = region.base + i * granule_bytes;
      ASAN_UNPOISON_MEMORY_REGION(granule, granule_bytes);
      const bool zero =
          std::all_of(granule, granule + granule_bytes, [](char c) { return c == 0; });
      ASAN_POISON_MEMORY_REGION(granule, granule_bytes);
      if (!zero) return false;
    }
  }
  return true;
}

}  // namespace staithe::proxy::auth
