// Link of a hostile upstream, below the target of the request that it answers: what clients are
// told is a way to go on here, and nothing else.
#include "proxy/listing_link.h"

#include "proxy/route.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  Input lines(input);
  const std::string_view target = lines.line();
  const std::string_view link = lines.rest();
  // A list has been asked for.
  const auto route = proxy::parse_route(target);
  if (!route || !(std::holds_alternative<proxy::TagsRoute>(*route) ||
                  std::holds_alternative<proxy::ReferrersRoute>(*route)))
    return;
  const std::string rewritten = proxy::rewrite_link(link, target);
  if (rewritten.empty()) return;
  constexpr std::string_view end = ">; rel=\"next\"";
  check(is_printable(rewritten) && rewritten.starts_with('<') && rewritten.ends_with(end));
  const std::string_view next =
      std::string_view(rewritten).substr(1, rewritten.size() - 1 - end.size());
  check(next.find_first_of("<>\" ") == std::string_view::npos);
  check(next.substr(0, next.find('?')) == target.substr(0, target.find('?')));
}
