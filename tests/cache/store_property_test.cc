// The store against a model, over random operations.
//
//   STAITHE_OPERATIONS=1000000   how many, of each kind of test; a few thousand otherwise
//   STAITHE_SEED=17              replays the one run that failed
//
// On a disk that works the model knows exactly what the store must hold, in which order it goes,
// and what every call answers. On one that fails, loses power and rots, it knows what must never
// be: a wrong byte read to its end, a broken promise, more space taken than allowed, a start that
// fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/cache/cellar.h"
#include "tests/cache/eviction_model.h"
#include "tests/cache/store_play.h"
#include "tests/fake/effort.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t operations_of_a_run = 250;

// Runs `Run(seed).go()` for as many seeds as make the wanted number of operations.
template <class Run>
void run_seeds(int operations_otherwise) {
  const std::uint64_t operations = number_from(
      "STAITHE_OPERATIONS", static_cast<std::uint64_t>(fake::effort(operations_otherwise)));
  const std::uint64_t replay = number_from("STAITHE_SEED", 0);
  const std::uint64_t first = replay ? replay : 1;
  const std::uint64_t runs = replay ? 1 : operations / operations_of_a_run + 1;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    SCOPED_TRACE("STAITHE_SEED=" + std::to_string(seed));
    try {
      Run(seed).go();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    if (testing::Test::HasFailure()) return;
  }
}

// ---- a disk that works -------------------------------------------------------------------------

class ExactRun : public Play {
 public:
  using Play::Play;

  void go() {
    for (std::uint64_t i = 0; i < operations_of_a_run && !testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      operate();
      compare();
      if (i % 25 == 0) compare_all();
    }
    compare_all();
    forget_all();
  }

 private:
  struct Object {
    ObjectKind kind;
    std::uint64_t size_bytes;
    std::map<std::string, std::int64_t> links;
  };
  struct Writer {
    Digest digest;
    std::unique_ptr<BlobWriter> writer;
    std::shared_ptr<Blob> reader;  // somebody who holds on to the growing blob
  };

  void operate() {
    switch (below(20)) {
      case 0:
      case 1:
      case 2:
        return begin(any_blob());
      case 3:
      case 4:
        return append();
      case 5:
      case 6:
      case 7:
        return commit();
      case 8:
        return give_up();
      case 9:
      case 10:
      case 11:
        return read(any_blob());
      case 12:
        return below(2) ? hold(any_blob()) : release();
      case 13:
        return put_manifest(any_manifest());
      case 14:
        return get_manifest(any_manifest());
      case 15:
        return link();
      case 16:
        return tag();
      case 17:
        return let_time_pass();
      case 18:
        if (below(4) == 0) restart();
        return;
      default:
        if (below(8) == 0) kill();
        return;
    }
  }

  // ---- what the model says ---------------------------------------------------------------------

