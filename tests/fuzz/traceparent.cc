// traceparent: the grammar of W3C Trace Context as its text has it.
#include <regex>

#include "proxy/trace.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  static const std::regex grammar(
      "(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\\s\\S]*)?",
      std::regex::optimize);
  if (input.size() > 256) return;
  const auto found = proxy::parse_traceparent(input);
  const bool wanted = std::regex_match(input.begin(), input.end(), grammar) &&
                      !(input.starts_with("00") && input.size() > 55);
  check(found.has_value() == wanted);
  if (!found) return;
  check(found->trace_id == input.substr(3, 32) && found->parent_id == input.substr(36, 16));
  check(found->sampled == (std::string_view("13579bdf").contains(input[54])));
}
