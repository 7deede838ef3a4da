#include "proxy/fills.h"

#include <charconv>

#include "cache/log.h"
#include "proxy/range.h"

namespace staithe::proxy {

namespace {

using namespace std::chrono_literals;

// A fill that brings no byte between this many breaks in a row is given up.
constexpr int max_breaks_without_progress = 3;
constexpr auto first_pause = 200ms;

std::optional<std::uint64_t> content_length(const HttpResponse& response) {
  const std::string_view text = response.headers().get("Content-Length");
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool may_resume(Errc code) {
  return code == Errc::unreachable || code == Errc::upstream_failed || code == Errc::throttled;
}

}  // namespace

std::string scope_of(const Registry& registry, const std::string& repository) {
  return registry.name() + "/" + repository;
}

Fills::Fills(asio::any_io_executor loop, cache::Store& store, Clock& clock)
    : loop_(loop),
      store_(store),
      clock_(clock),
      tasks_(loop, [](std::string_view name, std::string_view sentence) {
        log::error("fill failed", {{"task", name}, {"error", sentence}});
      }) {}

asio::awaitable<std::shared_ptr<cache::Blob>> Fills::open(RegistryPtr registry,
                                                          std::string repository,
                                                          cache::Digest digest, bool& started) {
  std::shared_ptr<Fill> fill;
  if (const auto it = fills_.find(digest); it != fills_.end()) {
    fill = it->second;
    started = false;
  } else {
    fill = std::make_shared<Fill>(loop_, digest);
    fill->registry = registry->name();
    fill->repository = repository;
    fill->scopes.insert(scope_of(*registry, repository));
    fills_.emplace(digest, fill);
    started = true;
    tasks_.spawn("fill", run(fill, registry));
  }
  while (!fill->blob && !fill->error) co_await fill->changed.wait();
  if (!fill->blob) throw Failure(*fill->error);
  co_return fill->blob;
}

bool Fills::admits(const cache::Digest& digest, const std::string& scope) const {
  const auto it = fills_.find(digest);
  return it != fills_.end() && it->second->scopes.contains(scope);
}

void Fills::admit(const cache::Digest& digest, const std::string& scope) {
  if (const auto it = fills_.find(digest); it != fills_.end()) it->second->scopes.insert(scope);
}

std::vector<Fills::Progress> Fills::progress() const {
  std::vector<Progress> all;
  for (const auto& [digest, fill] : fills_) {
    all.push_back({.digest = digest,
                   .registry = fill->registry,
                   .repository = fill->repository,
                   .bytes = fill->written_bytes,
                   .total = fill->blob ? fill->blob->size_bytes() : std::nullopt,
                   .readers = fill->blob ? fill->blob->readers() : 0});
  }
  return all;
}

asio::awaitable<void> Fills::stop() {
  tasks_.cancel();
  co_await tasks_.join();
}

asio::awaitable<void> Fills::run(std::shared_ptr<Fill> fill, RegistryPtr registry) {
  std::optional<Error> error;
  std::exception_ptr stopped;
  try {
    co_await fetch(*fill, registry->upstream(fill->repository));
  } catch (const Failure& failure) {
    error = failure.error();
  } catch (...) {  // Cancelled, or out of memory: nobody waits for it any more.
    stopped = std::current_exception();
    error = Error{Errc::cancelled, "the daemon is stopping"};
  }
  fills_.erase(fill->digest);
  if (error) {
    fill->error = *error;
    // That upstream has no such blob is its answer, not a fault.
    const auto level = error->code == Errc::blob_unknown ? log::Level::debug : log::Level::warn;
    log::write(level, "blob not filled",
               {{"registry", fill->registry},
                {"repository", fill->repository},
                {"digest", fill->digest.to_string()},
                {"bytes", fill->written_bytes},
                {"error", *error}});
  }
  fill->changed.notify_all();
  if (stopped) std::rethrow_exception(stopped);
}

asio::awaitable<void> Fills::fetch(Fill& fill, Upstream& upstream) {
  auto response = co_await upstream.send(
      {.repository = fill.repository, .what = "blobs/" + fill.digest.to_string()});
  if (response->status() != 200)
    throw Failure(co_await error_of(
        *response,
        "blob " + fill.digest.to_string() + " of " + fill.registry + "/" + fill.repository,
        Errc::blob_unknown));
  const auto writer = co_await store_.begin(fill.digest, content_length(*response));
  fill.blob = writer->blob();
  fill.changed.notify_all();

  std::optional<Error> error;
  try {
    co_await pump(fill, *writer, upstream, std::move(response));
    co_await writer->commit();
  } catch (const Failure& failure) {
    error = failure.error();
  }
  // The digest matched, the readers are served: what upstream has shown may be served from here on.
  if (!error) {
    for (const std::string& scope : fill.scopes) store_.link(scope, fill.digest);
    co_return;
  }
  writer->abandon(*error);
  throw Failure(*error);
}

asio::awaitable<void> Fills::pump(Fill& fill, cache::BlobWriter& writer, Upstream& upstream,
                                  std::unique_ptr<HttpResponse> response) {
  const std::optional<std::uint64_t> total = fill.blob->size_bytes();
  std::vector<char> piece;
  int breaks = 0;
  for (;;) {
    std::optional<Error> broken;
    const std::uint64_t before = writer.written_bytes();
    try {
      while (co_await response->read(piece)) {
        co_await writer.append(piece);
        fill.written_bytes = writer.written_bytes();
      }
      co_return;
    } catch (const Failure& failure) {
      broken = failure.error();
    }
    response.reset();
    breaks = writer.written_bytes() > before ? 1 : breaks + 1;
    while (true) {
      if (!may_resume(broken->code) || !total || breaks > max_breaks_without_progress)
        throw Failure(*broken);
      log::info("fill resumes", {{"registry", fill.registry},
                                 {"digest", fill.digest.to_string()},
                                 {"bytes", writer.written_bytes()},
                                 {"error", *broken}});
      co_await clock_.sleep_for(first_pause * (1 << breaks));
      try {
        const std::uint64_t at = writer.written_bytes();
        response = co_await upstream.send({.repository = fill.repository,
                                           .what = "blobs/" + fill.digest.to_string(),
                                           .range = "bytes=" + std::to_string(at) + "-"});
        const auto range = parse_content_range(response->headers().get("Content-Range"));
        if (response->status() == 206 && range && range->range.begin == at &&
            range->range.end == *total && range->total_bytes.value_or(*total) == *total)
          break;
        if (response->status() == 200 && at == 0) break;
        if (response->status() / 100 == 2)
          throw Failure(Errc::upstream_nonsense, upstream.url() + " does not continue " +
                                                     fill.digest.to_string() + " where it stopped");
        throw Failure(co_await error_of(*response, "the rest of a blob", Errc::blob_unknown));
      } catch (const Failure& failure) {
        broken = failure.error();
        response.reset();
        ++breaks;
      }
    }
  }
}

}  // namespace staithe::proxy
