// What every fuzz target includes: it defines one function of a text, which must come back without
// a crash, a hang or a broken promise (check()).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string_view>

namespace staithe::fuzz {

// In release builds, too: a promise that is not kept is a finding.
inline void check(bool promise, std::source_location where = std::source_location::current()) {
  if (promise) return;
  std::fprintf(stderr, "broken promise: %s:%u\n", where.file_name(), where.line());
  std::abort();
}

inline bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

// What the input says, piece by piece. At its end everything is 0 or empty.
class Input {
 public:
  explicit Input(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto first = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return first;
  }
  // Of so many bytes, the lowest first.
  std::uint64_t number(int bytes = 8) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= std::uint64_t{byte()} << (8 * i);
    return value;
  }
  // 0 to `end` - 1.
  std::uint64_t below(std::uint64_t end) {
    const int bytes = end <= 0x100 ? 1 : end <= 0x10000 ? 2 : 8;
    return number(bytes) % end;
  }
  bool flag() { return (byte() & 1) != 0; }
  std::string_view text(std::size_t bytes) {
    const std::string_view piece = rest_.substr(0, bytes);
    rest_.remove_prefix(piece.size());
    return piece;
  }
  // Up to the next line feed, which is taken, too.
  std::string_view line() {
    const std::string_view piece = text(rest_.find('\n'));
    if (!rest_.empty()) rest_.remove_prefix(1);
    return piece;
  }
  std::string_view rest() { return text(rest_.size()); }

 private:
  std::string_view rest_;
};

void one(std::string_view input);

}  // namespace staithe::fuzz

extern "C" __attribute__((used)) inline int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                                                   std::size_t size) {
  staithe::fuzz::one({reinterpret_cast<const char*>(data), size});
  return 0;
}
