#include "daemon/cli_completion.h"

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <set>

#include "daemon/cli_output.h"
#include "daemon/control_client.h"
#include "daemon/json_reader.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

// Whoever presses the tabulator waits for it.
constexpr std::chrono::milliseconds names_patience{400};
constexpr std::size_t most_names = 5'000;
constexpr std::string_view shells = "bash|zsh|fish";

// `text` between single quotes, as all three shells read it.
std::string in_quotes(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') {
      result += "'\\''";
    } else {
      result += c;
    }
  }
  return result + "'";
}

std::string joined(const std::vector<std::string>& words, std::string_view between = " ") {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += between;
    text += word;
  }
  return text;
}

std::string flags_of(const std::vector<ArgumentDescription>& arguments) {
  std::vector<std::string> flags;
  for (const ArgumentDescription& one : arguments)
    flags.insert(flags.end(), one.flags.begin(), one.flags.end());
  return joined(flags);
}

// The first that stands by its place, or null.
const ArgumentDescription* positional(const CommandDescription& command) {
  for (const ArgumentDescription& one : command.arguments)
    if (one.flags.empty()) return &one;
  return nullptr;
}

// What the helper function of the bash script completes a value with.
std::string bash_kind(const ArgumentDescription& argument) {
  switch (argument.kind) {
    case ArgumentKind::words:
      return "words " + in_quotes(joined(argument.words));
    case ArgumentKind::image:
      return "names images";
    case ArgumentKind::registry:
      return "names registries";
    case ArgumentKind::file:
      return "files";
    case ArgumentKind::directory:
      return "directories";
    default:
      return "nothing";
  }
}

std::string bash_values(std::string_view command,
                        const std::vector<ArgumentDescription>& arguments) {
  std::string text;
  for (const ArgumentDescription& one : arguments) {
    if (one.flags.empty() || one.kind == ArgumentKind::none) continue;
    std::vector<std::string> patterns;
    for (const std::string& flag : one.flags) patterns.push_back(std::string(command) + ":" + flag);
    text += "    " + joined(patterns, "|") + ") _staithe_" + bash_kind(one) + "; return ;;\n";
  }
  return text;
}

// zsh's own characters in a description: "[text]" and what stands before a colon.
std::string zsh_text(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

// A space in front keeps _arguments from putting its own words between ours.
std::string zsh_action(const ArgumentDescription& argument) {
  switch (argument.kind) {
    case ArgumentKind::words:
      return "(" + joined(argument.words) + ")";
    case ArgumentKind::image:
      return " _staithe_names images";
    case ArgumentKind::registry:
      return " _staithe_names registries";
    case ArgumentKind::file:
      return "_files";
    case ArgumentKind::directory:
      return "_files -/";
    default:
      return " ";
  }
}

// The argument as _arguments takes it, one for each of its flags.
std::vector<std::string> zsh_specs(const ArgumentDescription& argument) {
  const std::string value = argument.kind == ArgumentKind::none
                                ? std::string()
                                : ":" + zsh_text(argument.value) + ":" + zsh_action(argument);
  if (argument.flags.empty()) return {in_quotes((argument.repeats ? "*" : "1") + value)};
  std::vector<std::string> specs;
  for (const std::string& flag : argument.flags) {
    // "=": the value stands in the next word or behind the sign.
    const bool takes = argument.kind != ArgumentKind::none && flag.starts_with("--");
    specs.push_back(in_quotes("(" + joined(argument.flags) + ")" + flag + (takes ? "=" : "") + "[" +
                              zsh_text(argument.help) + "]" + value));
  }
  return specs;
}

std::string zsh_arguments(const std::vector<ArgumentDescription>& arguments,
                          std::string_view margin) {
  std::string text;
  for (const ArgumentDescription& one : arguments)
    for (const std::string& spec : zsh_specs(one)) text += " \\\n" + std::string(margin) + spec;
  return text;
}

std::string fish_value(const ArgumentDescription& argument) {
  switch (argument.kind) {
    case ArgumentKind::none:
      return "";
    case ArgumentKind::words:
      return " -x -a " + in_quotes(joined(argument.words));
    case ArgumentKind::image:
      return " -x -a '(__staithe_names images)'";
    case ArgumentKind::registry:
      return " -x -a '(__staithe_names registries)'";
    case ArgumentKind::file:
      return " -r -F";
    case ArgumentKind::directory:
      return " -x -a '(__fish_complete_directories)'";
    case ArgumentKind::text:
      return " -x";
  }
  return "";
}

std::string fish_lines(const std::string& condition,
                       const std::vector<ArgumentDescription>& arguments) {
  std::string text;
  for (const ArgumentDescription& one : arguments) {
    text += "complete -c staithe" + condition;
    for (const std::string& flag : one.flags)
      text += flag.starts_with("--") ? " -l " + flag.substr(2) : " -s " + flag.substr(1);
    text += fish_value(one);
    if (!one.flags.empty()) text += " -d " + in_quotes(one.help);
    text += "\n";
  }
  return text;
}

std::string header(std::string_view shell) {
  return "# Completions of staithe for " + std::string(shell) + ", made by: staithe completion " +
         std::string(shell) + "\n";
}

}  // namespace

