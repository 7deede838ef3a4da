#include "proxy/auth/challenge.h"

#include <algorithm>
#include <optional>

namespace staithe::proxy::auth {
namespace {

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_tchar(char c) {
  return is_alnum(c) || (c && std::string_view("!#$%&'*+-.^_`|~").contains(c));
}
bool is_token68_char(char c) {
  return is_alnum(c) || (c && std::string_view("-._~+/").contains(c));
}
bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string lower_case(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lowered;
}

// One field's value, read from the left.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool done() const { return rest_.empty(); }
  bool at(char c) const { return !rest_.empty() && rest_.front() == c; }
  bool take(char c) {
    if (!at(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool skip_blanks() { return !take_while(is_blank).empty(); }
  // The commas of a list, of which some may have nothing between them.
  void skip_separators() {
    take_while([](char c) { return is_blank(c) || c == ','; });
  }
  std::string_view take_token() { return take_while(is_tchar); }

  // A token68 that ends its challenge; otherwise nothing is taken.
  std::string_view take_token68() {
    const std::string_view before = rest_;
    take_while(is_token68_char);
    const bool any = rest_.size() != before.size();
    take_while([](char c) { return c == '='; });
    const std::string_view taken = before.substr(0, before.size() - rest_.size());
    skip_blanks();
    if (any && (done() || at(','))) return taken;
    rest_ = before;
    return {};
  }

  std::optional<std::string> take_value() {
    if (!take('"')) {
      // Beyond the grammar of a token, since realms come bare (azure-protocol.md section 6.6).
      const auto bare =
          take_while([](char c) { return c > ' ' && c <= '~' && c != ',' && c != '"'; });
      if (bare.empty()) return std::nullopt;
      return std::string(bare);
    }
    std::string value;
    while (!done()) {
      char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') return value;
      if (c == '\\') {
        if (done()) return std::nullopt;
        c = rest_.front();
        rest_.remove_prefix(1);
      }
      if ((c >= 0 && c < ' ' && c != '\t') || c == 0x7f) return std::nullopt;
      value += c;
    }
    return std::nullopt;
  }

 private:
  template <class F>
  std::string_view take_while(F matches) {
    const auto end = std::ranges::find_if_not(rest_, matches);
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
};

std::unexpected<Error> nonsense(std::string_view why) {
  return fail(Errc::upstream_nonsense, "WWW-Authenticate makes no sense: " + std::string(why));
}

// Appends the challenges of one field.
Result<void> parse_field(std::string_view field, std::vector<Challenge>& challenges) {
  Reader reader(field);
  const std::size_t first = challenges.size();
  bool parameter_next = false;  // after "Bearer " only a parameter can follow
  for (reader.skip_separators(); !reader.done(); reader.skip_separators()) {
    const std::string_view word = reader.take_token();
    if (word.empty()) return nonsense("a scheme or a parameter name was expected");
    const bool blank = reader.skip_blanks();
    if (reader.take('=')) {
      // "name = value" belongs to the challenge before it.
      if (challenges.size() == first) return nonsense("a parameter stands before any scheme");
      Challenge& challenge = challenges.back();
      if (!challenge.token68.empty()) return nonsense("a parameter follows a token");
      if (challenge.params.size() == max_challenge_params) return nonsense("too many parameters");
      reader.skip_blanks();
      std::optional<std::string> value = reader.take_value();
      if (!value) return nonsense("a parameter has no proper value");
      std::string name = lower_case(word);
      if (challenge.param(name)) return nonsense("a parameter is given twice");
      challenge.params.emplace_back(std::move(name), std::move(*value));
      parameter_next = false;
      reader.skip_blanks();
    } else {
      if (parameter_next) return nonsense("a parameter or a comma was expected");
      if (challenges.size() == max_challenges) return nonsense("too many challenges");
      Challenge& challenge = challenges.emplace_back();
      challenge.scheme = lower_case(word);
      if (blank) challenge.token68 = reader.take_token68();
      parameter_next = blank && challenge.token68.empty() && !reader.done() && !reader.at(',');
      if (parameter_next) continue;
    }
    if (!reader.done() && !reader.at(',')) return nonsense("a comma was expected");
  }
  return {};
}

}  // namespace

const std::string* Challenge::param(std::string_view name) const {
  const auto found = std::ranges::find(params, name, &std::pair<std::string, std::string>::first);
  return found == params.end() ? nullptr : &found->second;
}

Result<std::vector<Challenge>> parse_challenges(const std::vector<std::string_view>& fields) {
  std::size_t size_bytes = 0;
  std::vector<Challenge> challenges;
  for (const std::string_view field : fields) {
    size_bytes += field.size();
    if (size_bytes > max_challenge_bytes) return nonsense("it is longer than 16 KiB");
    if (auto parsed = parse_field(field, challenges); !parsed)
      return std::unexpected(std::move(parsed.error()));
  }
  return challenges;
}

const Challenge* choose(const std::vector<Challenge>& challenges) {
  const auto bearer = std::ranges::find_if(
      challenges, [](const Challenge& c) { return c.scheme == "bearer" && c.param("realm"); });
  if (bearer != challenges.end()) return &*bearer;
  const auto basic = std::ranges::find(challenges, "basic", &Challenge::scheme);
  return basic == challenges.end() ? nullptr : &*basic;
}

}  // namespace staithe::proxy::auth
