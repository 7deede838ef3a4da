// Blobs and manifests by digest, on disk, within a bound.
//
// find() gives a blob that is stored or is just being written; begin() starts writing one that is
// neither, after making room. A file under its digest is whole, because it gets that name only
// after its bytes were hashed and synced; the first reader after a start still has them hashed
// again before it gets the last of them, since disks lie and files return.
//
// The store never fails a pull: what cannot be read is a miss and is set aside, what cannot be
// written is reported to the writer, whose readers go on without it.
//
// Lives on the loop; blocking work runs on the disk pool (4 threads) and the index pool (1 thread),
// which the store owns. Errors of the background are told to the `report` function, once per event,
// as a sentence.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cache/blob.h"
#include "cache/catalog.h"
#include "cache/clock.h"
#include "cache/disk.h"
#include "cache/event.h"
#include "cache/image.h"
#include "cache/layout.h"
#include "cache/manifest.h"
#include "cache/offload.h"
#include "cache/scrub.h"
#include "cache/settings.h"
#include "cache/task_group.h"
#include "cache/turns.h"

namespace staithe::cache {

class BlobWriter;

class Store {
 public:
  using Report = std::function<void(std::string_view event, std::string_view sentence)>;

  // `disk`, `clock` outlive the store.
  Store(asio::any_io_executor loop, Settings settings, Disk& disk, Clock& clock, Report report);
  // close() comes first, and every Blob is gone.
  ~Store();

  // Takes the directory (created with mode 0700), sweeps leftovers, reads the index, and begins to
  // reconcile it with the files in the background. Throws Failure: in_use if another instance
  // holds it, storage_failed if it cannot be used at all (not a directory, owned by another user,
  // writable by others). What it contains, or a disk that is full or read-only, is never a reason
  // to fail.
  asio::awaitable<void> open();
  // Ends the background work, writes the index, joins the pools. Writers are gone by now.
  asio::awaitable<void> close();

  // Other bounds from now on (a reload); what is too much goes within the next seconds.
  void set_bounds(Size max_size, Size min_free);
  // Verifies in the background what nobody reads; see there.
  Scrub& scrub() { return scrub_; }
  const Scrub& scrub() const { return scrub_; }
  // True once index and files have been compared.
  bool reconciled() const { return reconciled_; }

  // The blob, stored or growing, or null. Counts as a use.
  asio::awaitable<std::shared_ptr<Blob>> find(Digest digest);
  // A reader could not read it: it is read once more as a whole, and set aside if that fails, too.
  void doubt(const Digest& digest);
  // The size of a stored or growing blob, without reading it and without counting as a use.
  std::optional<std::uint64_t> size_of_blob(const Digest& digest) const;

  // Makes room and starts a blob that find() did not give. It must not be growing: callers come
  // through one Fill per digest. Throws Failure(storage_full) if the bound leaves no room for
  // `size_bytes`, storage_failed if the disk refuses or the digest is stored as a manifest.
  asio::awaitable<std::unique_ptr<BlobWriter>> begin(Digest digest,
                                                     std::optional<std::uint64_t> size_bytes);

  // How far into a blob an earlier transfer has come, perhaps with gaps, if resume() can go on from
  // there.
  std::optional<std::uint64_t> resumable(const Digest& digest) const;
  // Like begin(), but keeps what is there already; BlobWriter::recover() comes next. Where that
  // turns out to be of no use, it begins anew.
  asio::awaitable<std::unique_ptr<BlobWriter>> resume(Digest digest, std::uint64_t size_bytes);

  // The manifest, or null. Counts as a use. From memory if it was used lately.
  asio::awaitable<ManifestPtr> manifest(Digest digest);
  bool has_manifest(const Digest& digest) const;
  // Keeps it in memory at once and on disk soon, unless its bytes are there as a blob: one digest
  // is one file. Its digest must be that of its bytes.
  void put_manifest(ManifestPtr manifest);

