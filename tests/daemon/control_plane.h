// All that is behind the control socket, in a house: what Control is made of, and the socket
// itself, with callers of other users.
#pragma once

#include <unistd.h>

#include <boost/json/object.hpp>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/control.h"
#include "daemon/credentials.h"
#include "tests/fake/house.h"
#include "tests/fake/other_user.h"

namespace staithe::daemon {

// `house` and `config` outlive it, and so do `registries`, which the credentials are of.
struct ControlPlane {
  ControlPlane(fake::House& house, const Config& config, proxy::Registries& registries,
               Credentials::Doors doors = {})
      : tasks(house.io.get_executor(), [](std::string_view, std::string_view) {}),
        access(house.io.get_executor(), house.clock, tasks, ::geteuid()),
        credentials({.loop = house.io.get_executor(),
                     .config = config,
                     .registries = registries,
                     .access = access,
                     .tasks = tasks,
                     .doors = std::move(doors)}),
        verifier({.store = house.store, .clock = house.clock, .access = access}),
        warmer({.clock = house.clock,
                .store = house.store,
                .registries = house.registries,
                .proxy = house.proxy,
                .fills = house.fills}),
        warm({.warmer = warmer, .access = access}),
        control({.config = config,
                 .clock = house.clock,
                 .store = house.store,
                 .proxy = house.proxy,
                 .registries = registries,
                 .fills = house.fills,
                 .access = access,
                 .credentials = credentials,
                 .verifier = verifier,
                 .warm = warm,
                 .warm_status = [] { return boost::json::object(); },
                 .reload = [] { return Faults(); }}) {}

  TaskGroup tasks;
  Access access;
  Credentials credentials;
  Verifier verifier;
  Warmer warmer;
  WarmControl warm;
  Control control;
};

// Its socket, which every user may connect to. `house` and `plane` outlive it.
class ControlSocket {
 public:
  ControlSocket(fake::House& house, ControlPlane& plane)
      : house_(house),
        plane_(plane),
        server_(house.io.get_executor(),
                {.connections = 100, .connection = {.body_bytes = 64 * 1024}}, plane.control,
                house.store.disk_pool()) {
    std::string pattern = std::filesystem::temp_directory_path() / "staithe-control-XXXXXX";
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp");
    directory_ = pattern;
    std::filesystem::permissions(directory_, std::filesystem::perms(0755));
    house_.run(plane_.access.load({}));
    server_.listen(*proxy::ListenAddress::parse(address()), 0666);
    server_.start();
  }
  ~ControlSocket() {
    house_.run(server_.stop());
    house_.run(plane_.tasks.join());
    std::filesystem::remove_all(directory_);
  }
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  std::string address() const { return "unix:" + (directory_ / "control.sock").string(); }

  // What is answered: the status line, the head and the body.
  std::string ask_as(unsigned uid, const std::string& method, const std::string& path,
                     const std::string& body = {}) {
    fake::OtherUser user(uid, [&](fake::OtherUser::End& end) {
      end.tell(fake::talk(address(), request(method, path, body)));
    });
    return house_.run(user.all_told(house_.io.get_executor()));
  }
  std::string post(const std::string& path, const std::string& body) {
    return ask_as(::geteuid(), "POST", path, body);
  }
  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  static int status_of(const std::string& answer) {
    return answer.size() > 12 ? std::atoi(answer.c_str() + 9) : 0;
  }

 private:
  fake::House& house_;
  ControlPlane& plane_;
  std::filesystem::path directory_;
  proxy::Server server_;
};

}  // namespace staithe::daemon
