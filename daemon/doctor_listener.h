// `staithe doctor`, the listeners: who answers there, asked as a client would.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "daemon/doctor_step.h"

namespace staithe::daemon {

// What GET /v2/ at a listener comes to.
struct ListenerFinding {
  int error = 0;             // errno of what failed, EPROTO of TLS; 0: something answered
  bool is_staithed = false;  // by its Cache-Status
  int status = 0;
};

// `address` is as GET /v1/status lists it; "tls:" in front of it is asked with TLS. Whose
// certificate is shown there does not matter here: whether it is good the step "tls" says.
// Blocking, at most `timeout`. SIGPIPE has to be ignored.
ListenerFinding ask_listener(const std::string& address,
                             std::chrono::milliseconds timeout = std::chrono::seconds(3));
// Pure: what it means where staithed runs, or does not. `taker`: who has the port, if that is
// known.
DoctorStep listener_step(const std::string& address, const ListenerFinding& answer, bool runs,
                         const std::string& taker);

// "docker-proxy (pid 123)": who listens on a TCP port, by /proc below `root`; empty if that cannot
// be seen, as by a user who does not own that process.
std::string who_listens(const std::filesystem::path& root, unsigned port);

}  // namespace staithe::daemon
