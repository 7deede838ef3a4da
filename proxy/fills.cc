#include "proxy/fills.h"

#include "cache/blob_writer.h"
#include "cache/log.h"

namespace staithe::proxy {

namespace {

constexpr std::size_t max_joined_wrong = 1'000;

}  // namespace

std::string scope_of(const Registry& registry, const std::string& repository) {
  return registry.name() + "/" + repository;
}

Fills::Fills(asio::any_io_executor loop, cache::Store& store, Clock& clock)
    : loop_(loop),
      store_(store),
      clock_(clock),
      failure_lines_({.lines = 5, .interval = std::chrono::minutes(1)}),
      tasks_(loop, [](std::string_view name, std::string_view sentence) {
        log::error("fill failed", {{"task", name}, {"error", sentence}});
      }) {}

asio::awaitable<std::shared_ptr<cache::Blob>> Fills::open(RegistryPtr registry,
                                                          std::string repository,
                                                          cache::Digest digest, bool& started,
                                                          std::uint64_t offset, std::string trace) {
  std::shared_ptr<Fill> fill;
  if (const auto it = fills_.find(digest); it != fills_.end()) {
    fill = it->second;
    started = false;
  } else {
    fill = std::make_shared<Fill>(loop_, digest);
    fill->registry = registry->name();
    fill->repository = repository;
    fill->trace = std::move(trace);
    fill->scopes.insert(scope_of(*registry, repository));
    fills_.emplace(digest, fill);
    started = true;
    if (!tasks_.spawn("fill", run(fill, registry, offset))) {
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
                   .bytes = fill->blob ? fill->blob->present().bytes() : 0,
                   .total = fill->blob ? fill->blob->size_bytes() : std::nullopt,
                   .readers = fill->blob ? fill->blob->readers() : 0,
                   .connections = fill->transfer ? fill->transfer->connections() : 0,
                   .bytes_per_second = fill->transfer ? fill->transfer->bytes_per_second() : 0});
  }
  return all;
}

asio::awaitable<void> Fills::stop() {
  tasks_.cancel();
  co_await tasks_.join();
}

asio::awaitable<void> Fills::run(std::shared_ptr<Fill> fill, RegistryPtr registry,
                                 std::uint64_t offset) {
  std::optional<Error> error;
  std::exception_ptr stopped;
  try {
    co_await fetch(*fill, *registry, offset);
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
    const auto left_out =
        error->code == Errc::blob_unknown
            ? std::nullopt
            : failure_lines_.admit(fill->registry + " " + to_string(error->code), clock_.now());
    log::write(left_out ? log::Level::warn : log::Level::debug, "blob not filled",
               {{"registry", fill->registry},
                {"repository", fill->repository},
                {"digest", fill->digest.to_string()},
                {"bytes", fill->blob ? fill->blob->present().bytes() : 0},
                {"error", *error},
                {"left_out", log::if_any(left_out.value_or(0))},
                {"trace_id", log::if_any(fill->trace)}});
  }
  fill->changed.notify_all();
  if (stopped) std::rethrow_exception(stopped);
}

asio::awaitable<void> Fills::fetch(Fill& fill, Registry& registry, std::uint64_t offset) {
  Transfer transfer(loop_,
                    {.registry = fill.registry,
                     .repository = fill.repository,
                     .digest = fill.digest,
                     .segments = registry.settings().segments,
                     .ranges = !joined_wrong_.contains(fill.digest),
                     .sizes = sizes_,
                     .trace = fill.trace,
                     .on_resume = [this] { ++resumes_; }},
                    registry.upstream(fill.repository), clock_);
  struct Shown {  // for as long as it is there
    Fill& fill;
    ~Shown() { fill.transfer = nullptr; }
  } const shown{fill};
  fill.transfer = &transfer;
  const auto writer = co_await begin(fill, transfer, offset);
  fill.blob = writer->blob();
  fill.changed.notify_all();

  std::optional<Error> error;
  try {
    co_await writer->recover();
    co_await transfer.run(*writer);
    co_await writer->commit();
  } catch (const Failure& failure) {
    error = failure.error();
  }
  // The digest matched, the readers are served: what upstream has shown may be served from here on.
  if (!error) {
    joined_wrong_.erase(fill.digest);
    for (const std::string& scope : fill.scopes) store_.link(scope, fill.digest);
    co_return;
  }
  const bool wrong = error->code == Errc::digest_invalid || error->code == Errc::upstream_nonsense;
  if (wrong && transfer.joined() && joined_wrong_.size() < max_joined_wrong)
    joined_wrong_.insert(fill.digest);
  if (wrong) registry.upstream(fill.repository).doubt();
  writer->abandon(*error);
  throw Failure(*error);
}

asio::awaitable<std::unique_ptr<cache::BlobWriter>> Fills::begin(Fill& fill, Transfer& transfer,
                                                                 std::uint64_t offset) {
  if (const auto there = store_.resumable(fill.digest)) {
    // Readers get what is here before the rest is asked for, so upstream is asked first whether
    // they may have it.
    const auto size = co_await transfer.ask_size();
    if (size && *size >= *there) {
      ++resumes_;
      log::info("fill resumes", {{"registry", fill.registry},
                                 {"digest", fill.digest.to_string()},
                                 {"bytes", *there},
                                 {"of", *size}});
      co_return co_await store_.resume(fill.digest, *size);
    }
  }
  const auto size = co_await transfer.begin(offset);
  co_return co_await store_.begin(fill.digest, size);
}

}  // namespace staithe::proxy
