#include "daemon/access.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>

#include "cache/log.h"
#include "cache/offload.h"

namespace staithe::daemon {

namespace {

using namespace std::chrono_literals;

constexpr auto groups_last = 60s;
constexpr auto log_pause = 60s;
// Users of one machine whose groups are remembered, and whose refusals are.
constexpr std::size_t most_users = 1000;
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

}  // namespace

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

Accounts Accounts::of_system() { return {.user = uid_of, .group = gid_of, .groups_of = gids_of}; }

Access::Access(asio::any_io_executor loop, const Clock& clock, TaskGroup& tasks, unsigned own_uid,
               Accounts accounts)
    : clock_(clock),
      own_uid_(own_uid),
      accounts_(std::move(accounts)),
      lookups_(std::move(loop), tasks) {}

asio::thread_pool& Access::pool() {
  if (!pool_) pool_.emplace(1);
  return *pool_;
}

asio::awaitable<void> Access::load(proxy::AccessSettings settings) {
  AccessIds ids{.restricted = !settings.empty(), .users = {}, .groups = {}};
  std::vector<std::string> unknown_users;
  std::vector<std::string> unknown_groups;
  if (ids.restricted) {
    co_await offload(pool(), [&] {
      ids.users = resolve(settings.users, accounts_.user, unknown_users);
      ids.groups = resolve(settings.groups, accounts_.group, unknown_groups);
    });
  }
  ids_ = std::move(ids);
  known_.clear();
  for (const std::string& name : unknown_users) {
    log::warn("a user of [access] is not known here and so nobody",
              {{"key", "access.users"}, {"name", name}});
  }
  for (const std::string& name : unknown_groups) {
    log::warn("a group of [access] is not known here and so nobody",
              {{"key", "access.groups"}, {"name", name}});
  }
}

std::uint64_t Access::denied() const {
  return std::accumulate(denied_.begin(), denied_.end(), std::uint64_t{0});
}

asio::awaitable<bool> Access::allows(Right right, proxy::Peer caller) {
  const Verdict verdict = judge(right, caller, ids_, own_uid_);
  if (verdict == Verdict::allowed) co_return true;
  if (verdict == Verdict::by_groups) {
    const std::vector<unsigned> groups = co_await groups_of(*caller);
    if (is_member(groups, ids_)) co_return true;
  }
  note_denial(right, caller);
  co_return false;
}

asio::awaitable<std::vector<unsigned>> Access::groups_of(unsigned uid) {
  if (const auto known = known_.find(uid);
      known != known_.end() && clock_.now() < known->second.until)
    co_return known->second.groups;
  co_return co_await lookups_.run(std::to_string(uid), look_up(uid));
}

asio::awaitable<std::vector<unsigned>> Access::look_up(unsigned uid) {
  std::vector<unsigned> groups;
  co_await offload(pool(), [&] { groups = accounts_.groups_of(uid); });
  if (known_.size() >= most_users) known_.clear();
  known_[uid] = {groups, clock_.now() + groups_last};
  co_return groups;
}

void Access::note_denial(Right right, proxy::Peer caller) {
  ++denied_[static_cast<std::size_t>(right)];
  const Instant now = clock_.now();
  if (const auto last = logged_.find(caller);
      last != logged_.end() && now < last->second + log_pause)
    return;
  if (logged_.size() >= most_users) logged_.clear();
  logged_[caller] = now;
  log::warn(
      "a user was refused",
      {{"user", caller ? std::to_string(*caller) : "unknown"},
       {"right", to_string(right)},
       {"remedy", right == Right::own ? "only root and the daemon's own user may do this"
                                      : "add it to access.users or access.groups if it may"}});
}

}  // namespace staithe::daemon
