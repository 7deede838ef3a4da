// What went wrong, for whoever branches on it and for whoever reads it.
//
// Values (`Result`) carry what a caller decides on; exceptions (`Failure`) carry what ends a
// request or a background task. Both hold an `Error`: a class to branch on and one sentence that
// names the thing, the cause and the remedy. The sentence may be shown to operators and clients,
// so it never holds a secret, a signed URL or unescaped bytes from outside.
#pragma once

#include <exception>
#include <expected>
#include <string>
#include <type_traits>
#include <utility>

namespace staithe {

enum class Errc {
  bad_request,            // the request is not one of this protocol
  name_invalid,           // repository or tag outside the grammar of the OCI distribution spec
  digest_invalid,         // digest outside the grammar, or not the digest of the bytes
  range_not_satisfiable,  // RFC 9110 section 14.4
  not_found,              // no such resource in this program
  unsupported,            // well-formed, but not offered here (writes, for instance)
  registry_unknown,       // no [[registry]] answers to this name
  name_unknown,           // upstream knows no such repository
  manifest_unknown,       // upstream has no such manifest
  blob_unknown,           // upstream has no such blob, or not for this repository
  denied,                 // upstream knows us and refuses
  unauthorized,           // upstream, or an identity service, does not accept our credential
  identity_missing,       // no identity service here, or it knows no such identity
  firewall,           // upstream's network rules keep this machine out; no fault of a credential
  throttled,          // upstream answered 429; `retry_after` may say for how long
  unreachable,        // no answer from upstream: DNS, connect, TLS, time-out
  upstream_failed,    // an answer that is a failure (5xx) or breaks off
  upstream_nonsense,  // an answer that makes no sense or is not true (wrong bytes, wrong JSON)
  too_large,          // beyond a named limit
  storage_full,       // no room on disk within the configured bounds
  storage_failed,     // the disk or the index failed
  in_use,             // another instance holds it, or a pin
  cancelled,          // we are stopping
  config,             // configuration or arguments
};

// The enumerator's name, for logs and JSON.
const char* to_string(Errc code);

struct Error {
  Errc code;
  std::string detail;
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Errc code, std::string detail) {
  return std::unexpected(Error{code, std::move(detail)});
}

class Failure : public std::exception {
 public:
  explicit Failure(Error error) : error_(std::move(error)) {}
  Failure(Errc code, std::string detail) : error_{code, std::move(detail)} {}

  const Error& error() const { return error_; }
  Errc code() const { return error_.code; }
  const char* what() const noexcept override { return error_.detail.c_str(); }

 private:
  Error error_;
};

// The value, or the error as an exception: for callers to whom the error is the end.
template <class T>
T value_or_throw(Result<T> result) {
  if (!result) throw Failure(std::move(result.error()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// "No space left on device": the words for an errno, never the number alone.
std::string describe_errno(int error_number);

}  // namespace staithe
