#include "proxy/upstream_list.h"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <variant>

#include "cache/log.h"

namespace staithe::proxy {

namespace {

// Nobody answered, or not to the point; and no word about whether we may have it.
bool is_no_answer(Errc code) {
  return code == Errc::unreachable || code == Errc::upstream_failed || code == Errc::throttled ||
         code == Errc::upstream_nonsense || code == Errc::firewall;
}

// Content of a digest is the same wherever it lies. What a list of tags or of referrers leaves out
// cannot be seen, and a mirror has what it was asked for so far.
bool is_listing(std::string_view what) {
  return !what.starts_with("manifests/") && !what.starts_with("blobs/");
}

// Mirrors that stand for many registries know by this which one is meant, as from containerd.
std::string with_registry(const std::string& what, const std::string& registry) {
  return what + (what.find('?') == std::string::npos ? '?' : '&') +
         "ns=" + percent_encode(registry);
}

}  // namespace

Next next_after(int status, bool last) {
  const bool has_it = (status >= 200 && status <= 299) || status == 304;
  if (has_it) return Next::take;
  if (!last) return Next::go_on;
  return status == 429 || status >= 500 ? Next::go_on : Next::take;
}

Next next_after(Errc failed, bool last) {
  if (failed == Errc::cancelled) return Next::take;
  if (last) return is_no_answer(failed) ? Next::go_on : Next::take;
  // One that asked for a pause keeps it by itself.
  return failed == Errc::throttled ? Next::go_on : Next::go_on_resting;
}

bool UpstreamList::Rest::may_ask(Instant now) {
  if (!why_) return true;
  if (now < until_) return false;
  until_ = now + mirror_rest;
  return true;
}

void UpstreamList::Rest::begin(Instant now, std::chrono::nanoseconds duration, Error why) {
  until_ = std::max(until_, now + duration);
  why_ = std::move(why);
}

// Sees whether the body comes whole: a mirror may answer and then give nothing.
class UpstreamList::ListedResponse final : public HttpResponse {
 public:
  // `rest`: null for the registry itself.
  ListedResponse(std::unique_ptr<HttpResponse> response, std::shared_ptr<Rest> rest,
                 std::shared_ptr<Upstream::Place> place, std::size_t index, Clock& clock)
      : response_(std::move(response)),
        rest_(std::move(rest)),
        place_(std::move(place)),
        index_(index),
        clock_(clock) {}

  int status() const override { return response_->status(); }
  const Headers& headers() const override { return response_->headers(); }
  std::vector<auth::Secret> secrets() const override { return response_->secrets(); }

  asio::awaitable<bool> read(std::vector<char>& piece) override {
    try {
      co_return co_await response_->read(piece);
    } catch (const Failure& failure) {
      if (rest_) rest_->begin(clock_.now(), mirror_rest, failure.error());
      if (place_ && place_->with == index_) place_->with.reset();
      throw;
    }
  }

