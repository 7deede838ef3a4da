// The requests that can be answered without a second thought, told from all others: pure. What it
// takes proxy/request_head.h takes too, and reads alike; for whatever it is not sure about, that is
// asked, by way of proxy/connection.h.
#pragma once

#include <cstddef>
#include <string_view>

namespace staithe::proxy {

// A GET or HEAD in HTTP/1.1, in origin form, with exactly one Host, without a body, range,
// condition, origin, credential or wish for the connection other than to keep it.
struct PlainRequest {
  bool head = false;
  std::string_view target;
  std::string_view host;
  std::size_t size = 0;  // of the head, which is all of it
};

enum class Plain {
  yes,    // `request` has been set
  begun,  // what is there is the beginning of one
  no,
};

// Heads beyond this are none.
inline constexpr std::size_t most_plain_bytes = 8 * 1024;

// `bytes`: from the first byte of the request on; what follows it is not looked at.
Plain parse_plain(std::string_view bytes, PlainRequest& request);

}  // namespace staithe::proxy
