#include "cache/scrub.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

using namespace std::chrono_literals;

// Objects that are looked at before the loop serves others: about a tenth of a millisecond.
constexpr std::size_t objects_at_once = 1024;

// The calling thread gets the processor and the disk only when nobody else wants them. Where that
// is not allowed the pace alone has to do.
void become_idle() {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
  // ioprio_set(2) has no wrapper: "this thread" and the class "idle", of <linux/ioprio.h>.
  constexpr int this_thread = 1;
  constexpr int idle_class = 3 << 13;
  ::syscall(SYS_ioprio_set, this_thread, 0, idle_class);
}

}  // namespace

Scrub::Figures Scrub::figures() const {
  Figures figures{.state = interval_ == 0ms ? State::off : state_,
                  .pass = pass_,
                  .began = began_,
                  .ended = ended_,
                  .next = std::nullopt};
  if (figures.state == State::waiting && looked_) figures.next = *looked_ + between_looks();
  return figures;
}

std::chrono::nanoseconds Scrub::between_looks() const {
  return std::max<std::chrono::nanoseconds>(interval_ / 8, least_between_looks);
}

asio::awaitable<void> Scrub::run() {
  for (;;) {
    state_ = State::waiting;
    co_await store_.clock_.sleep_for(least_between_looks);
    const Instant now = store_.clock_.now();
    if (interval_ == 0ms || !store_.reconciled_ || store_.lost_ ||
        (looked_ && now < *looked_ + between_looks()))
      continue;
    looked_ = now;
    co_await pass();
  }
}

void Scrub::close() {
  if (idle_pool_) idle_pool_->join();
}

asio::thread_pool& Scrub::idle_pool() {
  if (!idle_pool_) {
    idle_pool_.emplace(1);
    asio::post(*idle_pool_, become_idle);
  }
  return *idle_pool_;
}

bool Scrub::due(std::int64_t verified_unix_seconds) const {
  // By a clock that was set back since, it is not known when that was.
  const auto age = store_.age_of(verified_unix_seconds);
  return !age || *age >= interval_ - interval_ / 8;
}

asio::awaitable<std::vector<Scrub::Candidate>> Scrub::candidates(Priority priority) {
  std::vector<Candidate> found;
  const std::vector<Digest> all = store_.catalog_.digests();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i % objects_at_once == 0) co_await asio::post(store_.loop_, asio::use_awaitable);
    const Catalog::Object* object = store_.catalog_.find(all[i]);
    if (!object) continue;
    const std::int64_t verified = object->verified_unix_seconds;
    if (priority == Priority::idle && !due(verified)) continue;
    found.push_back({all[i], object->size_bytes, store_.age_of(verified) ? verified : 0});
  }
  co_await offload(store_.disk_pool_, [&] {
    std::ranges::sort(found, {}, [](const Candidate& one) {
      return std::pair(one.verified_unix_seconds, one.digest);
    });
  });
  co_return found;
}

asio::awaitable<void> Scrub::pass() {
  const auto due = co_await candidates(Priority::idle);
  if (due.empty()) co_return;
  pass_ = {};
  began_ = store_.clock_.now();
  ended_.reset();
  co_await verify(due, Priority::idle, pass_, {});
  ended_ = store_.clock_.now();
  if (!pass_.broken_off.empty()) store_.report_("scrub broken off", pass_.broken_off);
}

asio::awaitable<Verification> Scrub::verify_all(Progress progress) {
  struct Count {
    explicit Count(int& counted) : count(counted) { ++count; }
    Count(const Count&) = delete;
    Count& operator=(const Count&) = delete;
    ~Count() { --count; }
    int& count;
  };
  const Count running(verifying_all_);
  Verification verification;
  const auto all = co_await candidates(Priority::normal);
  co_await verify(all, Priority::normal, verification, progress);
  co_return verification;
}

asio::awaitable<void> Scrub::verify(const std::vector<Candidate>& objects, Priority priority,
                                    Verification& verification, const Progress& progress) {
  verification.total_objects = objects.size();
  for (const Candidate& candidate : objects) verification.total_bytes += candidate.size_bytes;
  const bool idle = priority == Priority::idle;
  const auto note = [](const Digest& digest, std::size_t& count, std::vector<Digest>& named) {
    if (++count <= Verification::most_named) named.push_back(digest);
  };
  std::uint64_t before_bytes = 0;
  const Store::Pace steps{.pool = idle ? idle_pool() : store_.disk_pool_,
                          .once = true,
                          .between = [&](std::uint64_t done_bytes) -> asio::awaitable<bool> {
                            verification.bytes = before_bytes + done_bytes;
                            if (idle) co_await pace();
                            if (progress) co_await progress(verification);
                            co_return true;
                          }};
  int failing = 0;
  for (const Candidate& candidate : objects) {
    const Digest& digest = candidate.digest;
    if (idle && interval_ == 0ms) co_return;
    const Catalog::Object* object = store_.catalog_.find(digest);
    // A reader may have been faster.
    const bool wanted = object && (!idle || due(object->verified_unix_seconds));
    if (wanted) {
      if (idle) co_await pace();
      const Checked checked = co_await store_.check(digest, steps);
      const bool read =
          checked.condition == Condition::good || checked.condition == Condition::damaged;
      if (checked.condition == Condition::damaged || checked.condition == Condition::failing)
        note(digest, verification.damaged, verification.damaged_digests);
      if (checked.condition == Condition::unreadable)
        note(digest, verification.unreadable, verification.unreadable_digests);
      if (read) failing = 0;
      if (checked.condition == Condition::failing || checked.condition == Condition::unreadable)
        ++failing;
      if (store_.lost_) {
        verification.broken_off =
            store_.layout_.root().string() + " was removed or replaced while it was in use";
      } else if (failing >= most_failing_in_a_row) {
        verification.broken_off =
            "several objects in a row could not be read, the last one: " + checked.why +
            "; the others stay as they are";
      }
    }
    ++verification.objects;
    before_bytes += candidate.size_bytes;
    verification.bytes = before_bytes;
    if (!verification.broken_off.empty()) co_return;
    if (progress) co_await progress(verification);
  }
}

asio::awaitable<void> Scrub::pace() {
  const bool yields = beside_traffic();
  state_ = yields ? State::yielding : State::running;
  const std::chrono::nanoseconds second = 1s;
  co_await store_.clock_.sleep_until(
      step_began_ + second / (yields ? steps_per_second_beside_traffic : steps_per_second));
  step_began_ = store_.clock_.now();
}

bool Scrub::beside_traffic() {
  const bool used = std::exchange(seen_uses_, store_.uses_) != store_.uses_;
  if (used || verifying_all_ > 0 || !store_.growing_.empty()) return true;
  return std::ranges::any_of(store_.open_, [](const auto& entry) {
    const auto blob = entry.second.blob.lock();
    return blob && blob->readers() > 0;
  });
}

const char* to_string(Scrub::State state) {
  switch (state) {
    case Scrub::State::off:
      return "off";
    case Scrub::State::waiting:
      return "waiting";
    case Scrub::State::running:
      return "running";
    case Scrub::State::yielding:
      return "yielding";
  }
  return "";
}

}  // namespace staithe::cache
