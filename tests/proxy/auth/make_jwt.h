// JWTs as the issuers of the tests make them. Their signature is a marker that no one checks.
#pragma once

#include <string>
#include <string_view>

namespace staithe::proxy::auth {

inline std::string base64url(std::string_view bytes) {
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  unsigned bits = 0;
  int have = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    have += 8;
    while (have >= 6) {
      have -= 6;
      text += alphabet[bits >> have & 63];
    }
  }
  if (have > 0) text += alphabet[bits << (6 - have) & 63];
  return text;
}

inline std::string make_jwt(std::string_view claims) {
  return base64url(R"({"alg":"HS256","typ":"JWT"})") + "." + base64url(claims) + "." +
         base64url("a signature that no one checks");
}

}  // namespace staithe::proxy::auth
