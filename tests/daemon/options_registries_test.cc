// [[registry]]: what several of them, and the identities that they name, must be to each other.
#include <filesystem>
#include <string>
#include <utility>

#include "tests/daemon/parse.h"

namespace staithe::daemon {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

TEST(Options, OfARegistryRefuseBadValues) {
  const std::vector<Bad> bads{
      {"identity = 'no such'", "identity", "not a name for an identity"},
      {"identity = 'vm'", "identity", "there is no [identity.vm]"},
      {"upstream = 'https://a.example'", "upstream", "a list in brackets"},
      {"upstream = ['a.example']", "upstream", "does not begin with https://"},
      {"upstream = ['https://a.example/v2']", "upstream", "/v2/ is no part of a name"},
      {"upstream = ['https://a.example/Hub']", "upstream", "lower case"},
      {"upstream = ['https://a.example//hub']", "upstream", "not the beginning"},
      {"upstream = ['https://a.example/hub?ns=x']", "upstream", "no query"},
      {"upstream = ['https://me@a.example/hub']", "upstream", "no user name"},
      {"upstream = ['a.example/hub', 'https://b.example']", "upstream", "does not begin with"},
      {"upstream = ['https://a.example/hub', 'https://A.example:443/hub/']", "upstream", "twice"},
      {"upstream = ['https://1.io', 'https://2.io', 'https://3.io', 'https://4.io', "
       "'https://5.io', 'https://6.io', 'https://7.io', 'https://8.io', 'https://9.io']",
       "upstream", "at most 8"},
      {"prefix = 'docker-hub'", "prefix", "does not end in \"/\""},
      {"prefix = 'Docker/'", "prefix", "lower case"},
      {"ca_file = 'ca.pem'", "ca_file", "not absolute"},
      {"ca_file = '${HOME}/ca.pem'", "ca_file", "only ${CREDENTIALS_DIRECTORY}"},
      {"data_hosts = ['*']", "data_hosts", "not a host"},
      {"data_hosts = ['*.net']", "data_hosts", "one label"},
      {"token_hosts = ['https://login.example']", "token_hosts", "not a host"},
      {"token_hosts = ['*.example.com']", "token_hosts", "not a host"},
      {"default = 'yes'", "default", "true or false"},
      {"default = 1", "default", "true or false"},
      {"max_connections = 0", "max_connections", "1 to 1024"},
      {"max_connections = 1025", "max_connections", "1 to 1024"},
      {"segments = 0", "segments", "1 to 64"},
      {"verify_callers = 'no'", "verify_callers", "true or false"},
      {"freshness = 'often'", "freshness", "[registry.freshness]"},
      {"freshness.tag_ttl = '400d'", "freshness.tag_ttl", "0s to 365d"},
      {"access = []", "access", "[registry.access]"},
      {"access = {}", "access", "neither users nor groups"},
      {"access.users = ['not a name']", "access.users", "not an account"},
      {"access.hosts = ['a']", "access.hosts", "belongs to [access]"},
      {"identity_for = {}", "identity_for", "[[registry.identity_for]]"}};
  for (const Bad& bad : bads) {
    const std::string toml = "[[registry]]\nname = 'r.example'\n" + std::string(bad.line);
    const std::string fault = only_fault(toml);
    EXPECT_TRUE(
        fault.starts_with("t.toml:3: registry[\"r.example\"]." + std::string(bad.key) + ": "))
        << fault;
    EXPECT_THAT(fault, HasSubstr(std::string(bad.what))) << bad.line;
  }
  for (const auto& [line, what] : std::vector<std::pair<std::string_view, std::string_view>>{
           {"name = 'Docker.io'", "lower case"},
           {"name = 'https://docker.io'", "upstream"},
           {"name = 'docker'", "a dot or a port"},
           {"name = '*'", "wildcard"},
           {"name = ''", "empty"},
           {"name = 5", "a string"}}) {
    EXPECT_THAT(only_fault("[[registry]]\n" + std::string(line)), HasSubstr(std::string(what)));
    EXPECT_THAT(only_fault("[[registry]]\n" + std::string(line)),
                HasSubstr("t.toml:2: registry[1].name: "));
  }
  EXPECT_THAT(only_fault("\n[[registry]]\nprefix = 'a/'"),
              HasSubstr("t.toml:2: registry[1].name: missing"));
}

TEST(Registry, HasTheListsOfAllUnlessItHasItsOwn) {
  const Config config = good(
      "[access]\nusers = ['alice']\n"
      "[[registry]]\nname = 'a.example'\n"
      "[[registry]]\nname = 'b.example'\n[registry.access]\ngroups = ['docker']\n"
      "[[registry]]\nname = 'c.example'\n[registry.access]\nusers = []\n");
  const auto& registries = config.proxy.registries;
  EXPECT_FALSE(registries[0].access);
  ASSERT_TRUE(registries[1].access);
  EXPECT_THAT(registries[1].access->groups, ElementsAre("docker"));
  EXPECT_THAT(registries[1].access->users, testing::IsEmpty()) << "alice is not meant here";
  ASSERT_TRUE(registries[2].access) << "open to all, other than the first";
  EXPECT_TRUE(registries[2].access->empty());
  // What it says of itself is the same configuration.
  const auto again = parse_config(to_toml(config), "t.toml", Environment());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->proxy.registries, registries);
  const auto json = to_json(config);
  const auto& entries = json.at("registry").as_array();
  EXPECT_FALSE(entries.at(0).as_object().contains("access"));
  EXPECT_EQ(entries.at(1).at("access").at("groups").at(0).as_string(), "docker");
  EXPECT_TRUE(entries.at(2).at("access").at("users").as_array().empty());
}

