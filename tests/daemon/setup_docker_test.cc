#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <boost/json/parse.hpp>
#include <string>

#include "daemon/setup.h"
#include "tests/fake/machine.h"

namespace staithe::daemon {
namespace {

using fake::after;
using fake::FakeMachine;
using fake::usual_service;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kConfig = "/etc/docker/daemon.json";
const std::filesystem::path kCerts = "/etc/docker/certs.d";

FakeMachine machine_with(const std::string& version) {
  FakeMachine machine;
  machine.program("dockerd", "Docker version " + version + ", build abc");
  return machine;
}
Plan plan_for(const FakeMachine& machine) {
  return plan_setup(Client::docker, machine, usual_service());
}
std::string all_warnings(const Plan& plan) {
  std::string all;
  for (const std::string& warning : plan.warnings) all += warning + "\n";
  return all;
}

class ClassicStore : public testing::TestWithParam<const char*> {};
TEST_P(ClassicStore, GetsAMirrorOfDockerHubOnly) {
  FakeMachine machine = machine_with(GetParam());
  const Plan plan = plan_for(machine);
  EXPECT_EQ(after(plan, kConfig), "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5050\"]\n}\n");
  EXPECT_EQ(plan.changes.size(), 1u);
  EXPECT_EQ(plan.asks, Asks::by_nothing);
  EXPECT_EQ(plan.restarts.at(0).command, "systemctl reload docker");
  EXPECT_EQ(plan.undo_restarts.at(0).command, "systemctl restart docker");
  EXPECT_THAT(all_warnings(plan), HasSubstr("images of *.azurecr.io, quay.io come through staithed "
                                            "as 127.0.0.1:5050/HOST/IMAGE"));
}
INSTANTIATE_TEST_SUITE_P(OfEachLine, ClassicStore,
                         testing::Values("20.10.24+dfsg1", "26.1.5", "28.5.2"));

// The containerd image store of each version.
struct Expected {
  const char* version;
  bool dial_timeout;
  bool referrers;
  bool use_default;
};
class ContainerdStore : public testing::TestWithParam<Expected> {};
TEST_P(ContainerdStore, GetsAHostsTomlForEachRegistry) {
  const Expected& expected = GetParam();
  FakeMachine machine = machine_with(expected.version);
  machine.file(kConfig, "{\"features\": {\"containerd-snapshotter\": true}}");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(fake::change_of(plan, kConfig), nullptr);
  EXPECT_EQ(plan.asks, Asks::by_ns);
  EXPECT_THAT(plan.restarts, IsEmpty());
  for (const char* host : {"docker.io", "quay.io", "contoso.azurecr.io"}) {
    if (expected.use_default && host == std::string("contoso.azurecr.io")) continue;
    const toml::table hosts = toml::parse(after(plan, kCerts / host / "hosts.toml"));
    const auto own = hosts["host"]["http://127.0.0.1:5050"];
    EXPECT_EQ(static_cast<bool>(own["dial_timeout"]), expected.dial_timeout);
    EXPECT_EQ(own["capabilities"].as_array()->size(), expected.referrers ? 3u : 2u);
  }
  EXPECT_EQ(fake::change_of(plan, kCerts / "_default" / "hosts.toml") != nullptr,
            expected.use_default);
}
INSTANTIATE_TEST_SUITE_P(OfEachLine, ContainerdStore,
                         testing::Values(Expected{"28.0.0", false, false, false},
                                         Expected{"28.5.2", false, false, false},
                                         Expected{"29.1.0", true, false, true},
                                         Expected{"29.7.2", true, true, true}));

TEST(SetupDocker, RefusesTheContainerdStoreBeforeItReadHostsToml) {
  FakeMachine machine = machine_with("26.1.5");
  machine.file(kConfig, "{\"features\": {\"containerd-snapshotter\": true}}");
  EXPECT_THAT(plan_for(machine).refusals.at(0).why, HasSubstr("came with 28.0"));
}

TEST(SetupDocker, TellsTheStoreOf29ByWhatItHas) {
  FakeMachine machine = machine_with("29.0.0");
  EXPECT_EQ(plan_for(machine).asks, Asks::by_ns);
  machine.file("/var/lib/docker/image/overlay2/repositories.json", "{}");
  EXPECT_EQ(plan_for(machine).asks, Asks::by_nothing);
  machine.file(kConfig, "{\"data-root\": \"/srv/docker\"}");
  EXPECT_EQ(plan_for(machine).asks, Asks::by_ns);
}

TEST(SetupDocker, AsksTheRunningDaemonForItsStore) {
  FakeMachine machine = machine_with("28.5.2");
  machine.running = true;
  machine.program("docker", "[[\"driver-type\",\"io.containerd.snapshotter.v1\"]]");
  EXPECT_EQ(plan_for(machine).asks, Asks::by_ns);
  machine.program("docker", "[[\"Backing Filesystem\",\"extfs\"]]");
  machine.file(kConfig, "{\"features\": {\"containerd-snapshotter\": true}}");
  EXPECT_EQ(plan_for(machine).asks, Asks::by_nothing);  // not restarted since
}

TEST(SetupDocker, WarnsOfALoopbackMirrorOfTheContainerdStore) {
  FakeMachine machine = machine_with("28.5.2");
  for (const char* mirror :
       {"http://127.0.0.1:5050", "http://localhost:5000", "http://[::1]:5000"}) {
    machine.file(kConfig, std::string("{\"features\":{\"containerd-snapshotter\":true},"
                                      "\"registry-mirrors\":[\"") +
                              mirror + "\"]}");
    EXPECT_THAT(all_warnings(plan_for(machine)),
                HasSubstr("accept any certificate for Docker Hub"));
  }
  machine.file(kConfig,
               "{\"features\":{\"containerd-snapshotter\":true},"
               "\"registry-mirrors\":[\"https://mirror.example\"]}");
  EXPECT_THAT(all_warnings(plan_for(machine)), Not(HasSubstr("certificate")));
}

TEST(SetupDocker, KeepsTheUsersSettings) {
  FakeMachine machine = machine_with("20.10.24");
  machine.file(kConfig,
               "{\n    \"log-driver\": \"journald\",\n    \"registry-mirrors\": "
               "[\"https://m\"]\n}\n");
  const Plan plan = plan_for(machine);
  EXPECT_EQ(after(plan, kConfig),
            "{\n    \"log-driver\": \"journald\",\n    \"registry-mirrors\": "
            "[\"http://127.0.0.1:5050\", \"https://m\"]\n}\n");
  machine.apply(plan);
  EXPECT_THAT(plan_for(machine).changes, IsEmpty());
}

TEST(SetupDocker, RefusesAFlagBesideTheFile) {
  FakeMachine machine = machine_with("20.10.24");
  machine.file("/etc/systemd/system/docker.service.d/mirror.conf",
               "[Served]\n# --registry-mirror was here\n"
               "ExecStart=/usr/bin/dockerd --registry-mirror=https://m\n");
  const Plan plan = plan_for(machine);
  EXPECT_THAT(plan.refusals.at(0).why, HasSubstr("does not start with both"));
  EXPECT_THAT(plan.refusals.at(0).text, HasSubstr("--registry-mirror=http://127.0.0.1:5050"));
  machine.file("/etc/systemd/system/docker.service.d/mirror.conf", "# --registry-mirror\n");
  EXPECT_THAT(plan_for(machine).refusals, IsEmpty());
}

TEST(SetupDocker, NeedsDockerHubAsTheDefault) {
  const FakeMachine machine = machine_with("20.10.24");
  Served service = usual_service();
  service.registries[1].is_default = false;
  EXPECT_THAT(plan_setup(Client::docker, machine, service).refusals.at(0).why,
              HasSubstr("default = true"));
  service.registries.erase(service.registries.begin() + 1);
  EXPECT_THAT(plan_setup(Client::docker, machine, service).refusals.at(0).why,
              HasSubstr("does not serve docker.io"));
}

TEST(SetupDocker, RefusesAFileThatIsNoJson) {
  FakeMachine machine = machine_with("20.10.24");
  machine.file(kConfig, "{ // comment\n}");
  const Plan plan = plan_for(machine);
  EXPECT_THAT(plan.refusals.at(0).why, HasSubstr("not JSON"));
  EXPECT_THAT(plan.refusals.at(0).text, HasSubstr("\"registry-mirrors\": "));
}

}  // namespace
}  // namespace staithe::daemon
