#include "daemon/cli_description.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

namespace staithe::daemon {
namespace {

std::vector<std::string> split(std::string_view text, char between) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(between, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// "bash|zsh|fish", or CLI::IsMember's "TEXT:{bash,zsh,fish}".
std::vector<std::string> words_of(const std::string& type) {
  const std::size_t open = type.find('{');
  const std::size_t close = type.find('}');
  if (open != std::string::npos && close != std::string::npos && open < close)
    return split(std::string_view(type).substr(open + 1, close - open - 1), ',');
  if (type.contains('|')) return split(type, '|');
  if (type == "PLATFORM") return {"all", "linux/amd64", "linux/arm64"};
  return {};
}

ArgumentKind kind_of(const std::string& type, const std::vector<std::string>& words) {
  if (!words.empty()) return ArgumentKind::words;
  if (type == "IMAGE") return ArgumentKind::image;
  if (type == "REGISTRY") return ArgumentKind::registry;
  if (type == "PATH" || type == "FILE" || type == "LIST") return ArgumentKind::file;
  if (type == "DIRECTORY") return ArgumentKind::directory;
  return ArgumentKind::text;
}

std::vector<ArgumentDescription> arguments_of(const CLI::App& app) {
  std::vector<ArgumentDescription> all;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    ArgumentDescription one{.flags = {},
                            .value = {},
                            .words = {},
                            .help = option->get_description(),
                            .required = option->get_required(),
                            .repeats = option->get_items_expected_max() > 1};
    for (const std::string& name : option->get_snames()) one.flags.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) one.flags.push_back("--" + name);
    if (option->get_items_expected_max() > 0) {
      const std::string type = option->get_type_name();
      one.words = words_of(type);
      one.kind = kind_of(type, one.words);
      one.value = type;
      if (one.kind == ArgumentKind::words && type != "PLATFORM") {
        one.value.clear();
        for (const std::string& word : one.words)
          one.value += (one.value.empty() ? "" : "|") + word;
      }
    }
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace

CliDescription describe(const CLI::App& app) {
  CliDescription all{.help = app.get_description(),
                     .footer = app.get_footer(),
                     .options = arguments_of(app),
                     .commands = {}};
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_group().empty()) continue;  // hidden
    all.commands.push_back({.name = command->get_name(),
                            .help = command->get_description(),
                            .footer = command->get_footer(),
                            .arguments = arguments_of(*command)});
  }
  return all;
}

}  // namespace staithe::daemon
