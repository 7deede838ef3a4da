// Who holds how many of a server's connections, and who gives way when there is no more room
// (threat T16).
//
// Every connection belongs to a user, those whose user the kernel does not tell to one of their
// own. A user has at most `connections_per_user`. When there is no room for a newcomer, the user
// with the most connections loses the one that has waited longest for its next request, so that a
// crowd of one user's idle connections keeps nobody out; nobody loses one to a user who has as many
// as he. A connection that is being answered is never taken. Lives on the loop.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstddef>
#include <map>
#include <set>
#include <utility>

#include "proxy/peer.h"

namespace staithe::proxy {

class Crowd {
  using Hook =
      boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

 public:
  struct Limits {
    std::size_t connections;
    std::size_t connections_per_user;
  };

  // A connection as it is counted here, from enter() to leave() or its end.
  class Guest : public Hook {
   public:
    Guest() = default;
    virtual ~Guest() { leave(); }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    // It waits for its next request from now on, and may be asked to give way.
    void rest();
    // It has a request.
    void work() { unlink(); }
    // It is counted no more.
    void leave();
    bool counted() const { return crowd_ != nullptr; }
    // Ends it, as another one takes its place.
    virtual void give_way() {}

   private:
    friend class Crowd;
    Crowd* crowd_ = nullptr;
    Peer user_;
  };

  explicit Crowd(Limits limits) : limits_(limits) {}

  enum class Verdict {
    welcome,
    in_place_of,   // welcome if `gives_way` leaves
    user_has_all,  // refused: the user has all that one user may have
    full,          // refused: there is no room, and nobody who would have to make some
  };
  struct Decision {
    Verdict verdict;
    Guest* gives_way = nullptr;
  };
  // About a newcomer of `user`. `no_room`: there is none, whatever the number of connections is.
  Decision decide(Peer user, bool no_room = false) const;
  void enter(Guest& guest, Peer user);

  std::size_t size() const { return size_; }
  std::size_t users() const { return users_.size(); }

 private:
  using Resting =
      boost::intrusive::list<Guest, boost::intrusive::constant_time_size<false>>;  // longest first
  struct User {
    std::size_t connections = 0;
    mutable Resting resting;
  };

  Guest* who_gives_way(Peer user) const;
  void resize(Peer user, User& entry, std::size_t connections);

  Limits limits_;
  std::size_t size_ = 0;
  std::map<Peer, User> users_;
  std::set<std::pair<std::size_t, Peer>> by_size_;  // connections and user
};

}  // namespace staithe::proxy
