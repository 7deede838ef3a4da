// What a client sends to show who it is, taken out of a request's head before anybody else reads it
// (threat T20): a mirror is offered credentials that are not its business.
#pragma once

#include <openssl/crypto.h>

#include <array>
#include <boost/beast/http/fields.hpp>
#include <cstddef>
#include <new>
#include <string>
#include <string_view>

#include "cache/error.h"
#include "proxy/auth/secret.h"

namespace staithe::proxy {

// A token with the groups of many has 10 KiB.
inline constexpr std::size_t most_credential_bytes = 12 * 1024;

// The last two are what Docker's own interface takes, and what a client may mistake us for.
inline constexpr std::array<std::string_view, 5> credential_fields{
    "Authorization", "Proxy-Authorization", "Cookie", "X-Registry-Auth", "X-Registry-Config"};

// Removes every field that may hold a credential and wipes its value where it stood. The value of
// Authorization comes back if it is `wanted`, else nothing. Fails with bad_request if there are
// several or it is too long, with storage_failed if there is no room for one more secret; all are
// gone then, too.
template <class Allocator>
Result<auth::Secret> take_credentials(boost::beast::http::basic_fields<Allocator>& fields,
                                      bool wanted) {
  auth::Secret taken;
  std::size_t count = 0;
  bool too_long = false;
  bool no_room = false;
  for (const std::string_view name : credential_fields) {
    const auto find = [&] { return fields.find({name.data(), name.size()}); };
    for (auto field = find(); field != fields.end(); field = find()) {
      const auto value = field->value();
      if (wanted && name == credential_fields.front() && ++count == 1) {
        too_long = value.size() > most_credential_bytes;
        try {
          if (!too_long) taken = auth::Secret(std::string_view(value.data(), value.size()));
        } catch (const std::bad_alloc&) {
          no_room = true;
        }
      }
      // The fields own the text and hand it out as constant.
      if (!value.empty()) OPENSSL_cleanse(const_cast<char*>(value.data()), value.size());
      fields.erase(field);
    }
  }
  if (count > 1) return fail(Errc::bad_request, "a request has at most one Authorization field");
  if (too_long)
    return fail(Errc::bad_request, "an Authorization field has at most " +
                                       std::to_string(most_credential_bytes) + " bytes");
  if (no_room)
    return fail(Errc::storage_failed, "there is no memory for one more credential; come again");
  return taken;
}

}  // namespace staithe::proxy
