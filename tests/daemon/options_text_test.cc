// What the option table says about itself, and whether it reads back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/option_table.h"
#include "daemon/options.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;
using testing::Not;

Config parsed(const std::string& toml) {
  const auto config = parse_config(toml, "t.toml", Environment{});
  if (!config) {
    for (const Fault& fault : config.error()) ADD_FAILURE() << fault.to_string() << "\n" << toml;
    return {};
  }
  return *config;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The sample as an operator would have it who takes away every "#" that stands before a key.
std::string with_every_key(const std::string& sample) {
  std::string text;
  for (const std::string& line : lines_of(sample)) {
    const bool usable = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    text += (usable ? line.substr(1) : line) + "\n";
  }
  return text;
}

TEST(OptionTable, IsWellFormed) {
  std::set<std::string> seen;
  for (const Option& option : options()) {
    const std::string name = std::string(option.table) + "." + std::string(option.key);
    EXPECT_TRUE(seen.insert(name).second) << name << " stands there twice";
    EXPECT_EQ(find_option(option.table, option.key), &option);
    EXPECT_FALSE(option.help.empty()) << name;
    EXPECT_FALSE(option.help.ends_with('.')) << name;
    EXPECT_FALSE(accepted(option).empty()) << name;
    const bool has_range = option.grammar == Grammar::count ||
                           option.grammar == Grammar::duration || option.grammar == Grammar::size;
    EXPECT_EQ(has_range, option.most > option.least) << name;
    EXPECT_EQ(option.grammar == Grammar::word, !option.words.empty()) << name;
    bool table_is_known = false;
    for (const Table& table : tables()) table_is_known |= table.name == option.table;
    EXPECT_TRUE(table_is_known) << name;
  }
}

// A default that the table's own grammar refuses would be found here.
TEST(OptionTable, HasDefaultsThatItAccepts) {
  for (const Option& option : options()) {
    if (option.standard.empty() || option.table.starts_with("registry") ||
        option.table == "identity") {
      continue;
    }
    parsed("[" + std::string(option.table) + "]\n" + std::string(option.key) + " = " +
           std::string(option.standard));
  }
}

TEST(Sample, IsTheOneInEtc) {
  const std::string path = STAITHE_SOURCE_DIR "/etc/staithe.toml";
  if (std::getenv("STAITHE_UPDATE_SAMPLE")) std::ofstream(path) << sample_config();
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), sample_config())
      << "write it anew: STAITHE_UPDATE_SAMPLE=1 daemon_test --gtest_filter='Sample.*'";
}

TEST(Sample, ChangesNothing) {
  EXPECT_EQ(to_toml(parsed(sample_config())), to_toml(parsed("")));
  // For those who are not root too: it sets no directory.
  const Environment user{{{"HOME", "/home/u"}}, 1000, {}};
  const auto config = parse_config(sample_config(), "sample", user);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->cache.directory, "/home/u/.cache/staithe");
}

TEST(Sample, WithEveryKeyInForceStillSaysTheDefaults) {
  const std::string text = with_every_key(sample_config());
  EXPECT_EQ(to_toml(parsed(text)), to_toml(parsed("")));
  // And every key is among them.
  for (const Option& option : options()) {
    if (option.table == "registry.identity_for") continue;
    // The keys of kinds that the built-in identity is not are among the examples.
    const bool is_example = !belongs_to(option, "managed-identity");
    EXPECT_THAT(text, HasSubstr((is_example ? "\n#  " : "\n") + std::string(option.key) + " = "))
        << option.table;
  }
}

// The examples of the kinds, with what excludes each other taken out, are a configuration.
TEST(Sample, ShowsKindsAsTheyMayBeWritten) {
  std::string text;
  bool in_examples = false;
  for (const std::string& line : lines_of(sample_config())) {
    in_examples |= line.starts_with("#  [identity.");
    if (!in_examples || !line.starts_with("#  ")) continue;
    if (line.contains("certificate_file") || line.contains("federated_identity")) continue;
    text += line.substr(3) + "\n";
  }
  const Config config = parsed(text);
  EXPECT_EQ(config.proxy.identities.size(), 7u);  // and the built-in one
  EXPECT_EQ(to_toml(parsed(to_toml(config))), to_toml(config));
}

TEST(Sample, FitsAHundredColumns) {
  for (const std::string& line : lines_of(sample_config())) EXPECT_LE(line.size(), 100u) << line;
}