  // Links and tags; see Catalog. `repository` is "registry/repository". Ages are by the wall clock,
  // which outlives a restart; what seems to come from the future, because that clock was set back,
  // counts as unknown.
  void link(std::string_view repository, const Digest& digest);
  void unlink(std::string_view repository, const Digest& digest);
  std::optional<std::chrono::seconds> link_age(std::string_view repository,
                                               const Digest& digest) const;
  void put_tag(std::string_view repository, std::string_view tag, const Digest& digest);
  struct SeenTag {
    Digest digest;
    std::chrono::seconds age;  // since upstream last confirmed it; never negative
  };
  std::optional<SeenTag> tag(std::string_view repository, std::string_view tag) const;
  void drop_tag(std::string_view repository, std::string_view tag);

  // A use of it that somebody else has seen.
  void touch(const Digest& digest);
  // Told when an object may not be served any more, or a right to it or a tag of it was taken back
  // (see Catalog::on_gone), before the call that does so returns; without a digest: nothing may.
  // Who keeps anything of the store's beside it lets go of that.
  void on_gone(std::function<void(const Digest*, bool only_tags)> tell);
  // Called before it is chosen what makes room, so that uses seen elsewhere can be told by touch().
  void on_eviction(std::function<void()> call) { on_eviction_ = std::move(call); }

  // Images as an operator sees them. None of this counts as a use.
  //
  // As far as it is cached; see Image.
  asio::awaitable<Image> image(Digest root);
  // The manifest, or null.
  asio::awaitable<ManifestPtr> peek_manifest(Digest digest);
  // Every tag, and every manifest that was pulled without one, sorted by name.
  asio::awaitable<std::vector<ListedImage>> images();
  // What is stored, from the least recently used; each may be gone by the time it is asked for.
  std::vector<Digest> objects() const { return catalog_.digests(); }
  const Catalog::Object* object(const Digest& digest) const { return catalog_.find(digest); }
  std::vector<std::string> repositories_of(const Digest& digest) const {
    return catalog_.repositories_of(digest);
  }

  // Everything that this image needs is kept from now on, whatever comes; what is not here yet, as
  // soon as it is. A pinned tag is followed: when it moves, the new image is kept and the old one
  // is let go. Durable once this returns. Throws Failure: too_large (the image, or the number of
  // pins), storage_* if it cannot be made durable; nothing has changed then.
  asio::awaitable<Image> pin(std::string repository, std::string reference);
  // False if it was not pinned. Throws Failure as pin() does.
  asio::awaitable<bool> unpin(std::string repository, std::string reference);
  bool pinned(const std::string& repository, const std::string& reference) const {
    return catalog_.pins().contains({repository, reference});
  }
  bool pinned(const Digest& digest) const { return catalog_.pinned(digest); }

  // Removes what no other cached image needs of it, and its name. Throws Failure: not_found if it
  // is not cached, in_use if it is pinned, storage_failed if nothing can be removed now.
  asio::awaitable<Purged> purge_image(std::string repository, std::string reference);
  // Everything but what is pinned.
  asio::awaitable<Purged> purge_all();
  // What was not used for so long, and belongs to no image that was, except what is pinned. What
  // has no known last use, since the index was lost, stays.
  asio::awaitable<Purged> purge_unused(std::chrono::seconds age);

  // read_write: normal. pass_through: nothing is stored now, for a reason that passes or is mended;
  // what is cached is served unless the directory itself is lost. read_only: the same on a file
  // system that takes no writes. The store finds back to normal by itself within seconds.
  enum class Mode { read_write, pass_through, read_only };

  // Why something had to go: for cache.max_size; for cache.min_free, because others fill the disk
  // too; because the disk was full although the bounds had room.
  enum class Evicted { max_size, min_free, disk_full };
  static constexpr std::size_t eviction_reasons = 3;

