// What the store holds, in memory: the objects in order of use, which repositories have shown them,
// and the tags seen. The index persists it; requests ask only this, so a hit costs no SQL.
//
// An object is a blob or a manifest on disk. Links belong to their object and go with it. Every
// change is also noted for the index, and taken away in batches by take_changes(). Lives on the
// loop.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
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
    bool reused;                         // as in ObjectRow
    std::int64_t verified_unix_seconds;  // as in ObjectRow
    bool verified;                       // its bytes were hashed since this process started
  };
  // A blob that was begun: what its file held at some moments, by rising offset.
  struct Mark {
    std::uint64_t offset_bytes;
    Digest prefix;  // the digest of the bytes up to there
  };
  struct Partial {
    std::uint64_t number = 0;  // of its file; see Layout
    std::vector<Mark> marks;
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

  // Fills an empty catalog from the index. Objects count as not verified.
  void restore(Index::Contents contents);

  const Object* find(const Digest& digest) const;
  // Adds an object as the most recently used. One that is there already keeps its links.
  void add(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes, bool verified,
           std::int64_t now_unix_seconds);
  // Adds what was found on disk without a row: the least recently used.
  void add_found(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes);
  void touch(const Digest& digest, std::int64_t now_unix_seconds);
  void set_verified(const Digest& digest, std::int64_t now_unix_seconds);
  void set_size(const Digest& digest, std::uint64_t size_bytes);
  void drop(const Digest& digest);

  // `repository` is "registry/repository". No effect if the object is not held.
  void link(std::string_view repository, const Digest& digest, std::int64_t checked_unix_seconds);
  void unlink(std::string_view repository, const Digest& digest);
  // When upstream last showed `digest` through `repository`.
  std::optional<std::int64_t> linked(std::string_view repository, const Digest& digest) const;

  void put_tag(std::string_view repository, std::string_view tag, const Digest& digest,
               std::int64_t checked_unix_seconds);
  std::optional<Tag> tag(std::string_view repository, std::string_view tag) const;
  void drop_tag(std::string_view repository, std::string_view tag);

  // The digest of the first `offset_bytes` bytes of the blob that is being written to the file
  // `number`. Another number begins the blob anew.
  void mark(const Digest& digest, std::uint64_t number, Mark mark);
  const Partial* partial(const Digest& digest) const;
  // Only its first `count` marks are true.
  void cut_marks(const Digest& digest, std::size_t count);
  void drop_partial(const Digest& digest);
  const std::unordered_map<Digest, Partial>& partials() const { return partials_; }

  // Keeps `needs` for this image from now on, in place of what it needed before.
  void put_pin(const PinName& name, std::vector<Digest> needs);
  // False if there was none.
  bool drop_pin(const PinName& name);
  const std::map<PinName, std::vector<Digest>>& pins() const { return pins_; }
  // An image that is to stay needs it, whether it is here yet or not.
  bool pinned(const Digest& digest) const { return pinned_.contains(digest); }

  const Totals& totals() const { return totals_; }
  std::size_t tag_count() const { return tags_.size(); }

  // Candidates for eviction, from the least recently used; `evictable(digest)` says which may go.
  template <class Evictable>
  auto oldest_first(Evictable evictable) const {
    return std::views::transform(order_, [this, evictable](const Digest& digest) {
      const Entry& entry = objects_.at(digest);
      return Candidate{digest, cost_bytes(entry.object.size_bytes), evictable(digest)};
    });
  }
  std::vector<Digest> digests() const;

  // The changes since the last call, for the index.
  std::vector<Change> take_changes();
  // As changes, everything: for an index that was begun anew.
  std::vector<Change> everything() const;

 private:
  using RepositoryId = std::uint32_t;
  struct Link {
    RepositoryId repository;
    std::int64_t checked_unix_seconds;
  };
  struct Entry {
    Object object;
    std::vector<Link> links;
    std::list<Digest>::iterator position;
  };

  RepositoryId intern(std::string_view repository);
  std::optional<RepositoryId> interned(std::string_view repository) const;
  ObjectRow row(const Digest& digest, const Object& object) const;
  void count(const Object& object, bool added);
  void forget_pin(const PinName& name);
  static std::string tag_key(std::string_view repository, std::string_view tag);

  std::unordered_map<Digest, Entry> objects_;
  std::list<Digest> order_;  // least recently used first
  std::int64_t last_order_ = 0;
  std::int64_t first_order_ = 0;
  Totals totals_;

  std::unordered_map<std::string, RepositoryId> repository_ids_;
  std::vector<std::string> repositories_;
  std::unordered_map<std::string, Tag> tags_;  // by tag_key()
  std::unordered_map<Digest, Partial> partials_;
  std::map<PinName, std::vector<Digest>> pins_;
  std::unordered_map<Digest, std::size_t> pinned_;  // how many pins need it

  std::unordered_set<Digest> used_;  // objects whose row must be written again
  std::vector<Change> changes_;
};

}  // namespace staithe::cache
