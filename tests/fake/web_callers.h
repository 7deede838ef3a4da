// What may come from a browser, and what may not: Host values, Origins and Sec-Fetch fields, each
// with each, for the doors that have to tell them apart (threat T4). The policy is written here
// once, in is_well_formed, is_loopback and is_cross_site; the doors' tests compare with it.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/fake/house.h"

namespace staithe::fake {

struct WebCaller {
  std::string fields;  // of the request, each with its CR LF
  bool is_well_formed = true;
  bool is_loopback = false;  // its Host
  bool has_dot = false;      // likewise: a name that the world's name servers may know
  bool is_cross_site = false;
};

inline std::vector<WebCaller> web_callers() {
  struct Host {
    std::string_view value;
    enum Kind { ours, others, none } kind;
  };
  static constexpr Host hosts[] = {
      {"localhost", Host::ours},
      {"localhost:5050", Host::ours},
      {"LocalHost:8080", Host::ours},
      {"127.0.0.1", Host::ours},
      {"127.0.0.1:5050", Host::ours},
      {"127.0.0.1:1", Host::ours},
      {"[::1]", Host::ours},
      {"[::1]:5050", Host::ours},
      // Rebinding: names that lead here for a moment.
      {"evil.example", Host::others},
      {"evil.example:5050", Host::others},
      {"localhost.evil.example:5050", Host::others},
      {"127.0.0.1.evil.example:5050", Host::others},
      {"evil.localhost:5050", Host::others},
      {"xlocalhost.example", Host::others},
      // Other ways to write, or to reach, this machine.
      {"localhost.", Host::others},
      {"localhost.:5050", Host::others},
      {"127.0.0.1.:5050", Host::others},
      {"127.1:5050", Host::others},
      {"0x7f.1:5050", Host::others},
      {"0177.0.0.1", Host::others},
      {"0.0.0.0:5050", Host::others},
      {"127.0.0.2:5050", Host::others},
      {"169.254.169.254", Host::others},
      {"[::]:5050", Host::others},
      {"[0:0:0:0:0:0:0:1]:5050", Host::others},
      {"[::ffff:127.0.0.1]:5050", Host::others},
      {"[::ffff:7f00:1]", Host::others},
      // No Host at all, to a strict reader.
      {"", Host::none},
      {"localhost:", Host::none},
      {"localhost:0", Host::none},
      {"localhost:65536", Host::none},
      {"localhost:5050:1", Host::none},
      {"localhost 5050", Host::none},
      {"localhost/", Host::none},
      {"localhost,evil.example", Host::none},
      {"evil@localhost", Host::none},
      {"http://localhost", Host::none},
      {"%6cocalhost", Host::none},
      {"\xef\xbd\x8cocalhost", Host::none},
      {"::1", Host::none},
      {"[::1", Host::none},
      {"[::1]x", Host::none},
      {"..", Host::none},
  };
  struct Mark {
    std::string_view fields;
    bool is_cross_site;
  };
  static constexpr Mark origins[] = {
      {"", false},
      {"Origin: null\r\n", true},
      {"Origin: http://evil.example\r\n", true},
      {"Origin: http://evil.example:5050\r\n", true},
      // Another port is another origin, and we have no page that would send one to itself.
      {"Origin: http://localhost:8000\r\n", true},
  };
  static constexpr Mark sites[] = {
      {"", false},
      {"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", false},
      {"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", false},
      {"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", true},
      {"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", true},
      {"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n", true},
      {"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
       true},
      {"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: websocket\r\n", true},
      {"Sec-Fetch-Site: something-new\r\n", true},
  };
  std::vector<WebCaller> all;
  for (const Host& host : hosts) {
    for (const Mark& origin : origins) {
      for (const Mark& site : sites) {
        WebCaller caller;
        caller.fields.append("Host: ").append(host.value).append("\r\n");
        caller.fields.append(origin.fields).append(site.fields);
        caller.is_well_formed = host.kind != Host::none;
        caller.is_loopback = host.kind == Host::ours;
        caller.has_dot = host.value.find_first_of(".[") != std::string_view::npos;
        caller.is_cross_site = origin.is_cross_site || site.is_cross_site;
        all.push_back(std::move(caller));
      }
    }
  }
  return all;
}

// The answers that stand one after the other in `text`, to requests of these methods in turn;
// fewer, if the connection ended before.
inline std::vector<Answer> answers_in(std::string_view text,
                                      const std::vector<std::string>& methods) {
  std::vector<Answer> answers;
  for (const std::string& method : methods) {
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string_view::npos) break;
    Answer answer;
    answer.head = text.substr(0, end + 2);
    answer.status = std::atoi(answer.head.substr(9, 3).c_str());
    text.remove_prefix(end + 4);
    if (method != "HEAD") {
      const auto size = static_cast<std::size_t>(std::atol(answer.field("Content-Length").c_str()));
      answer.body = text.substr(0, size);
      text.remove_prefix(std::min(size, text.size()));
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace staithe::fake
