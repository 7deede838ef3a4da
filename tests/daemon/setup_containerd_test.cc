#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <string>

#include "daemon/setup.h"
#include "tests/fake/machine.h"

namespace staithe::daemon {
namespace {

using fake::after;
using fake::FakeMachine;
using fake::usual_service;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kConfig = "/etc/containerd/config.toml";
const std::filesystem::path kCerts = "/etc/containerd/certs.d";

FakeMachine machine_with(const std::string& version) {
  FakeMachine machine;
  machine.program("containerd", "containerd github.com/containerd/containerd " + version + " 1a2b");
  return machine;
}
Plan plan_for(const FakeMachine& machine) {
  return plan_setup(Client::containerd, machine, usual_service());
}
std::string all_warnings(const Plan& plan) {
  std::string all;
  for (const std::string& warning : plan.warnings) all += warning + "\n";
  return all;
}

TEST(Version, IsFoundInWhatProgramsSay) {
  EXPECT_EQ(parse_version("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1"),
            (Version{1, 6, 20}));
  EXPECT_EQ(parse_version("containerd github.com/containerd/containerd/v2 v2.1.9 75cb"),
            (Version{2, 1, 9}));
  EXPECT_EQ(parse_version("containerd containerd.io 1.7.24 88bf"), (Version{1, 7, 24}));
  EXPECT_EQ(parse_version("Docker version 20.10.24+dfsg1, build 5d6db84"), (Version{20, 10, 24}));
  EXPECT_EQ(parse_version("podman version 4.3.1\n"), (Version{4, 3, 1}));
  EXPECT_EQ(parse_version("k3s version v1.29.3+k3s1 (8aecc26b)\ngo version go1.21.8"),
            (Version{1, 29, 3}));
  EXPECT_EQ(parse_version("Kubernetes v1.30.2"), (Version{1, 30, 2}));
  EXPECT_EQ(parse_version("Nomad v1.8.0-beta.1"), (Version{1, 8, 0}));
  EXPECT_EQ(parse_version("buildkitd github.com/moby/buildkit v0.13 abc"), (Version{0, 13, 0}));
  for (const char* none : {"", "command not found", "version", "v2", "99999999999.1"})
    EXPECT_EQ(parse_version(none), std::nullopt) << none;
}

// registry-clients.md section 5: which containerd takes what in hosts.toml and config.toml.
struct Expected {
  const char* version;
  bool dial_timeout;
  bool referrers;
  bool use_default;
  int config_version;
  const char* plugin;
};
class ContainerdVersion : public testing::TestWithParam<Expected> {};

TEST_P(ContainerdVersion, GetsWhatItUnderstands) {
  const Expected& expected = GetParam();
  const Plan plan = plan_for(machine_with(expected.version));
  ASSERT_THAT(plan.refusals, IsEmpty());
  const toml::table hosts = toml::parse(after(plan, kCerts / "docker.io" / "hosts.toml"));
  EXPECT_EQ(hosts["server"].value<std::string>(), "https://registry-1.docker.io");
  const auto own = hosts["host"]["http://127.0.0.1:5050"];
  EXPECT_EQ(own["dial_timeout"].value<std::string>(),
            expected.dial_timeout ? std::optional<std::string>("500ms") : std::nullopt);
  ASSERT_TRUE(own["capabilities"].is_array());
  EXPECT_EQ(own["capabilities"].as_array()->size(), expected.referrers ? 3u : 2u);
  EXPECT_EQ(own["capabilities"][0].value<std::string>(), "pull");
  EXPECT_EQ(own["capabilities"][1].value<std::string>(), "resolve");
  EXPECT_FALSE(own["skip_verify"] || own["ca"]);

  const FileChange* any = fake::change_of(plan, kCerts / "_default" / "hosts.toml");
  EXPECT_EQ(any != nullptr, expected.use_default);
  if (any) EXPECT_FALSE(toml::parse(any->after)["server"]);
  EXPECT_EQ(all_warnings(plan).contains("--registry contoso.azurecr.io"), !expected.use_default);

  const toml::table config = toml::parse(after(plan, kConfig));
  EXPECT_EQ(config["version"].value<int>(), expected.config_version);
  EXPECT_EQ(config["plugins"][expected.plugin]["registry"]["config_path"].value<std::string>(),
            "/etc/containerd/certs.d");
  ASSERT_EQ(plan.restarts.size(), 1u);
  EXPECT_EQ(plan.restarts[0].command, "systemctl restart containerd");
}

constexpr const char* kOldPlugin = "io.containerd.grpc.v1.cri";
constexpr const char* kNewPlugin = "io.containerd.cri.v1.images";
INSTANTIATE_TEST_SUITE_P(OfEachLine, ContainerdVersion,
                         testing::Values(Expected{"1.5.0", false, false, false, 2, kOldPlugin},
                                         Expected{"1.6.16", false, false, false, 2, kOldPlugin},
                                         Expected{"1.6.20~ds1", false, false, true, 2, kOldPlugin},
                                         Expected{"v1.7.24", false, false, true, 2, kOldPlugin},
                                         Expected{"v1.7.31", false, false, true, 2, kOldPlugin},
                                         Expected{"v2.0.2", false, false, false, 3, kNewPlugin},
                                         Expected{"v2.0.7", true, false, true, 3, kNewPlugin},
                                         Expected{"v2.1.0", true, false, true, 3, kNewPlugin},
                                         Expected{"v2.1.9", true, false, true, 3, kNewPlugin},
                                         Expected{"v2.2.0", true, true, true, 3, kNewPlugin},
                                         Expected{"v2.3.4", true, true, true, 3, kNewPlugin}),
                         [](const auto& info) {
                           std::string name = info.param.version;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

TEST(SetupContainerd, RefusesAVersionThatReadsNoHostsToml) {
  const Plan plan = plan_for(machine_with("1.4.13"));
  ASSERT_EQ(plan.refusals.size(), 1u);
  EXPECT_THAT(plan.refusals[0].why, HasSubstr("1.5 and later; this is 1.4.13"));
  EXPECT_THAT(plan.changes, IsEmpty());
}

TEST(SetupContainerd, SaysThatItIsNotInstalled) {
  const Plan plan = plan_for(FakeMachine());
  EXPECT_FALSE(plan.found);
  ASSERT_EQ(plan.refusals.size(), 1u);
  EXPECT_EQ(plan.refusals[0].why, "containerd is not installed");
}

TEST(SetupContainerd, IsSettledWhenItsPlanStands) {
  FakeMachine machine = machine_with("v2.2.0");
  const Plan first = plan_for(machine);
  machine.apply(first);
  const Plan second = plan_for(machine);
  EXPECT_THAT(second.changes, IsEmpty());
  EXPECT_THAT(second.restarts, IsEmpty());
  EXPECT_EQ(second.settled.size(), first.changes.size());
}

TEST(SetupContainerd, KeepsTheConfigurationFilesVersion) {
  FakeMachine machine = machine_with("v2.1.9");
  machine.file(kConfig, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  x = 1\n");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(after(plan, kConfig),
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  x = 1\n\n"
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
            "  config_path = \"/etc/containerd/certs.d\"\n");
}

TEST(SetupContainerd, TakesAFileWithoutAVersionForTheFirst) {
  FakeMachine machine = machine_with("1.6.20");
  machine.file(kConfig, "[plugins.cri.registry]\n  config_path = \"\"\n");
  EXPECT_EQ(after(plan_for(machine), kConfig),
            "[plugins.cri.registry]\n  config_path = \"/etc/containerd/certs.d\"\n");
}

TEST(SetupContainerd, FillsAFileOfCommentsOnly) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kConfig, "# nothing yet\n");
  EXPECT_EQ(after(plan_for(machine), kConfig),
            "# nothing yet\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
            "  config_path = \"/etc/containerd/certs.d\"\n");
}

TEST(SetupContainerd, UsesTheDirectoryThatIsConfigured) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kConfig,
               "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
               "config_path = \"/srv/hosts\"\n");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(fake::change_of(plan, kConfig), nullptr);
  EXPECT_THAT(plan.restarts, IsEmpty());  // hosts.toml is read at every pull
  EXPECT_NE(fake::change_of(plan, "/srv/hosts/docker.io/hosts.toml"), nullptr);
}

