// Small changes to JSON files of other programs that keep every other byte. Pure.
//
// As in edit_toml.h an edit is proved on the values, and refused if it does not come out right.
#pragma once

#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::daemon {

// `text`, a JSON object, with `item` as the first of the strings in its list `key`; the text itself
// if the list has it already. Errc::config with a sentence if the text is something else.
Result<std::string> put_first_in_list(std::string_view text, std::string_view key,
                                      std::string_view item);

}  // namespace staithe::daemon
