// What the store holds, in memory: the objects in the order in which they go, which repositories
// have shown them, and the tags seen. The index persists it; requests ask only this, so a hit costs
// no SQL.
//
// An object is a blob or a manifest on disk. Links belong to their object and go with it. Every
// change is also noted for the index, and taken away in batches by take_changes(). Lives on the
// loop.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/digest.h"
#include "cache/eviction.h"
#include "cache/index.h"

namespace staithe::cache {

class Catalog {
 public:
  struct Object {
    ObjectKind kind;
    std::uint64_t size_bytes;
    std::int64_t used_order;
    std::int64_t used_unix_seconds;
    bool reused;                         // protected; as in ObjectRow
    std::int64_t pulled_unix_seconds;    // as in ObjectRow
    std::int64_t verified_unix_seconds;  // as in ObjectRow
    bool verified;                       // its bytes were hashed since this process started
  };
  // A blob that was begun: what parts of its file held at some moments. Parts may overlap.
  struct Mark {
    Extent extent;
    Digest content;  // the digest of these bytes
  };
  struct Partial {
    std::uint64_t number = 0;  // of its file; see Layout
    std::vector<Mark> marks;   // at least one
    // Where the first of the marks ends that a file that was cut can still bear out, and the last.
    std::uint64_t first_end() const;
    std::uint64_t last_end() const;
  };
  // An image that is to stay: "registry/repository", and a tag or digest.
  struct PinName {
    std::string repository;
    std::string reference;
    auto operator<=>(const PinName&) const = default;
  };
  struct Tag {
    Digest digest;
    std::int64_t checked_unix_seconds;  // when upstream last confirmed it
  };
  struct Totals {
    std::uint64_t bytes = 0;  // on disk, in whole blocks
    std::size_t blobs = 0;
    std::size_t manifests = 0;
  };

  explicit Catalog(Protection protection = {}) : protection_(protection) {}
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  // Told when something is taken back, before the call that does so returns: of an object itself or
  // a link of it, or, `only_tags`, of a tag that named it.
  using OnGone = std::function<void(const Digest&, bool only_tags)>;
  void on_gone(OnGone tell) { on_gone_ = std::move(tell); }

  // Fills an empty catalog from the index. Objects count as not verified.
  void restore(Index::Contents contents);

  const Object* find(const Digest& digest) const;
  // Adds an object, on probation as the most recently used. For one that is there already this is a
  // use, and it keeps its links and its protection.
  void add(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes, bool verified,
           std::int64_t now_unix_seconds);
  // Adds what was found on disk without a row: on probation, the least recently used.
  void add_found(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes);
  // A use: the object becomes the most recently used of its kind, and is protected from now on if
  // the use is of a later pull than those before (eviction.h). Takes no memory, and constant time
  // if the protected are within their share; what does not fit it goes back to probation, as the
  // most recently used there, and each goes back at most once per time that it was protected.
  void touch(const Digest& digest, std::int64_t now_unix_seconds);
  // How many bytes the cache may hold, of which the protected get their share. Until it is told,
  // they have no bound. Less than before takes effect when the next object is protected.
  void set_allowed_bytes(std::uint64_t allowed_bytes) {
    most_protected_bytes_ = protection_.protected_bytes(allowed_bytes);
  }
  std::uint64_t protected_bytes() const { return protected_bytes_; }
  void set_verified(const Digest& digest, std::int64_t now_unix_seconds);
  void set_size(const Digest& digest, std::uint64_t size_bytes);
  void drop(const Digest& digest);

  // `repository` is "registry/repository". No effect if the object is not held.
  void link(std::string_view repository, const Digest& digest, std::int64_t checked_unix_seconds);
  void unlink(std::string_view repository, const Digest& digest);
  // When upstream last showed `digest` through `repository`.
  std::optional<std::int64_t> linked(std::string_view repository, const Digest& digest) const;
  std::vector<std::string> repositories_of(const Digest& digest) const;

  void put_tag(std::string_view repository, std::string_view tag, const Digest& digest,
               std::int64_t checked_unix_seconds);
  std::optional<Tag> tag(std::string_view repository, std::string_view tag) const;
  void drop_tag(std::string_view repository, std::string_view tag);
  std::vector<TagRow> tags() const;

  // Of the blob that is being written to the file `number`. Another number begins the blob anew.
  void mark(const Digest& digest, std::uint64_t number, Mark mark);
  const Partial* partial(const Digest& digest) const;
  // Only these of its marks are true.
  void keep_marks(const Digest& digest, std::vector<Mark> marks);
  void drop_partial(const Digest& digest);
  const std::unordered_map<Digest, Partial>& partials() const { return partials_; }