  struct Stats {
    // All that the cache takes: what is stored, being written, left of broken transfers, set aside,
    // removed but still read, the index and the directories.
    std::uint64_t bytes = 0;
    std::uint64_t max_bytes = 0;  // what the bounds allow at this moment
    std::uint64_t free_bytes = 0;
    std::size_t blobs = 0;
    std::size_t manifests = 0;
    std::uint64_t evicted = 0;
    std::array<std::uint64_t, eviction_reasons> evicted_for{};  // the same by Evicted
    std::uint64_t quarantined = 0;
    std::size_t pins = 0;
    std::uint64_t pinned_bytes = 0;  // on disk of what these need
    Mode mode = Mode::read_write;
    std::string mode_reason;  // a sentence; empty while the mode is read_write
  };
  Stats stats() const;
  // The first `most` objects that would go if room were needed now, in that order; without those
  // that must stay: being read or written, pinned.
  struct NextVictim {
    Digest digest;
    ObjectKind kind;
    std::uint64_t bytes;                  // what removing it gives back
    std::int64_t last_used_unix_seconds;  // 0 if that is not known
    bool is_protected;                    // or on probation; see eviction.h
  };
  std::vector<NextVictim> next_victims(std::size_t most) const;
  const std::filesystem::path& directory() const { return layout_.root(); }
  asio::thread_pool& disk_pool() { return disk_pool_; }
  Disk& disk() { return disk_; }

 private:
  friend class BlobWriter;
  friend class Scrub;

  // Space that a writer may use; gives it back when it goes.
  class Reservation {
   public:
    Reservation(Store& store, std::uint64_t bytes) : store_(&store) { grow(bytes); }
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;
    ~Reservation() { store_->reserved_bytes_ -= bytes_; }
    void grow(std::uint64_t bytes) {
      bytes_ += bytes;
      store_->reserved_bytes_ += bytes;
    }
    std::uint64_t bytes() const { return bytes_; }

   private:
    Store* store_;
    std::uint64_t bytes_ = 0;
  };

  // A removal of files under way, those of `digests` among them. Until they are gone nobody opens
  // or replaces these, and whoever needs room waits to see how much it was.
  class Leaving {
   public:
    Leaving(Store& store, std::vector<Digest> digests);
    Leaving(const Leaving&) = delete;
    Leaving& operator=(const Leaving&) = delete;
    ~Leaving();

   private:
    Store& store_;
    std::vector<Digest> digests_;
  };

  // A blob that was not written to its end, and is not being written.
  struct Kept {
    std::uint64_t number = 0;  // of its file
    std::uint64_t bytes = 0;   // of disk
    Instant left;
    std::int64_t left_unix_seconds = 0;
    std::weak_ptr<Blob> blob;  // that the readers of the broken transfer may still have
  };
  struct PartialFile : Layout::PartialName {
    bool kept = false;
    std::uint64_t allocated_bytes = 0;
  };

  // What may be wrong in it and does not hinder the start, as sentences.
  std::vector<std::string> take_directory();
  // On the pool: what the partial directory holds that can be gone on with. Removes the rest.
  std::vector<PartialFile> sweep_partials(std::vector<std::string>& faults);
  void keep_partials_found(const std::vector<PartialFile>& files);
  void keep_partial(const Digest& digest, Kept kept);
  // False if it could not be removed, and stays.
  asio::awaitable<bool> discard_partial(Digest digest);
  asio::awaitable<void> expire_partials();
  std::optional<Digest> oldest_partial() const;
  // The oldest partial blob was left before the next victim of eviction was used last.
  bool partial_goes_first() const;
  void make_own_directory(const std::filesystem::path& path);
  asio::awaitable<void> load_index();
  std::int64_t unix_now() const;
  std::optional<std::chrono::seconds> age_of(std::int64_t checked_unix_seconds) const;

