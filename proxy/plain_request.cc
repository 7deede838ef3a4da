#include "proxy/plain_request.h"

#include <algorithm>
#include <array>
#include <utility>

#include "proxy/http.h"
#include "proxy/request_head.h"
#include "proxy/trace.h"

namespace staithe::proxy {

namespace {

// What a character may stand in.
constexpr unsigned char in_target = 1;
constexpr unsigned char in_name = 2;
constexpr unsigned char in_value = 4;

constexpr std::array<unsigned char, 256> places = [] {
  std::array<unsigned char, 256> table{};
  for (unsigned c = ' '; c < 0x7f; ++c) table[c] = in_value;
  for (const char c : token_signs) table[static_cast<unsigned char>(c)] |= in_name;
  for (const char c : target_signs) table[static_cast<unsigned char>(c)] |= in_target;
  for (unsigned c = '0'; c <= '9'; ++c) table[c] |= in_name | in_target;
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] |= in_name | in_target;
  for (unsigned c = 'A'; c <= 'Z'; ++c) table[c] |= in_name | in_target;
  // "Content_Length" is not for here to judge.
  table['_'] &= static_cast<unsigned char>(~in_name);
  return table;
}();

// How many characters from the first on may stand there.
std::size_t run_of(std::string_view text, unsigned char place) {
  std::size_t n = 0;
  while (n < text.size() && places[static_cast<unsigned char>(text[n])] & place) ++n;
  return n;
}

bool starts_alike(std::string_view text, std::string_view beginning) {
  return text.size() >= beginning.size() && iequals(text.substr(0, beginning.size()), beginning);
}

// Whether the log tells of a request with this traceparent, which the main loop writes.
bool is_recorded(std::string_view traceparent) {
  const auto parent = parse_traceparent(traceparent);
  return parent && parent->sampled;
}

// Of a request that somebody has to think about.
bool needs_thought(std::string_view name, std::string_view value) {
  switch (name.front() | 0x20) {
    case 'a':
      return iequals(name, "Authorization");
    case 'c':
      return iequals(name, "Content-Length") || iequals(name, "Content-Type") ||
             iequals(name, "Cookie") ||
             (iequals(name, "Connection") && !iequals(value, "keep-alive"));
    case 'e':
      return iequals(name, "Expect");
    case 'i':
      return starts_alike(name, "If-");
    case 'o':
      return iequals(name, "Origin");
    case 'p':
      return starts_alike(name, "Proxy-");
    case 'r':
      return iequals(name, "Range") || iequals(name, "Referer");
    case 's':
      return starts_alike(name, "Sec-");
    case 't':
      return starts_alike(name, "Transfer-Encoding") || iequals(name, "TE") ||
             iequals(name, "Trailer") || (iequals(name, "traceparent") && is_recorded(value));
    case 'u':
      return iequals(name, "Upgrade");
    case 'x':
      return starts_alike(name, "X-Registry-");
    default:
      return false;
  }
}

// Of the fields that stand once, those that are here at all; the others need thought.
class OnceFields {
 public:
  // False for a second one.
  bool take(std::string_view name) {
    if (name.size() == 10 && iequals(name, "Connection")) return !std::exchange(connection_, true);
    if (name.size() == 13 && iequals(name, "Authorization"))
      return !std::exchange(authorization_, true);
    return true;
  }

 private:
  bool connection_ = false;
  bool authorization_ = false;
};

// Most targets are seen at once to be as they should.
bool is_plain_target(std::string_view target) {
  const bool is_simple = !target.starts_with("//") && target.find('%') == std::string_view::npos &&
                         target.find("/.") == std::string_view::npos;
  return is_simple || is_target(target);
}

// The rest of a line that has to be `wanted`, whatever of it is there.
Plain expect(std::string_view& rest, std::string_view wanted) {
  const std::size_t n = std::min(rest.size(), wanted.size());
  if (rest.substr(0, n) != wanted.substr(0, n)) return Plain::no;
  rest.remove_prefix(n);
  return n == wanted.size() ? Plain::yes : Plain::begun;
}

Plain parse(std::string_view bytes, PlainRequest& request) {
  std::string_view rest = bytes;
  request.head = rest.starts_with('H');
  if (const Plain method = expect(rest, request.head ? "HEAD /" : "GET /"); method != Plain::yes)
    return method;
  const std::size_t path_size = run_of(rest, in_target);
  request.target = {rest.data() - 1, path_size + 1};
  rest.remove_prefix(path_size);
  // What is there of it may end in the middle of an escape.
  if (rest.empty()) return Plain::begun;
  if (!is_plain_target(request.target)) return Plain::no;
  if (const Plain version = expect(rest, " HTTP/1.1\r\n"); version != Plain::yes) return version;
  request.host = {};
  OnceFields once;
  for (std::size_t fields = 0;; ++fields) {
    if (rest.empty()) return Plain::begun;
    if (rest.front() == '\r') {
      if (const Plain end = expect(rest, "\r\n"); end != Plain::yes) return end;
      if (request.host.empty()) return Plain::no;
      request.size = bytes.size() - rest.size();
      return Plain::yes;
    }
    const std::string_view name = rest.substr(0, run_of(rest, in_name));
    rest.remove_prefix(name.size());
    if (rest.empty()) return Plain::begun;
    if (name.empty() || rest.front() != ':' || fields == most_fields) return Plain::no;
    rest.remove_prefix(1);
    std::string_view value = rest.substr(0, run_of(rest, in_value));
    rest.remove_prefix(value.size());
    if (const Plain line = expect(rest, "\r\n"); line != Plain::yes) return line;
    while (value.starts_with(' ')) value.remove_prefix(1);
    if (value.ends_with(' ')) return Plain::no;
    if (iequals(name, "Host")) {
      if (!request.host.empty() || !is_host(value)) return Plain::no;
      request.host = value;
    } else if (!once.take(name) || needs_thought(name, value)) {
      return Plain::no;
    }
  }
}

}  // namespace

Plain parse_plain(std::string_view bytes, PlainRequest& request) {
  const Plain verdict = parse(bytes.substr(0, most_plain_bytes), request);
  return verdict == Plain::begun && bytes.size() >= most_plain_bytes ? Plain::no : verdict;
}

}  // namespace staithe::proxy
