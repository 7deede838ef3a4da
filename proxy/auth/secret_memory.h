// Where the bytes of secrets stand: pages that are locked into memory, kept out of cores, gone in
// forked children, and wiped when they are given back (threat T23).
//
// What the kernel allows is found out page by page, best first, and a lesser way never fails a
// caller:
//   memfd_secret  locked, and out of reach of other processes, root's and the kernel's own copies;
//                 (while such pages exist the machine does not hibernate, which would write them)
//   locked        anonymous pages with mlock, MADV_DONTDUMP and MADV_WIPEONFORK
//   not locked    the same without mlock: RLIMIT_MEMLOCK is used up
// describe() says which of them holds.
//
// Slots are multiples of 64 bytes, each followed by at least one byte that nobody may touch (under
// AddressSanitizer, and for one granule at least); regions lie between two pages without access.
// Any thread may call every member.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <vector>

namespace staithe::proxy::auth {

class SecretMemory {
 public:
  struct Settings {
    bool memfd_secret = true;  // tried first
    bool lock = true;          // mlock is tried
    // All regions together. Beyond it allocate() throws std::bad_alloc: tokens are counted and
    // bounded by their owners, so this much is a fault of ours.
    std::size_t most_bytes = 64 << 20;
  };

  explicit SecretMemory(Settings settings);
  // Every slot must have been given back.
  ~SecretMemory();
  SecretMemory(const SecretMemory&) = delete;
  SecretMemory& operator=(const SecretMemory&) = delete;

  // The one that Secret uses. Lives as long as the process.
  static SecretMemory& of_process();

  // At least one byte, zeroed. Throws std::bad_alloc.
  char* allocate(std::size_t size_bytes);
  // `size_bytes` as it was asked for. Wipes the slot. In a forked child, what its parent allocated
  // is gone, and giving it back does nothing.
  void release(char* bytes, std::size_t size_bytes) noexcept;

  // How much there is, and what protects it.
  struct Report {
    std::size_t bytes = 0;         // of all regions
    std::size_t used_bytes = 0;    // of slots in use
    std::size_t locked_bytes = 0;  // never written to swap
    std::size_t hidden_bytes = 0;  // of memfd_secret
    bool out_of_cores = true;
    bool gone_on_fork = true;
  };
  Report report() const;
  // The report as a phrase for status and log: "locked, out of cores, out of other processes'
  // reach". Sets up the first region if there is none, so that the answer is known from the start.
  std::string describe();

  // True if every byte outside of slots in use is zero: for tests.
  bool unused_is_wiped() const;

 private:
  struct Region {
    char* base = nullptr;
    std::size_t bytes = 0;
    bool locked = false;
    bool hidden = false;
    bool out_of_cores = false;
    bool gone_on_fork = false;
    std::size_t used = 0;     // granules
    std::vector<bool> taken;  // by granule
  };

  // With mutex_ held.
  Region& grow(std::size_t least_bytes);
  Region map(std::size_t bytes) const;
  void unmap(Region& region) noexcept;
  static char* take(Region& region, std::size_t granules);
  void forget();  // in a forked child

  const Settings settings_;
  mutable std::mutex mutex_;
  std::list<Region> regions_;
  std::size_t bytes_ = 0;
};

}  // namespace staithe::proxy::auth
