#include "daemon/access.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <numeric>

#include "cache/log.h"
#include "cache/offload.h"
#include "daemon/cgroup.h"

namespace staithe::daemon {

namespace {

using namespace std::chrono_literals;

constexpr auto groups_last = 60s;
constexpr auto log_pause = 60s;
// Users of one machine whose groups are remembered, and whose refusals are.
constexpr std::size_t most_users = 1000;
constexpr std::size_t most_refused_shown = 10;
// What one entry of the user database may take; a group with thousands of members is large.
constexpr std::size_t most_entry_bytes = 1 << 20;
constexpr int most_groups = 65536;  // the kernel's own bound

// Calls look(entry, buffer, size, result), getpwnam_r and its like, with a buffer that is large
// enough. Null if there is no such entry.
template <class Entry>
Entry* find_entry(Entry& entry, std::vector<char>& buffer, auto look) {
  for (buffer.resize(4096); buffer.size() <= most_entry_bytes; buffer.resize(buffer.size() * 4)) {
    Entry* found = nullptr;
    const int error = look(&entry, buffer.data(), buffer.size(), &found);
    if (error == EINTR) continue;
    if (error != ERANGE) return error == 0 ? found : nullptr;
  }
  return nullptr;
}

// "1000" is the number itself.
std::optional<unsigned> number(const std::string& account) {
  if (account.empty() || account.find_first_not_of("0123456789") != account.npos)
    return std::nullopt;
  return static_cast<unsigned>(std::stoul(account));  // checked by the options' grammar
}

std::vector<unsigned> resolve(const std::vector<std::string>& accounts, const auto& look_up,
                              std::vector<std::string>& unknown) {
  std::vector<unsigned> ids;
  for (const std::string& account : accounts) {
    std::optional<unsigned> id = number(account);
    if (!id) id = look_up(account);
    if (id) {
      ids.push_back(*id);
    } else {
      unknown.push_back(account);
    }
  }
  return ids;
}

std::optional<unsigned> uid_of(const std::string& name) {
  passwd entry{};
  std::vector<char> buffer;
  const auto look = [&](passwd* e, char* bytes, std::size_t size, passwd** result) {
    return ::getpwnam_r(name.c_str(), e, bytes, size, result);
  };
  const passwd* found = find_entry(entry, buffer, look);
  return found ? std::optional<unsigned>(found->pw_uid) : std::nullopt;
}

std::optional<unsigned> gid_of(const std::string& name) {
  group entry{};
  std::vector<char> buffer;
  const auto look = [&](group* e, char* bytes, std::size_t size, group** result) {
    return ::getgrnam_r(name.c_str(), e, bytes, size, result);
  };
  const group* found = find_entry(entry, buffer, look);
  return found ? std::optional<unsigned>(found->gr_gid) : std::nullopt;
}

std::vector<unsigned> gids_of(unsigned uid) {
  passwd entry{};
  std::vector<char> buffer;
  const auto look = [&](passwd* e, char* bytes, std::size_t size, passwd** result) {
    return ::getpwuid_r(uid, e, bytes, size, result);
  };
  const passwd* found = find_entry(entry, buffer, look);
  if (!found) return {};
  int count = 64;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  while (::getgrouplist(found->pw_name, found->pw_gid, groups.data(), &count) < 0) {
    const int had = static_cast<int>(groups.size());
    if (had >= most_groups) return {};
    count = std::min(std::max(count, had * 2), most_groups);
    groups.resize(static_cast<std::size_t>(count));
  }
  groups.resize(static_cast<std::size_t>(count));
  return {groups.begin(), groups.end()};
}

void add_all(std::vector<unsigned>& to, const std::vector<unsigned>& more) {
  for (const unsigned id : more)
    if (std::ranges::find(to, id) == to.end()) to.push_back(id);
}

const AccessIds nobody{.restricted = true, .users = {}, .groups = {}};

}  // namespace

const char* to_string(Right right) {
  switch (right) {
    case Right::pull:
      return "pull";
    case Right::look:
      return "look";
    case Right::credential:
      return "credential";
    case Right::own:
      return "own";
  }
  return "own";
}

AccessLists AccessLists::of(const proxy::ProxySettings& settings) {
  AccessLists lists{.all = settings.access};
  for (const proxy::RegistrySettings& registry : settings.registries)
    if (registry.access) lists.own.emplace(registry.name, *registry.access);
  return lists;
}

Verdict judge(Right right, proxy::Peer caller, const AccessIds& access, unsigned own_uid) {
  const bool open_to_all = right == Right::pull || right == Right::look;
  if (open_to_all && !access.restricted) return Verdict::allowed;
  if (!caller) return Verdict::refused;
  if (*caller == 0 || *caller == own_uid) return Verdict::allowed;
  if (right == Right::own) return Verdict::refused;
  if (std::ranges::find(access.users, *caller) != access.users.end()) return Verdict::allowed;
  return access.groups.empty() ? Verdict::refused : Verdict::by_groups;
}

bool is_member(std::span<const unsigned> groups_of_caller, const AccessIds& access) {
  return std::ranges::any_of(groups_of_caller, [&](unsigned group) {
    return std::ranges::find(access.groups, group) != access.groups.end();
  });
}

void derive(AccessRules& rules, std::optional<unsigned> own_group) {
  rules.any = rules.all;
  bool somebody_is_named = rules.all.restricted;
  for (const auto& [registry, ids] : rules.own) {
    // One list that is open to everybody is enough for everybody to have something.
    rules.any.restricted = rules.any.restricted && ids.restricted;
    somebody_is_named = somebody_is_named || ids.restricted;
    add_all(rules.any.users, ids.users);
    add_all(rules.any.groups, ids.groups);
  }
  rules.look = rules.any;
  rules.look.restricted = somebody_is_named;
  if (!rules.all.restricted && own_group) add_all(rules.look.groups, {*own_group});
}

Accounts Accounts::of_system() {
  return {.user = uid_of,
          .group = gid_of,
          .groups_of = gids_of,
          .cgroup_path = [](std::uint64_t cgroup) {
            return daemon::cgroup_path(cgroup_root(), cgroup);
          }};
}

Access::Access(asio::any_io_executor loop, const Clock& clock, TaskGroup& tasks, unsigned own_uid,
               Accounts accounts, std::optional<unsigned> own_group)
    : clock_(clock),
      own_uid_(own_uid),
      accounts_(std::move(accounts)),
      own_group_(own_group),
      lookups_(std::move(loop), tasks),
      rules_{.all = nobody, .own = {}, .any = nobody, .look = nobody} {}

asio::thread_pool& Access::pool() {
  if (!pool_) pool_.emplace(1);
  return *pool_;
}

bool Access::restricted() const {
  // Whoever is named anywhere closes `look`.
  return rules_.look.restricted || !closed_.empty();
}

// No coroutine: what is closed is so when this returns.
asio::awaitable<void> Access::load(AccessLists lists) {
  closed_.clear();
  for (const auto& [registry, settings] : lists.own)
    if (!rules_.own.contains(registry)) closed_.insert(registry);
  return take_over(std::move(lists), ++generation_);
}

asio::awaitable<void> Access::take_over(AccessLists lists, std::uint64_t generation) {
  struct Unknown {
    std::string key;
    std::vector<std::string> names;
  };
  std::vector<Unknown> unknown_users;
  std::vector<Unknown> unknown_groups;
  AccessRules rules;
  const auto turn_into_numbers = [&](const std::string& table, const proxy::AccessSettings& names,
                                     AccessIds& ids) {
    ids.restricted = !names.empty();
    Unknown users{table + ".users", {}};
    Unknown groups{table + ".groups", {}};
    ids.users = resolve(names.users, accounts_.user, users.names);
    ids.groups = resolve(names.groups, accounts_.group, groups.names);
    unknown_users.push_back(std::move(users));
    unknown_groups.push_back(std::move(groups));
  };
  bool somebody_is_named = !lists.all.empty();
  for (const auto& [registry, names] : lists.own)
    somebody_is_named = somebody_is_named || !names.empty();
  const auto turn_all = [&] {
    turn_into_numbers("access", lists.all, rules.all);
    for (const auto& [registry, names] : lists.own)
      turn_into_numbers("registry[\"" + registry + "\"].access", names, rules.own[registry]);
  };
  if (somebody_is_named) {
    co_await offload(pool(), turn_all);
  } else {
    turn_all();  // without a name there is nothing to wait for
  }
  if (generation != generation_) co_return;  // newer lists are on their way, or in force
  derive(rules, own_group_);
  rules_ = std::move(rules);
  closed_.clear();
  known_.clear();
  for (const auto& [key, names] : unknown_users) {
    for (const std::string& name : names)
      log::warn("a user of [access] is not known here and so nobody",
                {{"key", key}, {"name", name}});
  }
  for (const auto& [key, names] : unknown_groups) {
    for (const std::string& name : names)
      log::warn("a group of [access] is not known here and so nobody",
                {{"key", key}, {"name", name}});
  }
}

std::uint64_t Access::denied() const {
  return std::accumulate(denied_.begin(), denied_.end(), std::uint64_t{0});
}

const AccessIds& Access::ids(Right right, const std::optional<std::string>& registry) const {
  if (right == Right::look) return rules_.look;
  if (!registry) return rules_.any;
  if (closed_.contains(*registry)) return nobody;
  const auto own = rules_.own.find(*registry);
  return own == rules_.own.end() ? rules_.all : own->second;
}

asio::awaitable<std::optional<Instant>> Access::judge_now(Right right, proxy::Peer caller,
                                                          std::optional<std::string> registry) {
  const Verdict verdict = judge(right, caller, ids(right, registry), own_uid_);
  if (verdict == Verdict::allowed) co_return Instant::max();
  if (verdict == Verdict::refused) co_return std::nullopt;
  const Known known = co_await groups_of(*caller);
  // By the lists of this moment: the lookup may have taken seconds.
  const AccessIds& now = ids(right, registry);
  const Verdict without_groups = judge(right, caller, now, own_uid_);
  if (without_groups == Verdict::allowed) co_return Instant::max();
  if (without_groups == Verdict::refused || !is_member(known.groups, now)) co_return std::nullopt;
  co_return known.until;
}

asio::awaitable<std::optional<Instant>> Access::allows_until(Right right, proxy::Caller caller,
                                                             std::optional<std::string> registry) {
  const auto until = co_await judge_now(right, caller.user, registry);
  if (!until) co_await note_refusal(right, caller, registry.value_or(std::string()));
  co_return until;
}

asio::awaitable<bool> Access::allows(Right right, proxy::Caller caller,
                                     std::optional<std::string> registry) {
  const auto until = co_await allows_until(right, caller, std::move(registry));
  co_return until.has_value();
}

asio::awaitable<bool> Access::would_allow(Right right, proxy::Peer caller,
                                          std::optional<std::string> registry) {
  const auto until = co_await judge_now(right, caller, std::move(registry));
  co_return until.has_value();
}

asio::awaitable<Access::Known> Access::groups_of(unsigned uid) {
  if (const auto known = known_.find(uid);
      known != known_.end() && clock_.now() < known->second.until)
    co_return known->second;
  co_return co_await lookups_.run(std::to_string(uid), look_up(uid));
}

asio::awaitable<Access::Known> Access::look_up(unsigned uid) {
  Known known{.groups = {}, .until = clock_.now() + groups_last};
  co_await offload(pool(), [&] { known.groups = accounts_.groups_of(uid); });
  if (known_.size() >= most_users) known_.clear();
  known_[uid] = known;
  co_return known;
}

asio::awaitable<void> Access::note_refusal(Right right, proxy::Caller caller,
                                           std::string registry) {
  ++denied_[static_cast<std::size_t>(right)];
  const Instant now = clock_.now();
  if (refused_.size() >= most_users && !refused_.contains(caller.user)) refused_.clear();
  const auto [it, is_new] = refused_.try_emplace(caller.user);
  Refused& refused = it->second;
  refused.user = caller.user;
  ++refused.times;
  refused.last = now;
  refused.right = right;
  refused.registry = registry;
  if (!is_new && now < refused.logged + log_pause) co_return;
  refused.logged = now;
  std::string cgroup;
  const std::uint64_t id = caller.connection >= 0 ? proxy::cgroup_of(caller.connection) : 0;
  if (id != 0 && accounts_.cgroup_path)
    co_await offload(pool(), [&] { cgroup = accounts_.cgroup_path(id); });
  // Others may have been noted meanwhile, and all been forgotten.
  if (const auto still = refused_.find(caller.user); still != refused_.end())
    still->second.cgroup = cgroup;
  log::warn("a user was refused",
            {{"user", caller.user ? std::to_string(*caller.user) : "unknown"},
             {"right", to_string(right)},
             {"registry", log::if_any(registry)},
             {"cgroup", log::if_any(cgroup)},
             {"remedy", right == Right::own
                            ? "only root and the daemon's own user may do this"
                            : "add it to users or groups of [access], or of the registry's own "
                              "[registry.access], if it may"}});
}

std::vector<Access::Refused> Access::refused_lately() const {
  std::vector<Refused> all;
  for (const auto& [user, refused] : refused_) all.push_back(refused);
  const std::size_t shown = std::min(all.size(), most_refused_shown);
  std::ranges::partial_sort(all, all.begin() + static_cast<std::ptrdiff_t>(shown),
                            std::ranges::greater(), &Refused::last);
  all.resize(shown);
  return all;
}

}  // namespace staithe::daemon
