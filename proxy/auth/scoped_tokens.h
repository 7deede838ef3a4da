// The access tokens of one registry: one keeper per scope, a bounded number of them.
//
// A client may ask for any repository name, so beyond the bound the scope that nobody has used for
// longest is dropped; a scope whose fetch is in flight stays.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"

namespace staithe::proxy::auth {

class ScopedTokens {
 public:
  using MakeSource = std::function<std::unique_ptr<TokenSource>(const std::string& repository)>;

  // A machine pulls from tens of repositories; a token and its keeper take about 4 KiB.
  static constexpr std::size_t default_limit = 1024;

  // `registry` names it in reports.
  ScopedTokens(std::string registry, MakeSource make_source, Environment environment,
               std::size_t limit = default_limit);

  // The keeper for pulling from `repository`. Throws Failure(throttled) if all places are taken by
  // fetches in flight.
  std::shared_ptr<TokenKeeper> at(const std::string& repository);

  // The keeper if there is one, else null.
  TokenKeeper* find(const std::string& repository) const;

  // Drops all tokens; who holds one may finish.
  void clear() { keepers_.clear(); }

  std::size_t size() const { return keepers_.size(); }
  void append_status(std::vector<TokenStatus>& tokens) const;

 private:
  void make_room();

  std::string registry_;
  MakeSource make_source_;
  Environment environment_;
  std::size_t limit_;
  std::unordered_map<std::string, std::shared_ptr<TokenKeeper>> keepers_;
};

}  // namespace staithe::proxy::auth
