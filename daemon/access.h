// [access] and [registry.access]: which local users may have what from this daemon (threats T1 and
// T2).
//
//   right       who                                                        both lists empty
//   pull        root, the daemon's own user, those who are named           every local user
//   credential  the same (registry passwords, renewals)                    root and the own user
//   look        root, the own user, whom any list names (questions at the  whoever can connect
//               control socket)
//   own         root and the daemon's own user                             the same
//
// A registry that has lists of its own is judged by these alone, be they tighter or looser; all
// others by [access]. What names no registry (/v2/, a list of all credentials) is for whoever may
// have something of any. Where [access] names nobody and a registry does, everybody may connect to
// the control socket, so that `look` is then for those who could before: the own group.
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
#include <set>
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
const char* to_string(Right right);

// Whom the configuration names: for all registries, and for those that have lists of their own, by
// the name of their [[registry]].
struct AccessLists {
  proxy::AccessSettings all = {};
  std::map<std::string, proxy::AccessSettings> own = {};

  static AccessLists of(const proxy::ProxySettings& settings);
  bool operator==(const AccessLists&) const = default;
};

// One pair of lists with names turned into numbers.
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

// All lists as numbers.
struct AccessRules {
  AccessIds all;
  std::map<std::string, AccessIds> own;
  // Of these: who may have something of some registry, and who may look.
  AccessIds any;
  AccessIds look;
};
// Pure: sets `any` and `look` from the rest. `own_group`: of the daemon.
void derive(AccessRules& rules, std::optional<unsigned> own_group);

// What the system says of users, groups and control groups. Blocking; called from one thread that
// is not the loop.
struct Accounts {
  std::function<std::optional<unsigned>(const std::string& name)> user;
  std::function<std::optional<unsigned>(const std::string& name)> group;
  // Empty if the system does not know the user.
  std::function<std::vector<unsigned>(unsigned uid)> groups_of;
  // Where a process is, for people: "/system.slice/nomad.service". Empty if that is not known.
  std::function<std::string(std::uint64_t cgroup)> cgroup_path = {};

  static Accounts of_system();
};

// Lives on the loop.
class Access {
 public:
  // `clock` and `tasks` outlive it. Until load() everybody but root and the own user is refused.
  Access(asio::any_io_executor loop, const Clock& clock, TaskGroup& tasks, unsigned own_uid,
         Accounts accounts = Accounts::of_system(),
         std::optional<unsigned> own_group = std::nullopt);

  // Takes new lists over. They are in force when it has ended, all at once, unless load() has been
  // called again meanwhile; until then those before are, but a registry that has lists of its own
  // only now is closed to all but root and the own user from this call on. Names that the system
  // does not know are logged and name nobody.
  asio::awaitable<void> load(AccessLists lists);
  // True if any list names somebody.
  bool restricted() const;

  // Whether the caller has the right, for this registry (the name of its [[registry]]) or, without
  // one, for any. A refusal is counted, and logged once per user and minute.
  asio::awaitable<bool> allows(Right right, proxy::Caller caller,
                               std::optional<std::string> registry = {});
  // The same, with the time until which it is known; nothing: refused.
  asio::awaitable<std::optional<Instant>> allows_until(Right right, proxy::Caller caller,
                                                       std::optional<std::string> registry);
  // As allows(), for who only wants to know.
  asio::awaitable<bool> would_allow(Right right, proxy::Peer caller,
                                    std::optional<std::string> registry);

  std::uint64_t denied() const;
  std::uint64_t denied(Right right) const { return denied_[static_cast<std::size_t>(right)]; }

  // Who was refused lately, and for what; the last first.
  struct Refused {
    proxy::Peer user;
    std::uint64_t times = 0;  // since it was forgotten, or never known
    Instant last;
    Right right = Right::pull;  // of the last time
    std::string registry;       // likewise; empty: none was named
    std::string cgroup;         // when it was logged last; empty: not known
    Instant logged;
  };
  std::vector<Refused> refused_lately() const;

 private:
  struct Known {
    std::vector<unsigned> groups;
    Instant until;
  };

  asio::awaitable<void> take_over(AccessLists lists, std::uint64_t generation);
  const AccessIds& ids(Right right, const std::optional<std::string>& registry) const;
  asio::awaitable<std::optional<Instant>> judge_now(Right right, proxy::Peer caller,
                                                    std::optional<std::string> registry);
  asio::awaitable<Known> groups_of(unsigned uid);
  asio::awaitable<Known> look_up(unsigned uid);
  asio::thread_pool& pool();
  asio::awaitable<void> note_refusal(Right right, proxy::Caller caller, std::string registry);

  const Clock& clock_;
  const unsigned own_uid_;
  const Accounts accounts_;
  const std::optional<unsigned> own_group_;
  std::optional<asio::thread_pool> pool_;  // made when the first name is looked up
  proxy::SingleFlight<Known> lookups_;
  AccessRules rules_;
  std::set<std::string> closed_;  // until their lists are in force
  std::uint64_t generation_ = 0;  // of load()
  std::map<unsigned, Known> known_;
  std::map<proxy::Peer, Refused> refused_;
  std::array<std::uint64_t, rights> denied_{};  // by Right
};

}  // namespace staithe::daemon
