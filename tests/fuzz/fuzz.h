// What every fuzz target includes: it defines one function of a text, which must come back without
// a crash, a hang or a broken promise (check()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace staithe::fuzz {

inline void check(bool promise) {
  if (!promise) std::abort();
}

void one(std::string_view input);

}  // namespace staithe::fuzz

extern "C" __attribute__((used)) inline int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                                                   std::size_t size) {
  staithe::fuzz::one({reinterpret_cast<const char*>(data), size});
  return 0;
}
