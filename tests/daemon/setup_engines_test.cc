// podman, CRI-O, BuildKit, k3s, RKE2, kubelet and Nomad.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <fstream>
#include <sstream>
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

constexpr const char* kDropIn = "/etc/containers/registries.conf.d/50-staithe.conf";
constexpr const char* kBuildkit = "/etc/buildkit/buildkitd.toml";
constexpr const char* kK3s = "/etc/rancher/k3s/registries.yaml";
constexpr const char* kProvider = "/etc/kubernetes/kubelet-credential-provider.yaml";
constexpr const char* kNomad = "/etc/nomad.d/staithe-docker.hcl";

std::string all_warnings(const Plan& plan) {
  std::string all;
  for (const std::string& warning : plan.warnings) all += warning + "\n";
  return all;
}
Plan plan_for(Client client, const FakeMachine& machine) {
  return plan_setup(client, machine, usual_service());
}
std::string sample(const char* path) {
  std::ifstream file(std::filesystem::path(STAITHE_SOURCE_DIR) / path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(SetupPodman, GetsAPairOfTablesForEachRegistry) {
  for (const char* version : {"podman version 4.3.1", "podman version 5.8.0"}) {
    FakeMachine machine;
    machine.program("podman", version);
    const Plan plan = plan_for(Client::podman, machine);
    EXPECT_EQ(plan.asks, Asks::by_path);
    EXPECT_THAT(plan.restarts, IsEmpty());
    const toml::table file = toml::parse(after(plan, kDropIn));
    ASSERT_EQ(file["registry"].as_array()->size(), 3u);
    const auto third = file["registry"][2];
    EXPECT_EQ(third["location"].value<std::string>(), "contoso.azurecr.io");
    EXPECT_EQ(third["mirror"][0]["location"].value<std::string>(),
              "127.0.0.1:5050/contoso.azurecr.io");
    EXPECT_EQ(third["mirror"][0]["insecure"].value<bool>(), true);
    EXPECT_THAT(all_warnings(plan), HasSubstr("of *.azurecr.io only registries whose images"));
    machine.apply(plan);
    EXPECT_THAT(plan_for(Client::podman, machine).changes, IsEmpty());
  }
}

TEST(SetupPodman, SetsUpWhatSkopeoAndBuildahReadToo) {
  FakeMachine machine;
  machine.program("skopeo", "skopeo version 1.9.3");
  EXPECT_TRUE(plan_for(Client::podman, machine).found);
}

TEST(SetupPodman, LeavesARegistryThatHasAnEntryElsewhere) {
  FakeMachine machine;
  machine.program("podman", "podman version 4.3.1")
      .file("/etc/containers/registries.conf.d/10-mine.conf",
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"mirror.example\"\n");
  const Plan plan = plan_for(Client::podman, machine);
  EXPECT_THAT(after(plan, kDropIn), Not(HasSubstr("docker.io")));
  EXPECT_THAT(all_warnings(plan),
              HasSubstr("10-mine.conf has an entry for docker.io already, so it is left out"));
}

TEST(SetupPodman, AddsToItsOwnFileAndKeepsTheUsersLines) {
  FakeMachine machine;
  machine.program("podman", "podman version 4.3.1")
      .file(kDropIn,
            "[[registry]]\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = "
            "\"127.0.0.1:5050/docker.io\"\ninsecure = true\npull-from-mirror = \"digest-only\"\n");
  const std::string text = after(plan_for(Client::podman, machine), kDropIn);
  EXPECT_THAT(text, HasSubstr("digest-only"));
  EXPECT_EQ(toml::parse(text)["registry"].as_array()->size(), 3u);
}

TEST(SetupPodman, RefusesTheOldFormat) {
  FakeMachine machine;
  machine.program("podman", "podman version 4.3.1")
      .file("/etc/containers/registries.conf",
            "[registries.search]\nregistries = [\"docker.io\"]\n");
  EXPECT_THAT(plan_for(Client::podman, machine).refusals.at(0).why, HasSubstr("old format"));
}

TEST(SetupCrio, ReloadsByItsUnit) {
  FakeMachine machine;
  machine.program("crio", "crio version 1.30.0");
  const Plan plan = plan_for(Client::crio, machine);
  EXPECT_NE(fake::change_of(plan, kDropIn), nullptr);
  EXPECT_EQ(plan.restarts.at(0).command, "systemctl reload crio");
}

TEST(SetupBuildkit, GetsMirrorsAndPlainHttpForThem) {
  FakeMachine machine;
  machine.program("buildkitd", "buildkitd github.com/moby/buildkit v0.13.2 abc")
      .file(kBuildkit,
            "# mine\ndebug = true\n\n[registry.\"docker.io\"]\n  mirrors = [\"m.example\"] # m\n");
  const Plan plan = plan_for(Client::buildkit, machine);
  const std::string text = after(plan, kBuildkit);
  EXPECT_THAT(text, HasSubstr("# mine\ndebug = true\n"));
  EXPECT_THAT(text, HasSubstr("mirrors = [\"127.0.0.1:5050\", \"m.example\"] # m\n"));
  const toml::table table = toml::parse(text);
  EXPECT_EQ(table["registry"]["127.0.0.1:5050"]["http"].value<bool>(), true);
  EXPECT_FALSE(table["registry"]["127.0.0.1:5050"]["insecure"]);
  EXPECT_EQ(table["registry"]["contoso.azurecr.io"]["mirrors"][0].value<std::string>(),
            "127.0.0.1:5050");
  machine.apply(plan);
  EXPECT_THAT(plan_for(Client::buildkit, machine).changes, IsEmpty());
}

TEST(SetupBuildkit, SaysWhatABuilderOfBuildxNeeds) {
  EXPECT_THAT(plan_for(Client::buildkit, FakeMachine()).refusals.at(0).why,
              HasSubstr("network=host"));
}

TEST(SetupK3s, UsesTheStarWhereItGoesOnToTheRegistry) {
  for (const auto& [version, star] : std::vector<std::pair<std::string, bool>>{{"v1.25.16", false},
                                                                               {"v1.26.14", false},
                                                                               {"v1.26.15", true},
                                                                               {"v1.27.11", false},
                                                                               {"v1.28.8", true},
                                                                               {"v1.29.2", false},
                                                                               {"v1.29.3", true},
                                                                               {"v1.30.0", true},
                                                                               {"v1.31.5", true},
                                                                               {"v1.31.6", false},
                                                                               {"v1.31.7", true},
                                                                               {"v1.32.2", false},
                                                                               {"v1.32.3", true},
                                                                               {"v1.33.1", true}}) {
    FakeMachine machine;
    machine.program("k3s", "k3s version " + version + "+k3s1 (abc)\ngo version go1.22");
    const Plan plan = plan_for(Client::k3s, machine);
    EXPECT_EQ(after(plan, kK3s).contains("\"*\":"), star) << version;
    EXPECT_EQ(all_warnings(plan).contains("--registry"), !star) << version;
    EXPECT_THAT(after(plan, kK3s), HasSubstr("  \"docker.io\":\n    endpoint:\n"
                                             "      - \"http://127.0.0.1:5050\"\n"));
  }
}

TEST(SetupK3s, RestartsTheServiceThatIsThere) {
  FakeMachine machine;
  machine.program("k3s", "k3s version v1.30.0+k3s1 (abc)");
  EXPECT_EQ(plan_for(Client::k3s, machine).restarts.at(0).command, "systemctl restart k3s");
  machine.file("/etc/systemd/system/k3s-agent.service", "[Served]\nExecStart=/usr/local/bin/k3s\n");
  EXPECT_EQ(plan_for(Client::k3s, machine).restarts.at(0).command, "systemctl restart k3s-agent");
  FakeMachine other;
  other.program("rke2", "rke2 version v1.30.1+rke2r1 (abc)");
  const Plan plan = plan_for(Client::rke2, other);
  EXPECT_NE(fake::change_of(plan, "/etc/rancher/rke2/registries.yaml"), nullptr);
  EXPECT_EQ(plan.restarts.at(0).command, "systemctl restart rke2-server");
}

FakeMachine kubernetes_node(const std::string& version) {
  FakeMachine machine;
  machine.program("kubelet", "Kubernetes v" + version)
      .program("staithe-credential-provider", "")
      .file("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            "[Served]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n"
            "EnvironmentFile=-/etc/default/kubelet\n"
            "ExecStart=/usr/bin/kubelet $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n");
  return machine;
}

TEST(SetupKubelet, GetsTheProviderAndItsFlags) {
  for (const auto& [version, api] : std::vector<std::pair<std::string, std::string>>{
           {"1.24.3", "v1beta1"}, {"1.25.9", "v1beta1"}, {"1.26.0", "v1"}, {"1.34.0", "v1"}}) {
    FakeMachine machine = kubernetes_node(version);
    const Plan plan = plan_for(Client::kubelet, machine);
    ASSERT_THAT(plan.refusals, IsEmpty());
    const std::string provider = after(plan, kProvider);
    EXPECT_THAT(provider, HasSubstr("\napiVersion: kubelet.config.k8s.io/" + api + "\n"));
    EXPECT_THAT(provider, HasSubstr("    apiVersion: credentialprovider.kubelet.k8s.io/" + api));
    EXPECT_THAT(provider, HasSubstr("      - \"*.azurecr.io\"\n      - \"*.*.geo.azurecr.io\"\n"));
    EXPECT_THAT(provider, Not(HasSubstr("docker.io")));
    EXPECT_EQ(after(plan, "/etc/default/kubelet"),
              "KUBELET_EXTRA_ARGS=\"--image-credential-provider-config="
              "/etc/kubernetes/kubelet-credential-provider.yaml "
              "--image-credential-provider-bin-dir=/usr/bin\"\n");
    machine.apply(plan);
    EXPECT_THAT(plan_for(Client::kubelet, machine).changes, IsEmpty());
  }
}

TEST(SetupKubelet, SaysWhatTheSampleSays) {
  const std::string provider =
      after(plan_for(Client::kubelet, kubernetes_node("1.30.0")), kProvider);
  const std::string text = sample("etc/kubelet-credential-provider.yaml");
  for (const char* line :
       {"  - name: staithe-credential-provider\n", "    matchImages:\n",
        "      - \"*.*.geo.azurecr.io\"\n", "    defaultCacheDuration: \"10m\"\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
    EXPECT_THAT(provider, HasSubstr(line));
  }
}

TEST(SetupKubelet, AddsItsFlagsToTheOthers) {
  for (const auto& [before, expected] : std::vector<std::pair<std::string, std::string>>{
           {"# x\nKUBELET_EXTRA_ARGS=--v=2\nA=b\n", "# x\nKUBELET_EXTRA_ARGS=--v=2 --image"},
           {"KUBELET_EXTRA_ARGS=\"--v=2\"\n", "KUBELET_EXTRA_ARGS=\"--v=2 --image"},
           {"KUBELET_EXTRA_ARGS=\n", "KUBELET_EXTRA_ARGS=\"--image"},
           {"KUBELET_EXTRA_ARGS=\"\"\n", "KUBELET_EXTRA_ARGS=\"--image"},
           {"A=b", "A=b\nKUBELET_EXTRA_ARGS=\"--image"}}) {
    FakeMachine machine = kubernetes_node("1.30.0");
    machine.file("/etc/default/kubelet", before);
    const std::string text = after(plan_for(Client::kubelet, machine), "/etc/default/kubelet");
    EXPECT_TRUE(text.starts_with(expected)) << text;
    EXPECT_EQ(text.contains("A=b\n"), before.contains("A=b"));
  }
  FakeMachine odd = kubernetes_node("1.30.0");
  odd.file("/etc/default/kubelet", "KUBELET_EXTRA_ARGS='--v=2' \\\n");
  EXPECT_THAT(plan_for(Client::kubelet, odd).refusals.at(0).why, HasSubstr("quotes"));
}

TEST(SetupKubelet, LeavesAnotherProviderAlone) {
  FakeMachine machine = kubernetes_node("1.30.0");
  machine.file("/etc/default/kubelet",
               "KUBELET_FLAGS=--image-credential-provider-config=/var/lib/kubelet/cp.yaml\n");
  const Plan plan = plan_for(Client::kubelet, machine);
  EXPECT_THAT(plan.refusals.at(0).why, HasSubstr("takes only one"));
  EXPECT_THAT(plan.refusals.at(0).text, HasSubstr("  - name: staithe-credential-provider\n"));
  EXPECT_THAT(plan.changes, IsEmpty());
}

TEST(SetupKubelet, RefusesWhereItCannotKnow) {
  FakeMachine bare;
  bare.program("kubelet", "Kubernetes v1.30.0").program("staithe-credential-provider", "");
  EXPECT_THAT(plan_for(Client::kubelet, bare).refusals.at(0).text,
              HasSubstr("--image-credential-provider-config"));
  EXPECT_THAT(plan_for(Client::kubelet, kubernetes_node("1.23.0")).refusals.at(0).why,
              HasSubstr("feature gate"));
  FakeMachine without = kubernetes_node("1.30.0");
  without.programs.erase("staithe-credential-provider");
  EXPECT_THAT(plan_for(Client::kubelet, without).refusals.at(0).why, HasSubstr("not installed"));
  Served nobody = usual_service();
  nobody.registries[0].has_identity = false;
  EXPECT_THAT(plan_setup(Client::kubelet, kubernetes_node("1.30.0"), nobody).refusals.at(0).why,
              HasSubstr("no registry of staithed has an identity"));
}

TEST(SetupNomad, GetsTheHelperOfTheSample) {
  FakeMachine machine;
  machine.program("nomad", "Nomad v1.8.1")
      .program("docker-credential-staithe-nomad", "")
      .file("/etc/nomad.d/nomad.hcl", "client {\n  enabled = true\n}\n");
  const Plan plan = plan_for(Client::nomad, machine);
  const std::string text = after(plan, kNomad);
  const std::string body = text.substr(text.find("plugin"));
  EXPECT_THAT(sample("etc/nomad-docker.hcl"), HasSubstr(body));
  machine.apply(plan);
  EXPECT_THAT(plan_for(Client::nomad, machine).changes, IsEmpty());
  machine.file("/etc/nomad.d/docker.hcl", "plugin \"docker\" {\n  config {}\n}\n");
  EXPECT_THAT(plan_for(Client::nomad, machine).refusals.at(0).why,
              HasSubstr("take only one of both"));
}

TEST(SetupNomad, RefusesWithoutItsDirectory) {
  FakeMachine machine;
  machine.program("nomad", "Nomad v1.8.1").program("docker-credential-staithe-nomad", "");
  EXPECT_THAT(plan_for(Client::nomad, machine).refusals.at(0).text, HasSubstr("staithe-nomad"));
}

TEST(Client, HasTheNamesThatPeopleUse) {
  for (const Client client : all_clients) EXPECT_EQ(parse_client(to_string(client)), client);
  EXPECT_EQ(parse_client("cri-o"), Client::crio);
  EXPECT_EQ(parse_client("dockerd"), Client::docker);
  EXPECT_EQ(parse_client("Docker"), std::nullopt);
}

}  // namespace
}  // namespace staithe::daemon
