#include "proxy/auth/base64.h"

#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::string_view plain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view for_urls =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string encode(std::string_view bytes, std::string_view alphabet) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  unsigned bits = 0;
  int have = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    have += 8;
    while (have >= 6) {
      have -= 6;
      text += alphabet[bits >> have & 0x3f];
    }
    bits &= (1U << have) - 1;
  }
  if (have > 0) text += alphabet[bits << (6 - have) & 0x3f];
  return text;
}

Result<std::string> decode(std::string_view text, std::string_view alphabet) {
  if (text.size() % 4 == 1) return fail(Errc::upstream_nonsense, "base64 of an impossible length");
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  unsigned bits = 0;
  int have = 0;
  for (const char c : text) {
    const std::size_t value = alphabet.find(c);
    if (value == std::string_view::npos) {
      wipe(bytes);
      return fail(Errc::upstream_nonsense, "a character outside base64");
    }
    bits = bits << 6 | static_cast<unsigned>(value);
    have += 6;
    if (have >= 8) {
      have -= 8;
      bytes += static_cast<char>(bits >> have & 0xff);
      bits &= (1U << have) - 1;
    }
  }
  if (bits != 0) {
    wipe(bytes);
    return fail(Errc::upstream_nonsense, "base64 with left-over bits");
  }
  return bytes;
}

}  // namespace

std::string encode_base64(std::string_view bytes) {
  std::string text = encode(bytes, plain);
  text.append((4 - text.size() % 4) % 4, '=');
  return text;
}

std::string encode_base64url(std::string_view bytes) { return encode(bytes, for_urls); }

Result<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return fail(Errc::upstream_nonsense, "base64 without its padding");
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  return decode(text, plain);
}

Result<std::string> decode_base64url(std::string_view text) { return decode(text, for_urls); }

}  // namespace staithe::proxy::auth
