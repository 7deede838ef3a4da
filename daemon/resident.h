// Memory that the process has mapped and does not use.
#pragma once

#include <chrono>
#include <cstddef>

namespace staithe::daemon {

// Lets go of the pages of the program and its libraries that are mapped from their files and were
// never written. Most are there because the kernel maps 64 KiB around what is touched, and because
// the start touched them: linking, initialisation, configuration. They stay in the page cache; what
// is used again is mapped again, 16 pages at a time, at half a microsecond each. Takes less than a
// millisecond; any thread. Returns how many bytes of address space that concerned.
std::size_t release_program_pages();

// The same, and what was freed goes from malloc to the kernel. Who allocates meanwhile waits some
// milliseconds per 100 MiB.
void release_unused_memory();

// What this process has had of the processors since its start, all threads together.
std::chrono::nanoseconds processor_time();

}  // namespace staithe::daemon