TEST(SetupContainerd, LeavesOneDirectoryFromTwoPointOneOn) {
  const std::string two =
      "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
      "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";
  FakeMachine newer = machine_with("v2.1.0");
  newer.file(kConfig, two);
  const Plan plan = plan_for(newer);
  EXPECT_THAT(after(plan, kConfig), HasSubstr("config_path = \"/etc/containerd/certs.d\"\n"));
  EXPECT_THAT(all_warnings(plan), HasSubstr("several directories"));
  // Before, both are read.
  FakeMachine older = machine_with("1.7.24");
  older.file(kConfig, two);
  EXPECT_EQ(fake::change_of(plan_for(older), kConfig), nullptr);
}

TEST(SetupContainerd, LeavesCriAloneThatIsSwitchedOff) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kConfig, "disabled_plugins = [\"cri\"]\n");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(fake::change_of(plan, kConfig), nullptr);
  EXPECT_THAT(all_warnings(plan), HasSubstr("CRI is switched off"));
  EXPECT_NE(fake::change_of(plan, kCerts / "docker.io" / "hosts.toml"), nullptr);
}

TEST(SetupContainerd, RefusesWhatWouldKeepCriFromLoading) {
  for (const char* settings :
       {"[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n"
        "endpoint = [\"https://m\"]\n",
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".tls]\n"
        "ca_file = \"x\"\n"}) {
    FakeMachine machine = machine_with("1.7.24");
    machine.file(kConfig, std::string("version = 2\n") + settings);
    const Plan plan = plan_for(machine);
    ASSERT_EQ(plan.refusals.size(), 1u) << settings;
    EXPECT_THAT(plan.refusals[0].why, HasSubstr("CRI would not load"));
    EXPECT_THAT(plan.refusals[0].text, HasSubstr("config_path"));
    EXPECT_THAT(plan.changes, IsEmpty());
  }
  // Credentials may stand beside config_path.
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kConfig,
               "version = 2\n"
               "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".auth]\n"
               "username = \"u\"\n");
  EXPECT_THAT(plan_for(machine).refusals, IsEmpty());
}

