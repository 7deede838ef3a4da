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
    if (!tasks_.spawn("fill", run(fill, registry))) {
      fills_.erase(digest);
      throw Failure(Errc::cancelled, "the daemon is stopping");
    }
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
  std::unique_ptr<HttpResponse> response;
  auto writer = co_await resume(fill, upstream);
  if (!writer) {
    response = co_await upstream.send(
        {.repository = fill.repository, .what = "blobs/" + fill.digest.to_string()});
    if (response->status() != 200) throw Failure(co_await error_of_blob(fill, *response));
    writer = co_await store_.begin(fill.digest, content_length(*response));
  }
  fill.blob = writer->blob();
  fill.changed.notify_all();

  std::optional<Error> error;
  try {
    co_await writer->recover();
    fill.written_bytes = writer->written_bytes();
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

asio::awaitable<Error> Fills::error_of_blob(const Fill& fill, HttpResponse& response) {
  co_return co_await error_of(
      response, "blob " + fill.digest.to_string() + " of " + fill.registry + "/" + fill.repository,
      Errc::blob_unknown);
}

asio::awaitable<std::unique_ptr<cache::BlobWriter>> Fills::resume(Fill& fill, Upstream& upstream) {
  const auto there = store_.resumable(fill.digest);
  if (!there) co_return nullptr;
  // Readers get what is here before the rest is asked for, so upstream is asked first whether they
  // may have it.
  const auto shown = co_await upstream.send({.method = "HEAD",
                                             .repository = fill.repository,
                                             .what = "blobs/" + fill.digest.to_string()});
  if (shown->status() != 200) throw Failure(co_await error_of_blob(fill, *shown));
  const auto size = content_length(*shown);
  if (!size || *size < *there) co_return nullptr;
  log::info("fill resumes", {{"registry", fill.registry},
                             {"digest", fill.digest.to_string()},
                             {"bytes", *there},
                             {"of", *size}});
  co_return co_await store_.resume(fill.digest, *size);
}

asio::awaitable<void> Fills::pump(Fill& fill, cache::BlobWriter& writer, Upstream& upstream,
                                  std::unique_ptr<HttpResponse> response) {
  const std::optional<std::uint64_t> total = fill.blob->size_bytes();
  std::vector<char> piece;
  int breaks = 0;
  while (response || writer.written_bytes() != total) {
    std::optional<Error> broken;
    const std::uint64_t before = writer.written_bytes();
    try {
      if (!response) response = co_await ask_for_rest(fill, writer, upstream);
      // An answer that begins anew is passed over up to where we stand.
      std::uint64_t known = response->status() == 200 ? writer.written_bytes() : 0;
      while (co_await response->read(piece)) {
        const auto passed = static_cast<std::size_t>(std::min<std::uint64_t>(known, piece.size()));
        known -= passed;
        co_await writer.append(std::span(std::as_const(piece)).subspan(passed));
        fill.written_bytes = writer.written_bytes();
      }
      co_return;
    } catch (const Failure& failure) {
      broken = failure.error();
    }
    response.reset();
    breaks = writer.written_bytes() > before ? 1 : breaks + 1;
    if (!may_resume(broken->code) || !total || breaks > max_breaks_without_progress)
      throw Failure(*broken);
    log::info("fill resumes", {{"registry", fill.registry},
                               {"digest", fill.digest.to_string()},
                               {"bytes", writer.written_bytes()},
                               {"error", *broken}});
    co_await clock_.sleep_for(first_pause * (1 << breaks));
  }
}

asio::awaitable<std::unique_ptr<HttpResponse>> Fills::ask_for_rest(Fill& fill,
                                                                   const cache::BlobWriter& writer,
                                                                   Upstream& upstream) {
  const std::uint64_t at = writer.written_bytes();
  const std::uint64_t total = *fill.blob->size_bytes();
  auto response = co_await upstream.send({.repository = fill.repository,
                                          .what = "blobs/" + fill.digest.to_string(),
                                          .range = "bytes=" + std::to_string(at) + "-"});
  const auto range = parse_content_range(response->headers().get("Content-Range"));
  if (response->status() == 206 && range && range->range.begin == at && range->range.end == total &&
      range->total_bytes.value_or(total) == total)
    co_return response;
  if (response->status() == 200 && content_length(*response) == total) co_return response;
  if (response->status() / 100 == 2)
    throw Failure(Errc::upstream_nonsense, upstream.url() + " does not continue " +
                                               fill.digest.to_string() + " where it stopped");
  throw Failure(co_await error_of(*response, "the rest of a blob", Errc::blob_unknown));
}

}  // namespace staithe::proxy
