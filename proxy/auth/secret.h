// Bytes that must not be seen: tokens and passwords.
//
// No formatter, no stream operator, no conversion to text: a secret cannot be logged by accident,
// and every place that looks at the bytes says `reveal()`. The memory is wiped when the secret is
// destroyed or replaced. It can be moved, not copied; what several hold is a
// shared_ptr<const Secret>.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace staithe::proxy::auth {

class Secret {
 public:
  Secret() = default;
  // Copies; the caller wipes its own. See take() for text that the caller gives up.
  explicit Secret(std::string_view text);
  // `prefix` + `text` in one piece, as "Bearer " before a token.
  Secret(std::string_view prefix, std::string_view text);
  // Takes the text over and wipes where it stood.
  static Secret take(std::string&& text);

  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  bool empty() const { return size_bytes_ == 0; }
  std::size_t size_bytes() const { return size_bytes_; }

  // The bytes, valid as long as this object.
  std::string_view reveal() const { return {bytes_, size_bytes_}; }

  // In a time that depends on the lengths alone.
  friend bool operator==(const Secret& a, const Secret& b);

 private:
  // All memory of secrets comes from SecretMemory, locked and kept out of cores.
  static char* allocate(std::size_t size_bytes);
  void release() noexcept;

  char* bytes_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// Overwrites the text, in its whole capacity, and empties it.
void wipe(std::string& text) noexcept;

}  // namespace staithe::proxy::auth
