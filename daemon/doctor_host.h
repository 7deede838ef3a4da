// `staithe doctor`, what the caller can see of the machine by himself: the listeners, and, where
// the daemon does not answer, why: its unit, its socket, its configuration, who has its port.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/doctor_step.h"
#include "daemon/environment.h"
#include "daemon/options.h"

namespace staithe::daemon {

// What GET /v2/ at a listener comes to.
struct ListenerFinding {
  int error = 0;             // errno of what failed; 0: something answered
  bool is_staithed = false;  // by its Cache-Status
  int status = 0;
};

// `address` is one of listen.registry. Blocking, at most `timeout`.
ListenerFinding ask_listener(const std::string& address,
                             std::chrono::milliseconds timeout = std::chrono::seconds(3));
// Pure: what it means where staithed runs, or does not. `taker`: who has the port, if that is
// known.
DoctorStep listener_step(const std::string& address, const ListenerFinding& answer, bool runs,
                         const std::string& taker);

// "docker-proxy (pid 123)": who listens on a TCP port, by /proc below `root`; empty if that cannot
// be seen, as by a user who does not own that process.
std::string who_listens(const std::filesystem::path& root, unsigned port);

// What systemd says of a unit: properties by name, as `systemctl show` prints them. Pure.
std::map<std::string, std::string> parse_unit(std::string_view text);
// Pure: none if systemd knows no such unit and nothing can be said.
DoctorStep unit_step(const std::map<std::string, std::string>& unit);
// Asks systemctl; none where systemd does not run.
std::optional<DoctorStep> examine_unit(const Environment& environment);

// Why the control socket cannot be used: `reason` is the client's own sentence.
DoctorStep socket_step(const std::filesystem::path& socket, const std::string& reason,
                       unsigned uid);

// The configuration, read as staithed reads it; `found` is what came of it. Pure.
std::vector<DoctorStep> configuration_steps(const std::string& file,
                                            const std::expected<Config, Faults>& found);

}  // namespace staithe::daemon
