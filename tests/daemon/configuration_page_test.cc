// docs/configuration.md says of every key what the option table and a reload say of it, and what
// stands in the pages as a staithe.toml is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/option_table.h"
#include "daemon/options.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

const std::filesystem::path root = STAITHE_SOURCE_DIR;
const std::filesystem::path page_path = root / "docs/configuration.md";

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A configuration with one of everything that a key may belong to.
Config everything() {
  auto config = parse_config(R"(
[[registry]]
name = "contoso.azurecr.io"
identity = "vm"
[[registry.identity_for]]
prefix = "team-a/"
identity = "vm"
[identity.vm]
kind = "managed-identity"
)",
                             "t.toml", Environment{});
  EXPECT_TRUE(config);
  return *config;
}

Target target_in(Config& config) {
  auto& registry = config.proxy.registries.front();
  return {.config = &config,
          .registry = &registry,
          .below = &registry.identity_for.front(),
          .identity = &config.proxy.identities.at("vm")};
}

struct AnotherValue {
  const Option& option;

  OptionValue operator()(bool flag) const { return !flag; }
  OptionValue operator()(std::size_t count) const { return count + 1; }
  OptionValue operator()(std::chrono::milliseconds duration) const {
    return duration + std::chrono::seconds(1);
  }
  OptionValue operator()(const cache::Size&) const { return cache::Size{.bytes = 12345678}; }
  OptionValue operator()(const std::string& text) const { return text + "x"; }
  OptionValue operator()(std::vector<std::string> texts) const {
    texts.emplace_back("another");
    return texts;
  }
  OptionValue operator()(const std::optional<std::chrono::sys_days>& date) const {
    return std::optional(date.value_or(std::chrono::sys_days()) + std::chrono::days(1));
  }
  OptionValue operator()(WordIndex word) const {
    return WordIndex{(word.index + 1) % option.words.size()};
  }
};

// What a running daemon needs to take a change of this key over, found out by changing it.
std::string needed_for_a_change(const Option& option) {
  Config running = everything();
  Config read = everything();
  store(option, target_in(read), std::visit(AnotherValue{option}, fetch(option, target_in(read))));
  const std::string wanted = toml_text(option, fetch(option, target_in(read)));
  EXPECT_NE(toml_text(option, fetch(option, target_in(running))), wanted) << option.key;
  take_over(running, read);
  return toml_text(option, fetch(option, target_in(running))) == wanted ? "reload" : "restart";
}

// As Markdown shows it in a cell.
std::string cell(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '|' || c == '*' || c == '<') result += '\\';
    result += c;
  }
  return result;
}

std::string begin_of(const Table& table) {
  return "<!-- keys of " + std::string(table.name) + " -->\n";
}

std::string keys_of(const Table& table) {
  const bool has_kinds = table.name == "identity";
  std::string text = has_kinds ? "| key | of the kind | accepted | default | a change needs |\n"
                                 "|---|---|---|---|---|\n"
                               : "| key | accepted | default | a change needs |\n"
                                 "|---|---|---|---|\n";
  for (const Option& option : options()) {
    if (option.table != table.name) continue;
    text += "| `" + std::string(option.key) + "` | ";
    if (has_kinds) text += (option.kinds.empty() ? "every" : std::string(option.kinds)) + " | ";
    text += (option.list ? "a list, each " : "") + cell(accepted(option)) + " | ";
    text += option.standard.empty() ? "" : "`" + std::string(option.standard) + "`";
    text += " | " + needed_for_a_change(option) + " |\n";
  }
  return text + "<!-- end -->\n";
}

// The page with its tables as they should be.
std::string with_tables(std::string page) {
  for (const Table& table : tables()) {
    const std::string begin = begin_of(table);
    const std::size_t at = page.find(begin);
    if (at == page.npos) {
      ADD_FAILURE() << "there is no " << begin;
      continue;
    }
    const std::string end_mark = "<!-- end -->\n";
    const std::size_t end = page.find(end_mark, at);
    if (end == page.npos) {
      ADD_FAILURE() << "nothing ends " << begin;
      continue;
    }
    page.replace(at + begin.size(), end + end_mark.size() - at - begin.size(), keys_of(table));
  }
  return page;
}