constexpr const char* kRich = R"(
[listen]
registry = ["127.0.0.1:6000", "unix:/run/r.sock"]
drain_timeout = "1500ms"
[access]
users = ["alice", "1000"]
hosts = ["mirror.local", "mirror.local:5050"]
[cache]
directory = "/a \"quoted\" \\ path/é"
max_size = "33%"
min_free = 1048577
[freshness]
tag_ttl = "90s"
[azure]
cloud = "usgovernment"
authority = "https://login.example:8443"
acr_suffixes = ["acr.test"]
[log]
level = "trace"
format = "journal"
[[registry]]
name = "contoso.acr.test"
identity = "vm.one"
prefix = "mirror/"
data_hosts = ["*.storage.test"]
default = true
max_connections = 7
[registry.freshness]
serve_stale = "0s"
[[registry.identity_for]]
prefix = "team-a/"
identity = "none"
[[registry.identity_for]]
prefix = "team-b/"
identity = "vm.one"
[[registry]]
name = "*.example.com"
[[registry]]
name = "docker.io"
upstream = ["http://127.0.0.1:5001"]
[identity."vm.one"]
kind = "managed-identity"
source = "imds"
client_id = "8d3f4b1e-0000-4000-8000-0123456789ab"
[identity.none]
kind = "anonymous"
[identity.app]
kind = "service-principal"
tenant_id = "72f988bf-0000-4000-8000-0123456789ab"
client_id = "8d3f4b1e-0000-4000-8000-0123456789ab"
client_secret_file = "/secret"
secret_expires = 2027-01-31
[identity.puller]
kind = "basic"
username = "a \"b\""
password_file = "/password"
)";

TEST(EffectiveConfiguration, ReadsBackAsItself) {
  for (const std::string text : {"", kRich}) {
    const Config config = parsed(text);
    const std::string toml = to_toml(config);
    const Config again = parsed(toml);
    EXPECT_EQ(to_toml(again), toml);
    EXPECT_EQ(boost::json::serialize(to_json(again)), boost::json::serialize(to_json(config)));
    EXPECT_EQ(again.proxy.azure.acr_suffixes, config.proxy.azure.acr_suffixes);
  }
  EXPECT_EQ(parsed(to_toml(parsed(kRich))).cache.directory, "/a \"quoted\" \\ path/é");
}

// The file's and the JSON's keys and values are the same.
void expect_same(const toml::node& node, const boost::json::value& value, const std::string& path) {
  if (const auto* table = node.as_table()) {
    ASSERT_TRUE(value.is_object()) << path;
    for (const auto& [key, child] : *table) {
      const std::string name(key.str());
      ASSERT_TRUE(value.get_object().contains(name)) << path << "." << name;
      expect_same(child, value.get_object().at(name), path + "." + name);
    }
  } else if (const auto* array = node.as_array()) {
    ASSERT_TRUE(value.is_array()) << path;
    ASSERT_EQ(array->size(), value.get_array().size()) << path;
    for (std::size_t i = 0; i < array->size(); ++i) {
      expect_same(*array->get(i), value.get_array().at(i), path + "[" + std::to_string(i) + "]");
    }
  } else if (const auto* text = node.as_string()) {
    ASSERT_TRUE(value.is_string()) << path;
    EXPECT_EQ(text->get(), std::string_view(value.get_string())) << path;
  } else if (const auto* number = node.as_integer()) {
    EXPECT_EQ(number->get(), value.to_number<std::int64_t>()) << path;
  } else if (const auto* date = node.as_date()) {
    std::ostringstream day;
    day << date->get();
    EXPECT_EQ(day.str(), std::string_view(value.as_string())) << path;
  } else {
    ASSERT_TRUE(node.is_boolean()) << path;
    EXPECT_EQ(node.as_boolean()->get(), value.as_bool()) << path;
  }
}

TEST(EffectiveConfiguration, SaysTheSameInTomlAndJson) {
  for (const std::string text : {"", kRich}) {
    const Config config = parsed(text);
    expect_same(toml::parse(to_toml(config)), to_json(config), "");
  }
}

TEST(EffectiveConfiguration, LeavesOutWhatIsNotSet) {
  const std::string toml = to_toml(parsed(kRich));
  for (const char* key : {"object_id", "resource_id", "ca_file", "metrics"}) {
    EXPECT_THAT(toml, Not(HasSubstr(key)));
  }
}

}  // namespace
}  // namespace staithe::daemon
