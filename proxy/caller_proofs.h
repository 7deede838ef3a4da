// Whether a caller may read a repository by its own right: [[registry]] verify_callers.
//
// The caller's credential is shown to the registry's own origin, with a question about what is
// wanted, and never anywhere else; that it may be read without one is asked likewise. What the
// registry grants holds for `proof_bound`, what it refuses for `refusal_bound`, each for this
// credential (or none), this repository, and this registry as it was configured then. While the
// registry does not answer, what was proven holds to its end, and nothing new is proven.
//
// Nothing here is shared with the machine's own identity: no token, no pause, no connection budget.
// A credential is in memory for secrets while its proof is under way and is wiped then; what is
// remembered is a hash under a key of this process. Guessing is bounded, for each account and for
// each user of this machine, so that nobody gets somebody else's account locked. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/clock.h"
#include "cache/error.h"
#include "cache/sparing.h"
#include "proxy/auth/caller_credential.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/peer.h"
#include "proxy/registries.h"
#include "proxy/single_flight.h"

namespace staithe::proxy {

// A right that was taken away upstream ends here by then, from the question on.
inline constexpr std::chrono::minutes proof_bound{5};
// How soon one that was given, or an account that was mended, is seen.
inline constexpr std::chrono::seconds refusal_bound{60};

// Where the callers of a registry are judged.
struct CallerDoor {
  Origin origin;       // the registry's own, and the only one that sees a credential
  std::string prefix;  // put before every repository
  std::string ca_file = {};
  // The token servers that may be sent a password (auth/trust.h).
  auth::RealmRule password_rule = {};
  // Those of them that may have private addresses (auth/trust.h).
  std::vector<std::string> token_hosts = {};
};

// Tries at something, of which the failed ones run out: `most` at once, and one more for each
// `pause`. Pure.
class Allowance {
 public:
  Allowance(int most, std::chrono::nanoseconds pause) : most_(most), pause_(pause) {}
  // False if there is none left. One that turns out well is given back.
  bool take(Instant now);
  void give_back() { used_ = used_ - pause_; }
  // As if it had never been used.
  bool is_whole(Instant now) const { return used_ <= now; }

 private:
  int most_;
  std::chrono::nanoseconds pause_;
  Instant used_{};  // when all that were taken are there again
};

class CallerProofs {
 public:
  using MakeDoor = std::function<CallerDoor(const Registry&)>;

  // What `environment` refers to outlives it, and its task group has ended before.
  CallerProofs(asio::any_io_executor loop, auth::Environment environment, MakeDoor make_door);
  ~CallerProofs();
  CallerProofs(const CallerProofs&) = delete;
  CallerProofs& operator=(const CallerProofs&) = delete;

  // Who asks for what. `what` as of Upstream::Ask: "manifests/latest", "blobs/sha256:...".
  struct Question {
    RegistryPtr registry;
    std::string repository;  // canonical
    std::string what;
    auth::CallerCredential credential;
    Peer peer;
  };
  struct Verdict {
    bool proven = false;
    Error why = {};  // if it is not: unauthorized, denied, throttled, or what is not there
  };
  // Throws Failure where it cannot be known now: unreachable, upstream_failed, throttled, ...
  asio::awaitable<Verdict> judge(Question question);

  struct Figures {
    std::size_t held = 0;  // proofs at this moment
    std::uint64_t proven = 0;
    std::uint64_t refused = 0;
    std::uint64_t failed = 0;   // upstream did not answer
    std::uint64_t bounded = 0;  // not asked, as too many had failed
  };
  Figures figures() const;

  // Bounds of what is remembered; beyond them the oldest goes.
  static constexpr std::size_t most_proofs = 16 * 1024;
  static constexpr std::size_t most_refusals = 4 * 1024;
  static constexpr std::size_t most_allowances = 4 * 1024;

 private:
  // How one registry is asked; see caller_proofs.cc.
  struct Asker;
  using AskerPtr = std::shared_ptr<Asker>;

  // What upstream said, and about what.
  struct Answer {
    bool proven = false;
    bool absent = false;  // it has no such thing: no word about the repository
    std::string what = {};
    Error why = {};
  };

  struct Kept {
    std::string key;
    std::weak_ptr<Registry> registry;
    Instant until;
    Error why;
  };
  class Memory {
   public:
    explicit Memory(std::size_t most) : most_(most) {}
    // Null if there is none that holds.
    const Kept* find(const std::string& key, const RegistryPtr& registry, Instant now);
    void put(Kept kept);
    void erase(const std::string& key);
    std::size_t size() const { return order_.size(); }

   private:
    std::size_t most_;
    std::list<Kept> order_;  // the oldest first
    std::unordered_map<std::string, std::list<Kept>::iterator> by_key_;
  };

  // Under the key of this process: nobody can tell from it, or guess, what it was made of.
  std::string hash(std::string_view open, std::string_view secret) const;
  std::string key_of(const Question& question, const auth::CallerCredential& credential) const;
  AskerPtr asker_of(const RegistryPtr& registry);
  Allowance& allowance(const std::string& key, int most, std::chrono::nanoseconds pause);
  asio::awaitable<Answer> prove(Question question, std::string key);
  asio::awaitable<Answer> ask(AskerPtr asker, Question question) const;
  static asio::awaitable<auth::Authorization> authorization(
      AskerPtr asker, std::shared_ptr<const auth::Demand> demand, auth::CallerCredential credential,
      std::string repository);
  void note_refusal(const Question& question, const Error& why);

  asio::any_io_executor loop_;
  auth::Environment environment_;
  MakeDoor make_door_;
  auth::Secret key_;
  std::map<const Registry*, AskerPtr> askers_;
  Memory proofs_{most_proofs};
  Memory refusals_{most_refusals};
  std::unordered_map<std::string, Allowance> allowances_;
  SingleFlight<Answer> flights_;
  Sparing refusal_lines_{{.lines = 5, .interval = std::chrono::minutes(1)}};
  Figures figures_;
};

}  // namespace staithe::proxy
