#include "daemon/cli.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <cerrno>
#include <chrono>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/escape.h"
#include "daemon/cli_cache.h"
#include "daemon/cli_completion.h"
#include "daemon/cli_credentials.h"
#include "daemon/cli_description.h"
#include "daemon/cli_doctor.h"
#include "daemon/cli_explain.h"
#include "daemon/cli_output.h"
#include "daemon/cli_setup.h"
#include "daemon/cli_status.h"
#include "daemon/cli_verify.h"
#include "daemon/cli_warm.h"
#include "daemon/control_client.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;

constexpr const char* kStatusTarget = "/v1/status";
constexpr const char* kConfigTarget = "/v1/config";
constexpr const char* kReloadTarget = "/v1/reload";
constexpr milliseconds kWatchInterval{1000};
constexpr milliseconds kWatchPatience{3000};
constexpr milliseconds kVersionPatience{2000};

// SIGINT and SIGTERM as something to wait for, as long as it lives.
class Interrupt {
 public:
  Interrupt() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
    fd_ = signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~Interrupt() {
    // Take the signal that ended the wait, so that unblocking does not deliver it after all.
    signalfd_siginfo taken;
    while (read(fd_, &taken, sizeof taken) > 0) {
    }
    close(fd_);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // True if the user wants an end, at the latest after `timeout`.
  bool wait(milliseconds timeout) const {
    pollfd waiting{.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&waiting, 1, static_cast<int>(timeout.count())) > 0;
  }

 private:
  sigset_t signals_{};
  sigset_t before_{};
  int fd_ = -1;
};

// The second screen of a terminal without its cursor, given back at the end.
class FullScreen {
 public:
  explicit FullScreen(std::ostream& out) : out_(out) { out_ << "\x1b[?1049h\x1b[?25l"; }
  ~FullScreen() { out_ << "\x1b[?25h\x1b[?1049l" << std::flush; }
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  // Over the last picture, so that it does not flicker; what does not fit below is cut.
  void draw(std::string_view text, std::size_t rows) {
    std::string picture = "\x1b[H";
    for (std::size_t row = 0; !text.empty() && (rows == 0 || row + 1 < rows); ++row) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      picture += std::string(text.substr(0, end)) + "\x1b[K\n";
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    out_ << picture << "\x1b[J" << std::flush;
  }

 private:
  std::ostream& out_;
};

int show_status(const CliContext& context, const std::filesystem::path& socket, bool as_json) {
  const auto status = control_get(socket, kStatusTarget);
  if (!status) return report(context, status.error());
  if (as_json) {
    print_json(context, *status);
  } else {
    context.out << render_status(*status, context.terminal.style);
  }
  return finish(context);
}

int watch_status(const CliContext& context, const std::filesystem::path& socket, bool as_json) {
  const Interrupt interrupt;
  // A daemon that is not there at the beginning is a mistake; one that goes away is watched for.
  auto status = control_get(socket, kStatusTarget, kWatchPatience);
  if (!status) return report(context, status.error());
  std::optional<FullScreen> screen;
  if (context.terminal.is_terminal && !as_json) screen.emplace(context.out);
  bool first = true;
  while (context.out) {
    if (!first) status = control_get(socket, kStatusTarget, kWatchPatience);
    if (as_json) {
      if (status) {
        print_json(context, *status);
      } else {
        context.err << "staithe: " << status.error().message << "\n";
      }
    } else {
      // The window may have another size by now.
      const Terminal terminal = screen ? Terminal::of_stdout() : context.terminal;
      const std::string text =
          status ? render_status(*status, terminal.style, Order::transfers_first)
                 : paragraph({status.error().message, Tone::bad}, 0, terminal.style);
      if (screen) {
        screen->draw(text, terminal.rows);
      } else {
        context.out << (first ? "" : "\n") << text << std::flush;
      }
    }
    first = false;
    if (interrupt.wait(kWatchInterval)) return kExitOk;
  }
  return kExitFailed;
}

int show_config(const CliContext& context, const std::filesystem::path& socket, bool as_json) {
  const auto answer = control_get(socket, kConfigTarget);
  if (!answer) return report(context, answer.error());
  const json::object* object = answer->if_object();
  const json::value* part = object ? object->if_contains(as_json ? "json" : "toml") : nullptr;
  if (!part || (!as_json && !part->is_string())) {
    return report(context, {false,
                            "staithed's answer has no configuration in it: staithe and "
                            "staithed are of different versions"});
  }
  if (as_json) {
    print_json(context, *part);
  } else {
    context.out << without_controls(part->get_string());
  }
  return finish(context);
}

int ask_to_reload(const CliContext& context, const std::filesystem::path& socket, bool as_json) {
  const auto answer = control_post(socket, kReloadTarget, "{}");
  if (!answer) return report(context, answer.error());
  const json::object* object = answer->if_object();
  const json::value* faults = object ? object->if_contains("faults") : nullptr;
  const bool good = faults && faults->is_array() && faults->get_array().empty();
  if (as_json) {
    print_json(context, *answer);
  } else if (good) {
    context.out << "the configuration is reloaded\n";
  } else if (faults && faults->is_array()) {
    for (const json::value& fault : faults->get_array()) {
      if (fault.is_string()) context.err << printable(fault.get_string(), 4096) << "\n";
    }
    context.err << "staithe: nothing was changed\n";
  }
  const int finished = finish(context);
  return good ? finished : kExitFailed;
}

// Works without a daemon; with one, says its version too.
int show_version(const CliContext& context, const std::filesystem::path& socket, bool as_json) {
  const auto status = control_get(socket, kStatusTarget, kVersionPatience);
  const json::object* object = status ? status->if_object() : nullptr;
  const json::value* version = object ? object->if_contains("version") : nullptr;
  const bool known = version && version->is_string();
  if (as_json) {
    print_json(context, json::object{{"staithe", STAITHE_VERSION},
                                     {"staithed", known ? *version : json::value(nullptr)}});
  } else {
    context.out << "staithe " STAITHE_VERSION "\n"
                << "staithed "
                << (known ? printable(version->get_string(), 80) : std::string("not reachable"))
                << "\n";
  }
  return finish(context);
}

// One line of CLI11's message, which may hold the user's text.
std::string one_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return printable(text, 300);
}

