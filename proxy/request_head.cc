#include "proxy/request_head.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>

#include "proxy/http.h"

namespace staithe::proxy {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view not_http = "this is not an HTTP/1.1 request";
// Method, spaces and version beside the target.
constexpr std::size_t most_request_line_bytes = most_target_bytes + 32;
// Longer numbers are no length of anything.
constexpr std::size_t most_length_digits = 18;

constexpr unsigned char in_token = 1;
constexpr unsigned char in_target = 2;

constexpr std::array<unsigned char, 256> places = [] {
  std::array<unsigned char, 256> table{};
  const auto allow = [&](std::string_view characters, unsigned char place) {
    for (const char c : characters) table[static_cast<unsigned char>(c)] |= place;
  };
  for (unsigned c = '0'; c <= '9'; ++c) table[c] = in_token | in_target;
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] = in_token | in_target;
  for (unsigned c = 'A'; c <= 'Z'; ++c) table[c] = in_token | in_target;
  allow(token_signs, in_token);
  allow(target_signs, in_target);
  return table;
}();

// Methods that every parser knows; of these all but two are refused further on.
constexpr std::array methods = {"GET"sv,   "HEAD"sv,   "POST"sv,   "PUT"sv,
                                "PATCH"sv, "DELETE"sv, "OPTIONS"sv};

// Fields that decide something, so that a second one would leave open what. Connection and
// If-None-Match are lists, which could be cut in two; no client does that, and nginx refuses it.
constexpr std::array once = {
    "Host"sv,           "Content-Length"sv, "Connection"sv,        "Expect"sv,
    "Upgrade"sv,        "Authorization"sv,  "Content-Type"sv,      "If-Match"sv,
    "If-None-Match"sv,  "If-Range"sv,       "If-Modified-Since"sv, "If-Unmodified-Since"sv,
    "Origin"sv,         "Range"sv,          "Referer"sv,           "Sec-Fetch-Dest"sv,
    "Sec-Fetch-Mode"sv, "Sec-Fetch-Site"sv,
};
constexpr std::size_t host_field = 0;
constexpr std::size_t length_field = 1;
constexpr std::size_t connection_field = 2;
constexpr std::size_t expect_field = 3;
constexpr std::size_t upgrade_field = 4;

bool is_token_char(char c) { return places[static_cast<unsigned char>(c)] & in_token; }
bool is_target_char(char c) { return places[static_cast<unsigned char>(c)] & in_target; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_token_char);
}

std::string_view trimmed(std::string_view value) {
  while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
  while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
  return value;
}

// "Content_Length" is another field to us and the same to whoever makes environment variables of
// them.
bool is_written_alike(std::string_view name, std::string_view known) {
  const auto fold = [](char c) {
    if (c == '_') return '-';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  return std::ranges::equal(name, known, {}, fold, fold);
}

// "." or "..", escaped or not.
bool is_dot_segment(std::string_view segment) {
  std::size_t dots = 0;
  while (!segment.empty()) {
    const bool escaped = segment.starts_with("%2e") || segment.starts_with("%2E");
    if (!escaped && segment.front() != '.') return false;
    segment.remove_prefix(escaped ? 3 : 1);
    ++dots;
  }
  return dots == 1 || dots == 2;
}

bool is_port(std::string_view text) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return !text.empty() && text.front() != '0' && error == std::errc() &&
         end == text.data() + text.size() && port <= 65535;
}

}  // namespace

bool is_target(std::string_view target) {
  if (!target.starts_with('/') || target.starts_with("//")) return false;
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (!is_target_char(target[i])) return false;
    if (target[i] != '%') continue;
    const std::string_view digits = target.substr(i + 1, 2);
    if (digits.size() < 2 || !is_hex(digits[0]) || !is_hex(digits[1])) return false;
    // Control characters: below %20, and %7F.
    if (digits[0] == '0' || digits[0] == '1' || iequals(digits, "7f")) return false;
  }
  std::string_view path = target.substr(0, target.find('?'));
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view segment = path.substr(0, path.find('/'));
    if (is_dot_segment(segment)) return false;
    path.remove_prefix(segment.size());
  }
  return true;
}

