// Cache directories made for a measurement: true blobs of a few bytes, with their index.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "cache/digest.h"

namespace staithe::bench {

// The registry and repository that have shown a made blob: ten share one.
inline constexpr const char* made_registry = "bench.local";
std::string made_repository(std::size_t number);
std::string made_bytes(std::size_t number);
cache::Digest made_digest(std::size_t number);

// Files and rows of so many blobs, as a daemon that has been stopped leaves them. Throws Failure.
void make_cache(const std::filesystem::path& root, std::size_t blobs);

// The index and what belongs to it.
void lose_index(const std::filesystem::path& root);

// False where that is not allowed.
bool drop_page_cache();

}  // namespace staithe::bench
