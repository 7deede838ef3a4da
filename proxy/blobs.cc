#include "proxy/blobs.h"

#include <charconv>
#include <limits>

#include "cache/log.h"
#include "cache/offload.h"
#include "proxy/freshness.h"

namespace staithe::proxy {

namespace {

constexpr std::string_view media_type = "application/octet-stream";
constexpr std::size_t hash_step_bytes = 1024 * 1024;
// Of a growing blob, how much a reader waits for: some 20 us to wake up and to be sent are little
// beside it, and it is little beside what the socket holds.
constexpr std::uint64_t stride_bytes = 2 * 1024 * 1024;

std::string describe(const Registry& registry, const std::string& repository,
                     const cache::Digest& digest) {
  return "blob " + digest.to_string() + " of " + registry.name() + "/" + repository;
}

std::string etag(const cache::Digest& digest) { return '"' + digest.to_string() + '"'; }

void describe_blob(Exchange& exchange, const cache::Digest& digest, Outcome outcome) {
  exchange.add("Cache-Status", cache_status(outcome));
  exchange.add("Docker-Content-Digest", digest.to_string());
  exchange.add("Etag", etag(digest));
  exchange.add("Accept-Ranges", "bytes");
  exchange.add("Cache-Control", "max-age=31536000, immutable");
}

// The range that the request asks for and that still fits the representation (If-Range).
std::string_view range_field(const Exchange& exchange, const cache::Digest& digest) {
  const std::string_view condition = exchange.request().field("If-Range");
  if (!condition.empty() && condition != etag(digest)) return {};
  return exchange.request().field("Range");
}

std::string content_range(ByteRange range, std::uint64_t total) {
  return "bytes " + std::to_string(range.begin) + "-" + std::to_string(range.end - 1) + "/" +
         std::to_string(total);
}

// It begins where the header asks for, and goes no further: a client would put other bytes there.
bool is_of(std::string_view header, const ContentRange& part) {
  const auto asked =
      parse_range(header, part.total_bytes.value_or(std::numeric_limits<std::uint64_t>::max()));
  return asked && *asked && part.range.begin == (*asked)->begin && part.range.end <= (*asked)->end;
}

bool storage_failed(Errc code) {
  return code == Errc::storage_full || code == Errc::storage_failed;
}

// Upstream's length of a blob. Throws Failure if it is 0, which only one blob has: a client would
// have the whole, wrong blob with the head of the answer.
void check_length(std::uint64_t size_bytes, const cache::Digest& digest, const Registry& registry) {
  if (size_bytes == 0 && digest != cache::digest_of(digest.algorithm(), {}))
    throw Failure(Errc::upstream_nonsense,
                  registry.name() + " says that " + digest.to_string() + " has no byte");
}

// The next piece of a body of which `left` bytes were announced to the client; false at its end.
// Upstream's own figures need not agree with each other, and what they add up to is no assumption
// to build on.
asio::awaitable<bool> read_announced(HttpResponse& response, std::vector<char>& piece,
                                     std::uint64_t& left, const Registry& registry) {
  if (!co_await response.read(piece)) co_return false;
  if (piece.size() > left)
    throw Failure(Errc::upstream_nonsense,
                  registry.name() + " sent more bytes than it had announced");
  left -= piece.size();
  co_return true;
}

// Sends a body while hashing it; the last piece leaves only if the digest matches, so a wrong body
// never completes.
class HeldBack {
 public:
  HeldBack(Exchange& exchange, cache::Digest digest, cache::Hasher hasher)
      : exchange_(exchange), digest_(digest), hasher_(std::move(hasher)) {}

  asio::awaitable<void> send(std::vector<char>& piece) {
    hasher_.update(piece);
    co_await exchange_.send(held_);
    held_.swap(piece);
  }
  asio::awaitable<void> finish() {
    if (hasher_.digest() != digest_)
      throw Failure(Errc::upstream_nonsense, "upstream sent wrong bytes for " +
                                                 digest_.to_string() +
                                                 "; the answer was cut before its end");
    co_await exchange_.send(held_);
    co_await exchange_.finish();
  }

