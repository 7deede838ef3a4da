// [identity.NAME]: every kind, with the keys it takes and what it cannot do without.
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/daemon/parse.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Options, OfAnIdentityRefuseBadValues) {
  const std::vector<Bad> bads{
      {"source = 'cloud'", "source", "\"auto\", \"imds\", \"arc\", \"app-service\""},
      {"client_id = 'me'", "client_id", "not a GUID"},
      {"object_id = 1", "object_id", "a string"},
      {"resource_id = '/subscriptions/x'", "resource_id", "/subscriptions/<guid>"},
      {"username = 'u'", "username",
       "does not belong to the kind \"managed-identity\" but to basic"},
      {"tenant_id = '8d3f4b1e-0000-4000-8000-0123456789ab'", "tenant_id", "service-principal"},
      {"client_secret_file = '/s'", "client_secret_file", "service-principal"},
      {"token_file = 'relative'", "token_file", "not absolute"}};
  for (const Bad& bad : bads) {
    const auto faults =
        faults_of("[identity.vm]\nkind = 'managed-identity'\n" + std::string(bad.line));
    ASSERT_FALSE(faults.empty()) << bad.line;
    EXPECT_TRUE(faults.front().starts_with("t.toml:3: identity.vm." + std::string(bad.key) + ": "))
        << faults.front();
    EXPECT_THAT(faults, testing::Contains(HasSubstr(std::string(bad.what)))) << bad.line;
  }
  EXPECT_THAT(only_fault("[identity.vm]\nsource = 'auto'"),
              HasSubstr("t.toml:1: identity.vm.kind: missing"));
  EXPECT_THAT(only_fault("[identity.vm]\nkind = 'managed'"), HasSubstr("is not known"));
  EXPECT_THAT(only_fault("[identity.vm]\nkind = 'managed_identity'"),
              HasSubstr("did you mean \"managed-identity\"?"));
  EXPECT_THAT(only_fault("[identity]\nkind = 'anonymous'"), HasSubstr("[identity.NAME]"));
  EXPECT_THAT(only_fault("identity = 'vm'"), HasSubstr("[identity.NAME]"));
  EXPECT_THAT(only_fault("[identity.'a b']\nkind = 'anonymous'"), HasSubstr("not a name"));
  EXPECT_THAT(only_fault("[identity.vm]\nkind = 'anonymous'\nclient_id = "
                         "'8d3f4b1e-0000-4000-8000-0123456789ab'"),
              HasSubstr("does not belong to the kind \"anonymous\""));
}

TEST(Identity, NamesAManagedIdentityByOneIdAtMost) {
  const std::string ids[] = {
      "client_id = '8d3f4b1e-0000-4000-8000-0123456789ab'\n",
      "object_id = '8d3f4b1e-0000-4000-8000-0123456789ab'\n",
      "resource_id = '/subscriptions/8d3f4b1e-0000-4000-8000-0123456789ab/resourceGroups/g/"
      "providers/a/b/c'\n"};
  const std::string head = "[identity.vm]\nkind = 'managed-identity'\n";
  for (const std::string& id : ids) good(head + id);
  EXPECT_THAT(only_fault(head + ids[0] + ids[1]), HasSubstr("at most one"));
  EXPECT_THAT(only_fault(head + ids[1] + ids[2]), HasSubstr("at most one"));
  EXPECT_THAT(only_fault(head + ids[0] + ids[1] + ids[2]), HasSubstr("t.toml:1: identity.vm: "));
}

const std::string tenant = "tenant_id = '72f988bf-0000-4000-8000-0123456789ab'\n";
const std::string client = "client_id = '8D3F4B1E-0000-4000-8000-0123456789ab'\n";

proxy::IdentitySettings identity(const std::string& lines, const Environment& environment = {}) {
  return good("[identity.i]\n" + lines, environment).proxy.identities["i"];
}
std::string identity_fault(const std::string& lines, const Environment& environment = {}) {
  return only_fault("[identity.i]\n" + lines, environment);
}

