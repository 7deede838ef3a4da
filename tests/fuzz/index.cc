// The index as a damaged disk, another release or a hand with sqlite3 leaves it: it opens, or is
// set aside; what it says makes sense; and it can be written to (faults F5, F36).
//
// The first byte says what is given: the file itself, or rows of a good one.
#include "cache/index.h"

#include <sqlite3.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "cache/catalog.h"
#include "cache/index_schema.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

using namespace cache;  // NOLINT: this file is about one namespace

// A directory in memory, for this process, emptied each time.
const std::filesystem::path& directory() {
  static const std::filesystem::path made = [] {
    const char* const shared = "/dev/shm";
    const auto base = std::filesystem::is_directory(shared)
                          ? std::filesystem::path(shared)
                          : std::filesystem::temp_directory_path();
    auto path = base / ("staithe-fuzz-index-" + std::to_string(::getpid()));
    std::filesystem::remove_all(path);
    std::filesystem::create_directory(path);
    std::atexit([] { std::filesystem::remove_all(directory()); });
    return path;
  }();
  return made;
}

void write_file(const char* name, std::string_view bytes) {
  std::ofstream(directory() / name, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// One value of a row, of whatever type.
void bind(sqlite3_stmt* statement, int column, Input& input) {
  static const std::string digest = digest_of(Algorithm::sha256, "x").to_string();
  switch (input.below(8)) {
    case 0:
      sqlite3_bind_int64(statement, column, static_cast<std::int64_t>(input.number()));
      break;
    case 1:
      sqlite3_bind_int64(statement, column, std::int64_t{1} << input.below(63));
      break;
    case 2: {
      const auto text = input.text(input.below(32));
      sqlite3_bind_text(statement, column, text.data(), static_cast<int>(text.size()),
                        SQLITE_TRANSIENT);
      break;
    }
    case 3: {
      const auto blob = input.text(input.below(32));
      sqlite3_bind_blob(statement, column, blob.data(), static_cast<int>(blob.size()),
                        SQLITE_TRANSIENT);
      break;
    }
    case 4:
      sqlite3_bind_double(statement, column, static_cast<double>(input.number()) / 7);
      break;
    default: {
      // A digest that differs in its last digits, so that some meet.
      std::string text = digest;
      text.back() = "0123456789abcdef"[input.below(16)];
      text[text.size() - 2] = "0123456789abcdef"[input.below(16)];
      sqlite3_bind_text(statement, column, text.data(), static_cast<int>(text.size()),
                        SQLITE_TRANSIENT);
      break;
    }
  }
}

void write_rows(Input& input) {
  sqlite3* connection = nullptr;
  check(sqlite3_open((directory() / "index.db").c_str(), &connection) == SQLITE_OK);
  for (const SchemaStep& step : schema_steps)
    check(sqlite3_exec(connection, step.sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  const int version = input.below(4) == 0 ? static_cast<int>(input.below(9)) : schema_version;
  sqlite3_exec(connection, ("PRAGMA user_version=" + std::to_string(version)).c_str(), nullptr,
               nullptr, nullptr);
  constexpr const char* inserts[] = {
      "INSERT OR IGNORE INTO blobs VALUES(?,?,?,?,?,?,?,?)",
      "INSERT OR IGNORE INTO links VALUES(?,?,?)", "INSERT OR IGNORE INTO tags VALUES(?,?,?,?)",
      "INSERT OR IGNORE INTO marks VALUES(?,?,?,?,?)", "INSERT OR IGNORE INTO pins VALUES(?,?,?)"};
  for (int rows = 0; rows < 64 && !input.empty(); ++rows) {
    sqlite3_stmt* statement = nullptr;
    const char* const sql = inserts[input.below(std::size(inserts))];
    check(sqlite3_prepare_v2(connection, sql, -1, &statement, nullptr) == SQLITE_OK);
    for (int column = 1; column <= sqlite3_bind_parameter_count(statement); ++column)
      bind(statement, column, input);
    sqlite3_step(statement);
    sqlite3_finalize(statement);
  }
  sqlite3_close(connection);
}

void check_contents(Index& index) {
  Index::Contents contents = index.load();
  for (const ObjectRow& row : contents.objects) {
    check(row.size_bytes <= std::uint64_t{1} << 40);
    for (const std::int64_t time :
         {row.used_unix_seconds, row.verified_unix_seconds, row.pulled_unix_seconds})
      check(time >= 0 && time <= std::int64_t{1} << 60);
  }
  for (const MarkRow& row : contents.marks) check(row.extent.begin < row.extent.end);
  // What is restored from it is what it adds up to, and goes without a rest.
  Catalog catalog;
  catalog.restore(std::move(contents));
  catalog.add_found(digest_of(Algorithm::sha256, "found on disk"), ObjectKind::blob, 5);
  const auto all = catalog.digests();
  check(all.size() == catalog.totals().blobs + catalog.totals().manifests);
  catalog.take_changes();
  for (const Digest& digest : all) {
    catalog.touch(digest, 1'800'000'000);
    catalog.drop(digest);
  }
  check(catalog.totals().bytes == 0 && catalog.protected_bytes() == 0);
  check(catalog.totals().blobs == 0 && catalog.totals().manifests == 0);
}

}  // namespace

void one(std::string_view bytes) {
  for (const char* name : Index::file_names) std::filesystem::remove_all(directory() / name);
  Input input(bytes);
  switch (input.below(3)) {
    case 0:
      write_file("index.db", input.rest());
      break;
    case 1: {
      const std::size_t size = input.number(2);
      write_file("index.db", input.text(size));
      write_file("index.db-wal", input.rest());
      break;
    }
    default:
      write_rows(input);
      break;
  }
  const Digest digest = digest_of(Algorithm::sha256, "written after");
  const LinkRow link{
      .repository = "docker.io/library/x", .digest = digest, .checked_unix_seconds = 7};
  try {
    Index index(directory());
    check_contents(index);
    index.rewrite({ObjectRow{.digest = digest,
                             .kind = ObjectKind::blob,
                             .size_bytes = 5,
                             .used_order = 1,
                             .used_unix_seconds = 2},
                   link});
    const auto contents = index.load();
    check(contents.objects.size() == 1 && contents.objects.front().digest == digest);
    check(contents.links.size() == 1 && contents.links.front().repository == link.repository);
    index.sync();
  } catch (const Failure& failure) {
    // A sentence, and never for what the file says: that is set aside.
    std::fprintf(stderr, "%s\n", failure.what());
    check(false);
  }
}

}  // namespace staithe::fuzz
