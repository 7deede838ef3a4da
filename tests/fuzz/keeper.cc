// A token that is kept, through any history of questions, failures, refusals and clock jumps:
// nobody is given one after its end, only one fetch is under way at a time, and a failure is not
// followed by another fetch at once (faults F20 to F25).
#include "proxy/auth/keeper.h"

#include <array>

#include "tests/fuzz/played.h"

namespace staithe::fuzz {

namespace {

namespace auth = proxy::auth;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// Shorter than any pause after a failure.
constexpr nanoseconds least_pause = 750ms;

// What the source does next.
struct Script {
  nanoseconds lasts = 1h;
  nanoseconds takes{0};
  bool fails = false;
  bool in_flight = false;
  bool forced = false;  // by an operator's word, whatever came before
  std::optional<Instant> failed_at;
};

class ScriptedSource final : public auth::TokenSource {
 public:
  ScriptedSource(Clock& clock, Script& script) : clock_(clock), script_(script) {}

  asio::awaitable<auth::Token> fetch() override {
    struct Flight {
      explicit Flight(Script& of) : script(of) {
        check(!script.in_flight);
        script.in_flight = true;
      }
      ~Flight() { script.in_flight = false; }
      Script& script;
    } flight(script_);
    const Instant since = clock_.now();
    const WallTime wall_since = clock_.wall();
    if (script_.failed_at && !script_.forced) check(since - *script_.failed_at >= least_pause);
    script_.forced = false;
    const nanoseconds lasts = script_.lasts;
    if (script_.takes > 0s) co_await clock_.sleep_for(script_.takes);
    if (script_.fails) {
      script_.failed_at = clock_.now();
      throw Failure(Errc::unreachable, "no answer");
    }
    script_.failed_at.reset();
    co_return auth::Token{.secret = auth::Secret("token"),
                          .life = {.since = since, .wall_since = wall_since, .lasts = lasts},
                          .scope = {}};
  }

 private:
  Clock& clock_;
  Script& script_;
};

nanoseconds some_time(Input& input) {
  constexpr std::array<nanoseconds, 10> times{1ms,  300ms, 1s,    7s, 31s,
                                              2min, 11min, 40min, 1h, 90min};
  return times[input.below(times.size())];
}

class History {
 public:
  explicit History(Input& input)
      : kind_(std::array{auth::Kind::entra, auth::Kind::refresh, auth::Kind::access,
                         auth::Kind::password}[input.below(4)]),
        keeper_(std::make_shared<auth::TokenKeeper>(
            "a token", kind_, std::make_unique<ScriptedSource>(played_.clock, script_),
            played_.environment())) {}
  ~History() {
    // Whoever still waits is answered when the group is cancelled.
    keeper_.reset();
    played_.tasks.cancel();
    played_.clock.settle();
    check(waiting_ == 0);
  }

  void step(Input& input) {
    switch (input.below(12)) {
      case 0:
      case 1:
        ask(keeper_->get());
        break;
      case 2:
        played_.clock.advance(some_time(input));
        break;
      case 3:
        // The wall clock is set, ahead or back.
        played_.clock.jump_wall(input.flag() ? some_time(input) : -some_time(input));
        break;
      case 4:
        played_.clock.suspend(some_time(input));
        break;
      case 5:
        script_.fails = input.flag();
        break;
      case 6:
        script_.lasts = 20s + some_time(input);
        break;
      case 7:
        script_.takes = input.flag() ? some_time(input) : nanoseconds(0);
        break;
      case 8:
        keeper_->discard(last_.get());
        break;
      case 9:
        ask(keeper_->get_other_than(last_));
        break;
      case 10:
        script_.forced = true;
        run(renew(keeper_));
        break;
      default:
        played_.clock.freeze(some_time(input));
        break;
    }
    if (const auto kept = keeper_->current()) check(played_.clock.now() < kept->life.end());
    if (const auto status = keeper_->status()) check(status->expires_in.count() >= 0);
    check(waiting_ <= 1000);
  }

 private:
  using Kept = auth::TokenKeeper::Kept;

  void run(asio::awaitable<void> call) {
    ++waiting_;
    asio::co_spawn(played_.io, std::move(call), [this](std::exception_ptr) { --waiting_; });
    played_.clock.settle();
  }
  void ask(asio::awaitable<Kept> call) { run(asked(std::move(call))); }
  asio::awaitable<void> asked(asio::awaitable<Kept> call) {
    last_ = co_await std::move(call);
    check(played_.clock.now() < last_->life.end());
  }
  static asio::awaitable<void> renew(std::shared_ptr<auth::TokenKeeper> keeper) {
    co_await keeper->renew();
  }

  Played played_;
  Script script_;
  auth::Kind kind_;
  std::shared_ptr<auth::TokenKeeper> keeper_;
  Kept last_;
  int waiting_ = 0;
};

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  History history(input);
  for (int steps = 0; steps < 60 && !input.empty(); ++steps) history.step(input);
}

}  // namespace staithe::fuzz