TEST(Identity, OfEveryKindHasItsKeys) {
  using proxy::IdentityKind;
  EXPECT_EQ(identity("kind = 'managed-identity'\nsource = 'arc'").source,
            proxy::ManagedIdentitySource::arc);
  EXPECT_EQ(identity("kind = 'managed-identity'\nsource = 'app-service'").source,
            proxy::ManagedIdentitySource::app_service);
  const auto app = identity(
      "kind = 'service-principal'\n" + tenant + client +
          "certificate_file = '${CREDENTIALS_DIRECTORY}/app.pem'\nsecret_expires = 2027-02-28",
      {{{"CREDENTIALS_DIRECTORY", "/creds"}}, 0, {}});
  EXPECT_EQ(app.kind, IdentityKind::service_principal);
  EXPECT_EQ(app.tenant_id, "72f988bf-0000-4000-8000-0123456789ab");
  EXPECT_EQ(app.client_id, "8d3f4b1e-0000-4000-8000-0123456789ab");
  EXPECT_EQ(app.certificate_file, "/creds/app.pem");
  EXPECT_EQ(app.client_secret_file, "");
  EXPECT_EQ(app.secret_expires, std::chrono::sys_days(std::chrono::year(2027) / 2 / 28));
  EXPECT_EQ(identity("kind = 'service-principal'\n" + tenant + client + "client_secret_file = '/s'")
                .client_secret_file,
            "/s");
  const auto pod = identity("kind = 'workload-identity'\n" + tenant + client + "token_file = '/t'");
  EXPECT_EQ(pod.kind, IdentityKind::workload_identity);
  EXPECT_EQ(pod.token_file, "/t");
  const auto user = identity(
      "kind = 'basic'\nusername = 'u v'\npassword_file = '/1'\npassword2_file = '/2'\n"
      "secret_expires = 2026-12-31");
  EXPECT_EQ(user.kind, IdentityKind::basic);
  EXPECT_EQ(user.username, "u v");
  EXPECT_EQ(user.password_file, "/1");
  EXPECT_EQ(user.password2_file, "/2");
  EXPECT_TRUE(user.secret_expires);
  EXPECT_EQ(identity("kind = 'token'\ntoken_file = '/t'").token_file, "/t");
  EXPECT_EQ(identity("kind = 'helper'\nhelper = 'ecr-login'").helper, "ecr-login");
  EXPECT_EQ(identity("kind = 'docker-config'\nfile = '/f'").file, "/f");
  EXPECT_EQ(identity("kind = 'anonymous'").kind, IdentityKind::anonymous);
}

TEST(Identity, SaysWhatItsKindCannotDoWithout) {
  for (const auto& [lines, what] : std::vector<std::pair<std::string, std::string>>{
           {"kind = 'service-principal'\nclient_secret_file = '/s'\n" + client,
            "t.toml:1: identity.i.tenant_id: missing"},
           {"kind = 'service-principal'\nclient_secret_file = '/s'\n" + tenant,
            "t.toml:1: identity.i.client_id: missing"},
           {"kind = 'service-principal'\nclient_secret_file = '/s'\nclient_id = ''\n" + tenant,
            "identity.i.client_id: missing"},
           {"kind = 'service-principal'\n" + tenant + client,
            "t.toml:1: identity.i: a service principal proves itself by a secret or by a "
            "certificate; accepted: either client_secret_file or certificate_file"},
           {"kind = 'service-principal'\nclient_secret_file='/s'\ncertificate_file='/c'\n" +
                tenant + client,
            "either client_secret_file or certificate_file"},
           {"kind = 'basic'\npassword_file = '/p'", "identity.i.username: missing"},
           {"kind = 'basic'\nusername = 'u'", "identity.i.password_file: missing"},
           {"kind = 'token'", "identity.i.token_file: missing"},
           {"kind = 'helper'", "identity.i.helper: missing"},
           {"kind = 'docker-config'", "identity.i.file: missing"}}) {
    EXPECT_THAT(identity_fault(lines), HasSubstr(what)) << lines;
  }
  // What is there and wrong is one fault, not two.
  EXPECT_THAT(identity_fault("kind = 'basic'\nusername = 'u'\npassword_file = 'p'"),
              HasSubstr("t.toml:4: identity.i.password_file: \"p\" is not absolute"));
  EXPECT_THAT(identity_fault("kind = 'service-principal'\nclient_secret_file = '/s'\n"
                             "client_id = 'me'\n" +
                             tenant),
              HasSubstr("t.toml:4: identity.i.client_id: \"me\" is not a GUID"));
}

TEST(Identity, RefusesValuesThatItsKindCannotUse) {
  for (const std::string helper : {"''", "'Ecr'", "'-x'", "'a/b'", "'a b'", "'../x'", "5"}) {
    EXPECT_THAT(identity_fault("kind = 'helper'\nhelper = " + helper),
                HasSubstr("t.toml:3: identity.i.helper: "))
        << helper;
  }
  for (const std::string date :
       {"'2027-01-31'", "2027-01-31T00:00:00Z", "2027", "1999-12-31", "12:00:00"}) {
    EXPECT_THAT(identity_fault("kind = 'basic'\nusername = 'u'\npassword_file = '/p'\n"
                               "secret_expires = " +
                               date),
                HasSubstr("a date without quotes, such as 2027-01-31"))
        << date;
  }
  EXPECT_THAT(identity_fault("kind = 'token'\ntoken_file = '/t'\nsecret_expires = 2027-01-31"),
              HasSubstr("does not belong to the kind \"token\" but to service-principal basic"));
}

