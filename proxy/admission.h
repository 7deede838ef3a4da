// Whom every loop may answer without asking the main one: which Host fields are taken, and whether
// every user may ask.
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

#include "proxy/host_policy.h"

namespace staithe::proxy {

class Admission {
 public:
  using Hosts = std::shared_ptr<const HostPolicy>;
  struct Rules {
    Hosts hosts;            // null: any
    bool everybody = true;  // else the main loop has to ask who it is
  };

  void set_hosts(HostPolicy hosts) {
    set([&](Rules& rules) { rules.hosts = std::make_shared<const HostPolicy>(std::move(hosts)); });
  }
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

}  // namespace staithe::proxy
