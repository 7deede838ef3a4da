#include "proxy/inbound_credentials.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <memory>
#include <string>

namespace staithe::proxy {
namespace {

namespace http = boost::beast::http;

TEST(InboundCredentials, AreTakenOutWhetherTheyAreWantedOrNot) {
  for (const bool wanted : {false, true}) {
    http::fields fields;
    fields.insert("Host", "localhost");
    fields.insert("authorization", "Basic dXNlcjpzZWNyZXQ=");
    fields.insert("Proxy-Authorization", "Basic other");
    fields.insert("Cookie", "session=1");
    fields.insert("X-Registry-Auth", "e30=");
    fields.insert("x-registry-config", "e30=");
    const Result<auth::Secret> taken = take_credentials(fields, wanted);
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->reveal(), wanted ? "Basic dXNlcjpzZWNyZXQ=" : "");
    EXPECT_EQ(std::distance(fields.begin(), fields.end()), 1);
    EXPECT_EQ(fields["Host"], "localhost");
  }
}

// Shows what memory holds when it is given back.
template <class T>
struct Watch {
  using value_type = T;
  explicit Watch(std::string& into) : seen(&into) {}
  template <class U>
  Watch(const Watch<U>& other) : seen(other.seen) {}
  T* allocate(std::size_t n) { return std::allocator<T>().allocate(n); }
  void deallocate(T* at, std::size_t n) {
    seen->append(reinterpret_cast<const char*>(at), n * sizeof(T));
    std::allocator<T>().deallocate(at, n);
  }
  template <class U>
  bool operator==(const Watch<U>& other) const {
    return seen == other.seen;
  }
  std::string* seen;
};

TEST(InboundCredentials, AreWipedBeforeTheirMemoryIsGivenBack) {
  std::string seen;
  {
    http::basic_fields<Watch<char>> fields{Watch<char>(seen)};
    fields.insert("Accept", "planted-for-everybody");
    fields.insert("Authorization", "Bearer planted-secret-one");
    fields.insert("Authorization", "Bearer planted-secret-two");
    fields.insert("Cookie", "planted-secret-three");
    EXPECT_FALSE(take_credentials(fields, true));
  }
  EXPECT_NE(seen.find("planted-for-everybody"), seen.npos) << "this test sees nothing";
  EXPECT_NE(seen.find("Authorization"), seen.npos);
  EXPECT_EQ(seen.find("planted-secret"), seen.npos);
}

TEST(InboundCredentials, AreOneAtMost) {
  http::fields fields;
  fields.insert("Authorization", "Basic first");
  fields.insert("Authorization", "Basic second");
  EXPECT_EQ(take_credentials(fields, true).error().code, Errc::bad_request);
  EXPECT_TRUE(fields.begin() == fields.end());
  fields.insert("Authorization", "Basic " + std::string(most_credential_bytes, 'x'));
  EXPECT_EQ(take_credentials(fields, true).error().code, Errc::bad_request);
  EXPECT_TRUE(fields.begin() == fields.end());
  fields.insert("Authorization", "Basic first");
  fields.insert("Authorization", "Basic second");
  EXPECT_TRUE(take_credentials(fields, false)) << "they are dropped anyway";
}

}  // namespace
}  // namespace staithe::proxy