const Environment webhook{{{"AZURE_TENANT_ID", "72F988BF-0000-4000-8000-0123456789ab"},
                           {"AZURE_CLIENT_ID", "8d3f4b1e-0000-4000-8000-0123456789ab"},
                           {"AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/t"},
                           {"AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"}},
                          0,
                          {}};

TEST(WorkloadIdentity, TakesFromTheEnvironmentWhatTheFileLeavesOut) {
  const Config config = good("[identity.i]\nkind = 'workload-identity'", webhook);
  const auto& pod = config.proxy.identities.at("i");
  EXPECT_EQ(pod.tenant_id, "72f988bf-0000-4000-8000-0123456789ab");
  EXPECT_EQ(pod.client_id, "8d3f4b1e-0000-4000-8000-0123456789ab");
  EXPECT_EQ(pod.token_file, "/var/run/secrets/azure/tokens/t");
  EXPECT_EQ(config.proxy.azure.authority, "https://login.microsoftonline.us");
  // The file comes first, and the effective configuration needs no environment.
  const auto given = good(
      "[azure]\nauthority = 'https://login.example'\n"
      "[identity.i]\nkind = 'workload-identity'\ntoken_file = '/t'",
      webhook);
  EXPECT_EQ(given.proxy.azure.authority, "https://login.example");
  EXPECT_EQ(given.proxy.identities.at("i").token_file, "/t");
  EXPECT_EQ(to_toml(good(to_toml(config))), to_toml(config));
  // Nobody else is moved to another authority by a variable.
  EXPECT_EQ(good("[identity.i]\nkind = 'managed-identity'", webhook).proxy.azure.authority,
            "https://login.microsoftonline.com");
}

TEST(WorkloadIdentity, NamesTheVariableThatIsMissingOrWrong) {
  for (const std::string variable :
       {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"}) {
    Environment environment = webhook;
    environment.variables.erase(variable);
    EXPECT_THAT(identity_fault("kind = 'workload-identity'", environment),
                HasSubstr("missing, and $" + variable + " is not set"));
    environment.variables[variable] = "no such thing";
    EXPECT_THAT(identity_fault("kind = 'workload-identity'", environment),
                HasSubstr("taken from $" + variable + ": "));
  }
  Environment environment = webhook;
  environment.variables["AZURE_AUTHORITY_HOST"] = "http://login.example";
  EXPECT_THAT(identity_fault("kind = 'workload-identity'", environment),
              HasSubstr("$AZURE_AUTHORITY_HOST: "));
  environment.variables.erase("AZURE_AUTHORITY_HOST");
  identity("kind = 'workload-identity'", environment);
}

TEST(WorkloadIdentity, MayBeAManagedIdentityThatTheApplicationTrusts) {
  const std::string head = "[identity.i]\nkind = 'workload-identity'\n" + tenant + client;
  const Config config = good(head +
                             "federated_identity = 'vm'\n[identity.vm]\n"
                             "kind = 'managed-identity'");
  EXPECT_EQ(config.proxy.identities.at("i").federated_identity, "vm");
  EXPECT_EQ(config.proxy.identities.at("i").token_file, "");
  EXPECT_THAT(only_fault(head + "federated_identity = 'vmm'\n[identity.vm]\n"
                                "kind = 'managed-identity'"),
              HasSubstr("t.toml:5: identity.i.federated_identity: there is no [identity.vmm]; did "
                        "you mean \"vm\"?"));
  EXPECT_THAT(only_fault(head + "federated_identity = 'vm'\n[identity.vm]\nkind = 'anonymous'"),
              HasSubstr("\"vm\" is of the kind \"anonymous\"; accepted: "));
  EXPECT_THAT(only_fault(head + "federated_identity = 'i'"), HasSubstr("is of the kind"));
  EXPECT_THAT(only_fault(head + "federated_identity = 'vm'\ntoken_file = '/t'\n[identity.vm]\n"
                                "kind = 'managed-identity'"),
              HasSubstr("accepted: one of them"));
  // A fault in the identity that is named is said once.
  EXPECT_THAT(only_fault(head + "federated_identity = 'vm'\n[identity.vm]\nkind = 'manged'"),
              HasSubstr("identity.vm.kind"));
}

TEST(AzureVariables, AreThoseOfTheIdentityHostsAndAreNotShown) {
  Environment environment{{{"IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"},
                           {"IDENTITY_HEADER", "hunter2"},
                           {"MSI_SECRET", ""},
                           {"HOME", "/root"}},
                          0,
                          {}};
  const Config config = good("", environment);
  EXPECT_EQ(
      config.proxy.azure.variables,
      (std::map<std::string, std::string>{{"IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"},
                                          {"IDENTITY_HEADER", "hunter2"}}));
  EXPECT_THAT(to_toml(config), Not(HasSubstr("hunter2")));
}

}  // namespace
}  // namespace staithe::daemon