TEST(Registry, VerifiesItsCallersOnlyWhereTheirPasswordsAreSafe) {
  const auto config = good("[[registry]]\nname='r.example'\nverify_callers=true");
  EXPECT_TRUE(config.proxy.registries.at(0).verify_callers);
  EXPECT_FALSE(good("[[registry]]\nname='r.example'").proxy.registries.at(0).verify_callers);
  good("[[registry]]\nname='*.example.com'\nverify_callers=true");
  good(
      "[[registry]]\nname='r.example'\nverify_callers=true\n"
      "upstream=['http://mirror.example', 'https://r.example']");
  good("[[registry]]\nname='r.example'\nverify_callers=true\nupstream=['http://127.0.0.1:5000']");
  EXPECT_THAT(
      only_fault(
          "[[registry]]\nname='r.example'\nverify_callers=true\nupstream=['http://r.example']"),
      HasSubstr("t.toml:3: registry[\"r.example\"].verify_callers: callers' passwords would go "
                "to \"http://r.example\" over plain http"));
}

TEST(Registry, OfAWildcardHasNoUpstreamAndIsNoDefault) {
  EXPECT_THAT(
      only_fault("[[registry]]\nname='*.example.com'\nupstream=['https://a.example.com']"),
      HasSubstr("t.toml:3: registry[\"*.example.com\"].upstream: a wildcard has no upstream "
                "of its own"));
  EXPECT_THAT(only_fault("[[registry]]\nname='*.example.com'\ndefault=true"),
              HasSubstr("t.toml:3: registry[\"*.example.com\"].default: "));
  good("[[registry]]\nname='*.example.com'\nca_file='/ca.pem'\nupstream=[]\ndefault=false");
}

TEST(Registry, TakesUpstreamsInTheirOrderWithAPathEach) {
  const Config config = good(
      "[[registry]]\nname = 'docker.io'\nprefix = 'hub/'\n"
      "upstream = ['https://Contoso.azurecr.io/docker-hub/', 'http://127.0.0.1:30020',\n"
      "            'https://registry-1.docker.io/']");
  EXPECT_THAT(config.proxy.registries[0].upstream,
              ElementsAre("https://contoso.azurecr.io/docker-hub", "http://127.0.0.1:30020",
                          "https://registry-1.docker.io"));
}

// The last one is the registry itself, and its identity is for nobody else.
TEST(Registry, JudgesAnIdentityByTheUpstreamThatGetsIt) {
  const std::string identity = "[identity.vm]\nkind = 'managed-identity'\n";
  good(identity +
       "[[registry]]\nname='contoso.azurecr.io'\nidentity='vm'\n"
       "upstream=['http://127.0.0.1:30020', 'https://contoso.azurecr.io']");
  EXPECT_THAT(
      only_fault(identity + "[[registry]]\nname='contoso.azurecr.io'\nidentity='vm'\n"
                            "upstream=['https://contoso.azurecr.io', 'https://mirror.example']"),
      HasSubstr("azure.acr_suffixes"));
  EXPECT_THAT(only_fault(identity +
                         "[[registry]]\nname='*.azurecr.io'\nidentity='vm'\n"
                         "[[registry]]\nname='docker.io'\n"
                         "upstream=['https://contoso.eastus.data.azurecr.io', 'https://hub.io']"),
              AllOf(HasSubstr("registry[\"docker.io\"].upstream: "),
                    HasSubstr("contoso.eastus.data.azurecr.io")));
}

