#include "cache/log.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/sinks/sink.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "cache/escape.h"

namespace staithe::log {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using LogTime = std::chrono::sys_time<milliseconds>;

constexpr std::string_view kIdentifier = "staithed";  // of syslog(3), for journalctl -t
constexpr const char* kThreadName = "log";
// How often a writer that waits for its sink looks whether it should give up.
constexpr milliseconds kPatienceStep{100};

std::string_view level_name(Level level) {
  switch (level) {
    case Level::trace:
      return "trace";
    case Level::debug:
      return "debug";
    case Level::info:
      return "info";
    case Level::warn:
      return "warn";
    case Level::error:
      return "error";
  }
  std::unreachable();
}

// The priorities of syslog(3).
int syslog_priority(Level level) {
  switch (level) {
    case Level::trace:
    case Level::debug:
      return 7;
    case Level::info:
      return 6;
    case Level::warn:
      return 4;
    case Level::error:
      return 3;
  }
  std::unreachable();
}

LogTime now() { return std::chrono::floor<milliseconds>(std::chrono::system_clock::now()); }

// RFC 3339, UTC, milliseconds.
std::string timestamp(LogTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss<milliseconds> clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                     clock.subseconds().count());
}

// Printable ASCII in which '"' is escaped too, so that it can stand in quotes. printable() has
// escaped everything else, the backslash included, so JSON needs the backslashes doubled once more.
std::string in_quotes(std::string_view printable_text, bool json) {
  std::string result = "\"";
  for (const char c : printable_text) {
    if (c == '"' || (json && c == '\\')) result += '\\';
    result += c;
  }
  return result + "\"";
}

bool needs_quotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '\\' || c == '=') return true;
  }
  return false;
}

enum class Quoting { text, json, bare };

std::string render(const Value& value, Quoting quoting) {
  return std::visit(
      [&]<class T>(const T& held) -> std::string {
        if constexpr (std::same_as<T, std::monostate>) {
          std::unreachable();
        } else if constexpr (std::same_as<T, std::string_view>) {
          std::string text = printable(held, kMaxValueBytes);
          if (quoting == Quoting::json) return in_quotes(text, true);
          if (quoting == Quoting::text && needs_quotes(text)) return in_quotes(text, false);
          return text;
        } else if constexpr (std::same_as<T, double>) {
          // JSON has no word for these.
          if (!std::isfinite(held)) return quoting == Quoting::json ? "null" : "nan";
          return fmt::format("{}", held);
        } else {
          return fmt::format("{}", held);
        }
      },
      value.held());
}

// `head` and then the fields, each appended whole or not at all: what is left out for want of room
// is said at the end. `tail` closes the line. `write_field` gives a field's text.
std::string fill_line(std::string head, Fields fields, std::string_view cut_mark,
                      std::string_view tail, std::size_t limit, auto write_field) {
  const std::size_t reserved = cut_mark.size() + tail.size();
  bool cut = false;
  for (const Field& field : fields) {
    if (std::holds_alternative<std::monostate>(field.value.held())) continue;
    std::string text = write_field(field);
    if (head.size() + text.size() + reserved > limit) {
      cut = true;
      continue;
    }
    head += text;
  }
  if (cut) head += cut_mark;
  head += tail;
  return head;
}

std::string event_and_fields(std::string head, Fields fields, std::string_view tail,
                             std::size_t limit) {
  return fill_line(std::move(head), fields, " cut=true", tail, limit, [](const Field& field) {
    return fmt::format(" {}={}", field.name.text(), render(field.value, Quoting::text));
  });
}

std::string format_text(Level level, LogTime time, Event event, Fields fields) {
  return event_and_fields(
      fmt::format("{} {:5} {}", timestamp(time), level_name(level), event.words()), fields, "\n",
      kMaxLineBytes);
}

std::string format_json(Level level, LogTime time, Event event, Fields fields) {
  return fill_line(fmt::format(R"({{"time":"{}","level":"{}","event":"{}")", timestamp(time),
                               level_name(level), event.words()),
                   fields, R"(,"cut":true)", "}\n", kMaxLineBytes, [](const Field& field) {
                     return fmt::format(R"(,"{}":{})", field.name.text(),
                                        render(field.value, Quoting::json));
                   });
}

