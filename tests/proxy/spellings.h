// Spellings of addresses that nobody may be led to: tests/spellings/spellings.py says which.
#pragma once

#include <boost/json.hpp>
#include <fstream>
#include <string>
#include <vector>

namespace staithe::fake {

struct Spelling {
  std::string address;  // what it is meant to reach
  std::string text;     // of the host, as it stands in a URL
};

inline std::vector<Spelling> spellings() {
  std::vector<Spelling> found;
  std::ifstream file(STAITHE_SOURCE_DIR "/tests/spellings/hosts.jsonl");
  for (std::string line; std::getline(file, line);) {
    const boost::json::array pair = boost::json::parse(line).as_array();
    found.push_back({std::string(pair.at(0).as_string()), std::string(pair.at(1).as_string())});
  }
  return found;
}

}  // namespace staithe::fake
