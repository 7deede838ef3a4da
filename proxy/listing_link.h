// The way to the next page of a list that upstream cuts into pages. Pure, for hostile input.
#pragma once

#include <string>
#include <string_view>

namespace staithe::proxy {

// The Link field for the client: the path of its own request with the parameters of upstream's next
// page (and the ?ns= that it sent). Empty if upstream's is none that we understand.
std::string rewrite_link(std::string_view link, std::string_view request_target);

}  // namespace staithe::proxy
