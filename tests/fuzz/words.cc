// What a token server says about a failure, after the secrets that it was sent, one in each of the
// first two lines: people are shown nothing that is a secret, however it is echoed (threat T7).
#include "proxy/words.h"

#include <vector>

#include "proxy/auth/token_call.h"
#include "proxy/errors.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

constexpr std::string_view mark = "[hidden]";

bool is_token_like(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("-_.+/=~%").contains(c);
}

// It is what is left of a digest that the text names.
bool is_of_a_digest(std::string_view run, std::string_view text) {
  constexpr std::string_view name = "sha256:";
  for (std::size_t at = text.find(name); at != text.npos; at = text.find(name, at + 1))
    if (text.substr(at + name.size(), 64).contains(run)) return true;
  return false;
}

void check_shown(std::string_view text, const std::vector<std::string_view>& secrets) {
  const std::string all = proxy::without_secrets(text, secrets);
  std::string_view shown = all;
  while (!shown.empty()) {
    const std::string_view piece = shown.substr(0, shown.find(mark));
    shown.remove_prefix(std::min(shown.size(), piece.size() + mark.size()));
    for (const std::string_view secret : secrets) {
      const std::size_t telling = std::min<std::size_t>(secret.size(), 8);
      for (std::size_t at = 0; telling > 0 && at + telling <= piece.size(); ++at)
        check(!secret.contains(piece.substr(at, telling)));
    }
    for (std::size_t at = 0; at < piece.size(); ++at) {
      const std::size_t begin = at;
      while (at < piece.size() && is_token_like(piece[at])) ++at;
      check(at - begin < 40 || is_of_a_digest(piece.substr(begin, at - begin), text));
    }
  }
}

}  // namespace

void one(std::string_view input) {
  Input lines(input);
  const std::vector<std::string_view> secrets{lines.line(), lines.line()};
  const std::string_view body = lines.rest();
  check_shown(proxy::words_of(body), secrets);
  check_shown(body, secrets);

  proxy::auth::Answer answer;
  answer.status = 400 + static_cast<int>(input.size() % 200);
  answer.headers.add("x-ms-correlation-request-id", std::string(body.substr(0, 200)));
  answer.body = proxy::auth::Secret(body);
  check(is_printable(proxy::auth::describe(answer, secrets)));
  proxy::tells_of_firewall(body);
}

}  // namespace staithe::fuzz
