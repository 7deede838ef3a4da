#include "cache/index.h"

#include <sqlite3.h>

#include <string_view>

namespace staithe::cache {

namespace {

// Version of the tables below. Another version's index is set aside and rebuilt from the files, in
// both directions of a release (F36).
constexpr int schema_version = 1;

constexpr const char* schema = R"sql(
CREATE TABLE blobs(
  digest TEXT PRIMARY KEY, kind INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  used_order INTEGER NOT NULL, used_unix_seconds INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE links(
  repository TEXT NOT NULL, digest TEXT NOT NULL, checked_unix_seconds INTEGER NOT NULL,
  PRIMARY KEY(digest, repository)) WITHOUT ROWID;
CREATE TABLE tags(
  repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
  checked_unix_seconds INTEGER NOT NULL, PRIMARY KEY(repository, tag)) WITHOUT ROWID;
)sql";

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};

}  // namespace

// One connection and the statements that are used again and again.
class Index::Database {
 public:
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  explicit Database(const std::filesystem::path& path) : path_(path) {
    const int code =
        sqlite3_open_v2(path.c_str(), &connection_,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                            SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE,
                        nullptr);
    try {
      check(code);
      prepare_schema();
    } catch (...) {
      close();
      throw;
    }
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { close(); }

  void run(const char* sql) { check(sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr)); }

  Statement prepare(const char* sql) {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v3(connection_, sql, -1, 0, &statement, nullptr));
    return Statement(statement);
  }

  // Steps to the next row; false at the end.
  bool step(const Statement& statement) {
    const int code = sqlite3_step(statement.get());
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) check(code);
    return false;
  }

  // Binds, runs to the end, and makes the statement ready for the next time.
  template <class... Values>
  void execute(const Statement& statement, const Values&... values) {
    int position = 0;
    (bind(statement, ++position, values), ...);
    const int code = sqlite3_step(statement.get());
    sqlite3_reset(statement.get());
    if (code != SQLITE_DONE) check(code);
  }

  bool in_transaction() const { return sqlite3_get_autocommit(connection_) == 0; }

 private:
  void check(int code) {
    if (code == SQLITE_OK) return;
    const int primary = code & 0xff;
    const char* cause = connection_ ? sqlite3_errmsg(connection_) : sqlite3_errstr(code);
    throw Failure(primary == SQLITE_FULL ? Errc::storage_full : Errc::storage_failed,
                  "index " + path_.string() + ": " + cause);
  }

  void prepare_schema() {
    // WAL with NORMAL keeps the file consistent at every instant and loses at most the last
    // commits, which the files give back.
    run("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;");
    const Statement version = prepare("PRAGMA user_version");
    step(version);
    const int found = sqlite3_column_int(version.get(), 0);
    if (found == schema_version) return;
    const Statement tables = prepare("SELECT count(*) FROM sqlite_master");
    step(tables);
    if (found != 0 || sqlite3_column_int(tables.get(), 0) != 0)
      throw Failure(Errc::storage_failed, "index " + path_.string() + " has schema version " +
                                              std::to_string(found) + ", this release uses " +
                                              std::to_string(schema_version));
    run((std::string("BEGIN;") + schema + "PRAGMA user_version=" + std::to_string(schema_version) +
         ";COMMIT;")
            .c_str());
  }

  void bind(const Statement& statement, int position, const std::string& text) {
    check(sqlite3_bind_text(statement.get(), position, text.data(), static_cast<int>(text.size()),
                            SQLITE_TRANSIENT));
  }
  void bind(const Statement& statement, int position, const Digest& digest) {
    bind(statement, position, digest.to_string());
  }
  void bind(const Statement& statement, int position, std::int64_t number) {
    check(sqlite3_bind_int64(statement.get(), position, number));
  }

  void close() {
    sqlite3_close_v2(connection_);
    connection_ = nullptr;
  }

  std::filesystem::path path_;
  sqlite3* connection_ = nullptr;
};

namespace {

std::string_view text_at(sqlite3_stmt* statement, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return text ? std::string_view(text,
                                 static_cast<std::size_t>(sqlite3_column_bytes(statement, column)))
              : std::string_view();
}

}  // namespace