  // Evicts until `bytes` more fit. Throws Failure if they cannot: storage_full, and then nothing
  // was evicted in vain, or storage_failed if nothing can be removed.
  asio::awaitable<void> make_room(std::uint64_t bytes);
  // Evicts what stands beyond the bounds, as far as that goes.
  asio::awaitable<void> shrink();
  // Keeps between the marks of headroom_bytes().
  asio::awaitable<void> keep_headroom();
  bool evictable(const Digest& digest) const;
  // False if none of the files could be removed; those that could not stay stored.
  asio::awaitable<bool> evict(std::vector<Digest> victims, Evicted reason);
  // Which of the bounds is the narrower one at this moment.
  Evicted narrower_bound() const;
  asio::awaitable<void> measure_space();
  // What index and directories may grow by until they are measured again.
  std::uint64_t own_growth_bytes() const;
  void note_directory(const std::filesystem::path& directory, std::uint64_t bytes);
  // What the disk says that it takes, or `otherwise` if that cannot be had now. On a pool.
  std::uint64_t allocated_or(const std::filesystem::path& path, std::uint64_t otherwise) const;
  // On the index pool.
  std::uint64_t measure_index() const;
  asio::awaitable<void> measure_own_directories();
  std::uint64_t used_bytes() const;
  // Counts `bytes` as used for as long as somebody holds this.
  std::shared_ptr<void> count_unlinked(std::uint64_t bytes);
  // Both on the pool, since they take long for a large file; `hold` is let go on the loop
  // afterwards. A file of partial/ that a failing disk keeps goes on being counted, and is removed
  // with the bounds when the disk is well; nobody else has its name.
  void remove_later(std::filesystem::path path, std::shared_ptr<void> hold);
  asio::awaitable<void> remove_again();
  void close_on_pool(Blob& blob, std::shared_ptr<void> hold);
  // On the pool, in the background: the disk begins with what was written of the blob, and its
  // first `unread_bytes`, which nobody waits for, go from memory as far as they are on the disk.
  void relieve_memory(std::shared_ptr<Blob> blob, std::uint64_t unread_bytes);

  // Work on the disk pool that writes what is to be stored: its failures count against the mode.
  template <class Work>
  asio::awaitable<std::invoke_result_t<Work&>> writing(Work work) {
    try {
      co_return co_await offload(disk_pool_, std::move(work));
    } catch (const Failure& failure) {
      note_failed_write(failure);
      throw;
    }
  }
  // The same for work that left nothing behind when it failed: on a disk that is full although the
  // bounds have room (no inodes, a quota) what was used least goes, and it is tried again.
  template <class Work>
  asio::awaitable<std::invoke_result_t<Work&>> writing_or_evicting(Work work) {
    for (int round = 0;; ++round) {
      std::optional<Failure> failed;
      try {
        co_return co_await offload(disk_pool_, [&] { return work(); });
      } catch (const Failure& failure) {
        failed = failure;
      }
      if (failed->code() == Errc::storage_full && round < most_eviction_rounds &&
          co_await evict_some())
        continue;
      note_failed_write(*failed);
      throw Failure(*failed);
    }
  }
  // False if nothing could go.
  asio::awaitable<bool> evict_some();
  // A disk that others keep full must not cost the whole cache.
  static constexpr int most_eviction_rounds = 8;
  void note_failed_write(const Failure& failure);
  void note_good_write();
  // Whether it makes sense to begin storing something.
  bool writable() const;
  Failure not_writable();
  // What the mode is by now; tells of a change.
  void judge_mode();
  // Finds out by writing whether writing works again.
  asio::awaitable<void> try_writing();
  // On the disk pool, before a name in the directory is used: whether the directory and its lock
  // are still those that were taken. What stands in their place may be another instance's.
  bool in_place();
  void make_own_directories();

  // The object if it is stored and stays so.
  const Catalog::Object* stored(ObjectKind kind, const Digest& digest) const;