std::string bash_completion(const CliDescription& cli) {
  std::vector<std::string> names;
  std::string flags = "    '') flags=" + in_quotes(flags_of(cli.options)) + " ;;\n";
  std::string values = bash_values("*", cli.options);
  std::string places;
  for (const CommandDescription& command : cli.commands) {
    names.push_back(command.name);
    flags += "    " + command.name +
             ") flags=" + in_quotes(flags_of(command.arguments) + " " + flags_of(cli.options)) +
             " ;;\n";
    values += bash_values(command.name, command.arguments);
    if (const ArgumentDescription* place = positional(command))
      places += "    " + command.name + ") _staithe_" + bash_kind(*place) + " ;;\n";
  }
  return header("bash") + R"(
_staithe_reply() {
  # bash splits words at ":" and replaces what stands behind the last one only.
  local word cut=
  [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]] && cut=${cur%"${cur##*:}"}
  COMPREPLY=()
  while IFS= read -r word; do
    [[ -n $word && $word == "$cur"* ]] && COMPREPLY+=("${word#"$cut"}")
  done
}
_staithe_words() { _staithe_reply < <(printf '%s\n' $1); }
_staithe_names() { _staithe_reply < <("$program" "${socket[@]}" completion "$1" 2>/dev/null); }
_staithe_files() {
  compopt -o filenames 2>/dev/null
  _staithe_reply < <(compgen -f -- "$cur")
}
_staithe_directories() {
  compopt -o filenames 2>/dev/null
  _staithe_reply < <(compgen -d -- "$cur")
}
_staithe_nothing() { COMPREPLY=(); }

_staithe() {
  local line=${COMP_LINE:0:COMP_POINT} words cur prev command= program flags= i
  local -a socket=()
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  program=${words[0]}
  cur=${words[-1]}
  for ((i = 1; i < ${#words[@]} - 1; ++i)); do
    case ${words[i]} in
      --socket) socket=(--socket "${words[++i]}") ;;
      --socket=*) socket=("${words[i]}") ;;
      -*) ;;
      *) [[ -z $command ]] && command=${words[i]} ;;
    esac
  done
  prev=${words[-2]}
  if [[ $cur == --*=* ]]; then
    prev=${cur%%=*}
    cur=${cur#*=}
  fi
  case $command:$prev in
)" + values +
         R"(  esac
  if [[ $cur == -* ]]; then
    case $command in
)" + flags +
         R"(    esac
    _staithe_words "$flags"
    return
  fi
  case $command in
    '') _staithe_words )" +
         in_quotes(joined(names)) + " ;;\n" + places + R"(    *) _staithe_nothing ;;
  esac
}
complete -F _staithe staithe
)";
}

std::string zsh_completion(const CliDescription& cli) {
  std::string commands;
  std::string cases;
  for (const CommandDescription& command : cli.commands) {
    commands += "        " + in_quotes(zsh_text(command.name) + ":" + command.help) + "\n";
    std::vector<ArgumentDescription> all = command.arguments;
    for (const ArgumentDescription& option : cli.options) {
      // The command has its own --help.
      if (option.flags.empty() || option.flags.back() == "--help") continue;
      all.push_back(option);
    }
    cases += "        " + command.name + ")\n          _arguments -s" +
             zsh_arguments(all, "            ") + "\n          ;;\n";
  }
  return "#compdef staithe\n" + header("zsh") + R"zsh(
_staithe_names() {
  local -a names
  names=(${(f)"$(command $_staithe_program $_staithe_socket completion $1 2>/dev/null)"})
  (( $#names )) && compadd -a names
}

_staithe() {
  local curcontext=$curcontext state line ret=1 i
  typeset -A opt_args
  local _staithe_program=$words[1]
  local -a _staithe_socket
  for (( i = 2; i < CURRENT; ++i )); do
    [[ $words[i] == --socket ]] && _staithe_socket=(--socket $words[i+1])
    [[ $words[i] == --socket=* ]] && _staithe_socket=($words[i])
  done
  _arguments -C)zsh" +
         zsh_arguments(cli.options, "    ") + R"zsh( \
    '1:command:->command' \
    '*::argument:->argument' && ret=0
  case $state in
    command)
      local -a commands
      commands=(
)zsh" + commands +
         R"zsh(      )
      _describe -t commands command commands && ret=0
      ;;
    argument)
      case $line[1] in
)zsh" + cases +
         R"zsh(      esac && ret=0
      ;;
  esac
  return ret
}

