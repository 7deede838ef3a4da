#include "daemon/cli_doctor.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>
#include <vector>

#include "cache/disk.h"
#include "cache/escape.h"
#include "daemon/cli_output.h"
#include "daemon/control_client.h"
#include "daemon/doctor_clients.h"
#include "daemon/doctor_disk.h"
#include "daemon/doctor_host.h"
#include "daemon/doctor_listener.h"
#include "daemon/image_name.h"
#include "daemon/json_reader.h"
#include "daemon/loopback.h"
#include "daemon/options.h"
#include "daemon/tls_certificate.h"
#include "proxy/reference.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using std::chrono::steady_clock;

constexpr std::chrono::seconds status_patience{5};
// Of one step; the daemon bounds them itself.
constexpr std::chrono::seconds step_patience{120};
constexpr std::size_t most_addresses = 16;
constexpr std::size_t most_registries = 200;
constexpr std::size_t state_columns = 9;
constexpr std::size_t step_columns = 14;

Tone tone_of(StepState state) {
  switch (state) {
    case StepState::ok:
      return Tone::good;
    case StepState::warning:
      return Tone::caution;
    case StepState::failed:
      return Tone::bad;
    case StepState::skipped:
      return Tone::faint;
  }
  return Tone::bad;
}

std::string padded(std::string text, std::size_t columns) {
  if (text.size() < columns) text.append(columns - text.size(), ' ');
  return text;
}

std::string show_time(std::chrono::nanoseconds took) {
  const double milliseconds = std::chrono::duration<double, std::milli>(took).count();
  char text[32];
  if (milliseconds < 1000) {
    std::snprintf(text, sizeof text, milliseconds < 10 ? "%.1f ms" : "%.0f ms", milliseconds);
  } else {
    std::snprintf(text, sizeof text, "%.1f s", milliseconds / 1000);
  }
  return text;
}

std::vector<std::string> texts(const JsonReader& list, std::size_t most) {
  std::vector<std::string> result;
  for (const JsonReader& item : list.items(most)) result.push_back(item.text());
  return result;
}

unsigned port_of(const std::string& address) {
  const auto parsed = address.rfind(':');
  return parsed == std::string::npos
             ? 0
             : static_cast<unsigned>(std::strtoul(address.c_str() + parsed + 1, nullptr, 10));
}

// What the steps come to, shown as they come.
class Findings {
 public:
  Findings(const CliContext& context, bool as_json) : context_(context), as_json_(as_json) {}

  void tell(const DoctorStep& step) {
    sum_.count(step.state);
    if (as_json_) {
      print_json(context_, to_json(step));
    } else {
      context_.out << render_step(step, context_.terminal.style) << std::flush;
    }
  }
  int end(bool reached) {
    const auto took = steady_clock::now() - began_;
    if (as_json_) {
      print_json(context_, sum_.to_json(took));
    } else {
      context_.out << "\n"
                   << render_sum(sum_, std::chrono::duration<double>(took).count(),
                                 context_.terminal.style);
    }
    const int finished = finish(context_);
    if (!reached) return kExitUnreachable;
    return sum_.failed > 0 ? kExitFailed : finished;
  }

 private:
  const CliContext& context_;
  const bool as_json_;
  const steady_clock::time_point began_ = steady_clock::now();
  DoctorSum sum_;
};

void examine_listeners(Findings& findings, const std::vector<std::string>& addresses, bool runs) {
  for (const std::string& address : addresses) {
    const auto began = steady_clock::now();
    const ListenerFinding answer = ask_listener(address);
    const bool is_known = answer.is_staithed || answer.error == ECONNREFUSED;
    // Only of a program in this network namespace, which is that of the listener: its own /proc.
    const std::string taker = is_known || address.starts_with("unix:")
                                  ? std::string()
                                  : who_listens("/", port_of(address));
    DoctorStep step = listener_step(address, answer, runs, taker);
    step.took = steady_clock::now() - began;
    findings.tell(step);
  }
}

std::expected<Config, Faults> load(const CliContext& context, const std::string& config_file) {
  std::optional<std::filesystem::path> file;
  if (!config_file.empty()) file = config_file;
  return load_config(file, context.environment);
}

// Where it would listen.
std::vector<std::string> addresses_of(const Config& config) {
  std::vector<std::string> all = config.proxy.listen;
  for (const std::string& address : config.tls_addresses) all.push_back("tls:" + address);
  return all;
}

