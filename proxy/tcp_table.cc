#include "proxy/tcp_table.h"

#include <array>
#include <charconv>
#include <cstring>
#include <string>

namespace staithe::proxy {

namespace {

// Fields of a line, counted from "sl"; tx_queue:rx_queue and tr:tm->when are one field each.
constexpr std::size_t local_field = 1;
constexpr std::size_t remote_field = 2;
constexpr std::size_t state_field = 3;
constexpr std::size_t uid_field = 7;
constexpr std::size_t inode_field = 9;
constexpr std::size_t fields_needed = 10;

template <class Number>
bool parse_number(std::string_view text, int base, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size();
}

// "0100007F:13BA": words of the address as this machine has them in memory, and the port.
std::optional<TcpEnd> parse_end(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon != 8 && colon != 32) return std::nullopt;
  TcpEnd end;
  if (colon == 8) end.address.s6_addr[10] = end.address.s6_addr[11] = 0xff;
  unsigned char* to = &end.address.s6_addr[colon == 8 ? 12 : 0];
  for (std::size_t at = 0; at < colon; at += 8, to += 4) {
    std::uint32_t word = 0;
    if (!parse_number(text.substr(at, 8), 16, word)) return std::nullopt;
    std::memcpy(to, &word, sizeof word);
  }
  if (!parse_number(text.substr(colon + 1), 16, end.port)) return std::nullopt;
  return end;
}

}  // namespace

std::optional<TcpLine> parse_tcp_line(std::string_view line) {
  std::array<std::string_view, fields_needed> fields;
  for (std::string_view& field : fields) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    field = line.substr(0, line.find(' '));
    line.remove_prefix(field.size());
  }
  TcpLine found;
  const auto local = parse_end(fields[local_field]);
  const auto remote = parse_end(fields[remote_field]);
  if (!local || !remote || !parse_number(fields[state_field], 16, found.state) ||
      !parse_number(fields[uid_field], 10, found.uid) ||
      !parse_number(fields[inode_field], 10, found.inode))
    return std::nullopt;
  found.local = *local;
  found.remote = *remote;
  return found;
}

std::optional<TcpLine> find_tcp_line(std::istream& table, const TcpEnd& local,
                                     const TcpEnd& remote) {
  for (std::string line; std::getline(table, line);) {
    auto found = parse_tcp_line(line);
    if (found && found->local == local && found->remote == remote) return found;
  }
  return std::nullopt;
}

}  // namespace staithe::proxy