  static std::uint64_t cost(const Object& object) { return cost_bytes(object.size_bytes); }
  std::uint64_t stored_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [digest, object] : objects_) bytes += cost(object);
    return bytes;
  }
  std::uint64_t reserved_bytes() const {
    std::uint64_t bytes = 0;
    for (const Writer& one : writers_) bytes += cost_bytes(blobs_.at(one.digest).size());
    return bytes;
  }
  std::uint64_t written_bytes() const {
    std::uint64_t bytes = 0;
    for (const Writer& one : writers_) bytes += one.writer->written_bytes();
    return bytes;
  }
  bool growing(const Digest& digest) const {
    return std::ranges::any_of(writers_, [&](const Writer& one) { return one.digest == digest; });
  }
  void add(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes) {
    objects_.insert_or_assign(digest, Object{kind, size_bytes, {}});
    order_.add(digest, size_bytes, wall());
  }
  void touch(const Digest& digest) { order_.touch(digest, wall()); }
  void drop(const Digest& digest) {
    order_.drop(digest);
    objects_.erase(digest);
  }
  // Makes room as the store must; false if there is none. `spared` stays.
  bool make_room(std::uint64_t bytes, std::optional<Digest> spared = {}) {
    const std::uint64_t wanted = stored_bytes() + unlinked_bytes() + reserved_bytes() + bytes;
    if (wanted <= max_bytes) return true;
    std::uint64_t gain = 0;
    std::vector<Digest> victims;
    for (const auto& [digest, is_protected] : order_.order()) {
      if (gain >= wanted - max_bytes) break;
      if (digest == spared || held_.contains(digest)) continue;
      gain += cost(objects_.at(digest));
      victims.push_back(digest);
    }
    if (gain < wanted - max_bytes) return false;
    for (const Digest& digest : victims) {
      drop(digest);
      in_memory_.erase(digest);
    }
    evicted_ += victims.size();
    return true;
  }
  std::uint64_t unlinked_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [blob, size] : unlinked_) bytes += size;
    return bytes;
  }

  // ---- operations ------------------------------------------------------------------------------

  void begin(const Digest& digest) {
    if (growing(digest) || objects_.contains(digest) || writers_.size() >= 4) return;
    const std::uint64_t size = blobs_.at(digest).size();
    const bool room = make_room(cost_bytes(size));
    std::unique_ptr<BlobWriter> writer;
    const auto failed = failure_of([&] { writer = cellar_.run(store().begin(digest, size)); });
    ASSERT_EQ(failed, room ? std::nullopt : std::optional(Errc::storage_full));
    if (!room) return;
    auto reader = below(3) == 0 ? writer->blob() : nullptr;
    writers_.push_back({digest, std::move(writer), std::move(reader)});
  }
  void append() {
    if (writers_.empty()) return;
    Writer& one = writers_[below(writers_.size())];
    const std::string& bytes = blobs_.at(one.digest);
    const std::uint64_t at = one.writer->written_bytes();
    cellar_.append(*one.writer, std::string_view(bytes).substr(at, below(bytes.size() - at + 1)));
  }
  void commit() {
    if (writers_.empty()) return;
    const auto it = writers_.begin() + static_cast<std::ptrdiff_t>(below(writers_.size()));
    Writer one = std::move(*it);
    writers_.erase(it);
    const std::string& bytes = blobs_.at(one.digest);
    cellar_.append(*one.writer, std::string_view(bytes).substr(one.writer->written_bytes()));
    cellar_.run(one.writer->commit());
    add(one.digest, ObjectKind::blob, bytes.size());
    if (one.reader) {
      EXPECT_TRUE(cellar_.run(read_blob(one.reader)) == bytes);
      held_.emplace(one.digest, std::move(one.reader));
    }
  }
  void give_up() {
    if (writers_.empty()) return;
    const auto it = writers_.begin() + static_cast<std::ptrdiff_t>(below(writers_.size()));
    Writer one = std::move(*it);
    writers_.erase(it);
    const std::uint64_t cost = cost_bytes(one.writer->written_bytes());
    if (below(2)) one.writer->abandon({Errc::upstream_failed, "played"});
    one.writer.reset();
    if (one.reader) unlinked_.emplace_back(std::move(one.reader), cost);
    cellar_.settle();
  }
  void read(const Digest& digest) {
    if (growing(digest)) {
      EXPECT_FALSE(cellar_.run(store().find(digest))->whole());
      return;
    }
    const auto bytes = cellar_.read(digest);
    EXPECT_EQ(bytes.has_value(), objects_.contains(digest));
    if (!bytes) return;
    EXPECT_TRUE(*bytes == blobs_.at(digest));
    touch(digest);
    cellar_.settle();
  }
  void hold(const Digest& digest) {
    if (growing(digest) || !objects_.contains(digest)) return;
    held_.insert_or_assign(digest, cellar_.run(store().find(digest)));
    touch(digest);
    cellar_.settle();
  }
  void release() {
    if (!held_.empty()) held_.erase(held_.begin());
    if (!unlinked_.empty()) unlinked_.pop_back();
    cellar_.settle();
  }
  void put_manifest(const Digest& digest) {
    const ManifestPtr& manifest = manifests_.at(digest);
    store().put_manifest(manifest);
    in_memory_.insert(digest);
    if (objects_.contains(digest)) {
      touch(digest);
    } else {
      add(digest, ObjectKind::manifest, to_record(*manifest).size());
      if (!make_room(0, digest)) drop(digest);
    }
    cellar_.settle();
  }
  void get_manifest(const Digest& digest) {
    const auto manifest = cellar_.manifest(digest);
    EXPECT_EQ(manifest != nullptr, objects_.contains(digest) || in_memory_.contains(digest));
    if (!manifest) return;
    EXPECT_EQ(manifest->bytes, manifests_.at(digest)->bytes);
    in_memory_.insert(digest);
    if (objects_.contains(digest)) touch(digest);
  }
  void link() {
    const Digest digest = any_digest();
    const std::string repository = any_repository();
    if (below(3) == 0) {
      store().unlink(repository, digest);
      if (objects_.contains(digest)) objects_.at(digest).links.erase(repository);
    } else {
      store().link(repository, digest);
      if (objects_.contains(digest)) objects_.at(digest).links[repository] = wall();
    }
  }
  void tag() {
    const std::string repository = any_repository();
    const std::string name = "t" + std::to_string(below(3));
    if (below(3) == 0) {
      store().drop_tag(repository, name);
      tags_.erase({repository, name});
    } else {
      const Digest digest = any_digest();
      store().put_tag(repository, name, digest);
      tags_.insert_or_assign({repository, name}, std::pair(digest, wall()));
    }
  }
  // Uses count as later ones after ten minutes, and clocks are set, back too.
  void let_time_pass() {
    if (below(3) == 0) return cellar_.pass(std::chrono::seconds(1 + below(12)));
    const auto by = std::chrono::seconds(below(2'000));
    cellar_.clock.jump_wall(below(8) == 0 ? -4 * by : by);
  }
  // Of what upstream confirmed then; unknown if that lies further ahead than a clock is corrected.
  std::optional<std::int64_t> age(std::int64_t then) const {
    if (wall() - then < -300) return std::nullopt;
    return std::max<std::int64_t>(0, wall() - then);
  }
  void restart() {
    forget_all();
    cellar_.restart();
  }
  void kill() {
    cellar_.settle();
    cellar_.pass(1s);  // What the index does not know yet is lost by right.
    forget_all();
    cellar_.crash(Loss::nothing);
  }
  void forget_all() {
    writers_.clear();
    held_.clear();
    unlinked_.clear();
    in_memory_.clear();
    cellar_.settle();
    evicted_ = 0;
  }
  std::int64_t wall() const {
    return std::chrono::duration_cast<std::chrono::seconds>(cellar_.clock.wall().time_since_epoch())
        .count();
  }

  // ---- comparison ------------------------------------------------------------------------------

  void compare() {
    const auto stats = store().stats();
    std::size_t blobs = 0;
    for (const auto& [digest, object] : objects_) blobs += object.kind == ObjectKind::blob ? 1 : 0;
    EXPECT_EQ(stats.blobs, blobs);
    EXPECT_EQ(stats.manifests, objects_.size() - blobs);
    EXPECT_EQ(stats.bytes, stored_bytes() + unlinked_bytes() + written_bytes());
    EXPECT_LE(cellar_.disk.take_peak_bytes(), max_bytes);
    EXPECT_EQ(stats.quarantined, 0u);
    if (evicted_ > 0) EXPECT_EQ(stats.evicted, evicted_);
    compare_order();
  }
  void compare_order() {
    auto expected = order_.order();
    std::erase_if(expected, [this](const auto& place) { return held_.contains(place.digest); });
    const auto next = store().next_victims(objects_.size());
    ASSERT_EQ(next.size(), expected.size());
    for (std::size_t i = 0; i < next.size(); ++i) {
      EXPECT_EQ(next[i].digest, expected[i].digest);
      EXPECT_EQ(next[i].is_protected, expected[i].is_protected);
      EXPECT_EQ(next[i].kind, objects_.at(next[i].digest).kind);
      EXPECT_EQ(next[i].bytes, cost(objects_.at(next[i].digest)));
    }
  }
  void compare_all() {
    for (const Digest& digest : digests_) {
      const bool there = objects_.contains(digest);
      if (growing(digest)) continue;
      EXPECT_EQ(store().size_of_blob(digest).has_value(), there) << digest.to_string();
      EXPECT_EQ(cellar_.on_disk(digest), there) << digest.to_string();
    }
    for (const Digest& digest : manifest_digests_) {
      EXPECT_EQ(store().has_manifest(digest), objects_.contains(digest));
      EXPECT_EQ(cellar_.on_disk(digest, ObjectKind::manifest), objects_.contains(digest));
    }
    for (int r = 0; r < 3; ++r) {
      const std::string repository = "r/" + std::to_string(r);
      for (const auto& [digest, object] : objects_) {
        const auto seen = store().link_age(repository, digest);
        const auto it = object.links.find(repository);
        const auto expected = it == object.links.end() ? std::nullopt : age(it->second);
        ASSERT_EQ(seen.has_value(), expected.has_value());
        if (seen) EXPECT_EQ(seen->count(), *expected);
      }
      for (int t = 0; t < 3; ++t) {
        const std::string name = "t" + std::to_string(t);
        const auto seen = store().tag(repository, name);
        const auto it = tags_.find({repository, name});
        const auto expected = it == tags_.end() ? std::nullopt : age(it->second.second);
        ASSERT_EQ(seen.has_value(), expected.has_value());
        if (!seen) continue;
        EXPECT_EQ(seen->digest, it->second.first);
        EXPECT_EQ(seen->age.count(), *expected);
      }
    }
  }

  std::map<Digest, Object> objects_;
  EvictionModel order_{max_bytes * 8 / 10};
  std::vector<Writer> writers_;
  std::map<Digest, std::shared_ptr<Blob>> held_;
  std::vector<std::pair<std::shared_ptr<Blob>, std::uint64_t>> unlinked_;
  std::set<Digest> in_memory_;
  std::map<std::pair<std::string, std::string>, std::pair<Digest, std::int64_t>> tags_;
  std::uint64_t evicted_ = 0;
};

TEST(StoreProperty, OnADiskThatWorksItDoesWhatTheModelDoes) { run_seeds<ExactRun>(2'000); }

// ---- a disk that fails -------------------------------------------------------------------------

class HostileRun : public Play {
 public:
  // Partial blobs are kept however small they are.
  explicit HostileRun(std::uint64_t seed) : Play(seed) {
    cellar_.keep_small_partials();
    cellar_.restart();
  }

  void go() {
    for (std::uint64_t i = 0; i < operations_of_a_run && !testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      operate();
      if (cellar_.disk.powerless()) crash();
    }
    crash();
  }

 private:
  struct Filling {
    Digest digest;
    Cellar::Running<bool> running;
  };

  void operate() {
    switch (below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return do_some_at_once();
      case 4:
      case 5:
        return read(any_blob());
      case 6:
        return put_manifest(any_manifest());
      case 7:
        return get_manifest(any_manifest());
      case 8:
        return below(2) ? hold() : held_.clear();
      case 9:
        return cellar_.pass(std::chrono::seconds(1 + below(12)));
      case 10:
        return fail_some_call();
      case 11:
        return cellar_.disk.heal();
      case 12:
        return damage();
      case 13:
        if (below(3) == 0) cellar_.disk.lose_power_at(1 + below(40));
        return;
      case 14:
        if (below(3) == 0) start_again([] {});
        return;
      default:
        if (below(4) == 0) old_index_ = cellar_.save_index();
        return;
    }
  }

  // Fills and reads that overlap in all ways that threads find.
  void do_some_at_once() {
    std::vector<Filling> fills;
    std::vector<std::pair<Digest, Cellar::Running<std::optional<std::string>>>> reads;
    std::set<Digest> filling;
    for (std::uint64_t i = 1 + below(5); i > 0; --i) {
      const Digest digest = any_blob();
      if (below(2)) {
        reads.emplace_back(digest, cellar_.start(find_and_read(digest)));
      } else if (filling.insert(digest).second) {
        const int fate = static_cast<int>(below(6));
        fills.push_back({digest, cellar_.start(fill(digest, fate, 1 + below(30'000)))});
      }
    }
    for (Filling& one : fills) {
      bool committed = false;
      failure_of([&] { committed = cellar_.wait(one.running); });
      if (committed) promised_.insert(one.digest);
    }
    for (auto& [digest, running] : reads) {
      std::optional<std::string> bytes;
      const auto failed = failure_of([&] { bytes = cellar_.wait(running); });
      if (bytes) EXPECT_TRUE(*bytes == blobs_.at(digest)) << digest.to_string();
      if (failed) EXPECT_NE(failed, Errc::in_use);
    }
    fills.clear();
    reads.clear();
    cellar_.settle();
    EXPECT_LE(cellar_.disk.take_peak_bytes(), max_bytes + unremovable_bytes_)
        << testing::PrintToString(cellar_.reports);
  }
  asio::awaitable<std::optional<std::string>> find_and_read(Digest digest) {
    const auto blob = co_await store().find(digest);
    if (!blob) co_return std::nullopt;
    co_return co_await read_blob(blob);
  }
  // True if it was committed.
  asio::awaitable<bool> fill(Digest digest, int fate, std::uint64_t step) {
    if (co_await store().find(digest)) co_return false;
    std::string bytes = blobs_.at(digest);
    const bool anew = below(4) == 0;
    const auto writer = anew ? co_await store().begin(digest, bytes.size())
                             : co_await store().resume(digest, bytes.size());
    co_await writer->recover();
    if (fate == 0 && !bytes.empty()) bytes[bytes.size() / 2] ^= 1;  // Wrong bytes from upstream.
    if (fate == 1) bytes.resize(bytes.size() / 2);                  // It breaks off.
    const std::span<const char> all(bytes);
    if (below(2)) {  // As several connections bring it: pieces of what is missing, in any order.
      std::vector<Extent> pieces;
      for (Extent gap = writer->blob()->present().gap_from(0, all.size()); gap.begin < all.size();
           gap = writer->blob()->present().gap_from(gap.end, all.size()))
        for (std::uint64_t at = gap.begin; at < gap.end; at += step)
          pieces.push_back({at, std::min(at + step, gap.end)});
      for (std::size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[below(i)]);
      for (const Extent& piece : pieces)
        co_await writer->write(piece.begin, all.subspan(piece.begin, piece.end - piece.begin));
    } else {
      for (std::uint64_t at = writer->written_bytes(); at < all.size();
           at = writer->written_bytes())
        co_await writer->append(all.subspan(
            at, writer->blob()->present().gap_from(at, std::min(at + step, all.size())).end - at));
    }
    if (fate == 2) throw Failure(Errc::unreachable, "played");
    co_await writer->commit();
    co_return true;
  }

  void read(const Digest& digest) {
    std::optional<std::string> bytes;
    const auto failed = failure_of([&] { bytes = cellar_.read(digest); });
    if (bytes) EXPECT_TRUE(*bytes == blobs_.at(digest)) << digest.to_string();
    if (failed) EXPECT_EQ(failed, Errc::storage_failed);
    cellar_.settle();
  }
  void hold() {
    const Digest digest = any_blob();
    if (auto blob = cellar_.run(store().find(digest))) held_.insert_or_assign(digest, blob);
    cellar_.settle();
  }
  void put_manifest(const Digest& digest) {
    store().put_manifest(manifests_.at(digest));
    store().link("r/app", digest);
    cellar_.settle();
    if (store().has_manifest(digest)) promised_.insert(digest);
  }
  void get_manifest(const Digest& digest) {
    const auto manifest = cellar_.manifest(digest);
    if (manifest) EXPECT_EQ(manifest->bytes, manifests_.at(digest)->bytes);
    cellar_.settle();
  }

  void fail_some_call() {
    static constexpr int errors[] = {EIO, ENOSPC, EROFS, EMFILE};
    const int error = errors[below(std::size(errors))];
    static constexpr Call calls[] = {Call::open,   Call::create,         Call::size,
                                     Call::write,  Call::read,           Call::sync,
                                     Call::rename, Call::sync_directory, Call::make_directory};
    if (below(2)) {
      cellar_.disk.fail(calls[below(std::size(calls))], error, static_cast<int>(1 + below(3)));
    } else if (below(2)) {
      cellar_.disk.fail_at(1 + below(40), error);
      unremovable_bytes_ = unlimited;
    } else {
      cellar_.disk.fail(Call::remove, error, static_cast<int>(1 + below(5)));
      unremovable_bytes_ = unlimited;  // What stays behind until the next start.
    }
  }
  void damage() {
    const Digest digest = any_blob();
    if (!cellar_.on_disk(digest) || held_.contains(digest)) return;
    // Verified bytes may be trusted until the next start, so damage comes before one.
    start_again([&] {
      std::string bytes = fake::read_file(cellar_.path(digest));
      switch (below(4)) {
        case 0:
          bytes.clear();
          break;
        case 1:
          bytes.resize(bytes.size() / 2);
          break;
        case 2:
          bytes.assign(bytes.size(), '\0');
          break;
        default:
          if (!bytes.empty()) bytes[below(bytes.size())] ^= 4;
      }
      cellar_.disk.damage(cellar_.path(digest), bytes);
    });
    promised_.erase(digest);
  }

  // What was evicted or set aside since is promised no more.
  void review_promises() {
    std::erase_if(promised_, [this](const Digest& digest) {
      return blobs_.contains(digest) ? !store().size_of_blob(digest)
                                     : !store().has_manifest(digest);
    });
  }

  void crash() {
    let_go_of_all();
    if (cellar_.opened()) review_promises();
    const Loss loss = below(3) == 0 ? Loss::nothing : below(2) ? Loss::everything : Loss::some;
    cellar_.die(loss, random_.next());
    cellar_.disk.heal();
    spoil_index();
    unremovable_bytes_ = 0;
    cellar_.make();
    cellar_.reports.clear();
    cellar_.open();
    SCOPED_TRACE("reports of the start: " + testing::PrintToString(cellar_.reports));
    // Removed files may be back and the index may not know the newest, so what had to go again at
    // the start may be any of them.
    if (store().stats().evicted > 0) review_promises();
    for (const Digest& digest : promised_) {
      if (blobs_.contains(digest)) {
        std::optional<std::string> bytes;
        EXPECT_FALSE(failure_of([&] { bytes = cellar_.read(digest); }));
        EXPECT_TRUE(bytes == blobs_.at(digest)) << "promised " << digest.to_string();
      } else {
        EXPECT_NE(cellar_.manifest(digest), nullptr) << "promised " << digest.to_string();
      }
    }
    cellar_.settle();
    expect_true_figures();
  }
  void spoil_index() {
    auto files = cellar_.save_index();
    switch (below(6)) {
      case 0:
        files.clear();
        break;
      case 1:
        if (!old_index_.empty()) files = old_index_;
        break;
      case 2:
        files["index.db"] = noise(3000, random_.next());
        break;
      case 3:
        files["index.db"].resize(files["index.db"].size() / 512 * below(10) / 10 * 512);
        break;
      default:
        return;
    }
    cellar_.restore_index(files);
  }
  void start_again(const std::function<void()>& between) {
    let_go_of_all();
    if (cellar_.disk.powerless()) return;
    cellar_.disk.heal();
    review_promises();
    cellar_.close();
    between();
    cellar_.make();
    // Only a loss of power keeps it from starting.
    if (failure_of([&] { cellar_.open(); })) EXPECT_TRUE(cellar_.disk.powerless());
    unremovable_bytes_ = 0;
    expect_true_figures();
  }
  void let_go_of_all() {
    held_.clear();
    cellar_.settle();
  }
  void expect_true_figures() {
    cellar_.settle();
    if (cellar_.disk.powerless()) return;
    EXPECT_EQ(store().stats().bytes, cellar_.bytes_on_disk());
    EXPECT_LE(cellar_.bytes_on_disk(), max_bytes);
    cellar_.disk.take_peak_bytes();
  }

  static constexpr std::uint64_t unlimited = std::uint64_t{1} << 40;
  std::map<Digest, std::shared_ptr<Blob>> held_;
  std::set<Digest> promised_;
  Cellar::IndexFiles old_index_;
  std::uint64_t unremovable_bytes_ = 0;
};

TEST(StoreProperty, OnADiskThatFailsNothingIsEverWrong) { run_seeds<HostileRun>(2'000); }

}  // namespace
}  // namespace staithe::cache
