// JSON of token servers: bounded, and wiped after use.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/storage_ptr.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy::auth {

namespace json = boost::json;

// The heap, each piece wiped when it is given back: for values that hold a secret on their way.
json::storage_ptr wiping_memory();

// A document whose root is an object, nested at most 8 deep. Its memory is wiped when the value
// goes. The caller has limited the size of `text`. Fails with upstream_nonsense, without quoting.
Result<json::value> parse_json_object(std::string_view text);

// The field's text, empty if it is missing or null. Fails if it is anything else but a string.
Result<std::string_view> text_field(const json::object& object, std::string_view name);

// A whole number, as a number or as decimal digits in a string (IMDS writes all values as
// strings); nullopt if it is missing, null or "". Fails if it is anything else.
Result<std::optional<std::int64_t>> number_field(const json::object& object, std::string_view name);

}  // namespace staithe::proxy::auth