 private:
  std::unique_ptr<HttpResponse> response_;
  std::shared_ptr<Rest> rest_;
  std::shared_ptr<Upstream::Place> place_;
  std::size_t index_;
  Clock& clock_;
};

UpstreamList::UpstreamList(std::string registry, std::vector<Member> members)
    : registry_(std::move(registry)), clock_(members.back().upstream->clock()) {
  for (Member& member : members)
    members_.push_back(
        {std::move(member.url), std::move(member.upstream), std::make_shared<Rest>()});
}

asio::awaitable<std::unique_ptr<HttpResponse>> UpstreamList::send(Upstream::Ask ask) {
  const std::size_t last = members_.size() - 1;
  if (last == 0) co_return co_await members_.back().upstream->send(std::move(ask));
  struct Turn {
    std::size_t index;
    bool was_resting = false;
  };
  std::vector<Turn> turns;
  for (const std::size_t index : order(ask)) turns.push_back({index});
  Outcome of_last;
  std::string mirrors_said;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const auto [index, was_resting] = turns[i];
    const Listed& member = members_[index];
    if (index != last && !was_resting && !member.rest->may_ask(clock_.now())) {
      turns.push_back({index, true});  // It is asked when nobody else is left.
      continue;
    }
    Outcome outcome = co_await ask_one(index, ask);
    const Next next = outcome.response ? next_after(outcome.response->status(), index == last)
                                       : next_after(outcome.error->code, index == last);
    if (next == Next::take) {
      if (!outcome.response) throw Failure(*outcome.error);
      if (index != last) member.rest->answered();
      co_return listed(std::move(outcome.response), index, ask);
    }
    if (index == last) {
      of_last = std::move(outcome);
      continue;
    }
    if (outcome.response) member.rest->answered();
    if (next == Next::go_on_resting) rest(index, mirror_rest, *outcome.error);
    const std::string said = outcome.response
                                 ? "answered " + std::to_string(outcome.response->status())
                                 : "failed: " + outcome.error->detail;
    mirrors_said.append("; the mirror ").append(member.url).append(" ").append(said);
    log::debug("mirror passed over",
               {{"registry", registry_}, {"mirror", member.url}, {"detail", said}});
  }
  if (of_last.response) co_return listed(std::move(of_last.response), last, ask);
  throw Failure(of_last.error->code, of_last.error->detail + mirrors_said);
}

// In the order of the configuration, tags too: the operator has put first whom he trusts first. But
// a transfer stays where it began, and lists are asked from whom they are true of.
std::vector<std::size_t> UpstreamList::order(const Upstream::Ask& ask) const {
  std::vector<std::size_t> order;
  std::optional<std::size_t> first;
  if (is_listing(ask.what)) first = members_.size() - 1;
  if (ask.place && ask.place->with) first = ask.place->with;
  if (first) order.push_back(*first);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (i != first) order.push_back(i);
  }
  return order;
}

asio::awaitable<UpstreamList::Outcome> UpstreamList::ask_one(std::size_t index, Upstream::Ask ask) {
  using namespace asio::experimental::awaitable_operators;
  Upstream& upstream = *members_[index].upstream;
  if (ask.place) {
    auto& each = ask.place->each;
    each.resize(members_.size());
    if (!each[index]) each[index] = std::make_shared<Upstream::Place>();
    ask.place = each[index];
  }
  if (index == members_.size() - 1) co_return co_await attempt(upstream, std::move(ask));
  ask.what = with_registry(ask.what, registry_);
  ask.patient = false;
  ask.has_next = true;
  try {
    auto first = co_await (attempt(upstream, std::move(ask)) || clock_.sleep_for(mirror_answer));
    if (first.index() == 0) co_return std::get<0>(std::move(first));
  } catch (const asio::multiple_exceptions& both) {
    std::rethrow_exception(both.first_exception());  // We are stopping.
  }
  co_return Outcome{.error =
                        Error{Errc::unreachable, members_[index].url + " did not answer within " +
                                                     std::to_string(mirror_answer.count()) + " s"}};
}

asio::awaitable<UpstreamList::Outcome> UpstreamList::attempt(Upstream& upstream,
                                                             Upstream::Ask ask) {
  Outcome outcome;
  try {
    outcome.response = co_await upstream.send(std::move(ask));
  } catch (const Failure& failure) {
    outcome.error = failure.error();
  }
  co_return outcome;
}

std::unique_ptr<HttpResponse> UpstreamList::listed(std::unique_ptr<HttpResponse> response,
                                                   std::size_t index, const Upstream::Ask& ask) {
  const bool last = index == members_.size() - 1;
  if (ask.place && next_after(response->status(), last) == Next::take) ask.place->with = index;
  return std::make_unique<ListedResponse>(
      std::move(response), last ? nullptr : members_[index].rest, ask.place, index, clock_);
}

