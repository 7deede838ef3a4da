// daemon.json of dockerd, as setup edits it.
#include "daemon/edit_json.h"

#include <boost/json/parse.hpp>

#include "tests/fuzz/edits.h"
#include "tests/fuzz/json.h"

void staithe::fuzz::one(std::string_view input) {
  if (input.size() > 4096) return;
  const auto edit = [](std::string_view text) {
    return daemon::put_first_in_list(text, "registry-mirrors", "http://127.0.0.1:5050");
  };
  check_edit(input, edit);
  const auto edited = edit(input);
  if (!edited) return;
  boost::system::error_code error;
  const auto value = boost::json::parse(*edited, error);
  check(!error && value.is_object());
  const auto& list = value.as_object().at("registry-mirrors").as_array();
  // One that was there may have a slash at its end.
  check(std::ranges::any_of(list, [](const auto& item) {
    return says(item, "http://127.0.0.1:5050") || says(item, "http://127.0.0.1:5050/");
  }));
}