bool is_host(std::string_view host) {
  std::string_view name = host;
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    if (end == std::string_view::npos) return false;
    const std::string_view address = host.substr(1, end - 1);
    if (address.size() < 2 || address.find(':') == std::string_view::npos ||
        !std::ranges::all_of(address, [](char c) { return is_hex(c) || c == ':' || c == '.'; }))
      return false;
    name = host.substr(0, end + 1);
  } else {
    name = host.substr(0, host.find(':'));
    if (name.empty() || name.starts_with('.') || name.find("..") != std::string_view::npos ||
        !std::ranges::all_of(name, [](char c) { return is_name_char(c) || c == '.'; }))
      return false;
  }
  const std::string_view rest = host.substr(name.size());
  return rest.empty() || (rest.front() == ':' && is_port(rest.substr(1)));
}

HeadReading read_request_head(std::string_view bytes, const HeadLimits& limits) {
  HeadReader reader(limits);
  HeadReading reading;
  reading.verdict = reader.read(bytes);
  if (reading.verdict == HeadVerdict::whole) reading.head = reader.head(bytes);
  if (reading.verdict == HeadVerdict::refused) reading.refusal = reader.refusal();
  return reading;
}

HeadVerdict HeadReader::read(std::string_view bytes) {
  assert(refusal_.status == 0 && size_ == 0 && bytes.size() >= looked_at_);
  while (looked_at_ < bytes.size()) {
    const char c = bytes[looked_at_];
    const bool after_return = looked_at_ > line_ && bytes[looked_at_ - 1] == '\r';
    ++looked_at_;
    if (looked_at_ > limits_.head_bytes) {
      refuse(431, "the request head is longer than this server takes");
    } else if (line_ == 0 && looked_at_ > most_request_line_bytes) {
      refuse(414, "the request target is longer than this server takes");
    } else if (after_return != (c == '\n')) {
      refuse(400, line_ == 0 ? not_http : "every line of a request head ends in CR LF"sv);
    } else if (c == '\n') {
      read_line(bytes.substr(line_, looked_at_ - line_ - 2));
      line_ = looked_at_;
    } else if ((static_cast<unsigned char>(c) < ' ' && c != '\t' && c != '\r') || c == '\x7f') {
      refuse(400, line_ == 0 ? not_http : "a request head has no control characters"sv);
    }
    if (refusal_.status != 0) return HeadVerdict::refused;
    if (size_ != 0) return HeadVerdict::whole;
  }
  return HeadVerdict::more;
}

RequestHead HeadReader::head(std::string_view bytes) const {
  assert(size_ != 0 && bytes.size() >= size_);
  return {.method = method_.of(bytes),
          .target = target_.of(bytes),
          .host = host_.of(bytes),
          .http_1_0 = http_1_0_,
          .keep_alive = !http_1_0_ && !wants_close_,
          .content_length = content_length_,
          .size = size_};
}

HeadReader::Place HeadReader::place(std::string_view line, std::string_view part) const {
  return {line_ + static_cast<std::size_t>(part.data() - line.data()), part.size()};
}

void HeadReader::refuse(int status, std::string_view message) { refusal_ = {status, message}; }

void HeadReader::read_line(std::string_view line) {
  if (line_ == 0) {
    read_request_line(line);
  } else if (line.empty()) {
    end();
  } else {
    read_field(line);
  }
}

void HeadReader::read_request_line(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return refuse(400, not_http);
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!is_token(method) || !version.starts_with("HTTP/")) return refuse(400, not_http);
  http_1_0_ = version == "HTTP/1.0";
  if (!http_1_0_ && version != "HTTP/1.1")
    return refuse(400, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  if (std::ranges::find(methods, method) == methods.end())
    return refuse(405, "this is a pull-through cache; it is asked with GET and HEAD");
  if (target.size() > most_target_bytes)
    return refuse(414, "the request target is longer than this server takes");
  if (!target.starts_with('/'))
    return refuse(400, "the request target is not a path beginning with '/'");
  if (!is_target(target))
    return refuse(400,
                  "the request target begins with '//', or has a part '.' or '..', or characters "
                  "that must be escaped");
  method_ = place(line, method);
  target_ = place(line, target);
  reads_ = method == "GET" || method == "HEAD";
}

