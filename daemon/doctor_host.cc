#include "daemon/doctor_host.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cache/error.h"
#include "cache/escape.h"
#include "daemon/child.h"

namespace staithe::daemon {
namespace {

constexpr std::chrono::seconds systemctl_patience{5};
constexpr std::string_view unit_name = "staithed.service";

std::string name_of_user(unsigned uid) {
  const passwd* found = ::getpwuid(uid);
  return found ? printable(found->pw_name, 60) : "uid " + std::to_string(uid);
}

std::string name_of_group(unsigned gid) {
  const group* found = ::getgrgid(gid);
  return found ? printable(found->gr_name, 60) : "gid " + std::to_string(gid);
}

std::string get(const std::map<std::string, std::string>& unit, const char* name) {
  const auto found = unit.find(name);
  return found == unit.end() ? std::string() : printable(found->second, 100);
}

// What exit statuses of staithed mean; interface.md section 1.
std::string_view meaning(std::string_view status) {
  if (status == "1") return "it failed while running";
  if (status == "2") return "its configuration is bad";
  if (status == "3") return "its cache directory is in use by another instance";
  return {};
}

}  // namespace

std::map<std::string, std::string> parse_unit(std::string_view text) {
  std::map<std::string, std::string> unit;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (const std::size_t equals = line.find('='); equals != line.npos)
      unit.emplace(line.substr(0, equals), line.substr(equals + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return unit;
}

DoctorStep unit_step(const std::map<std::string, std::string>& unit) {
  DoctorStep step{.step = "unit", .subject = std::string(unit_name), .finding = {}};
  const std::string load = get(unit, "LoadState");
  const std::string active = get(unit, "ActiveState");
  step.tried = "systemctl show " + std::string(unit_name);
  step.state = StepState::failed;
  if (load != "loaded") {
    step.finding = "it is not installed (" + (load.empty() ? "not known" : load) + ")";
    step.mend = "install the package, or start staithed by hand";
  } else if (active == "failed") {
    const std::string status = get(unit, "ExecMainStatus");
    const std::string_view why = meaning(status);
    step.finding = "it has failed: " + get(unit, "Result") + ", exit status " + status;
    if (!why.empty()) step.finding += ", " + std::string(why);
    step.mend = "journalctl -u staithed -n 50 says why; then: systemctl restart staithed";
  } else if (active == "active") {
    step.state = StepState::warning;
    step.finding = "it is active, and its socket does not answer here";
    step.mend = "see listen.control of its configuration, and journalctl -u staithed";
  } else {
    step.finding = "it is " + (active.empty() ? "not running" : active);
    step.mend = "systemctl enable --now staithed";
  }
  return step;
}

std::optional<DoctorStep> examine_unit(const Environment& environment) {
  std::error_code ignored;
  if (!std::filesystem::exists("/run/systemd/system", ignored)) return std::nullopt;
  const auto program = find_program("systemctl", environment.get("PATH"));
  if (program.empty()) return std::nullopt;
  const auto result = run_child(
      {.program = program,
       .arguments = {"show", "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus",
                     std::string(unit_name)},
       .input = {},
       .timeout = systemctl_patience});
  if (!result || result->status != 0) return std::nullopt;
  return unit_step(parse_unit(result->output));
}

DoctorStep socket_step(const std::filesystem::path& socket, const std::string& reason,
                       unsigned uid) {
  DoctorStep step{.step = "daemon",
                  .subject = printable(socket.native(), 200),
                  .state = StepState::failed,
                  .tried = "GET /v1/status",
                  .finding = reason,
                  .error_class = "unreachable"};
  struct stat status{};
  if (::stat(socket.c_str(), &status) != 0) {
    step.mend = errno == EACCES
                    ? "this user may not look into " +
                          printable(socket.parent_path().native(), 200) + ": sudo staithe doctor"
                    : "start it: systemctl start staithed; or name its socket: staithe --socket "
                      "PATH doctor";
    return step;
  }
  const bool by_group = (status.st_mode & S_IWGRP) != 0 && status.st_gid != 0;
  if (::access(socket.c_str(), W_OK) == 0) {
    step.mend = "it is stuck, or has gone without removing its socket: systemctl restart staithed";
  } else if (by_group) {
    const std::string group = name_of_group(status.st_gid);
    step.mend = "only the group " + group + " may use it: usermod -aG " + group + " " +
                name_of_user(uid) + ", and log in again; or sudo staithe doctor";
  } else {
    step.mend = "only " + name_of_user(status.st_uid) +
                " and root may use it: sudo staithe doctor; access.users and access.groups in "
                "staithe.toml let others in";
  }
  return step;
}

std::vector<DoctorStep> configuration_steps(const std::string& file,
                                            const std::expected<Config, Faults>& found) {
  std::vector<DoctorStep> steps;
  if (found) {
    steps.push_back({.step = "configuration",
                     .subject = printable(file, 200),
                     .finding = "the file has no faults"});
    return steps;
  }
  for (const Fault& fault : found.error())
    steps.push_back({.step = "configuration",
                     .subject = printable(file, 200),
                     .state = StepState::failed,
                     .finding = fault.to_string(),
                     .mend = "staithed does not start with it: correct it, then systemctl restart "
                             "staithed",
                     .error_class = to_string(Errc::config)});
  return steps;
}

}  // namespace staithe::daemon
