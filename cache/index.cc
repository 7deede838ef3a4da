#include "cache/index.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <span>
#include <string_view>

#include "cache/disk.h"
#include "cache/index_schema.h"

namespace staithe::cache {

namespace {

// The names that SQLite uses for one database.
constexpr std::span<const char* const> database_files =
    std::span(Index::file_names).first(Index::file_names.size() - 1);

// A row beyond these was not written by us; arithmetic on what is within them cannot overflow.
constexpr std::int64_t max_row_number = std::int64_t{1} << 60;

// No blob has a tebibyte; and the sum of all rows that a file can hold is still a number.
constexpr std::int64_t max_row_bytes = std::int64_t{1} << 40;

bool makes_sense(std::int64_t number, std::int64_t least = 0) {
  return number >= least && number <= max_row_number;
}

// A time that nobody can have meant is not known.
std::int64_t known_time(std::int64_t unix_seconds) {
  return makes_sense(unix_seconds) ? unix_seconds : 0;
}

// The file is no use any more, as opposed to a disk that fails now.
class Damaged : public Failure {
 public:
  explicit Damaged(std::string detail) : Failure(Errc::storage_failed, std::move(detail)) {}
};

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};

}  // namespace

// One connection and the statements that are used again and again.
class Index::Database {
 public:
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  explicit Database(const std::filesystem::path& directory)
      : path_(directory / database_files.front()) {
    make_file(directory);
    const int code =
        sqlite3_open_v2(path_.c_str(), &connection_,
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

  void leave_files() {
    // Otherwise the last connection writes the log into the database and removes the log, by name.
    sqlite3_db_config(connection_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  }

  // After a failure that is reported already.
  void roll_back() { sqlite3_exec(connection_, "ROLLBACK", nullptr, nullptr, nullptr); }
  bool in_transaction() const { return sqlite3_get_autocommit(connection_) == 0; }

 private:
  void check(int code) {
    if (code == SQLITE_OK) return;
    const int primary = code & 0xff;
    const char* cause = connection_ ? sqlite3_errmsg(connection_) : sqlite3_errstr(code);
    std::string detail = "index " + path_.string() + ": " + cause;
    // SQLITE_ERROR: our statements do not fit its tables.
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB || primary == SQLITE_ERROR ||
        code == SQLITE_IOERR_READ)
      throw Damaged(std::move(detail));
    throw Failure(primary == SQLITE_FULL ? Errc::storage_full : Errc::storage_failed,
                  std::move(detail));
  }

  // SQLite gives new files the umask's mode, and its log the mode of the database; nobody else is
  // to read which images this machine runs.
  void make_file(const std::filesystem::path& directory) {
    for (const char* name : database_files) {
      struct stat status{};
      if (::lstat((directory / name).c_str(), &status) == 0 && !S_ISREG(status.st_mode))
        throw Damaged("index " + (directory / name).string() + " is not a file");
    }
    const File file(
        ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
    if (!file)
      throw Failure(Errc::storage_failed,
                    "cannot open the index " + path_.string() + ": " + describe_errno(errno));
    ::fchmod(file.fd(), S_IRUSR | S_IWUSR);
  }

  void prepare_schema() {
    // One connection writes and checkpoints (the model's order of a durable store), so nobody else
    // is let in, which also spares the shared memory file. WAL with NORMAL keeps the file
    // consistent at every instant and loses at most the last commits, which the files give back.
    // A log beyond the limits is written into the database, and cut: it is disk that no blob has.
    run("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        "PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=128; PRAGMA "
        "journal_size_limit=524288;");
    const int found = number("PRAGMA user_version");
    if (found == schema_version) return;
    if (found > schema_version) {
      const bool says = number("SELECT count(*) FROM sqlite_master WHERE name='meta'") == 1;
      const int usable_from = says ? number("SELECT value FROM meta WHERE name='usable_from'") : 0;
      if (usable_from > 0 && usable_from <= schema_version) return;
    }
    const bool empty = found == 0 && number("SELECT count(*) FROM sqlite_master") == 0;
    if (!empty && (found < 1 || found > schema_version))
      throw Damaged("index " + path_.string() + " has schema version " + std::to_string(found) +
                    ", this release uses " + std::to_string(schema_version));
    std::string steps = "BEGIN IMMEDIATE;";
    for (const SchemaStep& step : schema_steps)
      if (step.version > found) steps += step.sql;
    steps += "PRAGMA user_version=" + std::to_string(schema_version) + ";COMMIT;";
    try {
      run(steps.c_str());
    } catch (const Failure&) {
      if (in_transaction()) roll_back();
      throw;
    }
  }

  // The first column of the first row; 0 if there is none.
  int number(const char* sql) {
    const Statement statement = prepare(sql);
    return step(statement) ? sqlite3_column_int(statement.get(), 0) : 0;
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
    database_ = std::make_unique<Database>(directory_);
  } catch (const Damaged& damage) {
    renew(damage.what());
  }
}

void Index::renew(const std::string& why) {
  database_.reset();
  set_aside_ = why;
  std::error_code ignored;
  const auto kept = directory_ / file_names.back();
  std::filesystem::remove_all(kept, ignored);
  std::filesystem::rename(directory_ / database_files.front(), kept, ignored);
  // The old log belongs to the old file; replayed into a new one it would damage it.
  for (const char* name : database_files) std::filesystem::remove_all(directory_ / name, ignored);
  database_ = std::make_unique<Database>(directory_);
}

Index::~Index() = default;

void Index::leave_files() {
  if (database_) database_->leave_files();
}

Index::Contents Index::load() {
  Contents contents;
  try {
    auto statement = database_->prepare(
        "SELECT digest, kind, size_bytes, used_order, used_unix_seconds, reused,"
        " verified_unix_seconds, pulled_unix_seconds FROM blobs ORDER BY digest");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 0));
      // Of a row that makes no sense the file tells more.
      const std::int64_t size_bytes = sqlite3_column_int64(statement.get(), 2);
      if (!digest || size_bytes < 0 || size_bytes > max_row_bytes ||
          !makes_sense(sqlite3_column_int64(statement.get(), 3), -max_row_number))
        continue;
      contents.objects.push_back(
          {.digest = *digest,
           .kind = sqlite3_column_int(statement.get(), 1) == 1 ? ObjectKind::manifest
                                                               : ObjectKind::blob,
           .size_bytes = static_cast<std::uint64_t>(size_bytes),
           .used_order = sqlite3_column_int64(statement.get(), 3),
           .used_unix_seconds = known_time(sqlite3_column_int64(statement.get(), 4)),
           .reused = sqlite3_column_int(statement.get(), 5) != 0,
           .verified_unix_seconds = known_time(sqlite3_column_int64(statement.get(), 6)),
           .pulled_unix_seconds = known_time(sqlite3_column_int64(statement.get(), 7))});
    }
    statement = database_->prepare(
        "SELECT repository, digest, checked_unix_seconds FROM links ORDER BY digest");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 1));
      if (!digest || !makes_sense(sqlite3_column_int64(statement.get(), 2))) continue;
      contents.links.push_back({.repository = std::string(text_at(statement.get(), 0)),
                                .digest = *digest,
                                .checked_unix_seconds = sqlite3_column_int64(statement.get(), 2)});
    }
    statement =
        database_->prepare("SELECT repository, tag, digest, checked_unix_seconds FROM tags");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 2));
      if (!digest || !makes_sense(sqlite3_column_int64(statement.get(), 3))) continue;
      contents.tags.push_back({.repository = std::string(text_at(statement.get(), 0)),
                               .tag = std::string(text_at(statement.get(), 1)),
                               .digest = *digest,
                               .checked_unix_seconds = sqlite3_column_int64(statement.get(), 3)});
    }
    statement = database_->prepare(
        "SELECT digest, number, begin_bytes, end_bytes, content FROM marks "
        "ORDER BY digest, begin_bytes, end_bytes");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 0));
      auto content = Digest::parse(text_at(statement.get(), 4));
      const std::int64_t begin = sqlite3_column_int64(statement.get(), 2);
      const std::int64_t end = sqlite3_column_int64(statement.get(), 3);
      if (!digest || !content || !makes_sense(sqlite3_column_int64(statement.get(), 1)) ||
          !makes_sense(begin) || !makes_sense(end, 1) || begin >= end)
        continue;
      contents.marks.push_back(
          {.digest = *digest,
           .number = static_cast<std::uint64_t>(sqlite3_column_int64(statement.get(), 1)),
           .extent = {static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(end)},
           .content = *content});
    }
    statement = database_->prepare("SELECT repository, reference, digest FROM pins");
    while (database_->step(statement)) {
      auto digest = Digest::parse(text_at(statement.get(), 2));
      contents.pins.push_back({.repository = std::string(text_at(statement.get(), 0)),
                               .reference = std::string(text_at(statement.get(), 1)),
                               .digest = digest ? std::optional(*digest) : std::nullopt});
    }
  } catch (const Damaged& damage) {
    // What was read is kept as a hint, the rest is found on disk.
    renew(damage.what());
  }
  contents.incomplete = !set_aside_.empty();
  return contents;
}