void HeadReader::read_field(std::string_view line) {
  if (++fields_ > most_fields) return refuse(431, "a request has at most 100 fields");
  if (line.starts_with(' ') || line.starts_with('\t'))
    return refuse(400, "a field that goes on in the next line is not accepted");
  const std::size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  if (colon == std::string_view::npos || !is_token(name))
    return refuse(400, "a field is a name, a colon right after it, and a value");
  const std::string_view value = trimmed(line.substr(colon + 1));

  // What only begins so is the same to http-parser.
  constexpr std::string_view coding = "Transfer-Encoding";
  if (is_written_alike(name.substr(0, coding.size()), coding))
    return refuse(400, "a request with Transfer-Encoding is not accepted");
  if (iequals(name, "Trailer")) return refuse(400, "a request has no trailers here");
  const auto known =
      std::ranges::find_if(once, [&](std::string_view one) { return is_written_alike(name, one); });
  if (known == once.end()) {
    // As old as the proxies that it was meant for, and Connection to some parsers.
    if (iequals(name, "Proxy-Connection")) wants_close_ = true;
    return;
  }
  if (!iequals(name, *known))
    return refuse(400, "a field of this name is written with '-', not with '_'");
  // Not all parsers take away what stands at a value's end.
  if ((!value.empty() && line.ends_with(' ')) || line.find('\t') != std::string_view::npos)
    return refuse(400, "a field that decides something has no tab, and no space at its end");
  const auto which = static_cast<std::size_t>(known - once.begin());
  if (seen_.test(which))
    return refuse(400, which == host_field
                           ? "a request has exactly one Host field"sv
                           : "a field that may stand once is there a second time"sv);
  seen_.set(which);
  if (which == host_field) {
    if (!is_host(value)) return refuse(400, "the Host field is not a name and perhaps a port");
    host_ = place(line, value);
  } else if (which == length_field) {
    read_content_length(value);
  } else if (which == connection_field) {
    read_connection(value);
  } else if (which == expect_field) {
    if (!iequals(value, "100-continue"))
      refuse(417, "of what a request may expect, only 100-continue is understood");
  } else if (which == upgrade_field) {
    // Nobody changes the protocol here, and nobody may think that it has been.
    wants_close_ = true;
  }
}

// Whatever is said beside "keep-alive" ends the connection after the answer: parsers differ in what
// they make of it, and then there is nothing that they could differ about.
void HeadReader::read_connection(std::string_view value) {
  while (!value.empty()) {
    const std::size_t comma = value.find(',');
    const std::string_view token = trimmed(value.substr(0, comma));
    value = comma == std::string_view::npos ? ""sv : value.substr(comma + 1);
    if (!token.empty() && !is_token(token))
      return refuse(400, "the Connection field is not a list of words");
    if (!iequals(token, "keep-alive")) wants_close_ = true;
  }
}

void HeadReader::read_content_length(std::string_view value) {
  const bool is_number = !value.empty() && std::ranges::all_of(value, is_digit) &&
                         (value.front() != '0' || value.size() == 1);
  if (!is_number) return refuse(400, "the Content-Length field is not a number");
  if (value.size() > most_length_digits)
    return refuse(413, "the request body is longer than this server takes");
  std::from_chars(value.data(), value.data() + value.size(), content_length_);
}

void HeadReader::end() {
  if (!seen_.test(host_field)) return refuse(400, "a request has exactly one Host field");
  if (reads_ && content_length_ > 0) return refuse(400, "GET and HEAD carry no body");
  // Nothing of the registry takes one.
  if (limits_.body_bytes == 0 && content_length_ > 0)
    return refuse(405, "this is a pull-through cache; push to the registry itself");
  if (content_length_ > limits_.body_bytes)
    return refuse(413, "the request body is longer than this server takes");
  size_ = looked_at_;
}

}  // namespace staithe::proxy