  // Publishes a written file under its digest; the durable order of a store. On failure the file is
  // gone, under either name; or it is counted, and removed once the disk lets it be.
  asio::awaitable<void> publish(std::filesystem::path partial, const File& file, ObjectKind kind,
                                Digest digest);
  // `there`: a file of it was there at the start and stays if it is good.
  asio::awaitable<void> store_manifest(ManifestPtr manifest, bool there);
  // From disk. What is damaged is set aside.
  asio::awaitable<ManifestPtr> read_manifest(Digest digest, Checked* checked = nullptr);
  // Both on the disk pool. Of a file too large to be a manifest's the record is empty.
  std::string read_record(const File& file);
  bool has_record(const Digest& digest, std::string_view record);
  asio::awaitable<void> verify(std::shared_ptr<Blob> blob, std::uint64_t size_bytes);
  // How a file is read through.
  struct Pace {
    asio::thread_pool& pool;
    bool once = false;  // nobody is expected to want its bytes soon
    // Awaited between two steps, with the bytes read so far; false ends it. May be empty.
    std::function<asio::awaitable<bool>(std::uint64_t done_bytes)> between = {};
  };
  // How many bytes the file has, if they are those of the digest; none if that was ended, too.
  // Throws Failure if it cannot be read.
  asio::awaitable<std::optional<std::uint64_t>> true_size(const File& file, Digest digest,
                                                          const Pace& pace);
  // Reads what is stored and says what it is; what is damaged is set aside.
  asio::awaitable<Checked> check(Digest digest, const Pace& pace);
  asio::awaitable<void> recheck(Digest digest);
  asio::awaitable<void> set_aside(ObjectKind kind, Digest digest, std::string why);
  // Removes all but the newest `keep` of the files that were set aside. False if there were more
  // and none of them could be removed; what could not stays counted.
  asio::awaitable<bool> trim_quarantine(std::size_t keep);
  void remember_open(const std::shared_ptr<Blob>& blob);
  void forget_open(const Digest& digest);
  void tell_gone(const Digest& digest);
  void remember_manifest(ManifestPtr manifest);
  void forget_manifest(const Digest& digest);

  // References of manifests that were read lately, for walks over many images.
  struct Known;
  // Null if the manifest is not here. Never counts as a use.
  asio::awaitable<std::shared_ptr<const References>> references(Digest digest, Known& known);
  asio::awaitable<Image> image(Digest root, Known& known);
  // What of the stored objects these manifests need, themselves among them.
  asio::awaitable<std::unordered_set<Digest>> reach(std::vector<Digest> roots, Known& known);
  asio::awaitable<void> breathe();
  // The names outlive the index: they cannot be found out from the blobs.
  asio::awaitable<void> load_pins();
  asio::awaitable<void> save_pins();
  asio::awaitable<void> unsave_pins();
  // What a pin follows, if it is known.
  std::optional<Digest> root_of(const Catalog::PinName& name) const;
  // Takes over what the image needs by now.
  asio::awaitable<Image> follow_pin(Catalog::PinName name);
  asio::awaitable<void> follow_pins();
  asio::awaitable<void> follow_all_pins();
  void follow_later(const Catalog::PinName& name);
  // " and of which pinned images take 5 (...)", or nothing.
  std::string pinned_note() const;
  // A pinned tag may have moved; a manifest that a pin needs has come.
  void note_tag(std::string_view repository, std::string_view tag, const Digest& digest);
  void note_manifest(const Manifest& manifest);
  struct Doomed;
  asio::awaitable<void> purge_objects(std::vector<Doomed> doomed, Purged& purged);
  asio::awaitable<void> end_purge(Purged& purged);
  void must_be_removable();

  asio::awaitable<void> reconcile();
  asio::awaitable<void> keep_index_written();
  asio::awaitable<void> keep_within_bounds();
  asio::awaitable<std::vector<Change>> changes_for_index();
  // One at a time.
  asio::awaitable<void> write_index();
  asio::awaitable<void> apply_in_batches(std::vector<Change> changes);
  // Throws Failure if what the catalog holds by now is not on disk afterwards.
  asio::awaitable<void> write_index_durably();

