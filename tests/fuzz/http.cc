// Requests as they come in: what our layer accepts, two other parsers accept, and all read the same
// method, target, Host, body, and beginning of the next message (threat T19); what is answered from
// memory is read there as it is everywhere else; and every target and Host of it is of the grammar.
//
// The input is a connection's bytes: the messages after the first are read as well.
#include "proxy/host_policy.h"
#include "proxy/route.h"
#include "tests/fuzz/http/heard.h"
#include "tests/fuzz/http_layer.h"

namespace staithe::fuzz {

namespace {

// Of the control socket; the registry's listener takes no bodies.
constexpr std::size_t control_body_bytes = 1024;

void check_heard(const Heard& heard, const Message& ours, std::string_view body) {
  check(heard.whole && !heard.upgrade);
  check(heard.method == ours.method);
  check(heard.target == ours.target);
  check(heard.size == ours.size);
  check(heard.body == body);
  if (ours.host.empty()) {
    check(heard.hosts.empty() || (heard.hosts.size() == 1 && heard.hosts.front().empty()));
  } else {
    check(heard.hosts.size() == 1 && heard.hosts.front() == ours.host);
  }
}

// How much the first message takes; 0 if nothing more is read.
std::size_t check_message(std::string_view bytes) {
  const auto head = accepted_head(bytes, 0);
  const auto control = accepted_head(bytes, control_body_bytes);
  const auto plain = plain_request(bytes);
  if (plain) {
    check(head.has_value());
    const Message theirs{plain->head ? "HEAD" : "GET", plain->target, plain->host, plain->size};
    check(theirs == message_of(*head) && head->keep_alive);
  }
  if (head) {
    check(head->content_length == 0);
    check(control && message_of(*control) == message_of(*head));
  }
  if (!control) return 0;

  const Message ours = message_of(*control);
  check(proxy::is_target(ours.target));
  check(ours.host.empty() ? control->http_1_0 : proxy::is_host(ours.host));
  check(control->content_length <= control_body_bytes);
  // Without its body nothing is to be compared.
  if (ours.size > bytes.size()) return 0;
  const std::string_view body = bytes.substr(control->size, control->content_length);
  check_heard(read_by_llhttp(bytes), ours, body);
  check_heard(read_by_http_parser(bytes), ours, body);

  static const proxy::HostPolicy policy({"127.0.0.1:5050"}, {});
  policy.accepts(ours.host);
  if (const auto route = proxy::parse_route(ours.target); !route)
    check(is_printable(route.error().detail));
  return control->keep_alive ? ours.size : 0;
}

}  // namespace

void one(std::string_view input) {
  // Longer heads are of no other kind, and reading them byte by byte takes long.
  if (input.size() > 4096) return;
  for (int messages = 0; messages < 8 && !input.empty(); ++messages) {
    const std::size_t size = check_message(input);
    if (size == 0) return;
    input.remove_prefix(size);
  }
}

}  // namespace staithe::fuzz
