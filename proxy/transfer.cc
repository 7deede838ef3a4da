#include "proxy/transfer.h"

#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <span>

#include "cache/log.h"
#include "proxy/range.h"

namespace staithe::proxy {

namespace {

using namespace std::chrono_literals;

// A connection that brings this much per second is bound by this machine, not by upstream; a second
// one would only take its share.
constexpr std::uint64_t fast_bytes_per_second = 256 * 1024 * 1024;
// How long it is looked at before it is said how fast it is; a server may begin with a burst.
constexpr auto judged_every = 25ms;
// One that is fast enough alone gets so many times as much as it has brought that fast.
constexpr std::uint64_t growth_alone = 4;
// Pieces of up to 1 MiB that one transfer's connections may have at the writer besides one each:
// one is being written while another is hashed, and the next is there when either is done.
constexpr std::size_t pieces_ahead = 2;
// Besides `segments`, for readers that wait for parts of their own.
constexpr std::size_t connections_for_readers = 8;
// A break is in order if this much has come since the one before; so many in a row before which it
// has not end the transfer.
constexpr std::uint64_t progress_bytes = 64 * 1024;
constexpr int most_breaks_without_progress = 4;
constexpr auto first_pause = 200ms;
// Readers wait no longer for the next byte than this and one more attempt.
constexpr auto longest_silence = 15s;
constexpr auto speed_window = 1s;

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

std::uint64_t length(const ContentRange& part) { return part.range.end - part.range.begin; }

std::string range_field(cache::Extent extent) {
  return "bytes=" + std::to_string(extent.begin) + "-" + std::to_string(extent.end - 1);
}

}  // namespace

// One of the connections, for as long as it works.
class Transfer::Working {
 public:
  explicit Working(Transfer& transfer) : transfer_(transfer) {}
  Working(const Working&) = delete;
  Working& operator=(const Working&) = delete;
  ~Working() {
    --transfer_.workers_;
    transfer_.changed_.notify_all();
  }

