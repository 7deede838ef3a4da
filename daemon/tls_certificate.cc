#include "daemon/tls_certificate.h"

#include <boost/json/object.hpp>
#include <utility>

#include "cache/escape.h"
#include "daemon/terminal.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t most_file_bytes = std::size_t{256} * 1024;
// The unit's copy of the key is made when it starts.
constexpr const char* remedy = "staithe setup --tls --apply makes another, then restart staithed";

std::string shown(std::chrono::seconds time) {
  return show_seconds(static_cast<double>(time.count()));
}

}  // namespace

proxy::auth::Ending ending_of(const TlsState& state) {
  return {.what = "certificate of listen.tls_file (" + printable(state.file, 200) + ")",
          .expires_in = state.expires_in,
          .warns_ahead = tls_certificate_warning,
          .remedy = remedy};
}

boost::json::value tls_status(const std::optional<TlsState>& state) {
  if (!state) return nullptr;
  return boost::json::object{{"file", state->file},
                             {"expires_in_seconds", state->expires_in.count()},
                             {"near", ending_of(*state).is_near()},
                             {"fault", state->fault.empty() ? boost::json::value(nullptr)
                                                            : boost::json::value(state->fault)},
                             {"open", state->figures.open},
                             {"handshakes", state->figures.handshakes},
                             {"failed", state->figures.failed}};
}

asio::awaitable<proxy::TlsContextPtr> read_tls_file(proxy::auth::Files& files,
                                                    std::filesystem::path file, bool is_private) {
  try {
    const proxy::auth::Secret pem = co_await files.read(
        std::move(file), {.max_bytes = most_file_bytes, .is_private = is_private});
    co_return value_or_throw(proxy::TlsContext::from_pem(pem.reveal()));
  } catch (const Failure& failure) {
    throw Failure(Errc::config, "listen.tls_file: " + failure.error().detail);
  }
}

DoctorStep tls_step(const std::filesystem::path& file, const Result<proxy::TlsContextPtr>& found,
                    const proxy::TlsContextPtr& served, WallTime now) {
  DoctorStep step{.step = "tls",
                  .subject = printable(file.native(), 200),
                  .tried = "the file read, its key held against its certificate",
                  .finding = {}};
  if (!found) {
    step.state = StepState::failed;
    step.finding = found.error().detail;
    if (served) step.finding += "; staithed serves the one it has read before";
    step.mend = remedy;
    step.error_class = to_string(found.error().code);
    return step;
  }
  const auto second = std::chrono::floor<std::chrono::seconds>(now);
  const std::chrono::seconds left = (*found)->not_after() - second;
  if (left.count() <= 0) {
    step.state = StepState::failed;
    step.finding = "its certificate ended " + shown(-left) + " ago: clients refuse it";
    step.mend = remedy;
    step.error_class = to_string(Errc::config);
    return step;
  }
  step.finding = "its certificate is good for " + shown(left);
  if (left < tls_certificate_warning) {
    step.state = StepState::warning;
    step.mend = remedy;
  } else if (served && !served->shows_the_same_as(**found)) {
    step.state = StepState::warning;
    step.finding +=
        "; staithed serves another, as it read it before, which " +
        (served->not_after() > second ? "is good for " + shown(served->not_after() - second)
                                      : std::string("has ended"));
    step.mend = "staithe reload";
  }
  return step;
}

asio::awaitable<DoctorStep> examine_tls_file(proxy::auth::Files& files, std::filesystem::path file,
                                             bool is_private, proxy::TlsContextPtr served,
                                             WallTime now) {
  Result<proxy::TlsContextPtr> found = nullptr;
  try {
    found = co_await read_tls_file(files, file, is_private);
  } catch (const Failure& failure) {
    found = std::unexpected(failure.error());
  }
  co_return tls_step(file, found, served, now);
}

}  // namespace staithe::daemon
