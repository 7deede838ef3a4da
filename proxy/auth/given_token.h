// Tokens that a person has fetched and this program cannot renew: an Entra token, or an ACR refresh
// token from `az acr login --expose-token`, in a file or by `staithe login` (azure-protocol.md
// section 6.8).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token.h"

namespace staithe::proxy::auth {

// The token in a text as people have it: itself, or az's JSON with `accessToken` in it. Its life
// is what its own claims leave of it by the wall clock, since nothing else tells. Fails with
// identity_missing: no JWT, no end, already over; the error never quotes the text.
Result<Token> read_given_token(std::string_view text, Instant now, WallTime wall);

// Read again every half minute, so that whoever renews the file has nothing else to do.
class TokenFile final : public TokenSource {
 public:
  TokenFile(Environment environment, std::filesystem::path path)
      : environment_(environment), path_(std::move(path)) {}
  asio::awaitable<Token> fetch() override;

 private:
  Environment environment_;
  std::filesystem::path path_;
};

// One text, kept in memory only.
class TokenInMemory final : public TokenSource {
 public:
  TokenInMemory(Environment environment, Secret text, std::string remedy)
      : environment_(environment), text_(std::move(text)), remedy_(std::move(remedy)) {}
  asio::awaitable<Token> fetch() override;

 private:
  Environment environment_;
  Secret text_;
  std::string remedy_;
};

// When `what` ends, for status and for the warning ahead of it.
Endings endings_of_given(std::string what, std::shared_ptr<TokenKeeper> keeper,
                         Environment environment);

}  // namespace staithe::proxy::auth