void UpstreamList::rest(std::size_t index, std::chrono::nanoseconds duration, const Error& why) {
  Listed& member = members_[index];
  if (!member.rest->why())
    log::warn("mirror rests",
              {{"registry", registry_}, {"mirror", member.url}, {"error", why.detail}});
  member.rest->begin(clock_.now(), duration, why);
}

std::size_t UpstreamList::free_connections() const {
  for (const Listed& member : members_) {
    if (!member.rest->holds(clock_.now())) return member.upstream->free_connections();
  }
  return 0;
}

bool UpstreamList::may_retry() {
  return std::ranges::any_of(members_,
                             [](const Listed& member) { return member.upstream->may_retry(); });
}

void UpstreamList::note_progress(std::uint64_t bytes) {
  for (const Listed& member : members_) member.upstream->note_progress(bytes);
}

Instant UpstreamList::next_try(const Upstream::Place* place) const {
  if (members_.size() == 1) return own().next_try(place);
  Instant first = Instant::max();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const bool there = place && i < place->each.size();
    first = std::min(first, members_[i].upstream->next_try(there ? place->each[i].get() : nullptr));
  }
  return first;
}

bool UpstreamList::doubt() {
  bool any = false;
  for (std::size_t i = 0; i + 1 < members_.size(); ++i) {
    any = any || !members_[i].rest->why();
    rest(i, mirror_doubt,
         Error{Errc::upstream_nonsense,
               "bytes that may be from " + members_[i].url + " were not those of their digest"});
  }
  return any;
}

std::vector<UpstreamList::State> UpstreamList::states() const {
  std::vector<State> states;
  for (const Listed& member : members_) {
    const Upstream& upstream = *member.upstream;
    const std::optional<Error>& resting = member.rest->why();
    const std::optional<Error> said = upstream.last_error();
    // What the registry said comes first; else why its tokens could not be renewed.
    const std::optional<Error> error = resting ? resting
                                       : said  ? said
                                               : upstream.authorizer().last_error();
    const Health health = upstream.health();
    states.push_back(
        {.url = member.url,
         .health = resting && health != Health::unauthorized ? Health::unreachable : health,
         .paused = upstream.paused(),
         .last_error = error,
         .upstream = upstream});
  }
  return states;
}

Health UpstreamList::health() const {
  Health health = Health::idle;
  for (const State& state : states()) {
    if (state.health == Health::ok) return Health::ok;
    if (state.health != Health::idle) health = state.health;
  }
  return health;
}

std::chrono::seconds UpstreamList::paused() const {
  auto paused = own().paused();
  for (const Listed& member : members_) paused = std::min(paused, member.upstream->paused());
  return paused;
}

std::optional<std::chrono::seconds> UpstreamList::retry_in() const {
  std::optional<std::chrono::seconds> first;
  for (const Listed& member : members_) {
    const auto left = member.upstream->retry_in();
    if (!left) return std::nullopt;
    first = std::min(first.value_or(*left), *left);
  }
  return first;
}

std::optional<Error> UpstreamList::last_error() const {
  const auto states = this->states();
  if (states.back().last_error || health() == Health::ok) return states.back().last_error;
  const auto failed =
      std::ranges::find_if(states, [](const State& state) { return state.last_error.has_value(); });
  return failed == states.end() ? std::nullopt : failed->last_error;
}

UpstreamStats UpstreamList::stats() const {
  UpstreamStats all;
  for (const Listed& member : members_) {
    const UpstreamStats& stats = member.upstream->stats();
    all.requests += stats.requests;
    all.bytes += stats.bytes;
    all.retries += stats.retries;
    all.hedges += stats.hedges;
    all.throttled += stats.throttled;
    all.refused += stats.refused;
  }
  return all;
}

std::vector<auth::Authorizer*> UpstreamList::authorizers() const {
  std::vector<auth::Authorizer*> all;
  for (const Listed& member : members_) all.push_back(&member.upstream->authorizer());
  return all;
}

}  // namespace staithe::proxy
