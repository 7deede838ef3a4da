#include "daemon/doctor_clients.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

class DoctorClients : public testing::Test {
 protected:
  DoctorClients() {
    std::string pattern = testing::TempDir() + "/clients_XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~DoctorClients() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const auto file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void hosts(const std::string& client, const std::string& registry, const std::string& address,
             const std::string& more = {}) {
    write("etc/" + client + "/certs.d/" + registry + "/hosts.toml",
          "[host.\"" + address + "\"]\n" + more);
  }
  void containerd(const std::string& config_path, int version = 3) {
    const std::string plugin =
        version == 3 ? "io.containerd.cri.v1.images" : "io.containerd.grpc.v1.cri";
    write("etc/containerd/config.toml", "version = " + std::to_string(version) + "\n[plugins.\"" +
                                            plugin + "\".registry]\nconfig_path = \"" +
                                            config_path + "\"\n");
  }
  std::vector<DoctorStep> examine(std::vector<std::string> registries = {"contoso.azurecr.io"}) {
    return examine_clients(root_, DoctorListeners({"127.0.0.1:5050"}), registries);
  }
  // The only one that is installed.
  DoctorStep only() {
    const auto steps = examine();
    EXPECT_EQ(steps.size(), 1u);
    return steps.empty() ? DoctorStep{} : steps.front();
  }

  std::filesystem::path root_;
};

TEST(DoctorListeners, KnowWhatLeadsToThem) {
  const DoctorListeners listeners({"unix:/run/x.sock", "127.0.0.1:5050", "[::1]:5051"});
  EXPECT_EQ(listeners.judge("http://127.0.0.1:5050"), Leads::here);
  EXPECT_EQ(listeners.judge("127.0.0.1:5050/docker.io"), Leads::here);
  EXPECT_EQ(listeners.judge("http://localhost:5050"), Leads::here);
  EXPECT_EQ(listeners.judge("http://[::1]:5051"), Leads::here);
  EXPECT_EQ(listeners.judge("https://127.0.0.1:5050"), Leads::no_tls);
  EXPECT_EQ(listeners.judge("http://127.0.0.1:5000"), Leads::nowhere);
  EXPECT_EQ(listeners.judge("http://[::1]:5050"), Leads::nowhere);
  EXPECT_EQ(listeners.judge("https://mirror.example"), Leads::elsewhere);
  EXPECT_EQ(listeners.judge("not a url at all"), Leads::elsewhere);
  EXPECT_EQ(listeners.shown(), "127.0.0.1:5050");
  EXPECT_TRUE(DoctorListeners({"unix:/run/x.sock"}).empty());
}

TEST(DoctorListeners, KnowWhoSpeaksTls) {
  const DoctorListeners listeners({"tls:127.0.0.1:5443", "127.0.0.1:5050"});
  EXPECT_EQ(listeners.judge("https://localhost:5443"), Leads::here_by_tls);
  EXPECT_EQ(listeners.judge("https://127.0.0.1:5443"), Leads::here_by_tls);
  EXPECT_EQ(listeners.judge("localhost:5443/docker.io"), Leads::here_by_tls);
  EXPECT_EQ(listeners.judge("http://localhost:5443"), Leads::no_plain);
  EXPECT_EQ(listeners.judge("https://127.0.0.1:5050"), Leads::no_tls);
  EXPECT_EQ(listeners.judge("https://127.0.0.1:5444"), Leads::nowhere);
  EXPECT_EQ(listeners.shown(), "127.0.0.1:5050") << "as nearly all clients are told";
  EXPECT_FALSE(DoctorListeners({"tls:127.0.0.1:5443"}).empty());
}

TEST_F(DoctorClients, ThatAreNotInstalledAreNoTrouble) {
  EXPECT_EQ(only().state, StepState::skipped);
}