TEST(SetupContainerd, ChangesTheImportedFileThatCounts) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kConfig, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n")
      .file("/etc/containerd/conf.d/10-cri.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1\n");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(fake::change_of(plan, kConfig), nullptr);
  EXPECT_THAT(after(plan, "/etc/containerd/conf.d/10-cri.toml"), HasSubstr("config_path"));
}

TEST(SetupContainerd, RefusesALinkAndATextThatIsNoToml) {
  FakeMachine linked = machine_with("1.7.24");
  linked.link(kConfig);
  EXPECT_THAT(plan_for(linked).refusals.at(0).why, HasSubstr("symbolic link"));
  FakeMachine broken = machine_with("1.7.24");
  broken.file(kConfig, "version = \n");
  EXPECT_THAT(plan_for(broken).refusals.at(0).why, HasSubstr("line 1 is not TOML"));
}

TEST(SetupContainerd, WorksWithoutAVersionByWhatAllTake) {
  const Plan plan = plan_for(machine_with("(devel)"));
  EXPECT_THAT(plan.refusals, IsEmpty());
  EXPECT_THAT(all_warnings(plan), HasSubstr("says nothing of a version"));
  const std::string hosts = after(plan, kCerts / "contoso.azurecr.io" / "hosts.toml");
  EXPECT_THAT(hosts, HasSubstr("capabilities = [\"pull\", \"resolve\"]\n"));
  EXPECT_THAT(hosts, Not(HasSubstr("dial_timeout")));
}

TEST(SetupHosts, PutsOursBeforeTheUsersMirrors) {
  FakeMachine machine = machine_with("v2.1.9");
  const auto path = kCerts / "docker.io" / "hosts.toml";
  machine.file(path,
               "server = \"https://registry-1.docker.io\"\n\n# in the office\n"
               "[host.\"https://mirror.example\"]\n  capabilities = [\"pull\"]\n");
  EXPECT_EQ(after(plan_for(machine), path),
            "server = \"https://registry-1.docker.io\"\n\n[host.\"http://127.0.0.1:5050\"]\n"
            "  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"500ms\"\n\n"
            "# in the office\n[host.\"https://mirror.example\"]\n  capabilities = [\"pull\"]\n");
}

