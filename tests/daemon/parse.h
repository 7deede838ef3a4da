// What tests of the options share: a text parsed, and the faults of one that is not good.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "daemon/options.h"

namespace staithe::daemon {

// Root's, with nothing set.
inline Environment plain_environment() { return {}; }

inline Config good(std::string_view toml, const Environment& environment = plain_environment()) {
  auto config = parse_config(toml, "t.toml", environment);
  if (!config) {
    for (const Fault& fault : config.error()) ADD_FAILURE() << fault.to_string() << "\nin " << toml;
    return {};
  }
  return *config;
}

inline std::vector<std::string> faults_of(std::string_view toml,
                                          const Environment& environment = plain_environment()) {
  const auto config = parse_config(toml, "t.toml", environment);
  std::vector<std::string> faults;
  if (!config) {
    for (const Fault& fault : config.error()) faults.push_back(fault.to_string());
  }
  return faults;
}

inline std::string only_fault(std::string_view toml,
                              const Environment& environment = plain_environment()) {
  const std::vector<std::string> faults = faults_of(toml, environment);
  EXPECT_EQ(faults.size(), 1u) << toml << testing::PrintToString(faults);
  return faults.empty() ? "" : faults.front();
}

// A line below its table's header that is refused, and what is then said.
struct Bad {
  std::string_view line;
  std::string_view key;
  std::string_view what;
};

}  // namespace staithe::daemon
