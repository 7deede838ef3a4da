// One finding of `staithe doctor`, and how it is written: the daemon writes lines of JSON, the
// command adds its own and shows them. Pure.
//
//   {"kind":"step","step":"exchange","subject":"contoso.azurecr.io","state":"failed",
//    "tried":"POST https://contoso.azurecr.io/oauth2/exchange: 401","seconds":0.031,
//    "finding":"...","mend":"...","class":"unauthorized"}
//   {"kind":"sum","done":true,"ok":9,"warnings":0,"failed":1,"skipped":3,"seconds":1.2}
//
// "tried", "mend" and "class" are null where there is none. No text holds a secret or a signed URL.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace staithe::daemon {

enum class StepState { ok, warning, failed, skipped };
const char* to_string(StepState state);

struct DoctorStep {
  std::string step = {};     // "identity", "entra", ...
  std::string subject = {};  // whose: a registry, a directory, a client; may be empty
  StepState state = StepState::ok;
  std::string tried = {};  // "HEAD https://...: 401"; empty: nothing was sent or opened
  std::chrono::nanoseconds took{0};
  std::string finding = {};
  std::string mend = {};         // empty where nothing is to be mended
  std::string error_class = {};  // to_string(Errc); empty if nothing failed
};

boost::json::object to_json(const DoctorStep& step);
// What to_json() wrote, with every text escaped; what is missing is empty. State failed where it is
// none of the four, so that a newer daemon's trouble does not look like health.
DoctorStep step_of(const boost::json::value& line);
bool is_step(const boost::json::value& line);

// How many there were of each.
struct DoctorSum {
  std::size_t ok = 0, warnings = 0, failed = 0, skipped = 0;

  void count(StepState state);
  boost::json::object to_json(std::chrono::nanoseconds took) const;
};

}  // namespace staithe::daemon
