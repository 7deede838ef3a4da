// What our own layers make of the bytes of one request: the reader of heads that every connection
// has, and the one that answers plain requests from memory beside it.
#pragma once

#include <optional>
#include <string_view>

#include "proxy/plain_request.h"
#include "proxy/request_head.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

// A message as far as it matters who reads it.
struct Message {
  std::string_view method;
  std::string_view target;
  std::string_view host;
  std::size_t size = 0;  // with its body

  bool operator==(const Message&) const = default;
};

inline Message message_of(const proxy::RequestHead& head) {
  return {head.method, head.target, head.host, head.size + head.content_length};
}

// The head that `bytes` begin with, if it is accepted. `body_bytes`: of the listener it comes to.
inline std::optional<proxy::RequestHead> accepted_head(std::string_view bytes,
                                                       std::size_t body_bytes) {
  const proxy::HeadReading whole = proxy::read_request_head(bytes, {.body_bytes = body_bytes});
  // Byte by byte it is the same.
  proxy::HeadReader reader(
      {.head_bytes = proxy::HeadLimits{}.head_bytes, .body_bytes = body_bytes});
  auto verdict = proxy::HeadVerdict::more;
  for (std::size_t size = 1; size <= bytes.size() && verdict == proxy::HeadVerdict::more; ++size)
    verdict = reader.read(bytes.substr(0, size));
  check(verdict == whole.verdict);
  if (verdict == proxy::HeadVerdict::refused) {
    check(reader.refusal().status == whole.refusal.status);
    check(reader.refusal().status >= 400 && !reader.refusal().message.empty());
  }
  if (verdict != proxy::HeadVerdict::whole) return std::nullopt;
  check(message_of(reader.head(bytes)) == message_of(whole.head));
  return whole.head;
}

// What the front takes for a plain request.
inline std::optional<proxy::PlainRequest> plain_request(std::string_view bytes) {
  proxy::PlainRequest request;
  if (proxy::parse_plain(bytes, request) != proxy::Plain::yes) return std::nullopt;
  // Its beginnings are beginnings.
  for (std::size_t size = 0; size < request.size; ++size) {
    proxy::PlainRequest begun;
    check(proxy::parse_plain(bytes.substr(0, size), begun) == proxy::Plain::begun);
  }
  return request;
}

}  // namespace staithe::fuzz
