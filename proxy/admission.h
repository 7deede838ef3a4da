// Whom every loop may answer without asking the main one: which Host fields are taken, whether
// every user may ask for everything, and, if not, what was found out about the one behind a
// connection.
//
// Set on the main loop, read on any: a snapshot under a mutex, and a version by which a reader that
// has one sees that it still is the newest. A request that begins after set_*() has returned is
// judged by what was set.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "cache/clock.h"
#include "proxy/host_policy.h"
#include "proxy/request_meter.h"

namespace staithe::proxy {

class Admission {
 public:
  using Hosts = std::shared_ptr<const HostPolicy>;
  struct Rules {
    Hosts hosts;            // null: any
    bool everybody = true;  // else whose connection it is decides, with its Pass
  };

  void set_hosts(HostPolicy hosts) {
    set([&](Rules& rules) { rules.hosts = std::make_shared<const HostPolicy>(std::move(hosts)); });
  }
  // Ends every Pass, also if it is what it was.
  void set_everybody(bool everybody) {
    set([&](Rules& rules) { rules.everybody = everybody; });
  }

  std::uint64_t version() const { return version_.load(); }
  Rules rules() const {
    const std::scoped_lock lock(mutex_);
    return rules_;
  }
  Hosts hosts() const { return rules().hosts; }

 private:
  template <class Change>
  void set(Change change) {
    const std::scoped_lock lock(mutex_);
    change(rules_);
    ++version_;
  }

  mutable std::mutex mutex_;
  Rules rules_;
  std::atomic<std::uint64_t> version_ = 1;
};

// For the content of which registries the user behind one connection may be answered: what the main
// loop has found out about him, under the rules of one version, and until when it holds. Whoever
// has the connection has its pass.
class Pass {
 public:
  // A pull is from one, and few connections are for more; the one noted first makes room.
  static constexpr std::size_t most_registries = 4;

  // `version`: of the rules by which he was judged, from before that was begun.
  void note(const RequestMeter::Registry* registry, std::uint64_t version, Instant until);
  // False for no registry.
  bool covers(const RequestMeter::Registry* registry, std::uint64_t version, Instant now) const;

 private:
  struct Entry {
    const RequestMeter::Registry* registry;
    Instant until;
  };
  std::uint64_t version_ = 0;  // of no rules
  std::vector<Entry> entries_;
};

}  // namespace staithe::proxy
