#include "proxy/route.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

const std::string digest = "sha256:" + std::string(64, 'b');

template <class T>
T route_of(const std::string& target) {
  auto route = parse_route(target);
  EXPECT_TRUE(route) << target << ": " << (route ? "" : route.error().detail);
  EXPECT_TRUE(std::holds_alternative<T>(*route)) << target;
  return std::get<T>(*route);
}

Errc error_of(const std::string& target) {
  const auto route = parse_route(target);
  EXPECT_FALSE(route) << target;
  return route ? Errc::config : route.error().code;
}

TEST(Route, KnowsTheFixedPaths) {
  route_of<PingRoute>("/v2/");
  route_of<PingRoute>("/v2");
  route_of<PingRoute>("/v2/?ns=docker.io");
  route_of<PingRoute>("/contoso.azurecr.io/v2/");
  route_of<LiveRoute>("/healthz");
  route_of<ReadyRoute>("/readyz");
}

TEST(Route, TakesTheRegistryFromTheNsParameterFirst) {
  const auto route =
      route_of<ManifestRoute>("/v2/team/app/manifests/1?ns=Contoso.azurecr.io%3A5000");
  EXPECT_EQ(route.name.registry, "contoso.azurecr.io:5000");
  EXPECT_EQ(route.name.repository, "team/app");
  EXPECT_TRUE(route.name.by_ns);
  EXPECT_EQ(*route.reference.tag(), "1");
}

TEST(Route, TakesTheRegistryFromTheFirstComponentThatLooksLikeOne) {
  const auto route = route_of<BlobRoute>("/v2/contoso.azurecr.io/app/blobs/" + digest);
  EXPECT_EQ(route.name.registry, "contoso.azurecr.io");
  EXPECT_EQ(route.name.repository, "app");
  EXPECT_FALSE(route.name.by_ns);
  EXPECT_EQ(route_of<BlobRoute>("/v2/localhost/app/blobs/" + digest).name.registry, "localhost");
}

TEST(Route, TakesTheRegistryFromAPathInFront) {
  const auto route = route_of<ManifestRoute>("/contoso.azurecr.io/v2/app/manifests/" + digest);
  EXPECT_EQ(route.name.registry, "contoso.azurecr.io");
  EXPECT_EQ(route.name.repository, "app");
}

TEST(Route, LeavesTheRegistryToTheDefaultOtherwise) {
  const auto route = route_of<ManifestRoute>("/v2/library/busybox/manifests/latest");
  EXPECT_EQ(route.name.registry, "");
  EXPECT_EQ(route.name.repository, "library/busybox");
}

TEST(Route, AllowsPartsOfARepositoryThatAreNamedLikeVerbs) {
  const auto route = route_of<BlobRoute>("/v2/manifests/blobs/tags/blobs/" + digest);
  EXPECT_EQ(route.name.repository, "manifests/blobs/tags");
}

TEST(Route, PassesOnOnlyTheParametersThatBelongUpstream) {
  EXPECT_EQ(route_of<TagsRoute>("/v2/app/tags/list?n=5&last=a%26b&x=y&ns=docker.io").query,
            "?n=5&last=a%26b");
  EXPECT_EQ(route_of<ReferrersRoute>("/v2/app/referrers/" + digest + "?artifactType=a/b").query,
            "?artifactType=a%2Fb");
}

TEST(Route, RefusesWhatIsNoRequestOfThisProtocol) {
  EXPECT_EQ(error_of("http://evil.example/v2/"), Errc::bad_request);
  EXPECT_EQ(error_of("*"), Errc::bad_request);
  EXPECT_EQ(error_of(""), Errc::bad_request);
  EXPECT_EQ(error_of("/v2/a/manifests/\x80"), Errc::bad_request);
  EXPECT_EQ(error_of("/v2/a/manifests/%zz"), Errc::bad_request);
  EXPECT_EQ(error_of("/v2/a/manifests/1?ns=a.io&ns=b.io"), Errc::bad_request);
  EXPECT_EQ(error_of("/" + std::string(9000, 'a')), Errc::bad_request);
  EXPECT_EQ(error_of("/"), Errc::not_found);
  EXPECT_EQ(error_of("/metrics"), Errc::not_found);
  EXPECT_EQ(error_of("/v2/app"), Errc::not_found);
  EXPECT_EQ(error_of("/v2/_catalog"), Errc::not_found);
  EXPECT_EQ(error_of("/v2/app/uploads/1"), Errc::not_found);
}

TEST(Route, RefusesNamesAndDigestsOutsideTheGrammar) {
  for (const char* name : {"../etc", "a/../b", "%2e%2e/a", "A", "a//b", "a%00b", "a%0ab"})
    EXPECT_EQ(error_of("/v2/" + std::string(name) + "/manifests/1"), Errc::name_invalid) << name;
  EXPECT_EQ(error_of("/v2/a/manifests/..%2f..%2fetc"), Errc::not_found);
  EXPECT_EQ(error_of("/v2/a/manifests/.hidden"), Errc::name_invalid);
  EXPECT_EQ(error_of("/v2/a/blobs/latest"), Errc::digest_invalid);
  EXPECT_EQ(error_of("/v2/a/blobs/sha256:..%2f..%2fpasswd"), Errc::not_found);
  EXPECT_EQ(error_of("/v2/a/blobs/sha256:.."), Errc::digest_invalid);
  EXPECT_EQ(error_of("/v2/a/blobs/sha1:" + std::string(40, 'a')), Errc::digest_invalid);
  EXPECT_EQ(error_of("/v2/a/manifests/1?ns=a/b"), Errc::name_invalid);
  EXPECT_EQ(error_of("/v2/a/manifests/1?ns="), Errc::name_invalid);
}

}  // namespace
}  // namespace staithe::proxy