void Index::apply(const std::vector<Change>& changes) { write(changes, false); }

void Index::rewrite(const std::vector<Change>& everything) {
  try {
    if (!database_) database_ = std::make_unique<Database>(directory_);
    write(everything, true);
  } catch (const Damaged& damage) {
    renew(damage.what());
    write(everything, true);
  }
}

// Writes the log into the database, syncing both (sqlite.org/wal.html, "Checkpointing").
void Index::sync() { database_->run("PRAGMA wal_checkpoint(FULL)"); }

void Index::write(const std::vector<Change>& changes, bool anew) {
  Database& db = *database_;
  try {
    db.run("BEGIN IMMEDIATE");
    if (anew)
      db.run(
          "DELETE FROM blobs; DELETE FROM links; DELETE FROM tags; DELETE FROM marks;"
          "DELETE FROM pins;");
    // Columns by name: a later release may have added some.
    const auto put_object = db.prepare(
        "INSERT OR REPLACE INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds,"
        " reused, verified_unix_seconds, pulled_unix_seconds) VALUES(?,?,?,?,?,?,?,?)");
    const auto put_link = db.prepare(
        "INSERT OR REPLACE INTO links(repository, digest, checked_unix_seconds) VALUES(?,?,?)");
    const auto put_tag = db.prepare(
        "INSERT OR REPLACE INTO tags(repository, tag, digest, checked_unix_seconds)"
        " VALUES(?,?,?,?)");
    const auto put_mark = db.prepare(
        "INSERT OR REPLACE INTO marks(digest, number, begin_bytes, end_bytes, content) "
        "VALUES(?,?,?,?,?)");
    const auto put_pin =
        db.prepare("INSERT OR REPLACE INTO pins(repository, reference, digest) VALUES(?,?,?)");
    const auto drop_object = db.prepare("DELETE FROM blobs WHERE digest=?");
    const auto drop_links = db.prepare("DELETE FROM links WHERE digest=?");
    const auto drop_link = db.prepare("DELETE FROM links WHERE repository=? AND digest=?");
    const auto drop_tag = db.prepare("DELETE FROM tags WHERE repository=? AND tag=?");
    const auto drop_marks = db.prepare("DELETE FROM marks WHERE digest=?");
    const auto drop_pin = db.prepare("DELETE FROM pins WHERE repository=? AND reference=?");
    for (const Change& change : changes) {
      if (const auto* row = std::get_if<ObjectRow>(&change)) {
        db.execute(put_object, row->digest, static_cast<std::int64_t>(row->kind),
                   static_cast<std::int64_t>(row->size_bytes), row->used_order,
                   row->used_unix_seconds, static_cast<std::int64_t>(row->reused),
                   row->verified_unix_seconds, row->pulled_unix_seconds);
      } else if (const auto* link = std::get_if<LinkRow>(&change)) {
        db.execute(put_link, link->repository, link->digest, link->checked_unix_seconds);
      } else if (const auto* tag = std::get_if<TagRow>(&change)) {
        db.execute(put_tag, tag->repository, tag->tag, tag->digest, tag->checked_unix_seconds);
      } else if (const auto* drop = std::get_if<DropObject>(&change)) {
        db.execute(drop_object, drop->digest);
        db.execute(drop_links, drop->digest);
      } else if (const auto* unlinked = std::get_if<DropLink>(&change)) {
        db.execute(drop_link, unlinked->repository, unlinked->digest);
      } else if (const auto* gone = std::get_if<DropTag>(&change)) {
        db.execute(drop_tag, gone->repository, gone->tag);
      } else if (const auto* mark = std::get_if<MarkRow>(&change)) {
        db.execute(put_mark, mark->digest, static_cast<std::int64_t>(mark->number),
                   static_cast<std::int64_t>(mark->extent.begin),
                   static_cast<std::int64_t>(mark->extent.end), mark->content);
      } else if (const auto* ended = std::get_if<DropMarks>(&change)) {
        db.execute(drop_marks, ended->digest);
      } else if (const auto* pin = std::get_if<PinRow>(&change)) {
        db.execute(put_pin, pin->repository, pin->reference,
                   pin->digest ? pin->digest->to_string() : std::string());
      } else if (const auto* unpinned = std::get_if<DropPin>(&change)) {
        db.execute(drop_pin, unpinned->repository, unpinned->reference);
      }
    }
    db.run("COMMIT");
  } catch (const Failure&) {
    if (db.in_transaction()) db.roll_back();
    throw;
  }
}

}  // namespace staithe::cache
