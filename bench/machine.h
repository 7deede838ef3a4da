// What a report says about where it was made.
#pragma once

#include <filesystem>

#include "bench/peers.h"
#include "bench/report.h"

namespace staithe::bench {

// Processor, kernel, the file system that `directory` is on, and the versions of all programs.
void note_machine(const Programs& programs, const std::filesystem::path& directory, Report& report);
std::string load_average();

// Where this program was built: a real disk, as a cache has, and not a file system in memory.
std::filesystem::path beside_this_program();

// What was just written must not be on its way to the disk while something is measured.
void settle(const std::filesystem::path& directory);

}  // namespace staithe::bench
