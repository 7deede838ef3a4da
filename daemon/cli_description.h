// What the command line takes, as data: for completions and for man pages, which are made of the
// same CLI11 application that parses.
//
// What an argument is follows from its type name: "a|b|c" and CLI::IsMember are fixed words, IMAGE
// and REGISTRY are names that the daemon knows, PATH, FILE and LIST are files. Pure.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace staithe::daemon {

enum class ArgumentKind { none, text, words, image, registry, file, directory };

struct ArgumentDescription {
  std::vector<std::string> flags;          // "--json", "-n"; empty: it stands by its place
  ArgumentKind kind = ArgumentKind::none;  // none: a flag without a value
  std::string value;                       // "PATH", "bash|zsh|fish"
  std::vector<std::string> words;          // of a fixed set
  std::string help;
  bool required = false;
  bool repeats = false;
};

struct CommandDescription {
  std::string name;
  std::string help;
  std::string footer;
  std::vector<ArgumentDescription> arguments;
};

struct CliDescription {
  std::string help;
  std::string footer;
  std::vector<ArgumentDescription> options;  // before any command, or after it
  std::vector<CommandDescription> commands;  // in the order of --help
};

CliDescription describe(const CLI::App& app);

// Of `staithe` as it is (cli.cc).
CliDescription describe_cli();

}  // namespace staithe::daemon
