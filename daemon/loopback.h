// Whether this host lets others reach its loopback addresses (threat T3, CVE-2020-8558).
//
// With net.ipv4.conf.INTERFACE.route_localnet, what comes in there for 127.0.0.0/8 is delivered,
// and with it what neighbours and containers send to a port that is thought to be this machine's
// own. staithed refuses such connections by their address (proxy/server.cc); other programs may
// not.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/doctor_step.h"

namespace staithe::daemon {

// The interfaces but for lo that do so, by name, "all" and "default" among them; in this process's
// network namespace, by `proc`/sys/net/ipv4/conf. Empty where that cannot be read, as in the
// shipped unit, which sees nothing of /proc but processes.
std::vector<std::string> loopback_routes(const std::filesystem::path& proc = "/proc");

// Pure: none if there is none.
std::optional<DoctorStep> loopback_step(const std::vector<std::string>& interfaces);

// One line in the log, if there is one.
void warn_of_loopback_routes();

}  // namespace staithe::daemon