  asio::any_io_executor loop_;
  Settings settings_;
  Disk& disk_;
  Clock& clock_;
  Report report_;
  Layout layout_;
  asio::thread_pool disk_pool_{4};
  asio::thread_pool index_pool_{1};
  TaskGroup tasks_;
  File lock_;
  std::unique_ptr<Index> index_;  // used on the index pool
  Catalog catalog_;
  std::function<void(const Digest*, bool only_tags)> on_gone_;
  std::function<void()> on_eviction_;
  bool index_behind_ = false;  // it lacks changes: it is written as a whole once that works
  bool reconciled_ = false;
  Mode mode_ = Mode::read_write;
  std::atomic<bool> lost_ = false;  // the directory is not in its place, as in_place() saw it last
  bool eviction_failing_ = false;
  Instant index_retry_{};
  std::string index_failure_;  // why it is behind
  Turns index_turns_;
  Turns pin_turns_;
  std::map<Catalog::PinName, Digest> followed_;  // the manifest that a pin's needs were taken from
  std::set<Catalog::PinName> to_follow_;
  bool following_ = false;
  // Until then, after a start, pins may need more than is known: nothing is evicted.
  bool pins_known_ = true;
  std::uint64_t pin_changes_ = 0;
  std::unordered_set<Digest> removed_;  // while a directory is listed
  struct Directory {
    std::uint64_t bytes = 0;  // that it takes itself
    bool durable = false;     // its name is known to be on disk
  };
  std::unordered_map<std::string, Directory> directories_;  // at most 256 per kind and algorithm
  std::uint64_t directory_bytes_ = 0;                       // of all of them
  std::uint64_t index_bytes_ = 0;

  std::string mode_reason_;
  std::size_t failed_writes_ = 0;  // since the last good one
  std::string failed_write_;       // why the last of them failed
  struct Place {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    bool operator==(const Place&) const = default;
  };
  Place root_place_;
  Place lock_place_;

  Budget budget_;
  Space space_;                            // as last measured
  std::uint64_t reserved_bytes_ = 0;       // of blobs being written, whole sizes
  std::uint64_t written_bytes_ = 0;        // of these, on disk already
  std::unordered_map<Digest, Kept> kept_;  // each has a mark in the catalog
  std::uint64_t kept_bytes_ = 0;
  // Removed from the directory but still open in some reader; shared with the holds on blobs,
  // which may be let go in any order.
  std::shared_ptr<std::uint64_t> unlinked_bytes_ = std::make_shared<std::uint64_t>(0);
  std::unordered_set<Digest> leaving_;
  std::size_t removals_ = 0;
  Event left_;                                             // a removal has ended
  std::array<std::uint64_t, eviction_reasons> evicted_{};  // by Evicted
  struct SetAside {
    std::filesystem::path path;
    std::uint64_t bytes;
  };
  std::deque<SetAside> quarantine_;  // oldest first
  std::uint64_t quarantine_bytes_ = 0;
  std::uint64_t quarantined_ = 0;
  std::uint64_t next_partial_ = 0;
  std::uint64_t uses_ = 0;  // counts on with every use, for those who are to stand back

  std::unordered_map<Digest, std::shared_ptr<Blob>> growing_;
  // Blobs that somebody reads, and, of the rest, the files used last, to spare an open() per hit.
  struct OpenBlob {
    std::weak_ptr<Blob> blob;
    bool kept = false;
    std::list<std::shared_ptr<Blob>>::iterator place = {};  // in kept_open_, if it is kept
  };
  std::unordered_map<Digest, OpenBlob> open_;
  std::list<std::shared_ptr<Blob>> kept_open_;  // most recently used first
  std::size_t open_looked_through_ = 0;         // how many of open_ were there afterwards

  std::unordered_map<Digest, ManifestPtr> storing_;  // on their way to the disk
  std::unordered_map<Digest, std::list<ManifestPtr>::iterator> manifests_;
  std::list<ManifestPtr> manifest_order_;  // most recently used first
  std::uint64_t manifest_bytes_ = 0;
  Scrub scrub_;
  struct Unremoved {
    std::filesystem::path path;
    std::shared_ptr<void> hold;
    std::optional<Digest> object = {};  // where the path is that of an object, which may come again
    bool gone = false;
  };
  std::vector<Unremoved> unremoved_;
  // Last, and so the first to go: blobs that outlive the store close their files themselves.
  std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

// "read-write", "pass-through", "read-only".
const char* to_string(Store::Mode mode);
// "max_size", "min_free", "disk_full".
const char* to_string(Store::Evicted reason);

}  // namespace staithe::cache