// What follows a table, up to the next one or the end.
std::string prose_after(const std::string& page, const Table& table) {
  const std::size_t at = page.find("<!-- end -->", page.find(begin_of(table)));
  return page.substr(at, page.find("<!-- keys of ", at) - at);
}

// The keys that a paragraph begins with: "**`users`, `groups`**".
std::set<std::string> explained_in(const std::string& prose) {
  static const std::regex lead(R"((?:^|\n)\*\*([^*\n]+)\*\*)");
  static const std::regex key("`([a-z0-9_]+)`");
  std::set<std::string> keys;
  for (std::sregex_iterator found(prose.begin(), prose.end(), lead), end; found != end; ++found) {
    const std::string names = (*found)[1];
    for (std::sregex_iterator name(names.begin(), names.end(), key); name != end; ++name)
      keys.insert((*name)[1]);
  }
  return keys;
}

TEST(ConfigurationPage, HasTheTablesOfTheProgram) {
  const std::string page = contents(page_path);
  const std::string wanted = with_tables(page);
  if (std::getenv("STAITHE_UPDATE_CONFIGURATION_PAGE")) {
    std::ofstream(page_path) << wanted;
  } else {
    EXPECT_EQ(page, wanted) << "write them anew: STAITHE_UPDATE_CONFIGURATION_PAGE=1 daemon_test "
                               "--gtest_filter='ConfigurationPage.*'";
  }
}

TEST(ConfigurationPage, ExplainsEveryKeyAndNoOther) {
  const std::string page = contents(page_path);
  for (const Table& table : tables()) {
    const std::set<std::string> explained = explained_in(prose_after(page, table));
    for (const Option& option : options()) {
      if (option.table != table.name) continue;
      EXPECT_TRUE(explained.contains(std::string(option.key)))
          << "no paragraph begins with **`" << option.key << "`** below the keys of " << table.name;
    }
    for (const std::string& key : explained) {
      EXPECT_TRUE(find_option(table.name, key))
          << "there is no key " << key << " in " << table.name;
    }
  }
}

// All TOML of the configuration page, and what begins with the file's path in the other pages.
TEST(ConfigurationPage, ShowsOnlyWhatIsAccepted) {
  const Environment environment{{{"CREDENTIALS_DIRECTORY", "/run/credentials/staithed.service"},
                                 {"AZURE_TENANT_ID", "72f988bf-0000-4000-8000-0123456789ab"},
                                 {"AZURE_CLIENT_ID", "8d3f4b1e-0000-4000-8000-0123456789ab"},
                                 {"AZURE_FEDERATED_TOKEN_FILE", "/run/token"}},
                                0,
                                {}};
  std::vector<std::filesystem::path> pages{root / "README.md"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  }
  int checked = 0;
  for (const auto& path : pages) {
    const std::string page = contents(path);
    const std::string begin = "```toml\n";
    for (std::size_t at = page.find(begin); at != page.npos; at = page.find(begin, at + 1)) {
      const std::size_t from = at + begin.size();
      const std::string text = page.substr(from, page.find("```", from) - from);
      if (path != page_path && !text.starts_with("# /etc/staithe/staithe.toml")) continue;
      ++checked;
      const auto config = parse_config(text, path.filename(), environment);
      if (config) continue;
      for (const Fault& fault : config.error()) ADD_FAILURE() << fault.to_string() << "\n" << text;
    }
  }
  EXPECT_GE(checked, 12);
}

TEST(Reload, LeavesNothingBehindThatEveryRegistryHas) {
  Config running = everything();
  auto read = parse_config("[freshness]\ntag_ttl = \"1m\"\n", "t.toml", Environment{});
  ASSERT_TRUE(read);
  take_over(running, *read);
  EXPECT_EQ(to_toml(running), to_toml(*read)) << "no restart is needed for it";
  EXPECT_THAT(to_toml(running), HasSubstr("[freshness]\ntag_ttl = \"1m\""));
}

}  // namespace
}  // namespace staithe::daemon
