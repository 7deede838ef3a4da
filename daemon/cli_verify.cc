#include "daemon/cli_verify.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "cache/escape.h"
#include "daemon/cli_output.h"
#include "daemon/control_client.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using std::chrono::steady_clock;

constexpr const char* kVerifyTarget = "/v1/verify";
constexpr std::size_t kBarColumns = 26;
constexpr std::chrono::seconds kPlainLineInterval{10};

// Absent and mistyped fields look alike: 0, and nothing.
double number(const json::value& line, std::string_view key) {
  const json::object* object = line.if_object();
  const json::value* value = object ? object->if_contains(key) : nullptr;
  boost::system::error_code ignored;
  return value && value->is_number() ? std::max(value->to_number<double>(ignored), 0.0) : 0;
}

std::string text(const json::value& line, std::string_view key) {
  const json::object* object = line.if_object();
  const json::value* value = object ? object->if_contains(key) : nullptr;
  return value && value->is_string() ? printable(value->get_string(), 1000) : std::string();
}

bool is_done(const json::value& line) {
  const json::object* object = line.if_object();
  const json::value* value = object ? object->if_contains("done") : nullptr;
  return value && value->is_bool() && value->get_bool();
}

std::string count(double value) {
  return std::to_string(static_cast<std::uint64_t>(std::min(value, 1e15)));
}

std::string objects(double value) { return count(value) + (value == 1 ? " object" : " objects"); }

// "  sha256:...\n" for each of the digests of `key`; and how many more there are.
std::string digests(const json::value& line, std::string_view key, double all) {
  std::string lines;
  const json::object* object = line.if_object();
  const json::value* value = object ? object->if_contains(key) : nullptr;
  if (!value || !value->is_array()) return lines;
  for (const json::value& digest : value->get_array())
    if (digest.is_string()) lines += "  " + printable(digest.get_string(), 200) + "\n";
  const double named = static_cast<double>(value->get_array().size());
  if (all > named) lines += "  and " + count(all - named) + " more\n";
  return lines;
}

}  // namespace

std::string render_verify_progress(const json::value& line, double seconds, const Style& style) {
  const double bytes = number(line, "bytes");
  const double total = number(line, "total_bytes");
  const double part = total > 0 ? std::min(bytes / total, 1.0) : 0;
  char percent[16];
  std::snprintf(percent, sizeof percent, "%.0f%%", 100 * part);
  std::string text = bar(part, kBarColumns, style) + "  " + percent + "  " + show_bytes(bytes) +
                     " of " + show_bytes(total);
  if (seconds > 0 && bytes > 0) {
    const double speed = bytes / seconds;
    text += "  " + show_bytes(speed) + "/s  " + show_seconds(std::max(total - bytes, 0.0) / speed) +
            " left";
  }
  if (number(line, "damaged") > 0) text += "  " + count(number(line, "damaged")) + " damaged";
  return style.columns > 0 ? fit(text, style.columns, style) : text;
}

std::string render_verify_result(const json::value& line) {
  const double damaged = number(line, "damaged");
  const double unreadable = number(line, "unreadable");
  std::string result = "verified " + objects(number(line, "objects")) + ", " +
                       show_bytes(number(line, "bytes")) + ", in " +
                       show_seconds(number(line, "seconds")) + ": ";
  if (damaged == 0 && unreadable == 0) {
    result += "nothing is damaged\n";
  } else {
    result += count(damaged) + " damaged, " + count(unreadable) + " unreadable\n";
  }
  if (damaged > 0) {
    result += "damaged, set aside, and fetched again when somebody pulls " +
              std::string(damaged == 1 ? "it" : "them") + ":\n" +
              digests(line, "damaged_digests", damaged);
  }
  if (unreadable > 0) {
    result += "not readable now, left as " + std::string(unreadable == 1 ? "it is" : "they are") +
              " (journalctl -u staithed):\n" + digests(line, "unreadable_digests", unreadable);
  }
  if (const std::string why = text(line, "broken_off"); !why.empty())
    result += "broken off after " + count(number(line, "objects")) + " of " +
              objects(number(line, "total_objects")) + ": " + why + "\n";
  return result;
}

VerifyCommand::VerifyCommand(CLI::App& app)
    : command_(app.add_subcommand("verify", "Read everything that is stored and check its bytes")) {
  command_->add_flag("--json", as_json_, "JSON lines, as they come");
  command_->footer(
      "Examples:\n  staithe verify\n  staithe verify --json\n"
      "What is damaged is set aside and fetched again when somebody pulls it. Pulls go on\n"
      "meanwhile. Exit status 1 if something was damaged or could not be read.");
}

std::optional<int> VerifyCommand::run(const CliContext& context,
                                      const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  const auto began = steady_clock::now();
  auto shown = began;
  const bool draw = context.terminal.is_terminal && !as_json_;
  json::value last;
  const auto on_line = [&](const json::value& line) {
    const auto now = steady_clock::now();
    const bool done = is_done(line);
    if (done) last = line;
    if (as_json_) {
      print_json(context, line);
      return;
    }
    const double seconds = std::chrono::duration<double>(now - began).count();
    if (draw) {
      const std::string text =
          done ? "" : render_verify_progress(line, seconds, context.terminal.style);
      context.out << "\r" << text << "\x1b[K" << std::flush;
    } else if (!done && now - shown >= kPlainLineInterval) {
      shown = now;
      context.out << render_verify_progress(line, seconds, context.terminal.style) << "\n"
                  << std::flush;
    }
    if (done) context.out << render_verify_result(line);
  };
  const auto ended = control_stream(socket, kVerifyTarget, "{}", on_line);
  if (!ended) {
    if (draw && last.is_null()) context.out << "\r\x1b[K" << std::flush;
    return report(context, ended.error());
  }
  if (last.is_null()) {
    return report(context, {false,
                            "staithed's answer has no end: staithe and staithed are of different "
                            "versions"});
  }
  const int finished = finish(context);
  const bool good = number(last, "damaged") == 0 && number(last, "unreadable") == 0 &&
                    text(last, "broken_off").empty();
  return good ? finished : kExitFailed;
}

}  // namespace staithe::daemon
