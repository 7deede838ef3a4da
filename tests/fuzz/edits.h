// What every edit of another program's file keeps, whatever the file is like.
#pragma once

#include <string>
#include <string_view>

#include "cache/error.h"
#include "daemon/unified_diff.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

// `edit` makes of a text another, or refuses it with a sentence. An edited text is not edited
// again, and what is undone equals what was.
template <class Edit>
void check_edit(std::string_view text, const Edit& edit) {
  const Result<std::string> edited = edit(text);
  if (!edited) {
    check(is_printable(edited.error().detail) && !edited.error().detail.empty());
    return;
  }
  const Result<std::string> again = edit(*edited);
  check(again && *again == *edited);
  check(daemon::without_change(text, *edited, *edited).value_or("\1") == text);
}

}  // namespace staithe::fuzz
