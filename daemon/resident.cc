#include "daemon/resident.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>

namespace staithe::daemon {

std::size_t release_program_pages() {
  std::size_t released_bytes = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* released) {
        const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const auto& segment = object->dlpi_phdr[i];
          // What can be written holds relocations and data that stand in no file.
          if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
          // The kernel's own code, [vdso], is in no file either, and refuses.
          const std::uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
          const std::uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_filesz;
          if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0)
            *static_cast<std::size_t*>(released) += end - begin;
        }
        return 0;
      },
      &released_bytes);
  return released_bytes;
}

void release_unused_memory() {
  ::malloc_trim(0);
  release_program_pages();
}

std::chrono::nanoseconds processor_time() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace staithe::daemon
