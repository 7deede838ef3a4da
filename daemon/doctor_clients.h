// `staithe doctor`, the clients: does what containerd, dockerd and podman read lead to staithed?
//
// Reads their files below a root that is handed in, as the caller may read them, and changes
// nothing. What each client does with them: docs/clients.md.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/doctor_step.h"

namespace staithe::daemon {

// An address as a client's file names it, against the listeners.
enum class Leads {
  here,         // plain HTTP, to a listener that speaks it
  here_by_tls,  // likewise, HTTPS
  no_tls,       // HTTPS, to a listener that speaks plain HTTP
  no_plain,     // the other way round
  nowhere,      // to this machine, where no listener is
  elsewhere,    // to another machine: not staithed, and no fault by itself
};

// Where staithed serves: "127.0.0.1:5050", "[::1]:5050", "tls:127.0.0.1:5443"; Unix sockets are
// passed over, since no client takes them.
class DoctorListeners {
 public:
  explicit DoctorListeners(const std::vector<std::string>& addresses);

  bool empty() const { return listeners_.empty(); }
  // `address`: "http://127.0.0.1:5050", "localhost:5050/docker.io"; without a scheme it is that of
  // the listener.
  Leads judge(std::string_view address) const;
  // The first, for sentences; a plain one if there is one.
  std::string shown() const;

 private:
  struct Listener {
    std::string host;
    std::string port;
    bool tls = false;
  };
  std::vector<Listener> listeners_;
};

// A step for each client that is installed. `registries`: what staithed serves and somebody uses.
std::vector<DoctorStep> examine_clients(const std::filesystem::path& root,
                                        const DoctorListeners& listeners,
                                        const std::vector<std::string>& registries);

}  // namespace staithe::daemon
