// Lines of /proc/net/tcp, from which the caller's uid comes where the kernel may not be asked: what
// is read is what stands there.
#include <arpa/inet.h>

#include <charconv>
#include <cstring>
#include <sstream>
#include <string>

#include "proxy/tcp_table.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

std::string hex(std::uint64_t number, std::size_t digits) {
  char text[16];
  const auto end = std::to_chars(text, text + sizeof text, number, 16).ptr;
  std::string shown(text, end);
  return std::string(digits - std::min(digits, shown.size()), '0') + shown;
}

// As the kernel prints it for IPv6.
std::string written(const proxy::TcpEnd& end) {
  std::string text;
  for (int word = 0; word < 4; ++word) {
    std::uint32_t value = 0;
    std::memcpy(&value, &end.address.s6_addr[4 * word], sizeof value);
    text += hex(value, 8);
  }
  return text + ":" + hex(end.port, 4);
}

}  // namespace

void one(std::string_view input) {
  const auto line = proxy::parse_tcp_line(input);
  if (!line) return;
  const std::string again = "0: " + written(line->local) + " " + written(line->remote) + " " +
                            hex(line->state, 2) + " 0:0 0:0 0 " + std::to_string(line->uid) +
                            " 0 " + std::to_string(line->inode);
  const auto same = proxy::parse_tcp_line(again);
  check(same && same->local == line->local && same->remote == line->remote);
  check(same->uid == line->uid && same->inode == line->inode && same->state == line->state);
  std::istringstream table(again);
  check(proxy::find_tcp_line(table, line->local, line->remote).has_value());
}

}  // namespace staithe::fuzz
