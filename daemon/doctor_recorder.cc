#include "daemon/doctor_recorder.h"

#include <utility>

#include "cache/escape.h"
#include "proxy/auth/token.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t most_shown = 4;

std::optional<std::chrono::seconds> clock_ahead(const proxy::HttpResponse& response, WallTime now) {
  const auto date = proxy::auth::parse_http_date(response.headers().get("date"));
  if (!date) return std::nullopt;
  return std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()) -
         std::chrono::seconds(*date);
}

}  // namespace

std::string DoctorRecorder::Entry::to_string() const {
  return method + " " + origin.to_string() + printable(path, 150) + ": " +
         (status == 0 ? std::string("no answer") : std::to_string(status));
}

void DoctorRecorder::forget_paths(std::size_t first, const proxy::Origin& home) {
  for (std::size_t i = first; i < entries_.size(); ++i)
    if (entries_[i].origin != home) entries_[i].path.clear();
}

asio::awaitable<std::unique_ptr<proxy::HttpResponse>> DoctorRecorder::send(
    proxy::HttpRequest request) {
  if (entries_.size() >= most_requests_)
    throw Failure(Errc::throttled, "this diagnosis has sent " + std::to_string(most_requests_) +
                                       " requests already, and sends no more");
  const std::size_t index = entries_.size();
  entries_.push_back({.method = request.method,
                      .origin = request.url.origin(),
                      .path = std::string(request.url.path())});
  const Instant began = clock_.now();
  // Also when it fails or is given up.
  const struct Timed {
    DoctorRecorder& recorder;
    std::size_t index;
    Instant began;
    ~Timed() { recorder.entries_[index].took = recorder.clock_.now() - began; }
  } timed{*this, index, began};
  auto response = co_await http_.send(std::move(request));
  entries_[index].status = response->status();
  entries_[index].clock_ahead = clock_ahead(*response, clock_.wall());
  co_return response;
}

std::string in_words(const std::vector<DoctorRecorder::Entry>& entries, std::size_t first) {
  std::string words;
  std::size_t shown = 0;
  for (std::size_t i = first; i < entries.size() && shown < most_shown; ++i, ++shown)
    words += (words.empty() ? "" : "; ") + entries[i].to_string();
  if (entries.size() > first + shown)
    words += "; and " + std::to_string(entries.size() - first - shown) + " more";
  return words;
}

}  // namespace staithe::daemon