TEST_F(DoctorClients, ContainerdOfBothGenerationsLeadsHere) {
  for (const int version : {2, 3}) {
    containerd("/etc/containerd/certs.d", version);
    hosts("containerd", "contoso.azurecr.io", "http://127.0.0.1:5050");
    const DoctorStep step = only();
    EXPECT_EQ(step.state, StepState::ok) << step.finding;
    EXPECT_THAT(step.finding, HasSubstr("contoso.azurecr.io"));
  }
}

// What staithe setup --tls leaves behind is no trouble, nor is a mirror that is asked by TLS.
TEST_F(DoctorClients, MayBeToldOfTheTlsListener) {
  const DoctorListeners both({"127.0.0.1:5050", "tls:127.0.0.1:5443"});
  containerd("/etc/containerd/certs.d");
  hosts("containerd", "localhost:5443", "https://localhost:5443", "ca = \"/x.pem\"\n");
  hosts("containerd", "contoso.azurecr.io", "https://localhost:5443", "ca = \"/x.pem\"\n");
  write("usr/bin/podman", "");
  const auto mirror = [&](const std::string& location, const std::string& more) {
    write("etc/containers/registries.conf",
          "[[registry]]\nlocation = \"contoso.azurecr.io\"\n[[registry.mirror]]\nlocation = \"" +
              location + "/contoso.azurecr.io\"\n" + more);
  };
  mirror("localhost:5443", "");
  for (const DoctorStep& step : examine_clients(root_, both, {"contoso.azurecr.io"})) {
    EXPECT_EQ(step.state, StepState::ok) << step.subject << ": " << step.finding;
    if (step.subject == "containerd") {
      EXPECT_THAT(step.finding, HasSubstr("images named localhost:5443/REGISTRY/IMAGE"));
    }
  }
  hosts("containerd", "contoso.azurecr.io", "http://localhost:5443");
  mirror("localhost:5050", "");
  for (const DoctorStep& step : examine_clients(root_, both, {"contoso.azurecr.io"})) {
    EXPECT_EQ(step.state, StepState::failed) << step.subject;
    EXPECT_THAT(step.mend, HasSubstr(step.subject == "podman" ? "insecure = true" : "https://"));
  }
}

TEST_F(DoctorClients, OneDirectoryForAllIsEnough) {
  containerd("/etc/containerd/certs.d");
  hosts("containerd", "_default", "http://127.0.0.1:5050");
  EXPECT_EQ(only().state, StepState::ok);
}

TEST_F(DoctorClients, ARegistryWithAPortHasADirectoryInEitherSpelling) {
  for (const char* name : {"host.example:5000", "host.example_5000_"}) {
    containerd("/etc/containerd/certs.d");
    hosts("containerd", name, "http://127.0.0.1:5050");
    EXPECT_EQ(examine({"host.example:5000"}).front().state, StepState::ok) << name;
    std::filesystem::remove_all(root_ / "etc");
  }
}

TEST_F(DoctorClients, TheWorstOfWhatIsWrongIsSaid) {
  containerd("/etc/containerd/certs.d");
  hosts("containerd", "docker.io", "http://127.0.0.1:5050");
  EXPECT_EQ(only().state, StepState::warning) << "contoso.azurecr.io is missing";
  hosts("containerd", "contoso.azurecr.io", "https://127.0.0.1:5050");
  const DoctorStep step = only();
  EXPECT_EQ(step.state, StepState::failed);
  EXPECT_THAT(step.mend, HasSubstr("write http://"));
  EXPECT_THAT(step.finding, HasSubstr("docker.io"));
}

TEST_F(DoctorClients, WhatBreaksAHostsTomlIsNamed) {
  containerd("/etc/containerd/certs.d");
  for (const auto& [more, word] : std::vector<std::pair<std::string, std::string>>{
           {"skip_verify = true\n", "HTTPS there first"},
           {"ca = \"/x.pem\"\n", "HTTPS there first"},
           {"capabilities = [\"resolve\"]\n", "capability to pull"},
           {"capabilities = [\n", "fails every pull"}}) {
    hosts("containerd", "contoso.azurecr.io", "http://127.0.0.1:5050", more);
    const DoctorStep step = only();
    EXPECT_EQ(step.state, StepState::failed) << more;
    EXPECT_THAT(step.finding, HasSubstr(word));
  }
  // Who wants tags from the registry itself leaves "resolve" out.
  hosts("containerd", "contoso.azurecr.io", "http://127.0.0.1:5050", "capabilities = [\"pull\"]\n");
  EXPECT_EQ(only().state, StepState::ok);
}

