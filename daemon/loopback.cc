#include "daemon/loopback.h"

#include <algorithm>
#include <fstream>

#include "cache/escape.h"
#include "cache/log.h"

namespace staithe::daemon {

namespace {

// A node has one for each pod.
constexpr std::size_t most_interfaces = 10'000;
constexpr std::size_t most_shown = 5;
constexpr const char* remedy =
    "set net.ipv4.conf.INTERFACE.route_localnet=0 (sysctl), unless what set it needs it: "
    "kube-proxy "
    "does for node ports on localhost (iptables.localhostNodePorts: false), and a firewall then "
    "has "
    "to drop what comes for 127.0.0.0/8 by another interface than lo";

std::string joined(const std::vector<std::string>& interfaces) {
  std::string text;
  for (std::size_t i = 0; i < std::min(interfaces.size(), most_shown); ++i)
    text += (text.empty() ? "" : ", ") + printable(interfaces[i], 60);
  if (interfaces.size() > most_shown)
    text += " and " + std::to_string(interfaces.size() - most_shown) + " more";
  return text;
}

}  // namespace

std::vector<std::string> loopback_routes(const std::filesystem::path& proc) {
  std::vector<std::string> found;
  std::error_code error;
  std::size_t seen = 0;
  for (std::filesystem::directory_iterator it(proc / "sys/net/ipv4/conf", error), end;
       !error && it != end && seen < most_interfaces; it.increment(error), ++seen) {
    std::string name = it->path().filename().string();
    if (name == "lo") continue;
    std::ifstream file(it->path() / "route_localnet");
    int value = 0;
    if (file >> value && value != 0) found.push_back(std::move(name));
  }
  std::ranges::sort(found);
  return found;
}

std::optional<DoctorStep> loopback_step(const std::vector<std::string>& interfaces) {
  if (interfaces.empty()) return std::nullopt;
  return DoctorStep{
      .step = "loopback",
      .subject = joined(interfaces),
      .state = StepState::warning,
      .tried = "net.ipv4.conf.*.route_localnet",
      .finding =
          "this host takes packets for loopback addresses from other machines and "
          "containers; staithed refuses their connections, other programs that listen on "
          "127.0.0.1 may not",
      .mend = remedy};
}

void warn_of_loopback_routes() {
  const std::vector<std::string> interfaces = loopback_routes();
  if (interfaces.empty()) return;
  log::warn("this host takes packets for loopback addresses from outside",
            {{"interfaces", joined(interfaces)}, {"remedy", remedy}});
}

}  // namespace staithe::daemon
