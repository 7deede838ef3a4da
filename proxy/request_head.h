// What a request may be: the head of every request is read here first, strictly, before Beast,
// which is lenient where HTTP/1.1 is not, makes fields of it (threat T19). Pure.
//
// Whatever could be read in two ways is refused, so that what is accepted means the same to every
// other parser: the method, the target, the Host, and where the next message begins. No request has
// a transfer coding, so there are no chunks, no chunk extensions and no trailers to be read.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace staithe::proxy {

struct HeadLimits {
  std::size_t head_bytes = 32 * 1024;  // request line and fields together
  std::size_t body_bytes = 0;          // 0: a request with a body is refused
};

// As other servers have them.
inline constexpr std::size_t most_target_bytes = 8 * 1024;
inline constexpr std::size_t most_fields = 100;

// Of a message that was accepted. Views into its bytes.
struct RequestHead {
  std::string_view method;  // GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS
  std::string_view target;  // is_target()
  std::string_view host;    // is_host()
  bool http_1_0 = false;
  // False: nothing that follows is read. Always so in HTTP/1.0, where who keeps a connection was
  // never agreed upon by all.
  bool keep_alive = true;
  std::uint64_t content_length = 0;
  std::size_t size = 0;  // with the empty line; then come `content_length` bytes, and the next head
};

struct HeadRefusal {
  int status = 0;
  std::string_view message;  // a sentence for the caller, a literal
};

enum class HeadVerdict {
  more,  // what is there may be the beginning of a request
  whole,
  refused,
};

// Reads a head that arrives piece by piece; looks at each byte once, whatever the pieces are.
class HeadReader {
 public:
  explicit HeadReader(HeadLimits limits) : limits_(limits) {}

  // `bytes`: all that has arrived, from the first byte of the head on, where it was before or
  // elsewhere. What follows the head is not looked at. Not after another verdict than `more`.
  HeadVerdict read(std::string_view bytes);

  // Once it is whole; of the same bytes.
  RequestHead head(std::string_view bytes) const;
  // Once it is refused.
  const HeadRefusal& refusal() const { return refusal_; }

 private:
  struct Place {
    std::size_t at = 0;
    std::size_t size = 0;
    std::string_view of(std::string_view bytes) const { return bytes.substr(at, size); }
  };
  // Place of what is part of the line that begins at line_.
  Place place(std::string_view line, std::string_view part) const;
  void refuse(int status, std::string_view message);
  void read_line(std::string_view line);
  void read_request_line(std::string_view line);
  void read_field(std::string_view line);
  void read_connection(std::string_view value);
  void read_content_length(std::string_view value);
  void end();

  HeadLimits limits_;
  std::size_t looked_at_ = 0;
  std::size_t line_ = 0;  // where the line begins that is not whole
  std::size_t fields_ = 0;
  std::bitset<32> seen_;  // of the fields that stand once
  Place method_;
  Place target_;
  Place host_;
  bool reads_ = false;  // GET or HEAD
  bool http_1_0_ = false;
  bool wants_close_ = false;
  std::uint64_t content_length_ = 0;
  std::size_t size_ = 0;
  HeadRefusal refusal_;
};

// What one message is taken for.
struct HeadReading {
  HeadVerdict verdict = HeadVerdict::more;
  RequestHead head;     // if it is whole
  HeadRefusal refusal;  // if it is refused
};
HeadReading read_request_head(std::string_view bytes, const HeadLimits& limits = {});

// A path that begins with one '/', and perhaps a query, in the characters that RFC 3986 gives them:
// none at which a parser may cut, none that it may change on the way ('\', '#', "/../"), and no
// escape that is broken or stands for a control character.
bool is_target(std::string_view target);

// A name, an IPv4 address or a bracketed IPv6 address, and perhaps a port.
bool is_host(std::string_view host);

// What may stand in a field's name, and in a target, beside letters and digits.
inline constexpr std::string_view token_signs = "!#$%&'*+-.^_`|~";
inline constexpr std::string_view target_signs = "-._~!$&'()*+,;=:@/?%";

}  // namespace staithe::proxy
