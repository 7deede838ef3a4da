// What comes from outside as the value of a log field: one line in every format, whatever it holds
// (threat T25), and the value itself where the format can say it.
#include <boost/json/parse.hpp>
#include <chrono>
#include <string>

#include "cache/escape.h"
#include "cache/log.h"
#include "daemon/html.h"
#include "daemon/metric_text.h"
#include "daemon/terminal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/json.h"

namespace staithe::fuzz {

namespace {

std::string line_of(log::Format format, std::string_view first, std::string_view second) {
  return log::format_line(format, log::Level::warn,
                          std::chrono::sys_days(std::chrono::days(20'000)), "blob fill failed",
                          {{"registry", first}, {"error", second}, {"bytes", first.size()}});
}

// Every line of a datagram is a field of ours.
void check_journal(std::string_view datagram) {
  for (Input lines(datagram); !lines.empty();) {
    const std::string_view line = lines.line();
    const std::size_t name = line.find('=');
    check(name != std::string_view::npos && name > 0 && is_printable(line));
    for (const char c : line.substr(0, name))
      check((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_');
  }
}

}  // namespace

void one(std::string_view input) {
  const std::string_view first = input.substr(0, input.size() / 3);
  const std::string_view second = input.substr(first.size());
  const std::string text = line_of(log::Format::text, first, second);
  check(text.find('\n') == text.size() - 1 && text.size() <= log::kMaxLineBytes);
  check(is_printable(std::string_view(text).substr(0, text.size() - 1)));

  const std::string json = line_of(log::Format::json, first, second);
  check(json.find('\n') == json.size() - 1 && json.size() <= log::kMaxLineBytes);
  const auto parsed = boost::json::parse(json);
  const auto& object = parsed.as_object();
  check(says(object.at("event"), "blob fill failed"));
  check(object.at("bytes").to_number<std::size_t>() == first.size());
  check_journal(line_of(log::Format::journal, first, second));

  const std::string shown = printable(input, 64);
  check(is_printable(shown) && shown.size() <= 64);
  const std::string controlled = daemon::without_controls(input);
  for (const char c : controlled) check(c == '\n' || c < 0 || c >= ' ');
  check(daemon::without_controls(controlled) == controlled);

  const daemon::Text page(input);
  check(page.escaped().find_first_of("<>\"'") == std::string::npos);
  const std::string label = daemon::escape_label(input);
  check(label.find('\n') == std::string::npos);
}

}  // namespace staithe::fuzz