Index::Index(const std::filesystem::path& directory) : directory_(directory) {
  try {
    database_ = std::make_unique<Database>(directory_ / "index.db");
  } catch (const Failure& failure) {
    renew(failure.what());
  }
}

void Index::renew(const std::string& why) {
  database_.reset();
  set_aside_ = why;
  std::error_code ignored;
  std::filesystem::rename(directory_ / "index.db", directory_ / "index.db.set-aside", ignored);
  // The old log belongs to the old file; replayed into a new one it would damage it.
  std::filesystem::remove(directory_ / "index.db-wal", ignored);
  std::filesystem::remove(directory_ / "index.db-shm", ignored);
  database_ = std::make_unique<Database>(directory_ / "index.db");
}

Index::~Index() = default;

Index::Contents Index::load() {
  Contents contents;
  try {
    auto statement = database_->prepare(
        "SELECT digest, kind, size_bytes, used_order, used_unix_seconds FROM blobs"
        " ORDER BY used_order");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 0));
      if (!digest) continue;
      contents.objects.push_back(
          {.digest = *digest,
           .kind = sqlite3_column_int(statement.get(), 1) == 1 ? ObjectKind::manifest
                                                               : ObjectKind::blob,
           .size_bytes = static_cast<std::uint64_t>(sqlite3_column_int64(statement.get(), 2)),
           .used_order = sqlite3_column_int64(statement.get(), 3),
           .used_unix_seconds = sqlite3_column_int64(statement.get(), 4)});
    }
    statement = database_->prepare("SELECT repository, digest, checked_unix_seconds FROM links");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 1));
      if (!digest) continue;
      contents.links.push_back({.repository = std::string(text_at(statement.get(), 0)),
                                .digest = *digest,
                                .checked_unix_seconds = sqlite3_column_int64(statement.get(), 2)});
    }
    statement =
        database_->prepare("SELECT repository, tag, digest, checked_unix_seconds FROM tags");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 2));
      if (!digest) continue;
      contents.tags.push_back({.repository = std::string(text_at(statement.get(), 0)),
                               .tag = std::string(text_at(statement.get(), 1)),
                               .digest = *digest,
                               .checked_unix_seconds = sqlite3_column_int64(statement.get(), 3)});
    }
  } catch (const Failure& failure) {
    // Damage inside the file: what was read is kept as a hint, the rest is found on disk.
    renew(failure.what());
  }
  contents.incomplete = !set_aside_.empty();
  return contents;
}

void Index::apply(const std::vector<Change>& changes) {
  Database& db = *database_;
  try {
    db.run("BEGIN IMMEDIATE");
    const auto put_object = db.prepare("INSERT OR REPLACE INTO blobs VALUES(?,?,?,?,?)");
    const auto put_link = db.prepare("INSERT OR REPLACE INTO links VALUES(?,?,?)");
    const auto put_tag = db.prepare("INSERT OR REPLACE INTO tags VALUES(?,?,?,?)");
    const auto drop_object = db.prepare("DELETE FROM blobs WHERE digest=?");
    const auto drop_links = db.prepare("DELETE FROM links WHERE digest=?");
    const auto drop_tag = db.prepare("DELETE FROM tags WHERE repository=? AND tag=?");
    for (const Change& change : changes) {
      if (const auto* row = std::get_if<ObjectRow>(&change)) {
        db.execute(put_object, row->digest, static_cast<std::int64_t>(row->kind),
                   static_cast<std::int64_t>(row->size_bytes), row->used_order,
                   row->used_unix_seconds);
      } else if (const auto* link = std::get_if<LinkRow>(&change)) {
        db.execute(put_link, link->repository, link->digest, link->checked_unix_seconds);
      } else if (const auto* tag = std::get_if<TagRow>(&change)) {
        db.execute(put_tag, tag->repository, tag->tag, tag->digest, tag->checked_unix_seconds);
      } else if (const auto* drop = std::get_if<DropObject>(&change)) {
        db.execute(drop_object, drop->digest);
        db.execute(drop_links, drop->digest);
      } else if (const auto* gone = std::get_if<DropTag>(&change)) {
        db.execute(drop_tag, gone->repository, gone->tag);
      }
    }
    db.run("COMMIT");
  } catch (const Failure&) {
    if (db.in_transaction()) db.run("ROLLBACK");
    throw;
  }
}

}  // namespace staithe::cache
