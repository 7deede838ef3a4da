#include "proxy/tcp_table.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <sstream>

namespace staithe::proxy {
namespace {

TcpEnd end(const char* address, std::uint16_t port) {
  TcpEnd made{.address = {}, .port = port};
  EXPECT_EQ(::inet_pton(AF_INET6, address, &made.address), 1) << address;
  return made;
}

// As this kernel writes them; it has the words of an address as its processor has them in memory.
constexpr std::string_view heading =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode";
constexpr std::string_view v4_line =
    "   3: 0100007F:13BA 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 "
    "81234 1 0000000000000000 20 4 30 10 -1";
constexpr std::string_view v6_line =
    "   0: 00000000000000000000000001000000:13BA 0000000000000000FFFF00000100007F:9C41 01 "
    "00000000:00000000 00:00000000 00000000 65534        0 81235 1 0000000000000000 20 4 30 10 -1";

TEST(TcpTable, ReadsALineOfIpv4) {
  const auto line = parse_tcp_line(v4_line);
  ASSERT_TRUE(line);
  EXPECT_EQ(line->local, end("::ffff:127.0.0.1", 5050));
  EXPECT_EQ(line->remote, end("::ffff:127.0.0.1", 40000));
  EXPECT_EQ(line->state, 1U);
  EXPECT_EQ(line->uid, 1000U);
  EXPECT_EQ(line->inode, 81234U);
}

TEST(TcpTable, ReadsALineOfIpv6AndOfMappedAddresses) {
  const auto line = parse_tcp_line(v6_line);
  ASSERT_TRUE(line);
  EXPECT_EQ(line->local, end("::1", 5050));
  EXPECT_EQ(line->remote, end("::ffff:127.0.0.1", 40001));
  EXPECT_EQ(line->uid, 65534U);
}

TEST(TcpTable, TakesNothingElseForALine) {
  for (const std::string_view text :
       {heading, std::string_view(), std::string_view("3:"), v4_line.substr(0, 80),
        std::string_view("0: 0100007G:13BA 0100007F:9C40 01 0:0 0:0 0 1000 0 81234"),
        std::string_view("0: 0100007F:13BAF 0100007F:9C40 01 0:0 0:0 0 1000 0 81234"),
        std::string_view("0: 0100007F:13BA 0100007F:9C40 01 0:0 0:0 0 -1 0 81234"),
        std::string_view("0: 0100007F 0100007F:9C40 01 0:0 0:0 0 1000 0 81234")})
    EXPECT_FALSE(parse_tcp_line(text)) << text;
}

TEST(TcpTable, FindsTheOneLineOfAConnectionAndNotItsOtherEnd) {
  const auto find = [](const TcpEnd& local, const TcpEnd& remote) {
    std::istringstream table(std::string(heading) + "\n" + std::string(v6_line) + "\n" +
                             std::string(v4_line) + "\n");
    return find_tcp_line(table, local, remote);
  };
  const TcpEnd a = end("::ffff:127.0.0.1", 5050);
  const TcpEnd b = end("::ffff:127.0.0.1", 40000);
  ASSERT_TRUE(find(a, b));
  EXPECT_EQ(find(a, b)->uid, 1000U);
  EXPECT_FALSE(find(b, a));
  EXPECT_FALSE(find(a, end("::ffff:127.0.0.1", 40001)));
  EXPECT_FALSE(find(end("::ffff:127.0.0.2", 5050), b));
}

}  // namespace
}  // namespace staithe::proxy
