// JSON as a second reader finds it.
#pragma once

#include <boost/json/value.hpp>
#include <string_view>

namespace staithe::fuzz {

// False also for what is no string.
inline bool says(const boost::json::value& value, std::string_view text) {
  return value.is_string() && std::string_view(value.get_string()) == text;
}

}  // namespace staithe::fuzz