 private:
  Exchange& exchange_;
  cache::Digest digest_;
  cache::Hasher hasher_;
  std::vector<char> held_;
};

}  // namespace

Blobs::Blobs(asio::any_io_executor loop, cache::Store& store, Fills& fills, TaskGroup& tasks,
             Clock& clock, Answers& answers)
    : store_(store),
      fills_(fills),
      clock_(clock),
      answers_(answers),
      continued_lines_({.lines = 5, .interval = std::chrono::minutes(1)}),
      sizes_(std::move(loop), tasks) {}

asio::awaitable<Outcome> Blobs::serve(Exchange& exchange, RegistryPtr registry,
                                      std::string repository, cache::Digest digest) {
  const std::uint64_t as_of = answers_.taken_back();
  const std::string scope = scope_of(*registry, repository);
  // A transfer whose answer is still awaited is another's, too, until upstream shows it here.
  if ((store_.size_of_blob(digest) || fills_.under_way(digest)) && !fills_.admits(digest, scope)) {
    const Shown by = co_await shown(registry, repository, digest);
    if (by == Shown::by_upstream) {
      fills_.admit(digest, scope);
      store_.link(scope, digest);
    }
    if (auto blob = co_await store_.find(digest)) {
      const Outcome outcome = by == Shown::by_stale_memory ? Outcome::stale
                              : fills_.under_way(digest)   ? Outcome::collapsed
                                                           : Outcome::hit;
      const bool small = blob->whole() && !blob->error() &&
                         blob->size_bytes().value_or(0) <= Answers::most_body_bytes;
      if (small && outcome == Outcome::hit && !exchange.request().head() &&
          range_field(exchange, digest).empty() &&
          co_await serve_small(exchange, *registry, scope, blob, as_of))
        co_return outcome;
      co_await serve_blob(exchange, registry, std::move(repository), std::move(blob), outcome);
      co_return outcome;
    }
  }
  // Asking is not wanting: a HEAD starts no transfer.
  if (exchange.request().head() && !fills_.admits(digest, scope))
    co_return co_await tell_size(exchange, registry, std::move(repository), digest);
  std::shared_ptr<cache::Blob> blob;
  bool started = false;
  bool no_room = false;
  try {
    blob = co_await fills_.open(registry, repository, digest, started,
                                asked_range(range_field(exchange, digest)).first,
                                exchange.told_trace());
  } catch (const Failure& failure) {
    if (!storage_failed(failure.code())) throw;
    no_room = true;
  }
  if (no_room && exchange.request().head())
    co_return co_await tell_size(exchange, registry, std::move(repository), digest);
  if (no_room) co_return co_await relay(exchange, registry, std::move(repository), digest);
  const Outcome outcome = started ? Outcome::miss : Outcome::collapsed;
  co_await serve_blob(exchange, registry, std::move(repository), std::move(blob), outcome);
  co_return outcome;
}

asio::awaitable<std::shared_ptr<cache::Blob>> Blobs::want(RegistryPtr registry,
                                                          std::string repository,
                                                          cache::Digest digest) {
  const std::string scope = scope_of(*registry, repository);
  // A transfer whose answer is still awaited is another's, too, until upstream shows it here.
  if ((store_.size_of_blob(digest) || fills_.under_way(digest)) && !fills_.admits(digest, scope)) {
    if (co_await shown(registry, repository, digest) == Shown::by_upstream) {
      fills_.admit(digest, scope);
      store_.link(scope, digest);
    }
    if (store_.object(digest)) co_return nullptr;
  }
  bool started = false;
  co_return co_await fills_.open(registry, std::move(repository), digest, started);
}

asio::awaitable<Blobs::Shown> Blobs::shown(RegistryPtr registry, std::string repository,
                                           cache::Digest digest) {
  const std::string scope = scope_of(*registry, repository);
  const auto age = store_.link_age(scope, digest);
  if (age && *age < authorization_bound) co_return Shown::by_memory;
  std::optional<Error> error;
  try {
    co_await ask_size(registry, repository, digest);
    co_return Shown::by_upstream;
  } catch (const Failure& failure) {
    error = failure.error();
  }
  const Ruling ruling = judge(error->code, age, registry->settings().freshness);
  if (ruling == Ruling::fail_and_drop) store_.unlink(scope, digest);
  if (ruling == Ruling::stale) co_return Shown::by_stale_memory;
  throw Failure(*error);
}

asio::awaitable<std::uint64_t> Blobs::ask_size(RegistryPtr registry, std::string repository,
                                               cache::Digest digest) {
  const std::string key = scope_of(*registry, repository) + "@" + digest.to_string();
  const std::string text =
      co_await sizes_.run(key, ask_size_text(registry, std::move(repository), digest));
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    throw Failure(Errc::upstream_nonsense, registry->name() + " shows a blob without its length");
  check_length(size, digest, *registry);
  co_return size;
}

asio::awaitable<Outcome> Blobs::tell_size(Exchange& exchange, RegistryPtr registry,
                                          std::string repository, cache::Digest digest) {
  const std::uint64_t size = co_await ask_size(std::move(registry), std::move(repository), digest);
  describe_blob(exchange, digest, Outcome::pass);
  co_await exchange.begin(200, media_type, size);
  co_return Outcome::pass;
}

asio::awaitable<std::string> Blobs::ask_size_text(RegistryPtr registry, std::string repository,
                                                  cache::Digest digest) {
  auto response =
      co_await registry->upstream(repository)
          .send(
              {.method = "HEAD", .repository = repository, .what = "blobs/" + digest.to_string()});
  if (response->status() != 200)
    throw Failure(
        co_await error_of(*response, describe(*registry, repository, digest), Errc::blob_unknown));
  co_return std::string(response->headers().get("Content-Length"));
}

asio::awaitable<bool> Blobs::serve_small(Exchange& exchange, const Registry& registry,
                                         const std::string& scope,
                                         std::shared_ptr<cache::Blob> blob, std::uint64_t as_of) {
  const cache::Blob::Reading reading(*blob);
  const cache::Digest& digest = blob->digest();
  std::string bytes(*blob->size_bytes(), '\0');
  bool good = false;
  bool readable = true;
  try {
    // Hashed once more, since it may be sent a million times.
    co_await offload(store_.disk_pool(), [&] {
      bytes.resize(store_.disk().read(blob->file(), bytes, 0));
      good = cache::digest_of(digest.algorithm(), bytes) == digest;
    });
  } catch (const Failure&) {
    readable = false;
  }
  if (!readable || !good) co_return false;
  describe_blob(exchange, digest, Outcome::hit);
  const auto age = store_.link_age(scope, digest);
  // Who asks for it again may be another caller, with another right.
  const bool for_everybody = !registry.settings().verify_callers;
  if (for_everybody && store_.size_of_blob(digest) && !blob->error() && age &&
      *age < authorization_bound) {
    const auto kept = std::make_shared<Answer>(
        digest, exchange.head_to_keep(200, media_type, bytes.size()), bytes);
    kept->until = clock_.now() + (authorization_bound - *age);
    kept->registry = exchange.account().registry;
    kept->kind = RequestKind::blob;
    answers_.put(exchange.request().target, kept, as_of);
  }
  co_await exchange.reply(200, media_type, bytes);
  co_return true;
}

asio::awaitable<void> Blobs::serve_blob(Exchange& exchange, RegistryPtr registry,
                                        std::string repository, std::shared_ptr<cache::Blob> blob,
                                        Outcome outcome) {
  const cache::Blob::Reading reading(*blob);
  const cache::Digest& digest = blob->digest();
  const std::optional<std::uint64_t> size = blob->size_bytes();
  if (!size) {  // Upstream does not say; the length is known at the end.
    describe_blob(exchange, digest, outcome);
    co_await exchange.begin(200, media_type, std::nullopt);
    if (exchange.request().head()) co_return;
    std::uint64_t sent = 0;
    while (!blob->whole() || sent < *blob->size_bytes()) {
      const std::uint64_t ready = co_await blob->wait_past(sent);
      co_await exchange.send_file(blob->file().fd(), sent, ready);
      sent = ready;
    }
    co_await exchange.finish();
    co_return;
  }
  const auto range = parse_range(range_field(exchange, digest), *size);
  if (!range) {
    exchange.add("Cache-Status", cache_status(outcome));
    exchange.add("Content-Range", "bytes */" + std::to_string(*size));
    throw Failure(range.error());
  }
  describe_blob(exchange, digest, outcome);
  const ByteRange bytes = range->value_or(ByteRange{0, *size});
  if (*range) exchange.add("Content-Range", content_range(bytes, *size));
  co_await exchange.begin(*range ? 206 : 200, media_type, bytes.end - bytes.begin,
                          blob->ready_from(bytes.begin, cache::Blob::End::held_back) > bytes.begin);
  if (exchange.request().head()) co_return;
  // What completes the body at the client waits for the digest; a part of it has none.
  const auto held = asked_range(range_field(exchange, digest)).to_the_end
                        ? cache::Blob::End::held_back
                        : cache::Blob::End::as_it_comes;
  co_await send_body(exchange, registry, std::move(repository), blob, bytes, held);
}

asio::awaitable<void> Blobs::send_body(Exchange& exchange, RegistryPtr registry,
                                       std::string repository, std::shared_ptr<cache::Blob> blob,
                                       ByteRange range, cache::Blob::End held) {
  const std::uint64_t end = range.end;
  std::uint64_t sent = range.begin;
  std::optional<Error> broken;
  while (sent < end) {
    const std::uint64_t before = exchange.body_bytes_sent();
    try {
      // The first bytes at once, then as many as are worth a step of every reader.
      const std::uint64_t stride = sent == range.begin ? 1 : std::min(end - sent, stride_bytes);
      const std::uint64_t ready = std::min(end, co_await blob->wait_past(sent, held, stride));
      co_await exchange.send_file(blob->file().fd(), sent, ready, &blob->condemned());
    } catch (const Failure& failure) {
      broken = failure.error();
    }
    sent += exchange.body_bytes_sent() - before;
    if (broken) break;
  }
  if (!broken) co_return;
  // A fault of the disk is not the client's: the rest comes from upstream.
  if (!storage_failed(broken->code)) throw Failure(*broken);
  const auto left_out = continued_lines_.admit(registry->name(), clock_.now());
  log::write(left_out ? log::Level::warn : log::Level::debug, "blob continued from upstream",
             {{"registry", registry->name()},
              {"digest", blob->digest().to_string()},
              {"bytes", sent},
              {"error", *broken},
              {"left_out", log::if_any(left_out.value_or(0))}});
  if (!blob->error()) store_.doubt(blob->digest());
  co_await relay_rest(exchange, registry, std::move(repository), blob, sent, end);
}

asio::awaitable<Outcome> Blobs::relay(Exchange& exchange, RegistryPtr registry,
                                      std::string repository, cache::Digest digest) {
  const std::string range(range_field(exchange, digest));
  auto response = co_await registry->upstream(repository)
                      .send({.repository = repository,
                             .what = "blobs/" + digest.to_string(),
                             .range = range,
                             .trace = exchange.told_trace()});
  const int status = response->status();
  std::optional<std::uint64_t> size;
  const std::string_view length = response->headers().get("Content-Length");
  std::uint64_t value = 0;
  if (const auto [end, error] =
          std::from_chars(length.data(), length.data() + length.size(), value);
      error == std::errc() && !length.empty())
    size = value;
  if (status == 416)
    throw Failure(Errc::range_not_satisfiable, "the range begins behind the end of the blob");
  if (status != 200 && status != 206)
    throw Failure(
        co_await error_of(*response, describe(*registry, repository, digest), Errc::blob_unknown));
  if (status == 200 && size) check_length(*size, digest, *registry);
  describe_blob(exchange, digest, Outcome::pass);
  std::vector<char> piece;
  if (status == 206) {
    // A part has no digest; the client checks the whole when it has joined the parts.
    const auto part = parse_content_range(response->headers().get("Content-Range"));
    if (!part || !is_of(range, *part))
      throw Failure(Errc::upstream_nonsense, registry->name() + " sent a part nobody asked for");
    exchange.add("Content-Range",
                 content_range(part->range, part->total_bytes.value_or(part->range.end)));
    std::uint64_t left = part->range.end - part->range.begin;
    co_await exchange.begin(206, media_type, left);
    while (co_await read_announced(*response, piece, left, *registry))
      co_await exchange.send(piece);
    co_return Outcome::pass;
  }
  co_await exchange.begin(200, media_type, size);
  HeldBack body(exchange, digest, cache::Hasher(digest.algorithm()));
  std::uint64_t left = size.value_or(std::numeric_limits<std::uint64_t>::max());
  while (co_await read_announced(*response, piece, left, *registry)) co_await body.send(piece);
  co_await body.finish();
  co_return Outcome::pass;
}

asio::awaitable<void> Blobs::relay_rest(Exchange& exchange, RegistryPtr registry,
                                        std::string repository, std::shared_ptr<cache::Blob> blob,
                                        std::uint64_t begin, std::uint64_t end) {
  const cache::Digest& digest = blob->digest();
  const std::uint64_t total = *blob->size_bytes();
  // What was sent so far is hashed again from the file, so that the digest covers the join.
  cache::Hasher hasher(digest.algorithm());
  if (end == total) {
    std::vector<char> step(hash_step_bytes);
    for (std::uint64_t at = 0; at < begin;) {
      const std::size_t wanted = std::min<std::uint64_t>(step.size(), begin - at);
      at += co_await offload(store_.disk_pool(), [&] {
        const std::size_t n = store_.disk().read(blob->file(), std::span(step).first(wanted), at);
        if (n == 0) throw Failure(Errc::storage_failed, "a cached blob could not be read");
        hasher.update(std::span(step).first(n));
        return n;
      });
    }
  }
  auto response =
      co_await registry->upstream(repository)
          .send({.repository = repository,
                 .what = "blobs/" + digest.to_string(),
                 .range = "bytes=" + std::to_string(begin) + "-" + std::to_string(end - 1),
                 .trace = exchange.told_trace()});
  const auto part = parse_content_range(response->headers().get("Content-Range"));
  const bool continues = response->status() == 206 && part &&
                         part->range == ByteRange{begin, end} &&
                         part->total_bytes.value_or(total) == total;
  if (!continues && !(response->status() == 200 && begin == 0 && end == total))
    throw Failure(Errc::upstream_nonsense,
                  registry->name() + " does not continue " + digest.to_string());
  std::vector<char> piece;
  std::uint64_t left = end - begin;
  if (end != total) {
    while (co_await read_announced(*response, piece, left, *registry))
      co_await exchange.send(piece);
    co_return;
  }
  HeldBack body(exchange, digest, std::move(hasher));
  while (co_await read_announced(*response, piece, left, *registry)) co_await body.send(piece);
  co_await body.finish();
}

}  // namespace staithe::proxy