 private:
  Transfer& transfer_;
};

Transfer::Transfer(asio::any_io_executor loop, Settings settings, UpstreamList& upstream,
                   Clock& clock)
    : settings_(std::move(settings)),
      upstream_(upstream),
      clock_(clock),
      most_workers_(settings_.ranges ? settings_.segments : 1),
      answers_ranges_(settings_.ranges),
      changed_(loop),
      written_(loop),
      tasks_(loop,
             [this](std::string_view, std::string_view sentence) {
               give_up({Errc::upstream_failed, std::string(sentence)});
             }),
      last_bytes_(clock.now()),
      window_began_(clock.now()) {}

Transfer::~Transfer() = default;

asio::awaitable<std::unique_ptr<HttpResponse>> Transfer::send(const std::string& range) {
  return upstream_.send({.repository = settings_.repository,
                         .what = "blobs/" + settings_.digest.to_string(),
                         .range = range,
                         .place = place_,
                         .trace = settings_.trace});
}

asio::awaitable<Error> Transfer::error_of_blob(HttpResponse& response) {
  co_return co_await error_of(response,
                              "blob " + settings_.digest.to_string() + " of " + settings_.registry +
                                  "/" + settings_.repository,
                              Errc::blob_unknown);
}

asio::awaitable<std::optional<std::uint64_t>> Transfer::ask_size() {
  const auto shown = co_await upstream_.send({.method = "HEAD",
                                              .repository = settings_.repository,
                                              .what = "blobs/" + settings_.digest.to_string(),
                                              .trace = settings_.trace});
  if (shown->status() != 200) throw Failure(co_await error_of_blob(*shown));
  co_return content_length(*shown);
}

asio::awaitable<std::optional<std::uint64_t>> Transfer::begin(std::uint64_t offset) {
  std::unique_ptr<HttpResponse> response;
  if (offset <= settings_.sizes.near_bytes) offset = 0;
  if (settings_.ranges) {
    response = co_await send(range_field({offset, offset + settings_.sizes.first_bytes}));
    if (response->status() == 416 && offset > 0) {  // It is shorter than this reader takes it for.
      offset = 0;
      response = co_await send(range_field({0, settings_.sizes.first_bytes}));
    }
    const int status = response->status();
    const auto part = parse_content_range(response->headers().get("Content-Range"));
    if (status == 206 && part && part->range.begin == offset && part->total_bytes &&
        content_length(*response).value_or(length(*part)) == length(*part)) {
      check_validator(*response);
      first_ = Answer{std::move(response), {offset, part->range.end}};
      co_return part->total_bytes;
    }
    // The empty blob has no range.
    const bool unanswered = status == 206 || status == 400 || status == 416;
    if (!unanswered && status != 200) throw Failure(co_await error_of_blob(*response));
    if (unanswered) response.reset();
  }
  if (!response) response = co_await send({});
  if (response->status() != 200) throw Failure(co_await error_of_blob(*response));
  const auto size = content_length(*response);
  // Of these, clients would have the whole, wrong blob with the head of the answer.
  if (size == 0 && settings_.digest != cache::Hasher(settings_.digest.algorithm()).digest())
    throw Failure(Errc::upstream_nonsense,
                  upstream_.url() + " sent no byte of " + settings_.digest.to_string());
  check_validator(*response);
  first_ = Answer{std::move(response), {0, size.value_or(0)}, true};
  co_return size;
}

void Transfer::check_validator(const HttpResponse& response) {
  ++answers_;
  const std::string validator(response.headers().get("ETag"));
  if (validator.empty() || validator.starts_with("W/")) return;
  const std::string server = place_->server();
  const auto [known, first] = validators_.emplace(server, validator);
  if (!first && known->second != validator)
    throw Failure(Errc::upstream_nonsense, upstream_.url() + " changed " +
                                               settings_.digest.to_string() +
                                               " while it was fetched; pull again");
}

asio::awaitable<Transfer::Answer> Transfer::ask(cache::Extent extent) {
  auto response = co_await send(range_field(extent));
  const int status = response->status();
  const std::uint64_t size = plan_->size_bytes();
  if (status == 200 && content_length(*response).value_or(size) == size) {
    check_validator(*response);
    co_return Answer{std::move(response), {0, size}, true};
  }
  if (status / 100 != 2) throw Failure(co_await error_of_blob(*response));
  const auto part =
      status == 206 ? parse_content_range(response->headers().get("Content-Range")) : std::nullopt;
  if (!part || part->range.begin != extent.begin || part->range.end > size ||
      part->total_bytes.value_or(size) != size ||
      content_length(*response).value_or(length(*part)) != length(*part))
    throw Failure(Errc::upstream_nonsense, upstream_.url() + " does not answer the range of " +
                                               settings_.digest.to_string() + " it was asked for");
  check_validator(*response);
  co_return Answer{std::move(response), {extent.begin, part->range.end}};
}

asio::awaitable<void> Transfer::run(cache::BlobWriter& writer) {
  writer_ = &writer;
  cache::Blob& blob = *writer.blob();
  if (!blob.size_bytes()) {
    co_await append_all(std::move(std::exchange(first_, std::nullopt)->response));
    co_return;
  }
  plan_.emplace(*blob.size_bytes(), settings_.segments, settings_.sizes);
  blob.on_wait([this](std::uint64_t offset) { want(offset); });
  // From here on the tasks are ended before this returns, whatever happens.
  co_await asio::this_coro::throw_if_cancelled(false);
  tasks_.spawn("hash", hash());
  if (!complete()) spawn_worker(std::exchange(first_, std::nullopt));
  bool stopped = false;
  while (!error_ && !stopped && (!complete() || workers_ > 0 || !hashed_)) {
    if (workers_ == 0 && writes_ == 0 && !complete()) {
      spawn_worker(std::nullopt);
      continue;  // It runs at once, as far as it can.
    }
    co_await changed_.wait();
    stopped =
        (co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none;
  }
  tasks_.cancel();
  co_await tasks_.join();
  blob.on_wait({});
  co_await asio::this_coro::throw_if_cancelled(true);
  if (stopped) throw boost::system::system_error(asio::error::operation_aborted);
  if (error_) throw Failure(*error_);
}

bool Transfer::complete() const { return present().bytes() == plan_->size_bytes(); }

void Transfer::give_up(Error error) {
  if (!error_) error_ = std::move(error);
  changed_.notify_all();
}

void Transfer::spawn_worker(std::optional<Answer> first) {
  ++workers_;
  if (!tasks_.spawn("connection", work(std::move(first)))) --workers_;
}

asio::awaitable<void> Transfer::hash() {
  try {
    co_await writer_->hash_along();
    hashed_ = true;
    changed_.notify_all();
  } catch (const Failure& failure) {
    give_up(failure.error());
  }
}

asio::awaitable<void> Transfer::work(std::optional<Answer> first) {
  const Working working(*this);
  try {
    if (first && first->whole) {
      answers_ranges_ = false;
      co_await pass_over(std::move(std::exchange(first, std::nullopt)->response));
    }
    while (!error_ && (workers_ <= most_workers_ || plan_->wanted())) {
      const std::uint64_t alone_bytes = workers_ == 1 ? growth_alone * fast_bytes_ : 0;
      const auto segment =
          first ? plan_->claim(first->extent) : plan_->next(present(), alone_bytes);
      if (!segment) break;
      struct Release {
        SegmentPlan& plan;
        SegmentPlan::Handle segment;
        ~Release() { plan.release(segment); }
      } const release{*plan_, *segment};
      if (!co_await fetch(*segment, std::exchange(first, std::nullopt))) break;
      // What was too many of them once may be right by now.
      if (answers_ranges_) most_workers_ = std::min(settings_.segments, most_workers_ + 1);
    }
  } catch (const Failure& failure) {
    give_up(failure.error());
  }
}

asio::awaitable<bool> Transfer::fetch(SegmentPlan::Handle segment, std::optional<Answer> answer) {
  while (segment->at < segment->range.end && !complete() && !error_) {
    std::optional<Error> broken;
    const std::uint64_t before = segment->at;
    try {
      if (!co_await fetch_some(segment, std::exchange(answer, std::nullopt))) co_return false;
      if (segment->at < segment->range.end && segment->at - before < progress_bytes)
        broken = Error{Errc::upstream_failed, upstream_.url() + " sends hardly anything of " +
                                                  settings_.digest.to_string()};
    } catch (const Failure& failure) {
      if (!may_resume(failure.code())) throw;
      broken = failure.error();
    }
    if (!broken || error_) continue;
    if (segment->at - before < progress_bytes && workers_ > 1) {
      // Upstream may not like so many of them.
      most_workers_ = std::min(most_workers_, workers_ - 1);
      no_more_before_ = clock_.now() + first_pause;
      co_return false;
    }
    co_await get_over(std::move(*broken), segment->at - before);
  }
  co_return true;
}

asio::awaitable<bool> Transfer::fetch_some(SegmentPlan::Handle segment,
                                           std::optional<Answer> answer) {
  if (!answer) answer = co_await ask({segment->at, segment->range.end});
  if (!answer->whole) {
    co_await read(segment, std::move(*answer));
    co_return true;
  }
  // It has stopped to answer ranges: the last connection reads it all.
  answers_ranges_ = false;
  most_workers_ = 1;
  if (workers_ > 1) co_return false;
  co_await pass_over(std::move(answer->response));
  co_return complete();
}

asio::awaitable<void> Transfer::get_over(Error broken, std::uint64_t brought_bytes) {
  breaks_ = brought_bytes >= progress_bytes ? 0 : breaks_ + 1;
  const bool silent = clock_.now() - last_bytes_ > longest_silence;
  if (breaks_ > most_breaks_without_progress || (breaks_ > 0 && (silent || !upstream_.may_retry())))
    throw Failure(broken);
  if (settings_.on_resume) settings_.on_resume();
  log::info("fill resumes", {{"registry", settings_.registry},
                             {"digest", settings_.digest.to_string()},
                             {"bytes", present().bytes()},
                             {"error", broken}});
  if (breaks_ == 0) co_return;
  const Instant rested = clock_.now() + first_pause * (1 << breaks_);
  co_await clock_.sleep_until(std::max(rested, upstream_.next_try(place_.get())));
}

bool Transfer::written(cache::Extent extent) const {
  return extent.begin == extent.end || present().contains(extent);
}

asio::awaitable<void> Transfer::wait_written(cache::Extent extent) {
  while (!error_ && !written(extent)) co_await written_.wait();
}

asio::awaitable<void> Transfer::wait_for_room(cache::Extent extent) {
  while (!error_ && (writes_ >= workers_ + pieces_ahead ||
                     !(writer_->in_order(extent.end) || written(extent))))
    co_await written_.wait();
}

void Transfer::start_write(std::uint64_t offset, std::vector<char>& piece,
                           std::span<const char> bytes) {
  ++writes_;
  if (!tasks_.spawn("write", write(offset, std::move(piece), bytes))) --writes_;
  piece.clear();
  if (spares_.empty()) return;
  piece.swap(spares_.back());
  spares_.pop_back();
}

asio::awaitable<void> Transfer::write(std::uint64_t offset, std::vector<char> piece,
                                      std::span<const char> bytes) {
  struct Done {
    Transfer& transfer;
    std::vector<char>& piece;
    ~Done() {
      --transfer.writes_;
      transfer.spares_.push_back(std::move(piece));
      transfer.written_.notify_all();
      if (transfer.workers_ == 0) transfer.changed_.notify_all();
    }
  } const done{*this, piece};
  try {
    co_await writer_->write(offset, bytes);
  } catch (const Failure& failure) {
    give_up(failure.error());
  }
}

asio::awaitable<void> Transfer::read(SegmentPlan::Handle segment, Answer answer) {
  Instant since = clock_.now();
  std::uint64_t from = segment->at;
  std::chrono::nanoseconds held_up{};
  std::vector<char> piece;
  while (!error_ && segment->at < segment->range.end && co_await answer.response->read(piece)) {
    note_bytes(piece.size());
    const Instant came = clock_.now();
    co_await wait_for_room({segment->range.begin, segment->at});
    held_up += clock_.now() - came;
    // The segment may have been cut short meanwhile.
    const std::uint64_t room = std::min(segment->range.end, answer.extent.end) - segment->at;
    if (piece.size() > answer.extent.end - segment->at)
      throw Failure(Errc::upstream_nonsense, upstream_.url() + " sent more than it announced of " +
                                                 settings_.digest.to_string());
    const auto bytes =
        std::span(std::as_const(piece)).first(std::min<std::uint64_t>(piece.size(), room));
    start_write(segment->at, piece, bytes);
    plan_->advance(segment, segment->at + bytes.size());
    upstream_.note_progress(bytes.size());
    if (const Instant now = clock_.now(); now - since >= judged_every) {
      if (plan_->wanted() && may_serve_readers()) spawn_worker(std::nullopt);
      if (!note_speed(segment->at - from, now - since, held_up)) use_more_connections();
      since = now;
      from = segment->at;
      held_up = {};
    }
  }
  if (const Instant now = clock_.now(); now > since)
    note_speed(segment->at - from, now - since, held_up);
  // Read to its end, the connection can be used again.
  if (segment->at == answer.extent.end && co_await answer.response->read(piece))
    throw Failure(Errc::upstream_nonsense, upstream_.url() + " sent more than it announced of " +
                                               settings_.digest.to_string());
}

asio::awaitable<void> Transfer::pass_over(std::unique_ptr<HttpResponse> response) {
  // What is on its way to the disk would seem to be missing.
  while (!error_ && writes_ > 0) co_await written_.wait();
  std::vector<char> piece;
  const std::uint64_t before = present().bytes();
  const std::uint64_t size = plan_->size_bytes();
  std::uint64_t at = 0;
  std::optional<Error> broken;
  try {
    while (!error_ && at < size && co_await response->read(piece)) {
      note_bytes(piece.size());
      const std::uint64_t begin = at;
      for (const std::uint64_t end = begin + piece.size(); at < end && !error_;) {
        const cache::Extent gap = present().gap_from(at, end);
        const auto bytes =
            std::span(std::as_const(piece)).subspan(gap.begin - begin, gap.end - gap.begin);
        at = gap.end;
        if (bytes.empty()) continue;
        upstream_.note_progress(bytes.size());
        co_await wait_for_room({0, gap.begin});
        if (at == end) {
          start_write(gap.begin, piece, bytes);
        } else {  // The rest of the piece is needed here.
          co_await writer_->write(gap.begin, bytes);
        }
      }
    }
    co_await wait_written({0, at});
    if (at == size && co_await response->read(piece))
      throw Failure(Errc::upstream_nonsense, "upstream sent more bytes for " +
                                                 settings_.digest.to_string() + " than the " +
                                                 std::to_string(size) + " it announced");
    if (!complete())
      broken = Error{Errc::upstream_failed,
                     upstream_.url() + " sent only a part of " + settings_.digest.to_string()};
  } catch (const Failure& failure) {
    if (!may_resume(failure.code())) throw;
    broken = failure.error();
  }
  co_await wait_written({0, at});
  if (broken && !complete() && !error_)
    co_await get_over(std::move(*broken), present().bytes() - before);
}

asio::awaitable<void> Transfer::append_all(std::unique_ptr<HttpResponse> response) {
  ++workers_;
  const Working working(*this);
  std::vector<char> piece;
  while (co_await response->read(piece)) {
    note_bytes(piece.size());
    co_await writer_->append(piece);
  }
}

bool Transfer::may_serve_readers() const {
  return !error_ && answers_ranges_ && workers_ < settings_.segments + connections_for_readers &&
         clock_.now() >= no_more_before_ && upstream_.free_connections() > 0;
}

void Transfer::want(std::uint64_t offset) {
  // One at work that is free soon takes it otherwise.
  const bool now = may_serve_readers();
  if (plan_->want(offset, present(), now) && now) spawn_worker(std::nullopt);
}

bool Transfer::note_speed(std::uint64_t bytes, std::chrono::duration<double> took,
                          std::chrono::duration<double> held_up) {
  const double waited = (took - held_up).count();
  const bool fast =
      static_cast<double>(bytes) > waited * fast_bytes_per_second || held_up >= took / 4;
  fast_bytes_ = fast ? fast_bytes_ + bytes : 0;
  return fast;
}

void Transfer::use_more_connections() {
  if (!answers_ranges_ || workers_ >= most_workers_) return;
  const auto worth_one_more = [&] {  // Those that have begun may have taken no segment yet.
    return plan_->unclaimed_bytes(present()) >=
           settings_.sizes.least_bytes * (workers_ - plan_->active() + 1);
  };
  // Each runs at once, as far as it can, and may find that all is over.
  while (!error_ && workers_ < most_workers_ && upstream_.free_connections() > 0 &&
         worth_one_more()) {
    const std::size_t before = workers_;
    spawn_worker(std::nullopt);
    if (workers_ == before) return;  // It found nothing to do, or may not begin any more.
  }
}

void Transfer::note_bytes(std::size_t bytes) {
  const Instant now = last_bytes_ = clock_.now();
  if (now - window_began_ >= speed_window) {
    const std::chrono::duration<double> took = now - window_began_;
    last_speed_ = static_cast<std::uint64_t>(static_cast<double>(window_bytes_) / took.count());
    window_began_ = now;
    window_bytes_ = 0;
  }
  window_bytes_ += bytes;
}

std::uint64_t Transfer::bytes_per_second() const {
  const std::chrono::duration<double> took = clock_.now() - window_began_;
  if (took < speed_window && last_speed_ > 0) return last_speed_;
  return took.count() > 0.1
             ? static_cast<std::uint64_t>(static_cast<double>(window_bytes_) / took.count())
             : last_speed_;
}

}  // namespace staithe::proxy