// The TLS file, as far as this user may look; whose it has to be staithed will say.
DoctorStep absent_tls_step(const std::filesystem::path& file) {
  if (::access(file.c_str(), R_OK) != 0 && errno == EACCES)
    return {.step = "tls",
            .subject = printable(file.native(), 200),
            .state = StepState::skipped,
            .finding = "this user may not read it: sudo staithe doctor"};
  DoctorStep step;
  asio::io_context io;
  asio::thread_pool pool(1);
  proxy::auth::PosixFiles files(pool);
  SystemClock clock;
  asio::co_spawn(io, examine_tls_file(files, file, false, nullptr, clock.wall()),
                 [&](const std::exception_ptr& failed, DoctorStep found) {
                   if (failed) std::rethrow_exception(failed);
                   step = std::move(found);
                 });
  io.run();
  return step;
}

// What the rest of the examination goes by.
struct Seen {
  bool reached = true;                 // the daemon answers
  std::vector<std::string> addresses;  // where it listens, or would
  std::vector<std::string> registries;
};

// The daemon does not answer: what can be seen from outside.
void examine_absence(Findings& findings, const CliContext& context, const std::string& config_file,
                     Seen& seen) {
  if (const auto unit = examine_unit(context.environment)) findings.tell(*unit);
  const auto config = load(context, config_file);
  for (const DoctorStep& step :
       configuration_steps(config_file.empty() ? kDefaultConfigFile : config_file, config))
    findings.tell(step);
  if (!config) {
    findings.tell(
        {.step = "listener",
         .state = StepState::skipped,
         .finding = "where staithed would listen is not known without its configuration"});
    return;
  }
  for (const auto& registry : config->proxy.registries)
    if (!registry.identity.empty() && !registry.name.starts_with('*'))
      seen.registries.push_back(registry.name);
  const std::filesystem::path directory = config->cache.directory;
  std::error_code error;
  if (std::filesystem::exists(directory, error)) {
    cache::PosixDisk disk;
    DiskFacts facts{.directory = directory, .filesystem = filesystem_of(directory), .space = {}};
    try {
      facts.space = disk.space(directory);
    } catch (const Failure& failure) {
      facts.refused = failure.error().detail;
      facts.refused_class = failure.code();
    }
    findings.tell(disk_step(facts, nullptr));
  } else {
    findings.tell({.step = "disk",
                   .subject = printable(directory.native(), 200),
                   .state = StepState::skipped,
                   .finding = error ? "this user may not look there"
                                    : "it is not there yet; staithed makes it"});
  }
  if (!config->tls_addresses.empty()) findings.tell(absent_tls_step(config->tls_file));
  seen.addresses = addresses_of(*config);
}

// Empty if the target is one that the daemon may be asked about.
std::string why_no_target(const std::string& target) {
  if (target.empty() || proxy::parse_registry(target)) return {};
  const auto image = parse_image_name(target);
  return image ? std::string() : image.error().detail;
}

DoctorStep refused_step(const char* tried, const ControlError& error) {
  DoctorStep step{
      .step = "daemon", .state = StepState::failed, .tried = tried, .finding = error.message};
  if (error.status == 403) step.mend = "sudo staithe doctor";
  if (error.status == 404 || error.status == 405)
    step.mend = "staithe and staithed are of different versions: restart staithed after an upgrade";
  return step;
}

DoctorStep daemon_step(const std::filesystem::path& socket, const json::value& status,
                       std::chrono::nanoseconds took) {
  const JsonReader reader(&status);
  const std::string state = reader["state"].text();
  return {.step = "daemon",
          .subject = printable(socket.native(), 200),
          .state = state == "ready" ? StepState::ok : StepState::warning,
          .tried = "GET /v1/status",
          .took = took,
          .finding = "staithed " + reader["version"].text() + " answers, and is " + state};
}

// The daemon's own steps, as they come. An error if it does not take the target for one.
std::optional<ControlError> have_it_walk(Findings& findings, const std::filesystem::path& socket,
                                         const std::string& target, Seen& seen) {
  constexpr const char* tried = "POST /v1/doctor";
  json::object question;
  if (!target.empty()) question["target"] = target;
  bool ended = false;
  const auto streamed = control_stream(
      socket, "/v1/doctor", json::serialize(question),
      [&](const json::value& line) {
        const JsonReader said(&line);
        const std::string kind = said["kind"].text();
        if (is_step(line)) findings.tell(step_of(line));
        if (kind == "facts") seen.registries = texts(said["registries"], most_registries);
        if (kind == "sum") ended = true;
      },
      step_patience);
  if (!streamed && streamed.error().status == 400) return streamed.error();
  if (!streamed) {
    seen.reached = !streamed.error().unreachable;
    findings.tell(refused_step(tried, streamed.error()));
  } else if (!ended) {
    findings.tell(refused_step(tried, {false,
                                       "staithed's answer has no end: staithe and staithed are of "
                                       "different versions"}));
  }
  return std::nullopt;
}

}  // namespace