TEST_F(DoctorClients, AConfigurationOfContainerdThatReadsNoHostsIsAFailure) {
  for (const char* config : {"version = 3\n", "version = 3\n[plugins]\n"}) {
    write("etc/containerd/config.toml", config);
    const DoctorStep step = only();
    EXPECT_EQ(step.state, StepState::failed) << config;
    EXPECT_THAT(step.finding, HasSubstr("config_path"));
  }
  write("etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n");
  EXPECT_EQ(only().state, StepState::skipped) << "as the packages of docker have it";
  write("etc/containerd/config.toml", "version = \n");
  EXPECT_THAT(only().finding, HasSubstr("config.toml:1"));
}

TEST_F(DoctorClients, DockersTwoStoresAreReadByTheirOwnFiles) {
  write("etc/docker/daemon.json", R"({"registry-mirrors":["http://127.0.0.1:5050"]})");
  DoctorStep step = only();
  EXPECT_EQ(step.state, StepState::ok) << step.finding;
  EXPECT_THAT(step.finding, HasSubstr("127.0.0.1:5050/REGISTRY/IMAGE"));
  write("etc/docker/daemon.json", R"({"registry-mirrors":["http://127.0.0.1:5000"]})");
  EXPECT_EQ(only().state, StepState::failed);
  write("etc/docker/daemon.json", R"({"features":{"containerd-snapshotter":true}})");
  EXPECT_EQ(only().state, StepState::warning);
  hosts("docker", "contoso.azurecr.io", "http://127.0.0.1:5050");
  EXPECT_EQ(only().state, StepState::ok);
  write("etc/docker/daemon.json", R"({"features":{"containerd-snapshotter":true},)"
                                  R"("registry-mirrors":["http://127.0.0.1:5050"]})");
  step = only();
  EXPECT_EQ(step.state, StepState::warning);
  EXPECT_THAT(step.finding, HasSubstr("certificate of Docker Hub"));
  // Which store it is cannot be told where the file is silent.
  std::filesystem::remove(root_ / "etc/docker/daemon.json");
  write("usr/bin/dockerd", "");
  step = only();
  EXPECT_EQ(step.state, StepState::ok) << step.finding;
  EXPECT_THAT(step.finding, HasSubstr("containerd image store alone"));
}

TEST_F(DoctorClients, AMirrorOfPodmanNamesItsRegistryAgain) {
  write("usr/bin/podman", "");
  const auto mirror = [&](const std::string& location) {
    write("etc/containers/registries.conf.d/50-x.conf",
          "[[registry]]\nlocation = \"contoso.azurecr.io\"\n[[registry.mirror]]\nlocation = \"" +
              location + "\"\ninsecure = true\n");
  };
  mirror("127.0.0.1:5050/contoso.azurecr.io");
  EXPECT_EQ(only().state, StepState::ok) << only().finding;
  mirror("127.0.0.1:5050/docker.io");
  EXPECT_THAT(only().finding, HasSubstr("is not that registry"));
  mirror("127.0.0.1:5000/contoso.azurecr.io");
  EXPECT_THAT(only().finding, HasSubstr("does not listen"));
  mirror("mirror.example/contoso");
  EXPECT_EQ(only().state, StepState::warning);
}

TEST_F(DoctorClients, NothingIsReadWhereStaithedHasNoPort) {
  write("etc/docker/daemon.json", "nonsense");
  const auto steps = examine_clients(root_, DoctorListeners({"unix:/run/x.sock"}), {});
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps.front().state, StepState::skipped);
}

}  // namespace
}  // namespace staithe::daemon
