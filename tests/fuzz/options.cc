// Configuration files: good or a list of faults, each with its place.
#include "daemon/options.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const daemon::Environment environment;
  const auto config = daemon::parse_config(input, "staithe.toml", environment);
  if (!config) {
    check(!config.error().empty());
    for (const auto& fault : config.error())
      check(fault.to_string().find('\n') == std::string::npos);
    return;
  }
  // What is shown as the effective configuration is a configuration.
  check(daemon::parse_config(daemon::to_toml(*config), "effective", environment).has_value());
}
