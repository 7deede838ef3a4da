// What etc/ and systemd/ tell others to do is at least well-formed, and names the default listener.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

const std::filesystem::path kRoot = STAITHE_SOURCE_DIR;

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Etc, HoldsWellFormedFiles) {
  int checked = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / "etc")) {
    if (!entry.is_regular_file()) continue;
    const std::string text = contents(entry.path());
    if (entry.path().extension() == ".json") {
      boost::system::error_code error;
      EXPECT_TRUE(boost::json::parse(text, error).is_object()) << entry.path();
      EXPECT_FALSE(error) << entry.path();
      ++checked;
    } else if (entry.path().extension() == ".toml" || entry.path().extension() == ".conf") {
      EXPECT_NO_THROW((void)toml::parse(text)) << entry.path();
      ++checked;
    }
  }
  EXPECT_GE(checked, 10);
}

TEST(Etc, SendsEveryContainerdHostToTheDefaultListener) {
  for (const char* client : {"containerd", "docker"}) {
    for (const auto& entry :
         std::filesystem::directory_iterator(kRoot / "etc" / client / "certs.d")) {
      const toml::table hosts = toml::parse(contents(entry.path() / "hosts.toml"));
      const auto host = hosts["host"]["http://127.0.0.1:5050"];
      ASSERT_TRUE(host) << entry.path();
      ASSERT_TRUE(host["capabilities"].is_array());
      // Neither push nor an unknown word: older containerd rejects the whole file for one.
      EXPECT_EQ(host["capabilities"].as_array()->size(), 2u);
      EXPECT_EQ(host["capabilities"][0].value<std::string>(), "pull");
      EXPECT_EQ(host["capabilities"][1].value<std::string>(), "resolve");
      EXPECT_FALSE(host["skip_verify"]) << "turns on HTTPS first";
      EXPECT_FALSE(host["ca"]);
      const bool is_default = entry.path().filename() == "_default";
      EXPECT_EQ(static_cast<bool>(hosts["server"]), !is_default) << entry.path();
    }
  }
}

TEST(Etc, SendsPodmanToTheDefaultListenerByPath) {
  const toml::table file =
      toml::parse(contents(kRoot / "etc/containers/registries.conf.d/50-staithe.conf"));
  const toml::array* registries = file["registry"].as_array();
  ASSERT_TRUE(registries);
  for (const toml::node& registry : *registries) {
    const toml::table& table = *registry.as_table();
    const std::string location = table["location"].value_or(std::string());
    const auto mirror = table["mirror"][0];
    EXPECT_EQ(mirror["location"].value<std::string>(), "127.0.0.1:5050/" + location);
    EXPECT_EQ(mirror["insecure"].value<bool>(), true);
  }
}

TEST(Etc, SendsDockerHubToTheDefaultListener) {
  const auto file = boost::json::parse(contents(kRoot / "etc/docker/daemon.json"));
  EXPECT_EQ(file.at("registry-mirrors").at(0).as_string(), "http://127.0.0.1:5050");
}

// What stands in the lines of a list of YAML below `key`.
std::vector<std::string> yaml_list(const std::string& text, const std::string& key) {
  std::vector<std::string> items;
  std::istringstream lines(
      text.substr(std::min(text.find("\n    " + key + ":\n") + 1, text.size())));
  std::string line;
  std::getline(lines, line);
  constexpr std::string_view before = "      - \"";
  while (std::getline(lines, line) && line.starts_with(before) && line.ends_with('"')) {
    items.push_back(line.substr(before.size(), line.size() - before.size() - 1));
  }
  return items;
}

// What a comment hides is not there.
std::string without_comments(const std::string& text) {
  std::istringstream lines(text);
  std::string result = "\n";
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(' ') < line.find('#')) result += line + "\n";
  }
  return result;
}

TEST(Etc, TellsKubeletOfEveryAzureRegistry) {
  const std::string text =
      without_comments(contents(kRoot / "etc/kubelet-credential-provider.yaml"));
  EXPECT_EQ(text.find('\t'), std::string::npos);
  for (const char* line :
       {"apiVersion: kubelet.config.k8s.io/v1", "kind: CredentialProviderConfig",
        "providers:", "  - name: staithe-credential-provider", "    defaultCacheDuration: \"10m\"",
        "    apiVersion: credentialprovider.kubelet.k8s.io/v1"}) {
    EXPECT_THAT(text, HasSubstr("\n" + std::string(line) + "\n"));
  }
  // One star is one label: a regional name has two more than its suffix.
  std::vector<std::string> expected;
  for (const char* suffix : {"azurecr.io", "azurecr.cn", "azurecr.us"}) {
    expected.push_back("*." + std::string(suffix));
    expected.push_back("*.*.geo." + std::string(suffix));
  }
  EXPECT_EQ(yaml_list(text, "matchImages"), expected);
}

TEST(Etc, NamesTheHelpersThatAreInstalled) {
  const std::string build = contents(kRoot / "daemon/CMakeLists.txt");
  const auto docker = boost::json::parse(contents(kRoot / "etc/docker-config.json"));
  EXPECT_THAT(build,
              HasSubstr("docker-credential-" + std::string(docker.at("credsStore").as_string())));
  const std::string nomad = without_comments(contents(kRoot / "etc/nomad-docker.hcl"));
  EXPECT_THAT(nomad, HasSubstr("auth {\n      helper = \"staithe-nomad\"\n"));
  EXPECT_EQ(std::ranges::count(nomad, '{'), std::ranges::count(nomad, '}'));
  EXPECT_THAT(build, HasSubstr("docker-credential-staithe-nomad"));
  EXPECT_THAT(build, HasSubstr("staithe-credential-provider"));
}

TEST(Unit, GrantsNoCapabilityAndSeesLittle) {
  const std::string unit = "\n" + contents(kRoot / "systemd/staithed.service");
  for (const char* line :
       {"Type=notify", "DynamicUser=yes", "CacheDirectory=staithe", "CacheDirectoryMode=0700",
        "RuntimeDirectory=staithe", "NoNewPrivileges=yes", "CapabilityBoundingSet=",
        "ProtectSystem=strict", "ProtectHome=yes", "PrivateDevices=yes", "ProtectProc=invisible",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "SystemCallFilter=@system-service",
        "MemoryDenyWriteExecute=yes", "LimitCORE=0", "ExecReload=/usr/bin/staithed --check",
        "WatchdogSec=30s", "RestartPreventExitStatus=2 3"}) {
    EXPECT_THAT(unit, HasSubstr("\n" + std::string(line) + "\n"));
  }
  EXPECT_THAT(contents(kRoot / "systemd/staithed.socket"),
              HasSubstr("\nListenStream=127.0.0.1:5050\n"));
}

}  // namespace
}  // namespace staithe::daemon
