#include "proxy/crowd.h"

#include <cassert>
#include <utility>

namespace staithe::proxy {

void Crowd::Guest::rest() {
  if (!crowd_) return;
  unlink();
  crowd_->users_.at(user_).resting.push_back(*this);
}

void Crowd::Guest::leave() {
  unlink();
  Crowd* crowd = std::exchange(crowd_, nullptr);
  if (!crowd) return;
  const auto it = crowd->users_.find(user_);
  assert(it != crowd->users_.end());
  --crowd->size_;
  crowd->resize(user_, it->second, it->second.connections - 1);
  if (it->second.connections == 0) crowd->users_.erase(it);
}

void Crowd::enter(Guest& guest, Peer user) {
  assert(!guest.crowd_);
  guest.crowd_ = this;
  guest.user_ = user;
  User& entry = users_[user];
  ++size_;
  resize(user, entry, entry.connections + 1);
}

void Crowd::resize(Peer user, User& entry, std::size_t connections) {
  by_size_.erase({entry.connections, user});
  entry.connections = connections;
  if (connections > 0) by_size_.insert({connections, user});
}

Crowd::Decision Crowd::decide(Peer user, bool no_room) const {
  const auto it = users_.find(user);
  if (it != users_.end() && it->second.connections >= limits_.connections_per_user)
    return {Verdict::user_has_all};
  if (size_ < limits_.connections && !no_room) return {Verdict::welcome};
  Guest* const guest = who_gives_way(user);
  return guest ? Decision{Verdict::in_place_of, guest} : Decision{Verdict::full};
}

Crowd::Guest* Crowd::who_gives_way(Peer user) const {
  const auto newcomers = users_.find(user);
  const std::size_t his = newcomers == users_.end() ? 0 : newcomers->second.connections;
  for (auto it = by_size_.rbegin(); it != by_size_.rend(); ++it) {
    const auto& [connections, owner] = *it;
    if (connections < his) break;
    if (connections == his && owner != user) continue;
    Resting& resting = users_.at(owner).resting;
    if (!resting.empty()) return &resting.front();
  }
  return nullptr;
}

}  // namespace staithe::proxy