TEST(Registry, StandsInTheOrderOfTheFile) {
  const Config config = good(
      "[[registry]]\nname='*.b.io'\n[[registry]]\nname='a.b.io'\n"
      "[[registry]]\nname='*.a.b.io'");
  ASSERT_THAT(config.proxy.registries, SizeIs(3));
  EXPECT_EQ(config.proxy.registries[0].name, "*.b.io");
  EXPECT_EQ(config.proxy.registries[2].name, "*.a.b.io");
}

TEST(Registry, ConfiguredOnceReplacesTheBuiltInOnes) {
  const Config config = good("[[registry]]\nname = 'docker.io'");
  ASSERT_THAT(config.proxy.registries, SizeIs(1));
  EXPECT_THAT(config.proxy.registries[0].upstream, ElementsAre("https://registry-1.docker.io"));
  EXPECT_FALSE(config.proxy.registries[0].is_default) << "only if the file says so";
  EXPECT_THAT(config.proxy.identities, IsEmpty());
}

TEST(Registry, NamesAnIdentityThatExists) {
  EXPECT_THAT(only_fault("[[registry]]\nname='a.azurecr.io'\nidentity='vm'"),
              HasSubstr("[identity.vm] kind = \"managed-identity\""));
  EXPECT_THAT(only_fault("[[registry]]\nname='a.azurecr.io'\nidentity='other'\n"
                         "[identity.a]\nkind='anonymous'\n[identity.bb]\nkind='anonymous'"),
              HasSubstr("accepted: \"a\" \"bb\""));
  EXPECT_THAT(only_fault("[[registry]]\nname='a.azurecr.io'\n[[registry.identity_for]]\n"
                         "prefix='t/'\nidentity='vm'"),
              HasSubstr("t.toml:5: registry[\"a.azurecr.io\"].identity_for[1].identity: "));
  for (const std::string& fault : faults_of("[[registry]]\nname='a.azurecr.io'\nidentity='vm'\n"
                                            "[identity.\"vm\\u001b\"]\nkind='anonymous'")) {
    EXPECT_THAT(fault, Not(HasSubstr("\x1b")));
  }
  // A fault in the identity itself is said once, not again where it is used.
  EXPECT_THAT(only_fault("[[registry]]\nname='a.azurecr.io'\nidentity='vm'\n"
                         "[identity.vm]\nkind='managed-identity'\nclient_id='x'"),
              HasSubstr("identity.vm.client_id"));
}

TEST(Registry, TakesAnIdentityForEachPrefixOnce) {
  const std::string head =
      "[identity.vm]\nkind='anonymous'\n[[registry]]\nname='a.b'\n[[registry.identity_for]]\n";
  EXPECT_THAT(only_fault(head + "identity='vm'"), HasSubstr("identity_for[1].prefix: missing"));
  EXPECT_THAT(only_fault(head + "prefix='a/'"), HasSubstr("identity_for[1].identity: missing"));
  EXPECT_THAT(only_fault(head + "prefix='a'\nidentity='vm'"), HasSubstr("does not end in \"/\""));
  EXPECT_THAT(only_fault(head + "prefix='a/'\nidentity='vm'\n[[registry.identity_for]]\n"
                                "prefix='a/'\nidentity='vm'"),
              HasSubstr("identity_for[2].prefix: \"a/\" is already given"));
}