// The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): KEY=value lines. Values hold
// no line feed, so the form with a length is not needed. MESSAGE repeats the fields, because it is
// all that journalctl shows by default.
std::string format_journal(Level level, Event event, Fields fields) {
  std::string head = fmt::format(
      "PRIORITY={}\nSYSLOG_IDENTIFIER={}\nMESSAGE=", syslog_priority(level), kIdentifier);
  head += event_and_fields(std::string(event.words()), fields, "\n", kMaxLineBytes / 2);
  head += fmt::format("STAITHE_EVENT={}\n", event.words());
  return fill_line(std::move(head), fields, "", "", kMaxLineBytes, [](const Field& field) {
    std::string key = "STAITHE_";
    for (const char c : field.name.text()) {
      key += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
    return fmt::format("{}={}\n", key, render(field.value, Quoting::bare));
  });
}

// Writes finished lines, on the backend's thread. Every wait ends at the deadline of stop().
class Sink final : public spdlog::sinks::sink {
 public:
  Sink(Format format, const Settings& settings) : format_(format), fd_(settings.fd) {
    if (format == Format::journal) connect_journal(settings.journal_socket);
  }
  ~Sink() override {
    if (journal_ >= 0) close(journal_);
  }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  void log(const spdlog::details::log_msg& message) override {
    if (deliver(std::string_view(message.payload.data(), message.payload.size()))) report_losses();
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

  void set_queue(spdlog::details::thread_pool* queue) { queue_ = queue; }
  void give_up_at(steady_clock::time_point when) { deadline_.store(when); }
  std::uint64_t refused() const { return refused_.load(); }

 private:
  void connect_journal(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return;
    std::memcpy(address.sun_path, path.data(), path.size());
    journal_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (journal_ < 0) return;
    if (connect(journal_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      close(journal_);
      journal_ = -1;
    }
  }

  bool deliver(std::string_view line) {
    const bool done = format_ == Format::journal ? send_to_journal(line) : write_to_file(line);
    if (!done) refused_.fetch_add(1);
    return done;
  }

  // False if the deadline came first. The deadline may be set while this waits.
  bool wait_writable(int fd) {
    for (;;) {
      const bool late = steady_clock::now() >= deadline_.load();
      pollfd waiting{.fd = fd, .events = POLLOUT, .revents = 0};
      if (poll(&waiting, 1, late ? 0 : static_cast<int>(kPatienceStep.count())) > 0) return true;
      if (late) return false;
    }
  }

  bool write_to_file(std::string_view line) {
    while (!line.empty()) {
      if (!wait_writable(fd_)) return false;
      const ssize_t written = ::write(fd_, line.data(), line.size());
      if (written > 0) {
        line.remove_prefix(static_cast<std::size_t>(written));
      } else if ((written < 0 && errno != EINTR && errno != EAGAIN) ||
                 steady_clock::now() >= deadline_.load()) {
        return false;
      }
    }
    return true;
  }

  bool send_to_journal(std::string_view entry) {
    while (journal_ >= 0) {
      if (send(journal_, entry.data(), entry.size(), MSG_NOSIGNAL) >= 0) return true;
      if (errno == EINTR) continue;
      if (errno != EAGAIN) break;
      if (!wait_writable(journal_)) return false;
      if (steady_clock::now() >= deadline_.load()) return false;
    }
    // No journal to talk to, or it went away: its stream on stderr understands "<priority>text".
    const auto field = [&](std::string_view key) {
      const std::size_t begin = entry.find(key) + key.size();
      return entry.substr(begin, entry.find('\n', begin) - begin);
    };
    return write_to_file(fmt::format("<{}>{}\n", field("PRIORITY="), field("\nMESSAGE=")));
  }

  // Says in the log itself that there is a gap, as soon as the sink takes lines again.
  void report_losses() {
    const std::uint64_t lost = queue_->overrun_counter() + refused();
    if (lost == reported_) return;
    const std::uint64_t lines = lost - std::exchange(reported_, lost);
    deliver(format_line(format_, Level::warn, now(), "log lines were lost: the sink is too slow",
                        {{"lines", lines}}));
  }

  const Format format_;
  const int fd_;
  int journal_ = -1;
  spdlog::details::thread_pool* queue_ = nullptr;  // outlives its thread, on which this runs
  std::uint64_t reported_ = 0;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<steady_clock::time_point> deadline_{steady_clock::time_point::max()};
};

// The queue, its thread and the sink.
class Backend {
 public:
  Backend(Format format, const Settings& settings)
      : format_(format),
        sink_(std::make_shared<Sink>(format, settings)),
        pool_(std::make_shared<spdlog::details::thread_pool>(
            settings.queue_lines, 1,
            [] {
              // Signals are the loop's; a closed pipe is an error of write().
              sigset_t all;
              sigfillset(&all);
              pthread_sigmask(SIG_BLOCK, &all, nullptr);
              pthread_setname_np(pthread_self(), kThreadName);
            })),
        logger_(std::make_shared<spdlog::async_logger>(
            "staithe", sink_, pool_, spdlog::async_overflow_policy::overrun_oldest)) {
    sink_->set_queue(pool_.get());
    logger_->set_level(spdlog::level::trace);  // the threshold is ours
  }

  void write(Level level, Event event, Fields fields) {
    const std::string line = format_line(format_, level, now(), event, fields);
    logger_->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
  }

  std::uint64_t dropped() const { return pool_->overrun_counter() + sink_->refused(); }

  // Writes what is queued, at the longest until `deadline`, and says how many lines were lost.
  std::uint64_t finish(steady_clock::time_point deadline) {
    sink_->give_up_at(deadline);
    // The queue's thread is joined by the pool's destructor; afterwards nothing overruns.
    const std::uint64_t overruns = pool_->overrun_counter();
    pool_.reset();
    return overruns + sink_->refused();
  }

 private:
  const Format format_;
  std::shared_ptr<Sink> sink_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::async_logger> logger_;
};

// Held shared by whoever logs, for the time of a hand-over to the queue; exclusively by start() and
// stop(), for the time of an assignment.
std::shared_mutex g_mutex;
std::unique_ptr<Backend> g_backend;
std::uint64_t g_dropped_before = 0;  // of a backend that is gone

}  // namespace

bool is_journal(const char* journal_stream, int fd) {
  if (!journal_stream) return false;
  struct stat file{};
  if (fstat(fd, &file) != 0) return false;
  return fmt::format("{}:{}", static_cast<std::uint64_t>(file.st_dev),
                     static_cast<std::uint64_t>(file.st_ino)) == journal_stream;
}

void start(const Settings& settings) {
  Format format = settings.format;
  if (format == Format::automatic) {
    format =
        is_journal(std::getenv("JOURNAL_STREAM"), settings.fd) ? Format::journal : Format::text;
  }
  auto backend = std::make_unique<Backend>(format, settings);
  const std::unique_lock lock(g_mutex);
  assert(!g_backend);
  g_backend = std::move(backend);
  g_dropped_before = 0;
  set_level(settings.level);
}

void set_level(Level level) { detail::threshold.store(level, std::memory_order_relaxed); }

void stop(milliseconds patience) {
  std::unique_ptr<Backend> backend;
  {
    const std::unique_lock lock(g_mutex);
    backend = std::move(g_backend);
    if (!backend) return;
    set_level(Level::warn);
  }
  const std::uint64_t lost = backend->finish(steady_clock::now() + patience);
  const std::unique_lock lock(g_mutex);
  g_dropped_before = lost;
}

std::uint64_t dropped() {
  const std::shared_lock lock(g_mutex);
  return g_backend ? g_backend->dropped() : g_dropped_before;
}

std::string format_line(Format format, Level level, LogTime time, Event event, Fields fields) {
  switch (format) {
    case Format::automatic:
      break;
    case Format::text:
      return format_text(level, time, event, fields);
    case Format::json:
      return format_json(level, time, event, fields);
    case Format::journal:
      return format_journal(level, event, fields);
  }
  std::unreachable();
}

namespace detail {

void write(Level level, Event event, Fields fields) {
  {
    const std::shared_lock lock(g_mutex);
    if (g_backend) {
      g_backend->write(level, event, fields);
      return;
    }
  }
  // Before start() and after stop(): rare, urgent, and nobody serves.
  const std::string line = format_line(Format::text, level, now(), event, fields);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace detail
}  // namespace staithe::log