TEST(SetupHosts, MendsOurEntryAndKeepsWhatTheUserHasAdded) {
  FakeMachine machine = machine_with("1.7.24");
  const auto path = kCerts / "docker.io" / "hosts.toml";
  machine.file(path,
               "[host.\"http://127.0.0.1:5050\"]\n  capabilities = [\"pull\", \"resolve\", "
               "\"referrers\"] # new\n  [host.\"http://127.0.0.1:5050\".header]\n    x = \"y\"\n");
  EXPECT_EQ(after(plan_for(machine), path),
            "[host.\"http://127.0.0.1:5050\"]\n  capabilities = [\"pull\", \"resolve\"] # new\n"
            "  [host.\"http://127.0.0.1:5050\".header]\n    x = \"y\"\n");
}

TEST(SetupHosts, NamesTheAuthoritiesThatAHostsTomlWouldSwitchOff) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kCerts / "quay.io" / "ca.crt", "PEM");
  EXPECT_THAT(after(plan_for(machine), kCerts / "quay.io" / "hosts.toml"),
              HasSubstr("ca = [\"/etc/containerd/certs.d/quay.io/ca.crt\"]\n\n[host."));
  machine.file(kCerts / "quay.io" / "client.cert", "PEM");
  EXPECT_THAT(plan_for(machine).refusals.at(0).why, HasSubstr("client certificates"));
}

TEST(SetupHosts, FindsDirectoriesThatHideTheDefault) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kCerts / "fabrikam.azurecr.io" / "hosts.toml", "server = \"https://x\"\n")
      .file(kCerts / "other.example" / "hosts.toml", "server = \"https://y\"\n");
  const Plan plan = plan_for(machine);
  EXPECT_THAT(after(plan, kCerts / "fabrikam.azurecr.io" / "hosts.toml"), HasSubstr(":5050"));
  EXPECT_EQ(fake::change_of(plan, kCerts / "other.example" / "hosts.toml"), nullptr);
}

TEST(SetupHosts, WritesPortsAsTheDirectoryThatIsThere) {
  Served service{.address = "127.0.0.1:5050", .registries = {{"r.example:5000"}}, .seen = {}};
  FakeMachine machine = machine_with("1.7.24");
  Plan plan = plan_setup(Client::containerd, machine, service);
  EXPECT_THAT(after(plan, kCerts / "r.example:5000" / "hosts.toml"),
              HasSubstr("server = \"https://r.example:5000\""));
  machine.file(kCerts / "r.example_5000_" / "hosts.toml", "");
  plan = plan_setup(Client::containerd, machine, service);
  EXPECT_THAT(after(plan, kCerts / "r.example_5000_" / "hosts.toml"), HasSubstr(":5050"));
}

TEST(SetupHosts, WarnsOfSettingsThatDefeatIt) {
  FakeMachine machine = machine_with("1.7.24");
  machine.file(kCerts / "quay.io" / "hosts.toml",
               "server = \"http://127.0.0.1:5050\"\n[host.\"http://127.0.0.1:5050\"]\n"
               "  skip_verify = true\n");
  EXPECT_THAT(all_warnings(plan_for(machine)),
              testing::AllOf(HasSubstr("HTTPS first"), HasSubstr("no fallback")));
}

TEST(Served, KnowsHostsByNameAndByWhatWasSeen) {
  const Served service = usual_service();
  EXPECT_THAT(service.hosts(), ElementsAre("docker.io", "quay.io", "contoso.azurecr.io"));
  EXPECT_THAT(service.wildcards(), ElementsAre("*.azurecr.io"));
  EXPECT_TRUE(serves(service.registries, "a.b.azurecr.io"));
  EXPECT_FALSE(serves(service.registries, "azurecr.io"));
  EXPECT_FALSE(serves(service.registries, "notazurecr.io"));
}

}  // namespace
}  // namespace staithe::daemon
