// Configuration files: good or a list of faults, each with its place; and what is shown as the
// effective configuration is a configuration, and the same one.
#include "daemon/options.h"

#include <boost/json/serialize.hpp>

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const daemon::Environment environment;
  const auto config = daemon::parse_config(input, "staithe.toml", environment);
  if (!config) {
    check(!config.error().empty());
    for (const auto& fault : config.error()) check(is_printable(fault.to_string()));
    return;
  }
  const std::string effective = daemon::to_toml(*config);
  const auto again = daemon::parse_config(effective, "effective", environment);
  check(again.has_value());
  check(daemon::to_toml(*again) == effective);
  check(boost::json::serialize(daemon::to_json(*again)) ==
        boost::json::serialize(daemon::to_json(*config)));
  // A running daemon that takes it over ends where it began.
  daemon::Config running = *config;
  daemon::take_over(running, *again);
  check(daemon::to_toml(running) == effective);
}