std::string unexpected_argument(const CLI::App& app, const CLI::ExtrasError& error) {
  const std::vector<std::string> extras = app.remaining(true);
  if (!app.get_subcommands().empty() || extras.empty() || extras.front().starts_with('-')) {
    return one_line(error.what());
  }
  std::string what = "there is no command " + shown(extras.front());
  std::vector<std::string_view> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (const std::string_view near = nearest(extras.front(), known); !near.empty()) {
    what += "; did you mean \"" + std::string(near) + "\"?";
  }
  return what;
}

// `staithe` without its commands, which take some of it over when they are added.
class Root : public CLI::App {
 public:
  Root()
      : CLI::App("Shows what staithed, the registry cache of this machine, is doing.", "staithe") {
    set_version_flag("--version", "staithe " STAITHE_VERSION, "Print the version and exit");
    require_subcommand(0, 1);
    fallthrough();  // --socket may stand before or after the command
    footer(
        "Exit status: 0 done, 1 failed, 2 wrong usage, 3 staithed is not reachable.\n"
        "The socket: --socket, else $STAITHE_SOCKET, else /run/staithe/control.sock for root and\n"
        "$XDG_RUNTIME_DIR/staithe/control.sock for others.");
    add_option("--socket", socket, "staithed's control socket")->type_name("PATH");
  }

  std::string socket;
};

// Everything that the command line takes, in the order of --help, and where its values go.
struct CommandLine {
  Root app;
  bool as_json = false;
  bool watch = false;
  CLI::App* status =
      add("status", "Cache, traffic, registries and running downloads",
          "Examples:\n  staithe status\n  staithe status --watch\n  staithe status --json\n"
          "How the cache is filled and the registries fare, and what is being fetched now.");
  CLI::App* config =
      add("config", "The configuration that is in force",
          "Examples:\n  staithe config\n  staithe config --json\n"
          "Every key with the value in force, as staithe.toml writes it: defaults, the file, and\n"
          "what a reload has taken over.");
  CLI::App* version = add("version", "The versions of staithe and staithed",
                          "Examples:\n  staithe version\n  staithe version --json\n"
                          "Of this command, and of the staithed that answers it, if one does.");
  CLI::App* reload =
      add("reload", "Read the configuration again, as SIGHUP does",
          "Example:\n  staithe reload\n"
          "For root and the user that staithed runs as. A file with faults changes nothing; they\n"
          "are shown, and the exit status is 1.");
  ExplainCommand explain{app};
  WarmCommand warm{app};
  VerifyCommand verify{app};
  CacheCommands cache{app};
  CredentialCommands credentials{app};
  SetupCommand setup{app};
  DoctorCommand doctor{app};
  CompletionCommand completion{app};

  CommandLine() { status->add_flag("--watch", watch, "Again every second, until interrupted"); }

 private:
  CLI::App* add(const char* name, const char* what, const char* footer) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_flag("--json", as_json, "JSON instead of text");
    command->footer(footer);
    return command;
  }
};

}  // namespace

CliDescription describe_cli() { return describe(CommandLine().app); }

int run_cli(int argc, const char* const* argv, const CliContext& context) {
  CommandLine line;
  Root& app = line.app;
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    context.out << app.help();
    return finish(context);
  } catch (const CLI::CallForVersion& asked) {
    context.out << asked.what() << "\n";
    return finish(context);
  } catch (const CLI::ParseError& error) {
    if (CredentialCommands::may_hold_secret(argc, argv)) {
      context.err << "staithe: " << CredentialCommands::why_not_an_argument()
                  << " (see staithe login --help)\n";
      return kExitBadUsage;
    }
    const auto* extras = dynamic_cast<const CLI::ExtrasError*>(&error);
    context.err << "staithe: "
                << (extras ? unexpected_argument(app, *extras) : one_line(error.what()))
                << " (see staithe --help)\n";
    return kExitBadUsage;
  }
  const std::filesystem::path socket = app.socket.empty() ? control_socket_of(context.environment)
                                                          : std::filesystem::path(app.socket);
  if (line.status->parsed()) {
    return line.watch ? watch_status(context, socket, line.as_json)
                      : show_status(context, socket, line.as_json);
  }
  if (line.config->parsed()) return show_config(context, socket, line.as_json);
  if (line.version->parsed()) return show_version(context, socket, line.as_json);
  if (line.reload->parsed()) return ask_to_reload(context, socket, line.as_json);
  if (const auto status_of = line.explain.run(context, socket)) return *status_of;
  if (const auto status_of = line.warm.run(context, socket)) return *status_of;
  if (const auto status_of = line.verify.run(context, socket)) return *status_of;
  if (const auto status_of = line.cache.run(context, socket)) return *status_of;
  if (const auto status_of = line.credentials.run(context, socket)) return *status_of;
  if (const auto status_of = line.setup.run(context, socket)) return *status_of;
  if (const auto status_of = line.doctor.run(context, socket)) return *status_of;
  if (const auto status_of = line.completion.run(context, socket)) return *status_of;
  context.err << "staithe: a command is missing: status, token or login, for instance (see staithe "
                 "--help)\n";
  return kExitBadUsage;
}

}  // namespace staithe::daemon
