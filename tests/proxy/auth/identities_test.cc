#include "proxy/auth/identities.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/proxy/auth/fake_azure.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

const Origin contoso{"https", "contoso.azurecr.io", 443};
const std::string host = "contoso.azurecr.io";

const IdentitySettings machine = [] {
  IdentitySettings identity;
  identity.kind = IdentityKind::managed_identity;
  return identity;
}();

TEST(Identities, AManagedIdentityIsForAzureAlone) {
  World world;
  Identities identities(AzureSettings{}, {}, world.environment());
  for (const Origin& origin :
       {Origin{"https", "ghcr.io", 443}, Origin{"https", "registry-1.docker.io", 443},
        Origin{"https", "contoso.azurecr.io.evil.example", 443},
        Origin{"https", "contosoazurecr.io", 443}, Origin{"https", "azurecr.io", 443},
        Origin{"https", "contoso.westeurope.data.azurecr.io", 443},
        Origin{"https", "127.0.0.1", 5000}, Origin{"http", "contoso.azurecr.io", 80}}) {
    try {
      (void)identities.make_authorizer(at(origin, ""), machine);
      ADD_FAILURE() << origin.to_string();
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code(), Errc::config);
      EXPECT_TRUE(failure.error().detail.starts_with("a managed identity is ")) << failure.what();
    }
  }
  EXPECT_TRUE(world.http.asked().empty());
}

TEST(Identities, AnyRegistryMayBeUsedAnonymously) {
  World world;
  Identities identities(AzureSettings{}, {}, world.environment());
  for (const Origin& origin : {Origin{"https", "ghcr.io", 443}, Origin{"http", "localhost", 5000},
                               Origin{"https", "contoso.azurecr.io", 443}}) {
    EXPECT_TRUE(identities.make_authorizer(at(origin, ""), IdentitySettings{}));
  }
}

TEST(Identities, TheCloudsValuesComeFromTheSettings) {
  World world;
  AzureSettings azure;
  azure.audience = "https://management.azure.com/";
  azure.imds_endpoint = "http://127.0.0.1:4000";
  azure.acr_suffixes = {"azurecr.localhost"};
  Identities identities(azure, {}, world.environment());
  const auto authorizer = identities.make_authorizer(
      at({"https", "contoso.azurecr.localhost", 8443}, "/ca.pem"), machine);
  world.http.on("https://contoso.azurecr.localhost:8443/v2/", [](const Asked&) {
    return Reply{.status = 401,
                 .headers = {{"WWW-Authenticate",
                              "Bearer "
                              "realm=\"https://contoso.azurecr.localhost:8443/oauth2/token\","
                              "service=\"contoso.azurecr.localhost\""}}};
  });
  const auto call = world.call(authorizer->for_pull("a"));
  EXPECT_EQ(world.http.last("http://127.0.0.1:4000")->url,
            "http://127.0.0.1:4000/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
            "https%3A%2F%2Fmanagement.azure.com%2F");
}

TEST(Identities, ABadMetadataEndpointIsAConfigurationError) {
  World world;
  AzureSettings azure;
  azure.imds_endpoint = "169.254.169.254";
  try {
    Identities identities(azure, {}, world.environment());
    FAIL();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::config);
    EXPECT_TRUE(failure.error().detail.starts_with("azure.imds_endpoint: ")) << failure.what();
  }
}

TEST(Identities, MayGoBeforeTheAuthorizersThatItMade) {
  World world;
  FakeAzure azure(world.http, world.clock);
  azure.add_registry(host);
  auto identities = std::make_unique<Identities>(
      AzureSettings{}, std::map<std::string, IdentitySettings>{}, world.environment());
  const auto authorizer = identities->make_authorizer(at(contoso, ""), machine);
  identities.reset();
  EXPECT_TRUE(world.now(authorizer->for_pull("a")));
}

}  // namespace
}  // namespace staithe::proxy::auth
