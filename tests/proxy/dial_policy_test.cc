#include "proxy/dial_policy.h"

#include <gtest/gtest.h>

#include <boost/asio/ip/address.hpp>
#include <string>
#include <vector>

#include "cache/random.h"
#include "proxy/url.h"
#include "tests/proxy/spellings.h"

namespace staithe::proxy {
namespace {

namespace ip = boost::asio::ip;
using enum AddressClass;

ip::address address(std::string_view text) { return ip::make_address(std::string(text)); }

bool dials(HostNamedBy named_by, std::string_view host, std::string_view to) {
  return may_dial(named_by, host, address(to)).has_value();
}

constexpr std::array everybody = {HostNamedBy::upstream, HostNamedBy::configuration,
                                  HostNamedBy::identity_host};

TEST(AddressClass, IsThatOfEachEndOfEveryNetwork) {
  const struct {
    std::string_view first, last;
    AddressClass what;
  } table[] = {
      {"0.0.0.0", "0.255.255.255", unspecified},
      {"1.0.0.0", "9.255.255.255", global},
      {"10.0.0.0", "10.255.255.255", private_use},
      {"11.0.0.0", "100.63.255.255", global},
      {"100.64.0.0", "100.127.255.255", private_use},
      {"100.128.0.0", "126.255.255.255", global},
      {"127.0.0.0", "127.255.255.255", loopback},
      {"128.0.0.0", "168.63.129.15", global},
      {"168.63.129.16", "168.63.129.16", metadata},
      {"168.63.129.17", "169.253.255.255", global},
      {"169.254.0.0", "169.254.169.253", link_local},
      {"169.254.169.254", "169.254.169.254", metadata},
      {"169.254.169.255", "169.254.255.255", link_local},
      {"169.255.0.0", "172.15.255.255", global},
      {"172.16.0.0", "172.31.255.255", private_use},
      {"172.32.0.0", "191.255.255.255", global},
      {"192.0.0.0", "192.0.0.191", reserved},
      {"192.0.0.192", "192.0.0.192", metadata},
      {"192.0.0.193", "192.0.0.255", reserved},
      {"192.0.1.0", "192.0.1.255", global},
      {"192.0.2.0", "192.0.2.255", reserved},
      {"192.88.99.0", "192.88.99.255", reserved},
      {"192.168.0.0", "192.168.255.255", private_use},
      {"192.169.0.0", "198.17.255.255", global},
      {"198.18.0.0", "198.19.255.255", private_use},
      {"198.51.100.0", "198.51.100.255", reserved},
      {"203.0.113.0", "203.0.113.255", reserved},
      {"203.0.114.0", "223.255.255.255", global},
      {"224.0.0.0", "239.255.255.255", multicast},
      {"240.0.0.0", "255.255.255.254", reserved},
      {"255.255.255.255", "255.255.255.255", broadcast},
      {"::", "::", unspecified},
      {"::1", "::1", loopback},
      {"::2", "::7f00:1", reserved},  // IPv4-compatible ones among them
      {"::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", reserved},
      {"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", private_use},
      {"64:ff9b:2::", "64:ff9b:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"100::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", global},
      {"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", global},
      {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"2003::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", global},
      {"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", global},
      {"4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"fc00::", "fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff", private_use},
      {"fd00:ec2::", "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", metadata},
      {"fd00:ec3::", "fd20:ce::253", private_use},
      {"fd20:ce::254", "fd20:ce::254", metadata},
      {"fd20:ce::255", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", private_use},
      {"fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", reserved},
      {"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", link_local},
      {"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", private_use},
      {"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", multicast},
  };
  for (const auto& row : table) {
    EXPECT_EQ(class_of(address(row.first)), row.what) << row.first;
    EXPECT_EQ(class_of(address(row.last)), row.what) << row.last;
  }
}

TEST(AddressClass, OfAnAddressWithAnIPv4AddressInItIsThatOne) {
  SeededRandom random(7);
  for (int i = 0; i < 20'000; ++i) {
    const auto v4 = ip::address_v4(static_cast<std::uint32_t>(random.next()));
    const auto inside = v4.to_bytes();
    const AddressClass what = class_of(v4);
    for (const auto& [prefix, at] :
         {std::pair{"::ffff:0:0", 12}, std::pair{"64:ff9b::", 12}, std::pair{"2002::", 2}}) {
      auto bytes = ip::make_address_v6(prefix).to_bytes();
      std::copy(inside.begin(), inside.end(), bytes.begin() + at);
      EXPECT_EQ(class_of(ip::address_v6(bytes)), what) << v4 << " in " << prefix;
    }
  }
}

TEST(MayDial, APublicAddressForWhoeverNamesTheHost) {
  for (const HostNamedBy who : everybody) {
    for (const char* to :
         {"20.38.146.158", "2603:1020::1", "64:ff9b::1426:929e", "::ffff:20.38.146.158"})
      EXPECT_TRUE(dials(who, "contoso.azurecr.io", to)) << to;
  }
}

TEST(MayDial, AMetadataAddressForTheMachinesIdentityAlone) {
  for (const char* to : {"169.254.169.254", "168.63.129.16", "fd00:ec2::254", "100.100.100.200",
                         "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"}) {
    const std::string written = address(to).is_v6() ? "[" + std::string(to) + "]" : to;
    for (const std::string& host : {std::string("r.example"), written, std::string("localhost")}) {
      EXPECT_FALSE(dials(HostNamedBy::upstream, host, to)) << host << " " << to;
      EXPECT_FALSE(dials(HostNamedBy::configuration, host, to)) << host << " " << to;
    }
    EXPECT_TRUE(dials(HostNamedBy::identity_host, written, to)) << to;
    EXPECT_TRUE(dials(HostNamedBy::identity_host, "metadata.example", to)) << to;
  }
}

TEST(MayDial, APrivateAddressOnlyForWhatIsConfigured) {
  for (const char* to : {"10.1.2.3", "172.16.0.4", "192.168.7.7", "100.64.1.1", "fd12::4",
                         "64:ff9b::a01:203", "::ffff:10.1.2.3", "2002:a01:203::1"}) {
    EXPECT_FALSE(dials(HostNamedBy::upstream, "production.cloudflare.docker.com", to)) << to;
    EXPECT_TRUE(dials(HostNamedBy::configuration, "contoso.azurecr.io", to)) << to;
  }
}

TEST(MayDial, ThisMachineOnlyWhereItIsWritten) {
  for (const char* to : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_FALSE(dials(HostNamedBy::configuration, "r.example", to)) << to;
    EXPECT_FALSE(dials(HostNamedBy::configuration, "notlocalhost", to)) << to;
    EXPECT_TRUE(dials(HostNamedBy::configuration, "localhost", to)) << to;
    EXPECT_TRUE(dials(HostNamedBy::configuration, "r.localhost", to)) << to;
    EXPECT_FALSE(dials(HostNamedBy::upstream, "localhost", to)) << to;
  }
  EXPECT_TRUE(dials(HostNamedBy::configuration, "127.0.0.1", "127.0.0.1"));
  EXPECT_TRUE(dials(HostNamedBy::configuration, "[::1]", "::1"));
  EXPECT_FALSE(dials(HostNamedBy::configuration, "127.0.0.1", "127.0.0.2"));
  EXPECT_FALSE(dials(HostNamedBy::upstream, "127.0.0.1", "127.0.0.1"));
  EXPECT_FALSE(dials(HostNamedBy::configuration, "localhost", "10.1.2.3"));
  EXPECT_FALSE(dials(HostNamedBy::configuration, "localhost", "20.38.146.158"));
}

TEST(MayDial, ALinkLocalAddressOnlyWhereItIsWritten) {
  EXPECT_FALSE(dials(HostNamedBy::configuration, "r.example", "169.254.7.7"));
  EXPECT_FALSE(dials(HostNamedBy::configuration, "r.example", "fe80::1"));
  EXPECT_TRUE(dials(HostNamedBy::configuration, "169.254.7.7", "169.254.7.7"));
  EXPECT_TRUE(dials(HostNamedBy::identity_host, "identity.example", "169.254.130.4"));
}

TEST(MayDial, NoAddressThatIsNobodys) {
  for (const HostNamedBy who : everybody) {
    for (const char* to : {"0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "[::]",
                           "[ff02::1]", "[::ffff:0.0.0.0]"}) {
      std::string_view bare = to;
      if (bare.starts_with('[')) bare = bare.substr(1, bare.size() - 2);
      EXPECT_FALSE(dials(who, to, bare)) << to;
      EXPECT_FALSE(dials(who, "r.example", bare)) << to;
    }
    for (const char* to : {"240.0.0.1", "203.0.113.5", "2001:db8::1", "2001::1", "::7f00:1"})
      EXPECT_FALSE(dials(who, "r.example", to)) << to;
  }
}

TEST(MayDial, NeverMoreForAHostThatARegistryNames) {
  SeededRandom random(11);
  for (int i = 0; i < 50'000; ++i) {
    ip::address_v6::bytes_type bytes{};
    for (auto& byte : bytes) byte = static_cast<unsigned char>(random.next());
    if (random.next() % 2 == 0) bytes[0] = static_cast<unsigned char>(random.next() % 2 * 0xfd);
    const ip::address to =
        random.next() % 2 == 0
            ? ip::address(ip::address_v6(bytes))
            : ip::address(ip::address_v4(static_cast<std::uint32_t>(random.next())));
    const std::string written = to.is_v6() ? "[" + to.to_string() + "]" : to.to_string();
    for (const std::string& host : {std::string("r.example"), std::string("localhost"), written}) {
      const bool by_registry = may_dial(HostNamedBy::upstream, host, to).has_value();
      EXPECT_EQ(by_registry, host != "localhost" && class_of(to) == global) << host << " " << to;
      if (by_registry) EXPECT_TRUE(may_dial(HostNamedBy::configuration, host, to)) << to;
      if (may_dial(HostNamedBy::configuration, host, to))
        EXPECT_TRUE(may_dial(HostNamedBy::identity_host, host, to)) << host << " " << to;
    }
  }
}

TEST(MayDial, TheErrorNamesHostAddressClassAndRemedy) {
  const auto refused = [](HostNamedBy who, std::string_view host, std::string_view to) {
    const auto result = may_dial(who, host, address(to));
    EXPECT_EQ(result.error().code, Errc::upstream_nonsense);
    return result.error().detail;
  };
  EXPECT_EQ(refused(HostNamedBy::configuration, "r.example", "127.0.0.1"),
            "r.example leads to 127.0.0.1, a loopback address: a name that is not localhost does "
            "not lead to this machine; correct it in DNS or /etc/hosts, or write localhost or that "
            "address as upstream");
  EXPECT_EQ(refused(HostNamedBy::upstream, "cdn.example", "10.1.2.3"),
            "cdn.example leads to 10.1.2.3, a private address: a host that the registry names is "
            "dialled at public addresses only; if it is the registry's, add it to data_hosts or "
            "token_hosts of this [[registry]]");
  EXPECT_EQ(
      refused(HostNamedBy::configuration, "r.example", "169.254.169.254"),
      "r.example leads to 169.254.169.254, a cloud's metadata address: only the request for "
      "this machine's identity goes there; correct the name in DNS or /etc/hosts, or the URL");
}

// The other half of the corpus, with real sockets, is in curl_dial_test.cc.
TEST(MayDial, NoSpellingOfAnAddressThatIsNotPublic) {
  std::size_t read = 0;
  for (const fake::Spelling& spelling : fake::spellings()) {
    const Result<Url> url = Url::parse("http://" + spelling.text + ":8080/x");
    if (!url) continue;
    ++read;
    const std::string host = url->origin().host;
    if (host_under(host, "localhost")) {
      EXPECT_FALSE(dials(HostNamedBy::upstream, host, "127.0.0.1")) << spelling.text;
      continue;
    }
    std::string_view bare = host;
    if (bare.starts_with('[')) bare = bare.substr(1, bare.size() - 2);
    boost::system::error_code failed;
    const ip::address written = ip::make_address(std::string(bare), failed);
    ASSERT_FALSE(failed) << spelling.text << " became the name " << host;
    EXPECT_NE(class_of(written), global) << spelling.text << " became " << host;
    EXPECT_FALSE(may_dial(HostNamedBy::upstream, host, written)) << spelling.text;
  }
  EXPECT_GT(read, 200U) << "most are another spelling, not a mistake";
  EXPECT_LT(read, fake::spellings().size());
}

}  // namespace
}  // namespace staithe::proxy