std::string render_step(const DoctorStep& step, const Style& style) {
  std::string head =
      paint({padded(to_string(step.state), state_columns), tone_of(step.state)}, style) +
      paint({padded(step.step, step_columns), Tone::heading}, style) + step.subject;
  if (step.took.count() > 0)
    head += std::string(step.subject.empty() ? "" : "  ") +
            paint({show_time(step.took), Tone::faint}, style);
  while (head.ends_with(' ')) head.pop_back();
  std::string text = head + "\n" + paragraph({step.finding}, state_columns, style);
  const bool trouble = step.state == StepState::failed || step.state == StepState::warning;
  if (trouble && !step.tried.empty())
    text += paragraph({"tried: " + step.tried, Tone::faint}, state_columns, style);
  if (!step.mend.empty())
    text += paragraph({"mend: " + step.mend, Tone::caution}, state_columns, style);
  return text;
}

std::string render_sum(const DoctorSum& sum, double seconds, const Style& style) {
  char time[32];
  std::snprintf(time, sizeof time, "in %.1f s", seconds);
  return flow({{std::to_string(sum.failed) + " failed", sum.failed > 0 ? Tone::bad : Tone::plain},
               {std::to_string(sum.warnings) + (sum.warnings == 1 ? " warning" : " warnings"),
                sum.warnings > 0 ? Tone::caution : Tone::plain},
               {std::to_string(sum.ok) + " ok", sum.failed == 0 ? Tone::good : Tone::plain},
               {std::to_string(sum.skipped) + " skipped"},
               {time}},
              0, style);
}

DoctorCommand::DoctorCommand(CLI::App& app)
    : command_(app.add_subcommand(
          "doctor", "Try what stands between a pull and its image, and say what to mend")) {
  command_->add_flag("--json", as_json_, "JSON lines, as they come");
  command_
      ->add_option("target", target_,
                   "A registry or an image; without one, the registries that are in use")
      ->type_name("IMAGE");
  command_->add_option("--root", root_, "Where the clients' files are: /host in a container")
      ->type_name("DIRECTORY");
  command_
      ->add_option("--config", config_file_,
                   "staithed's configuration, which is read if it does not run")
      ->type_name("FILE");
  command_->footer(
      "Examples:\n"
      "  staithe doctor\n"
      "  staithe doctor contoso.azurecr.io\n"
      "  staithe doctor contoso.azurecr.io/app:1 --json\n"
      "Tried anew, by the code that pulls use: identity, Entra, challenge, exchange, token,\n"
      "manifest, blob host, disk, listener, and what the clients' files say. Nothing is kept of "
      "it\n"
      "and nothing is changed. With root's rights it sees most.\n"
      "Exit status 0 if nothing failed, 1 if something did, 3 if staithed is not reachable.");
}

std::optional<int> DoctorCommand::run(const CliContext& context,
                                      const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  if (const std::string why = why_no_target(target_); !why.empty()) {
    context.err << "staithe: " << why << " (see staithe doctor --help)\n";
    return kExitBadUsage;
  }
  Findings findings(context, as_json_);
  Seen seen;
  const auto began = steady_clock::now();
  const auto status = control_get(socket, "/v1/status", status_patience);
  if (status) {
    findings.tell(daemon_step(socket, *status, steady_clock::now() - began));
    seen.addresses = texts(JsonReader(&*status)["listen"], most_addresses);
    if (const auto wrong = have_it_walk(findings, socket, target_, seen)) {
      report(context, *wrong);
      return kExitBadUsage;
    }
  } else if (status.error().unreachable) {
    seen.reached = false;
    findings.tell(socket_step(socket, status.error().message, context.environment.uid));
    examine_absence(findings, context, config_file_, seen);
  } else {
    findings.tell(refused_step("GET /v1/status", status.error()));
    // What it would have said, as far as the file tells.
    if (const auto config = load(context, config_file_)) seen.addresses = addresses_of(*config);
  }
  examine_listeners(findings, seen.addresses, seen.reached);
  // Of this network namespace, as the listeners.
  if (const auto step = loopback_step(loopback_routes())) findings.tell(*step);
  // Without a word about where it listens there is nothing to hold the files against.
  if (!seen.addresses.empty()) {
    const DoctorListeners listeners(seen.addresses);
    for (const DoctorStep& step : examine_clients(root_, listeners, seen.registries))
      findings.tell(step);
  }
  return findings.end(seen.reached);
}

}  // namespace staithe::daemon
