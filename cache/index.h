// What must outlive a restart besides the bytes themselves: sizes, order of use, which repositories
// have shown which digests, tags. SQLite behind one connection on one thread; the only user of
// sqlite3.h.
//
// The index is a hint, the files are the truth: one that is lost, damaged or of a release that
// this one cannot follow (cache/index_schema.h) is set aside and begun anew, and the store rebuilds
// it from the files. So no call here throws for
// what the database contains, and a failing write costs recency, never a pull.
//
// Every call blocks: use it on the index pool, a pool of one thread.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cache/digest.h"
#include "cache/extents.h"

namespace staithe::cache {

enum class ObjectKind : int { blob = 0, manifest = 1 };

// One stored file.
struct ObjectRow {
  Digest digest;
  ObjectKind kind;
  std::uint64_t size_bytes;
  std::int64_t used_order;         // greater = goes later, among those equally reused
  std::int64_t used_unix_seconds;  // for people
  bool reused = false;             // protected, since a later pull used it again; see eviction.h
  // When its bytes were last hashed and right; 0 if that is not known.
  std::int64_t verified_unix_seconds = 0;
  // When the last pull that used it began; 0 if that is not known. See Protection.
  std::int64_t pulled_unix_seconds = 0;
};

// Upstream has shown `digest` through `repository` ("registry/repository").
struct LinkRow {
  std::string repository;
  Digest digest;
  std::int64_t checked_unix_seconds;
};

// Upstream has said that `tag` is `digest`.
struct TagRow {
  std::string repository;
  std::string tag;
  Digest digest;
  std::int64_t checked_unix_seconds;
};

// Of a blob that was not written to its end: these bytes of the file `number` had the digest
// `content`.
struct MarkRow {
  Digest digest;
  std::uint64_t number;
  Extent extent;
  Digest content;
};

// `repository` and `reference` (a tag or digest) name an image that is to stay, `digest` is one of
// the objects it needs. A pin whose image was not seen yet has a row without one.
struct PinRow {
  std::string repository;
  std::string reference;
  std::optional<Digest> digest;
};

struct DropObject {  // its links go with it
  Digest digest;
};
struct DropLink {
  std::string repository;
  Digest digest;
};
struct DropTag {
  std::string repository;
  std::string tag;
};

struct DropMarks {
  Digest digest;
};
struct DropPin {
  std::string repository;
  std::string reference;
};

using Change = std::variant<ObjectRow, LinkRow, TagRow, MarkRow, PinRow, DropObject, DropLink,
                            DropTag, DropMarks, DropPin>;

class Index {
 public:
  // The files in its directory that are its own, or may be.
  static constexpr std::array<const char*, 5> file_names = {
      "index.db", "index.db-wal", "index.db-shm", "index.db-journal", "index.db.set-aside"};

  struct Contents {
    std::vector<ObjectRow> objects;  // by digest, as they stand in the file
    std::vector<LinkRow> links;      // by digest, too
    std::vector<TagRow> tags;
    std::vector<MarkRow> marks;  // by digest, then begin and end
    std::vector<PinRow> pins;
    // The index was lost, damaged or of another release: the caller writes anew what it knows.
    bool incomplete = false;
  };

  // Opens or creates `directory`/index.db, mode 0600. Where a file is there that is damaged or of
  // another release, it is renamed to index.db.set-aside (replacing an older one) and `set_aside()`
  // says why. Throws Failure if no database can be had now (the disk is full, read-only, failing);
  // a good file stays as it is then.
  explicit Index(const std::filesystem::path& directory);
  ~Index();

  // The directory is somebody else's now: closing this leaves every file that has our names.
  void leave_files();

  const std::string& set_aside() const { return set_aside_; }

  // What the rows say, as far as they make sense.
  Contents load();

  // All changes in one transaction. Throws Failure(storage_full or storage_failed): nothing of them
  // is written then.
  void apply(const std::vector<Change>& changes);

  // The same, in place of all that was there. A damaged file is set aside and begun anew.
  void rewrite(const std::vector<Change>& everything);

  // What was written is on the disk itself when this returns; without it a power loss may take the
  // last transactions. Throws Failure as apply() does.
  void sync();

 private:
  class Database;

  void write(const std::vector<Change>& changes, bool anew);
  void renew(const std::string& why);

  std::filesystem::path directory_;
  std::unique_ptr<Database> database_;
  std::string set_aside_;
};

}  // namespace staithe::cache