TEST(Registry, GivesAManagedIdentitysTokenToAzureOnly) {
  const std::string identity = "[identity.vm]\nkind = 'managed-identity'\n";
  const auto with = [&](const std::string& registry) {
    return identity + "[[registry]]\nidentity = 'vm'\n" + registry;
  };
  good(with("name = 'contoso.azurecr.io'"));
  good(with("name = '*.azurecr.io'"));
  good(with("name = '*.eastus.geo.azurecr.io'"));
  good(with("name = 'docker.io'\nupstream = ['https://contoso.azurecr.io']"));
  good(with("name = 'mirror.example'\nupstream = ['https://contoso.azurecr.io']"));
  good(with("name = 'contoso.acr.test:5000'\n[azure]\nacr_suffixes = ['acr.test']"));
  for (const std::string registry :
       {"name = 'azurecr.io'", "name = 'contoso-azurecr.io'",
        "name = 'contoso.azurecr.io.evil.example'", "name = '*.example.com'", "name = 'docker.io'",
        "name = 'localhost:5000'", "name = 'docker.io'\nupstream = ['https://evilazurecr.io']",
        "name = 'contoso.azurecr.io'\nupstream = ['https://elsewhere.example']",
        "name = 'contoso.azurecr.io'\nupstream = ['http://127.0.0.1:9001']",
        "name = 'contoso.eastus.data.azurecr.io'"}) {
    EXPECT_THAT(only_fault(with(registry)), HasSubstr("azure.acr_suffixes")) << registry;
  }
  EXPECT_THAT(only_fault(with("name = 'contoso.azurecr.io'\n"
                              "upstream = ['http://contoso.azurecr.io']")),
              HasSubstr("plain http"));
  EXPECT_THAT(
      only_fault(identity + "[[registry]]\nname='docker.io'\n[[registry.identity_for]]\n"
                            "prefix='a/'\nidentity='vm'"),
      AllOf(HasSubstr("identity_for[1].identity: "), HasSubstr("for Azure Container Registry")));
}

TEST(Registry, IsOneOfASovereignCloudBySuffixHoweverManyLabelsThatHas) {
  const auto with = [](const std::string& name) {
    return "[identity.vm]\nkind = 'managed-identity'\n[[registry]]\nidentity = 'vm'\nname = '" +
           name + "'";
  };
  for (const std::string name :
       {"contoso.azurecr.de", "contoso.azurecr.sovcloud-azure.fr", "*.azurecr.sovcloud-azure.de",
        "contoso.eastus.geo.azurecr.sovcloud-azure.de"}) {
    good(with(name));
    EXPECT_THAT(only_fault("[azure]\ncloud = 'china'\n" + with(name)), HasSubstr("acr_suffixes"));
  }
  for (const std::string name : {"contoso.sovcloud-azure.fr", "azurecr.sovcloud-azure.fr",
                                 "contoso.azurecr.sovcloud-azure.fr.evil.example"}) {
    EXPECT_THAT(only_fault(with(name)), HasSubstr("acr_suffixes")) << name;
  }
}

// Each of these is an Entra token, or is made into one.
TEST(Registry, GivesNoCredentialOfEntraToStrangers) {
  const std::string guid = "'8d3f4b1e-0000-4000-8000-0123456789ab'";
  for (const std::string& identity : {std::string("kind = 'managed-identity'\n"),
                                      "kind = 'service-principal'\ntenant_id = " + guid +
                                          "\nclient_id = " + guid + "\ncertificate_file = '/c'\n",
                                      "kind = 'workload-identity'\ntenant_id = " + guid +
                                          "\nclient_id = " + guid + "\ntoken_file = '/t'\n",
                                      std::string("kind = 'token'\ntoken_file = '/t'\n")}) {
    const std::string head = "[identity.i]\n" + identity + "[[registry]]\nidentity = 'i'\nname = ";
    good(head + "'contoso.azurecr.io'");
    EXPECT_THAT(only_fault(head + "'ghcr.io'"), HasSubstr("acr_suffixes")) << identity;
    EXPECT_THAT(only_fault(head + "'*.example.com'"), HasSubstr("acr_suffixes")) << identity;
  }
  for (const std::string identity :
       {"kind = 'basic'\nusername = 'u'\npassword_file = '/p'\n",
        "kind = 'helper'\nhelper = 'ecr-login'\n", "kind = 'docker-config'\nfile = '/f'\n",
        "kind = 'anonymous'\n"}) {
    good("[identity.i]\n" + identity + "[[registry]]\nidentity = 'i'\nname = 'ghcr.io'");
  }
}

TEST(Registry, NamesACertificateFileThatCanBeRead) {
  Environment environment;
  environment.why_unreadable = [](const std::filesystem::path& path) {
    return path == "/good.pem" ? std::string() : std::string("No such file or directory");
  };
  good("[[registry]]\nname='a.b'\nca_file='/good.pem'", environment);
  EXPECT_THAT(only_fault("[[registry]]\nname='a.b'\nca_file='/bad.pem'", environment),
              HasSubstr("t.toml:3: registry[\"a.b\"].ca_file: \"/bad.pem\" cannot be read (No such "
                        "file or directory)"));
}

}  // namespace
}  // namespace staithe::daemon
