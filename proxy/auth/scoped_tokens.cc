#include "proxy/auth/scoped_tokens.h"

#include <cassert>

#include "cache/escape.h"

namespace staithe::proxy::auth {

ScopedTokens::ScopedTokens(std::string registry, MakeSource make_source, Environment environment,
                           std::size_t limit)
    : registry_(std::move(registry)),
      make_source_(std::move(make_source)),
      environment_(environment),
      limit_(limit) {
  assert(limit > 0);
}

std::shared_ptr<TokenKeeper> ScopedTokens::at(const std::string& repository) {
  if (const auto found = keepers_.find(repository); found != keepers_.end()) return found->second;
  if (keepers_.size() >= limit_) make_room();
  auto keeper =
      std::make_shared<TokenKeeper>("access token for " + registry_ + "/" + printable(repository),
                                    Kind::access, make_source_(repository), environment_);
  keepers_.emplace(repository, keeper);
  return keeper;
}

TokenKeeper* ScopedTokens::find(const std::string& repository) const {
  const auto found = keepers_.find(repository);
  return found == keepers_.end() ? nullptr : found->second.get();
}

void ScopedTokens::append_status(std::vector<TokenStatus>& tokens) const {
  for (const auto& [repository, keeper] : keepers_) {
    if (auto status = keeper->status()) tokens.push_back(std::move(*status));
  }
}

void ScopedTokens::make_room() {
  std::erase_if(keepers_, [](const auto& entry) { return entry.second->is_idle(); });
  if (keepers_.size() < limit_) return;
  auto oldest = keepers_.end();
  for (auto it = keepers_.begin(); it != keepers_.end(); ++it) {
    if (it->second->in_flight()) continue;
    if (oldest == keepers_.end() || it->second->last_used() < oldest->second->last_used())
      oldest = it;
  }
  if (oldest == keepers_.end()) {
    throw Failure(Errc::throttled, "tokens for " + std::to_string(limit_) + " repositories of " +
                                       registry_ + " are being fetched at once: try again");
  }
  keepers_.erase(oldest);
}

}  // namespace staithe::proxy::auth
