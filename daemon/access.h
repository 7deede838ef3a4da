// [access]: which local users may have what from this daemon (threats T1 and T2).
//
//   right       who                                                        both lists empty
//   pull        root, the daemon's own user, those who are named           every local user
//   look        the same (questions at the control socket)                 whoever can connect
//   credential  the same (registry passwords, renewals)                    root and the own user
//   own         root and the daemon's own user                             the same
//
// Root and the daemon's own user are never refused: they could read its memory or its files anyway.
// A caller whom the kernel does not know is refused wherever anybody is. Names become numbers when
// the configuration is loaded; the groups of a user are looked up when they decide, and remembered
// for a minute. Such lookups can take seconds (LDAP), so they run on a thread of their own.
#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/task_group.h"
#include "proxy/peer.h"
#include "proxy/settings.h"
#include "proxy/single_flight.h"

namespace staithe::daemon {

namespace asio = boost::asio;

enum class Right { pull, look, credential, own };
inline constexpr std::size_t rights = 4;

// [access] with names turned into numbers.
struct AccessIds {
  bool restricted = false;  // the file names somebody, whether or not the system knows him
  std::vector<unsigned> users;
  std::vector<unsigned> groups;
};

// Yes, no, or it depends on the groups of the caller.
enum class Verdict { allowed, refused, by_groups };

// Pure: what can be said without the caller's groups.
Verdict judge(Right right, proxy::Peer caller, const AccessIds& access, unsigned own_uid);
// Pure: the rest of it.
bool is_member(std::span<const unsigned> groups_of_caller, const AccessIds& access);

// The system's users and groups. Blocking; called from one thread that is not the loop.
struct Accounts {
  std::function<std::optional<unsigned>(const std::string& name)> user;
  std::function<std::optional<unsigned>(const std::string& name)> group;
  // Empty if the system does not know the user.
  std::function<std::vector<unsigned>(unsigned uid)> groups_of;

  static Accounts of_system();
};

// Lives on the loop.
class Access {
 public:
  // `clock` and `tasks` outlive it. Until load() everybody but root and the own user is refused.
  Access(asio::any_io_executor loop, const Clock& clock, TaskGroup& tasks, unsigned own_uid,
         Accounts accounts = Accounts::of_system());

  // Takes new settings over. Names that the system does not know are logged and name nobody.
  asio::awaitable<void> load(proxy::AccessSettings settings);
  // True if [access] names somebody.
  bool restricted() const { return ids_.restricted; }

  // A refusal is counted, and logged once per user and minute.
  asio::awaitable<bool> allows(Right right, proxy::Peer caller);
  std::uint64_t denied() const;
  std::uint64_t denied(Right right) const { return denied_[static_cast<std::size_t>(right)]; }

 private:
  struct Known {
    std::vector<unsigned> groups;
    Instant until;
  };

  asio::awaitable<std::vector<unsigned>> groups_of(unsigned uid);
  asio::awaitable<std::vector<unsigned>> look_up(unsigned uid);
  asio::thread_pool& pool();
  void note_denial(Right right, proxy::Peer caller);

  const Clock& clock_;
  const unsigned own_uid_;
  const Accounts accounts_;
  std::optional<asio::thread_pool> pool_;  // made when the first name is looked up
  proxy::SingleFlight<std::vector<unsigned>> lookups_;
  AccessIds ids_{.restricted = true, .users = {}, .groups = {}};
  std::map<unsigned, Known> known_;
  std::map<proxy::Peer, Instant> logged_;
  std::array<std::uint64_t, rights> denied_{};  // by Right
};

}  // namespace staithe::daemon
