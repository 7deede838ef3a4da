// Log lines: an event in fixed words, and fields.
//
//   log::warn("blob fill failed", {{"registry", name}, {"bytes", received}, {"error", error}});
//
// The words and the field names are constants of the program, checked by the compiler; whatever
// comes from outside can only be a field's value, and every value is escaped and cut to a named
// length. A value is text, a number, a flag or an Error; a Secret is none of these.
//
// Serving never waits for a log: the caller formats one bounded line and hands it to a queue, one
// thread of the backend writes it. If the sink is slower than the daemon, the oldest lines are
// given up and counted. Any thread may log.
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "cache/error.h"

namespace staithe::log {

enum class Level { trace, debug, info, warn, error };  // in order: the later, the more urgent
enum class Format { automatic, text, json, journal };

// Limits of one line. A whole line fits into PIPE_BUF (4096), so that writes never interleave and a
// pipe that polls as writable takes it without blocking.
inline constexpr std::size_t kMaxValueBytes = 1024;
inline constexpr std::size_t kMaxLineBytes = 4096;

struct Settings {
  Level level = Level::info;
  Format format = Format::automatic;  // journal if stderr is systemd's journal, else text
  int fd = 2;                         // text and json go there
  std::string journal_socket = "/run/systemd/journal/socket";
  std::size_t queue_lines = 1024;  // lines waiting for the sink; beyond it the oldest go
};

// Begins to log through the backend. Until then, and after stop(), lines of level warn and above
// are written to stderr at once. Called once, by main.
void start(const Settings& settings);

// Another threshold from now on (a reload).
void set_level(Level level);

// Writes what is queued and ends the backend's thread. A sink that takes nothing for `patience`
// costs the rest of the lines, not the exit. Does nothing if not started.
void stop(std::chrono::milliseconds patience = std::chrono::seconds(2));

// Lines given up since start() because the sink was too slow or refused them.
std::uint64_t dropped();

// An event's words: a string literal of printable ASCII.
class Event {
 public:
  consteval Event(const char* words) : words_(words) {  // NOLINT: implicit on purpose
    if (words_.empty() || words_.size() > 100) throw "an event has 1 to 100 characters";
    for (const char c : words_) {
      if (c < ' ' || c > '~' || c == '"' || c == '\\') throw "an event is plain printable ASCII";
    }
  }
  std::string_view words() const { return words_; }

 private:
  std::string_view words_;
};

// A field's name: a string literal, lower case with underscores.
class Name {
 public:
  consteval Name(const char* text) : text_(text) {  // NOLINT: implicit on purpose
    if (text_.empty() || text_.size() > 40) throw "a field name has 1 to 40 characters";
    if (text_ == "time" || text_ == "level" || text_ == "event") throw "this name is taken";
    if (text_.front() < 'a' || text_.front() > 'z') throw "a field name begins with a letter";
    for (const char c : text_) {
      if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
        throw "a field name is made of a-z, 0-9 and _";
    }
  }
  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

// A field's value, borrowed for the call.
class Value {
 public:
  using Held =
      std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string_view>;

  template <class T>
    requires std::convertible_to<const T&, std::string_view>
  Value(const T& text) : held_(std::string_view(text)) {}  // NOLINT: implicit on purpose
  template <std::integral T>
  Value(T number) : held_(hold(number)) {}                              // NOLINT
  Value(double number) : held_(number) {}                               // NOLINT
  Value(const Error& error) : held_(std::string_view(error.detail)) {}  // NOLINT

  // Nothing: the field is left out of the line.
  Value(std::monostate) {}  // NOLINT

  const Held& held() const { return held_; }

 private:
  template <std::integral T>
  static Held hold(T number) {
    if constexpr (std::same_as<T, bool>) {
      return number;
    } else if constexpr (std::is_signed_v<T>) {
      return static_cast<std::int64_t>(number);
    } else {
      return static_cast<std::uint64_t>(number);
    }
  }

  Held held_;
};

struct Field {
  Field(Name field_name, Value field_value) : name(field_name), value(field_value) {}
  Name name;
  Value value;
};
using Fields = std::initializer_list<Field>;

// For fields that seldom say anything: left out if the text is empty, or the number 0.
inline Value if_any(std::string_view text) { return text.empty() ? Value(std::monostate()) : text; }
inline Value if_any(std::uint64_t number) {
  return number == 0 ? Value(std::monostate()) : Value(number);
}

namespace detail {
inline std::atomic<Level> threshold{Level::warn};
void write(Level level, Event event, Fields fields);
}  // namespace detail

// True if a line of this level would be written: for callers whose fields cost something.
inline bool enabled(Level level) {
  return level >= detail::threshold.load(std::memory_order_relaxed);
}

inline void write(Level level, Event event, Fields fields = {}) {
  if (enabled(level)) detail::write(level, event, fields);
}

// By who acts: error = the daemon cannot go on; warn = the operator should act; info = rare;
// debug = one per request; trace = more.
inline void trace(Event event, Fields fields = {}) { write(Level::trace, event, fields); }
inline void debug(Event event, Fields fields = {}) { write(Level::debug, event, fields); }
inline void info(Event event, Fields fields = {}) { write(Level::info, event, fields); }
inline void warn(Event event, Fields fields = {}) { write(Level::warn, event, fields); }
inline void error(Event event, Fields fields = {}) { write(Level::error, event, fields); }

// One line (text, json: with its line feed) or one datagram (journal), at most kMaxLineBytes:
// the pure part, for the backend and its tests. `format` is not automatic.
std::string format_line(Format format, Level level,
                        std::chrono::sys_time<std::chrono::milliseconds> time, Event event,
                        Fields fields);

// True if `journal_stream` ($JOURNAL_STREAM, "device:inode"; may be null) names the file behind
// `fd`: the rule of systemd.exec(5) for "stderr is the journal".
bool is_journal(const char* journal_stream, int fd);

}  // namespace staithe::log
