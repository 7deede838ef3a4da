// `staithe doctor`, what the caller can see of the machine by himself where the daemon does not
// answer: its unit, its socket, its configuration.
#pragma once

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