  // Keeps `needs` for this image from now on, in place of what it needed before.
  void put_pin(const PinName& name, std::vector<Digest> needs);
  // False if there was none.
  bool drop_pin(const PinName& name);
  const std::map<PinName, std::vector<Digest>>& pins() const { return pins_; }
  // An image that is to stay needs it, whether it is here yet or not.
  bool pinned(const Digest& digest) const { return pinned_.contains(digest); }
  // On disk, in whole blocks.
  std::uint64_t pinned_bytes() const;

  const Totals& totals() const { return totals_; }
  std::size_t tag_count() const { return tags_.size(); }

  // Candidates in the order in which they go: those on probation, then the protected, each from the
  // least recently used; `evictable(digest)` says which may go.
  template <class Evictable>
  auto oldest_first(Evictable evictable) const {
    return std::views::transform(order_, [evictable](const Entry& entry) {
      const Digest& digest = *entry.digest;
      return Candidate{digest, cost_bytes(entry.object.size_bytes), evictable(digest)};
    });
  }
  // All objects, in the same order.
  std::vector<Digest> digests() const;
  // No object has a greater place in the order of use; what is used from now on gets one.
  std::int64_t last_order() const { return last_order_; }

  // The changes since the last call, for the index. With more than `most` objects among them only
  // the rows of so many, and what must come before them: the rest is for further calls, whose
  // changes follow these.
  std::vector<Change> take_changes(std::size_t most = std::numeric_limits<std::size_t>::max());
  bool has_changes() const { return !noted_.empty() || !changes_.empty(); }
  // For an index that is going to be written from everything.
  void forget_changes();
  // As changes, everything: for an index that was begun anew.
  std::vector<Change> everything() const;
  // The same in two parts: these objects with their links, and what belongs to no object.
  void add_objects(std::span<const Digest> digests, std::vector<Change>& changes) const;
  void add_others(std::vector<Change>& changes) const;

 private:
  using RepositoryId = std::uint32_t;
  struct Link {
    RepositoryId repository;
    std::int64_t checked_unix_seconds;
  };
  // Stands in the order itself, so that an object costs one piece of memory, and a use no search.
  struct Entry : boost::intrusive::list_base_hook<
                     boost::intrusive::link_mode<boost::intrusive::normal_link>> {
    const Digest* digest = nullptr;  // the key under which it is held
    Object object{};
    std::vector<Link> links;
    bool noted = false;  // its row must be written again; it stands in noted_
  };
  using Order = boost::intrusive::list<Entry, boost::intrusive::constant_time_size<false>>;
  // Lets a table be asked without making a string.
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };

  RepositoryId intern(std::string_view repository);
  std::optional<RepositoryId> interned(std::string_view repository) const;
  ObjectRow row(const Digest& digest, const Object& object) const;
  void count(const Object& object, bool added);
  void forget_pin(const PinName& name);
  void use(Entry& entry, std::int64_t now_unix_seconds);
  // Takes it out of the order, for a moment or for good, without leaving its list.
  void step_off(Entry& entry);
  void protect(Entry& entry);
  void note(Entry& entry);
  void tell_gone(const Digest& digest, bool only_tags) const {
    if (on_gone_) on_gone_(digest, only_tags);
  }
  static std::string tag_key(std::string_view repository, std::string_view tag);

  OnGone on_gone_;
  std::unordered_map<Digest, Entry> objects_;
  // In the order in which they go: those on probation, then, from `first_protected_`, the
  // protected; each from the least recently used.
  Order order_;
  Order::iterator first_protected_ = order_.end();
  std::int64_t last_order_ = 0;
  std::int64_t first_order_ = 0;
  Totals totals_;
  Protection protection_;
  std::uint64_t protected_bytes_ = 0;  // in whole blocks
  std::uint64_t most_protected_bytes_ = std::numeric_limits<std::uint64_t>::max();

  std::unordered_map<std::string, RepositoryId, TextHash, std::equal_to<>> repository_ids_;
  std::vector<std::string> repositories_;
  std::unordered_map<std::string, Tag> tags_;  // by tag_key()
  std::unordered_map<Digest, Partial> partials_;
  std::map<PinName, std::vector<Digest>> pins_;
  std::unordered_map<Digest, std::size_t> pinned_;  // how many pins need it

  std::vector<Digest>
      noted_;  // objects whose row must be written again; gone ones may be among them
  std::vector<Change> changes_;
};

}  // namespace staithe::cache