if [[ $funcstack[1] == _staithe ]]; then
  _staithe "$@"
else
  compdef _staithe staithe
fi
)zsh";
}

std::string fish_completion(const CliDescription& cli) {
  std::string text = header("fish") + R"(
function __staithe_words
    commandline -opc
end
# The command that is given already; fails if none is.
function __staithe_command
    set -l tokens (__staithe_words)
    set -l skip 0
    for token in $tokens[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $token
            case --socket
                set skip 1
            case '-*'
            case '*'
                echo $token
                return 0
        end
    end
    return 1
end
function __staithe_has
    test (__staithe_command; or echo) = $argv[1]
end
function __staithe_names
    set -l tokens (__staithe_words)
    set -l socket
    for i in (seq (count $tokens))
        switch $tokens[$i]
            case --socket
                set socket --socket $tokens[(math $i + 1)]
            case '--socket=*'
                set socket $tokens[$i]
        end
    end
    $tokens[1] $socket completion $argv[1] 2>/dev/null
end

complete -c staithe -f
)";
  text += fish_lines("", cli.options);
  for (const CommandDescription& command : cli.commands)
    text += "complete -c staithe -n 'not __staithe_command >/dev/null' -a " + command.name +
            " -d " + in_quotes(command.help) + "\n";
  for (const CommandDescription& command : cli.commands) {
    std::vector<ArgumentDescription> own;
    for (const ArgumentDescription& one : command.arguments)
      if (one.flags.empty() || one.flags.back() != "--help") own.push_back(one);
    text += fish_lines(" -n '__staithe_has " + command.name + "'", own);
  }
  return text;
}

CompletionCommand::CompletionCommand(CLI::App& app)
    : app_(app),
      command_(app.add_subcommand("completion", "What a shell needs to complete this command")) {
  command_->add_flag("--json", as_json_, "The script as JSON");
  command_->add_option("shell", shell_, "The shell")
      ->type_name(std::string(shells))
      ->required()
      ->check([](const std::string& text) -> std::string {
        for (const char* known : {"bash", "zsh", "fish", "images", "registries"})
          if (text == known) return {};
        return "there are completions for bash, zsh and fish";
      });
  command_->footer(
      "Examples:\n"
      "  staithe completion bash > /etc/bash_completion.d/staithe\n"
      "  staithe completion zsh > /usr/local/share/zsh/site-functions/_staithe\n"
      "  staithe completion fish > ~/.config/fish/completions/staithe.fish\n"
      "  source <(staithe completion bash)\n"
      "Names of images and registries are those that the running staithed knows. The package\n"
      "brings all three.");
}

// What `staithe completion images` and `registries` are for: a line each, or nothing.
int CompletionCommand::print_names(const CliContext& context, const std::filesystem::path& socket) {
  const bool images = shell_ == "images";
  const auto answer = control_get(socket, images ? "/v1/images" : "/v1/registries", names_patience);
  std::set<std::string> names;
  if (answer) {
    for (const JsonReader& one :
         JsonReader(&*answer)[images ? "images" : "registries"].items(most_names)) {
      const std::string name = one["name"].text();
      if (!name.empty() && !name.starts_with('*')) names.insert(name);
    }
  }
  for (const std::string& name : names) context.out << name << "\n";
  return finish(context);
}

std::optional<int> CompletionCommand::run(const CliContext& context,
                                          const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  if (shell_ == "images" || shell_ == "registries") return print_names(context, socket);
  const CliDescription cli = describe(app_);
  const std::string script = shell_ == "bash"  ? bash_completion(cli)
                             : shell_ == "zsh" ? zsh_completion(cli)
                                               : fish_completion(cli);
  if (as_json_) {
    print_json(context, json::object{{"shell", shell_}, {"script", script}});
  } else {
    context.out << script;
  }
  return finish(context);
}

}  // namespace staithe::daemon
