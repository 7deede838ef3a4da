#include "cache/index.h"
#include "cache/index_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <limits>

#include "tests/cache/cellar.h"

namespace staithe::cache {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class IndexTest : public testing::Test {
 protected:
  static Change object(std::string_view bytes, std::int64_t order) {
    return ObjectRow{.digest = digest_of(bytes),
                     .kind = ObjectKind::blob,
                     .size_bytes = bytes.size(),
                     .used_order = order,
                     .used_unix_seconds = 1000 + order};
  }
  // Enough rows for many pages.
  static std::vector<Change> many(int count) {
    std::vector<Change> changes;
    for (int i = 0; i < count; ++i) {
      const std::string name = std::to_string(i);
      changes.push_back(object(name, i));
      changes.emplace_back(LinkRow{"r/app", digest_of(name), 5});
      changes.emplace_back(TagRow{"r/app", name, digest_of(name), 6});
    }
    return changes;
  }
  const std::filesystem::path& directory() const { return directory_.path(); }
  std::filesystem::path database() const { return directory() / "index.db"; }
  std::filesystem::path set_aside() const { return directory() / "index.db.set-aside"; }

  // Runs SQL of a stranger.
  void run(const std::string& sql) {
    sqlite3* connection = nullptr;
    ASSERT_EQ(sqlite3_open(database().c_str(), &connection), SQLITE_OK);
    char* error = nullptr;
    ASSERT_EQ(sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_close(connection);
  }
  Index::Contents load() { return Index(directory()).load(); }

  fake::TemporaryDirectory directory_;
};

TEST_F(IndexTest, GivesBackWhatWasWritten) {
  {
    Index index(directory());
    index.apply({object("a", 1), object("b", 2),
                 ObjectRow{digest_of(Algorithm::sha512, "m"), ObjectKind::manifest, 7, 3, 4},
                 LinkRow{"contoso.azurecr.io/app", digest_of("a"), 5},
                 TagRow{"contoso.azurecr.io/app", "v1", digest_of("b"), 6}});
    index.apply({object("a", 9), DropObject{digest_of("b")}});
  }
  Index index(directory());
  const auto contents = index.load();
  EXPECT_FALSE(contents.incomplete);
  EXPECT_THAT(index.set_aside(), IsEmpty());
  ASSERT_THAT(contents.objects, SizeIs(2));
  // By digest: sha256 before sha512.
  EXPECT_EQ(contents.objects[0].digest, digest_of("a"));
  EXPECT_EQ(contents.objects[0].used_order, 9);
  EXPECT_EQ(contents.objects[1].digest, digest_of(Algorithm::sha512, "m"));
  EXPECT_EQ(contents.objects[1].kind, ObjectKind::manifest);
  EXPECT_EQ(contents.objects[1].size_bytes, 7u);
  EXPECT_EQ(contents.objects[1].used_unix_seconds, 4);
  ASSERT_THAT(contents.links, SizeIs(1));
  EXPECT_EQ(contents.links[0].repository, "contoso.azurecr.io/app");
  EXPECT_EQ(contents.links[0].checked_unix_seconds, 5);
  ASSERT_THAT(contents.tags, SizeIs(1));
  EXPECT_EQ(contents.tags[0].tag, "v1");
  EXPECT_EQ(contents.tags[0].digest, digest_of("b"));
}

TEST_F(IndexTest, LinksGoOneByOneOrWithTheirObject) {
  Index index(directory());
  index.apply({object("a", 1), object("b", 2), LinkRow{"r/one", digest_of("a"), 5},
               LinkRow{"r/two", digest_of("a"), 5}, LinkRow{"r/one", digest_of("b"), 5}});
  index.apply({DropLink{"r/two", digest_of("a")}, DropObject{digest_of("b")}});
  const auto links = index.load().links;
  ASSERT_THAT(links, SizeIs(1));
  EXPECT_EQ(links[0].repository, "r/one");
  index.apply({TagRow{"r/one", "t", digest_of("a"), 1}, DropTag{"r/one", "t"}});
  EXPECT_THAT(index.load().tags, IsEmpty());
}

TEST_F(IndexTest, TakesAnyTextForANameAndNoneForCode) {
  using namespace std::string_literals;
  const std::string name = "r/'; DROP TABLE blobs; --\0\xff"s;
  Index index(directory());
  index.apply({object("a", 1), LinkRow{name, digest_of("a"), 5}});
  EXPECT_EQ(index.load().links.at(0).repository, name);
}

TEST_F(IndexTest, RewriteLeavesNothingOfBefore) {
  Index index(directory());
  index.apply(many(100));
  index.rewrite({object("a", 1)});
  const auto contents = index.load();
  EXPECT_THAT(contents.objects, SizeIs(1));
  EXPECT_THAT(contents.links, IsEmpty());
  EXPECT_THAT(contents.tags, IsEmpty());
}

TEST_F(IndexTest, IsPrivateWhateverTheMask) {
  const mode_t old = ::umask(0);
  {
    Index index(directory());
    index.apply(many(10));
    for (const auto& entry : std::filesystem::directory_iterator(directory())) {
      EXPECT_EQ(entry.status().permissions(),
                std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
          << entry.path();
    }
  }
  ::umask(old);
  std::filesystem::permissions(database(), std::filesystem::perms::all);
  Index again(directory());
  EXPECT_EQ(std::filesystem::status(database()).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(IndexTest, SurvivesAKillWithWhatWasCommitted) {
  fake::TemporaryDirectory copy;
  Index index(directory());
  index.apply(many(50));
  for (const auto& entry : std::filesystem::directory_iterator(directory()))
    std::filesystem::copy(entry.path(), copy.path());
  Index after(copy.path());
  EXPECT_THAT(after.load().objects, SizeIs(50));
  EXPECT_THAT(after.set_aside(), IsEmpty());
}

TEST_F(IndexTest, WithoutItsLogIsOlderButGood) {
  fake::TemporaryDirectory copy;
  Index index(directory());
  index.apply(many(50));
  std::filesystem::copy(database(), copy.path());
  Index after(copy.path());
  EXPECT_LE(after.load().objects.size(), 50u);
  after.apply(many(3));
  EXPECT_GE(after.load().objects.size(), 3u);
}

TEST_F(IndexTest, OfAReleaseThatCannotBeFollowedIsSetAside) {
  for (const char* version : {"0", "99", "-1"}) {
    SCOPED_TRACE(version);
    {
      Index(directory()).apply(many(3));
    }
    run(std::string("UPDATE meta SET value=50; PRAGMA user_version=") + version);
    {
      Index index(directory());
      const auto contents = index.load();
      EXPECT_TRUE(contents.incomplete);
      EXPECT_THAT(contents.objects, IsEmpty());
      EXPECT_THAT(index.set_aside(), HasSubstr(std::string("schema version ") + version));
      EXPECT_TRUE(std::filesystem::exists(set_aside()));
      index.rewrite(many(2));
    }
    EXPECT_THAT(load().objects, SizeIs(2));
  }
}

TEST_F(IndexTest, OfTheReleaseBeforeIsTakenOver) {
  // As the first release left it: its tables, and a row of each.
  const Digest digest = digest_of(Algorithm::sha256, "a");
  run(std::string(schema_steps[0].sql) + "INSERT INTO blobs VALUES('" + digest.to_string() +
      "', 1, 7, 5, 1005); INSERT INTO links VALUES('r/app', '" + digest.to_string() +
      "', 6); INSERT INTO tags VALUES('r/app', 'latest', '" + digest.to_string() +
      "', 7); PRAGMA user_version=1;");
  for (int opened = 0; opened < 2; ++opened) {
    Index index(directory());
    EXPECT_THAT(index.set_aside(), IsEmpty());
    const auto contents = index.load();
    EXPECT_FALSE(contents.incomplete);
    ASSERT_THAT(contents.objects, SizeIs(1));
    EXPECT_EQ(contents.objects[0].digest, digest);
    EXPECT_EQ(contents.objects[0].kind, ObjectKind::manifest);
    EXPECT_EQ(contents.objects[0].used_order, 5);
    EXPECT_FALSE(contents.objects[0].reused);
    EXPECT_EQ(contents.objects[0].verified_unix_seconds, 0);
    EXPECT_THAT(contents.links, SizeIs(1));
    EXPECT_THAT(contents.tags, SizeIs(1));
    index.apply({MarkRow{digest, 3, {0, 4096}, digest}});
  }
  EXPECT_THAT(load().marks, SizeIs(1));
}

TEST_F(IndexTest, TakeoverThatFailsLeavesTheFormerIndex) {
  run(std::string(schema_steps[0].sql) + "CREATE TABLE pins(x);" + "PRAGMA user_version=1;");
  // A table of a name that the takeover needs: it cannot be followed, and is kept for a look.
  Index index(directory());
  EXPECT_THAT(index.set_aside(), HasSubstr("pins"));
  EXPECT_TRUE(std::filesystem::exists(set_aside()));
}

TEST_F(IndexTest, OfALaterReleaseThatOnlyAddsIsUsedAndGivenBack) {
  {
    Index(directory()).apply(many(3));
  }
  run("ALTER TABLE blobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';"
      "CREATE TABLE novelties(x); INSERT INTO novelties VALUES(1);"
      "UPDATE blobs SET colour='red'; PRAGMA user_version=" +
      std::to_string(schema_version + 1));
  {
    Index index(directory());
    EXPECT_THAT(index.set_aside(), IsEmpty());
    EXPECT_THAT(index.load().objects, SizeIs(3));
    index.apply({object("new", 10), DropObject{digest_of(Algorithm::sha256, "0")}});
    EXPECT_THAT(index.load().objects, SizeIs(3));
  }
  // The later release finds its version, its table and its column.
  run("CREATE TABLE seen AS SELECT (SELECT count(*) FROM novelties) AS a,"
      " (SELECT count(*) FROM blobs WHERE colour='red') AS b;"
      "INSERT INTO novelties SELECT 1 FROM seen WHERE a=1 AND b=2;");
  run("CREATE TABLE proof(x CHECK (x = 2)); INSERT INTO proof SELECT count(*) FROM novelties;");
}

TEST_F(IndexTest, KeepsMarksAndPins) {
  const Digest digest = digest_of(Algorithm::sha256, "a");
  const Digest other = digest_of(Algorithm::sha512, "b");
  {
    Index index(directory());
    index.apply({MarkRow{digest, 7, {4096, 8192}, other}, MarkRow{digest, 7, {0, 4096}, digest},
                 MarkRow{other, 8, {0, 4096}, digest}, PinRow{"r/app", "1", std::nullopt},
                 PinRow{"r/app", "1", digest}, PinRow{"r/app", "2", std::nullopt}});
    index.apply({DropMarks{other}, DropPin{"r/app", "2"}});
  }
  const auto contents = load();
  ASSERT_THAT(contents.marks, SizeIs(2));
  EXPECT_EQ(contents.marks[0].extent, (Extent{0, 4096}));
  EXPECT_EQ(contents.marks[1].extent, (Extent{4096, 8192}));
  EXPECT_EQ(contents.marks[1].number, 7u);
  EXPECT_EQ(contents.marks[1].content, other);
  ASSERT_THAT(contents.pins, SizeIs(2));
  EXPECT_EQ(contents.pins[0].digest, std::nullopt);
  EXPECT_EQ(contents.pins[1].digest, digest);
}

TEST_F(IndexTest, WithOtherTablesIsSetAside) {
  {
    Index(directory()).apply(many(3));
  }
  run("DROP TABLE links");
  Index index(directory());
  EXPECT_TRUE(index.load().incomplete);
  index.rewrite(many(3));
  EXPECT_THAT(index.load().links, SizeIs(3));
}

TEST_F(IndexTest, GarbageIsSetAside) {
  for (const std::string& garbage : {std::string(100, '\0'), noise(4096), noise(100'000),
                                     std::string("SQLite format 3\0", 16) + noise(8192)}) {
    fake::write_file(database(), garbage);
    {
      Index index(directory());
      EXPECT_TRUE(index.load().incomplete) << garbage.size();
      index.rewrite(many(2));
    }
    EXPECT_EQ(fake::read_file(set_aside()), garbage) << "kept for a look, the newest";
    EXPECT_THAT(load().objects, SizeIs(2));
    EXPECT_FALSE(load().incomplete);
  }
}

TEST_F(IndexTest, CutAnywhereIsReadOrSetAsideAndThenWorks) {
  {
    Index(directory()).apply(many(60));
  }
  const std::string whole = fake::read_file(database());
  ASSERT_GT(whole.size(), 20'000u);
  for (std::size_t size = 0; size <= whole.size(); size += 512) {
    SCOPED_TRACE(size);
    std::filesystem::remove_all(set_aside());
    fake::write_file(database(), whole.substr(0, size));
    {
      Index index(directory());
      const auto contents = index.load();
      for (const ObjectRow& row : contents.objects)
        EXPECT_EQ(row.size_bytes, std::to_string(row.used_order).size()) << "no row is made up";
      if (size == whole.size()) EXPECT_THAT(contents.objects, SizeIs(60));
      index.rewrite(many(5));
      index.apply({object("more", 7)});
    }
    EXPECT_THAT(load().objects, SizeIs(6));
  }
}

TEST_F(IndexTest, WithEachPageOverwrittenIsReadOrSetAsideAndThenWorks) {
  {
    Index(directory()).apply(many(60));
  }
  const std::string whole = fake::read_file(database());
  for (std::size_t at = 0; at < whole.size(); at += 512) {
    SCOPED_TRACE(at);
    std::string bytes = whole;
    bytes.replace(at, 512, at % 1024 == 0 ? noise(512, at) : std::string(512, '\0'));
    fake::write_file(database(), bytes);
    std::filesystem::remove_all(set_aside());
    {
      Index index(directory());
      index.load();
      index.rewrite(many(5));
    }
    EXPECT_THAT(load().objects, SizeIs(5));
  }
}

TEST_F(IndexTest, LogCutOrGarbledAnywhereCostsRecencyAtMost) {
  fake::TemporaryDirectory source;
  std::string log;
  std::string main;
  {
    Index index(source.path());
    index.apply(many(30));
    log = fake::read_file(source.path() / "index.db-wal");
    main = fake::read_file(source.path() / "index.db");
  }
  ASSERT_GT(log.size(), 10'000u);
  for (std::size_t size = 0; size <= log.size(); size += 512) {
    SCOPED_TRACE(size);
    fake::write_file(database(), main);
    fake::write_file(directory() / "index.db-wal",
                     size % 1024 == 0 ? log.substr(0, size)
                                      : log.substr(0, size) + noise(log.size() - size, size));
    {
      Index index(directory());
      index.load();
      index.rewrite(many(5));
    }
    EXPECT_THAT(load().objects, SizeIs(5));
    std::filesystem::remove_all(set_aside());
    std::filesystem::remove_all(database());
  }
}

TEST_F(IndexTest, LogOfAnotherFileHarmsNothing) {
  fake::TemporaryDirectory other;
  std::string log;
  {
    Index index(other.path());
    index.apply(many(30));
    log = fake::read_file(other.path() / "index.db-wal");
  }
  {
    Index(directory()).apply(many(3));
  }
  fake::write_file(directory() / "index.db-wal", log);
  {
    Index index(directory());
    index.load();
    index.rewrite(many(4));
  }
  EXPECT_THAT(load().objects, SizeIs(4));
}

TEST_F(IndexTest, WhatIsNoFileIsSetAside) {
  std::filesystem::create_directories(database() / "full");
  fake::write_file(set_aside(), "of an earlier day");
  {
    Index index(directory());
    EXPECT_TRUE(index.load().incomplete);
    index.rewrite(many(2));
  }
  EXPECT_TRUE(std::filesystem::is_directory(set_aside()));
  EXPECT_THAT(load().objects, SizeIs(2));

  std::filesystem::remove(database());
  fake::write_file(directory() / "elsewhere", "a stranger's");
  std::filesystem::create_symlink("elsewhere", database());
  std::filesystem::create_directories(directory() / "index.db-wal" / "full");
  {
    Index index(directory());
    EXPECT_THAT(index.set_aside(), HasSubstr("is not a file"));
    index.rewrite(many(2));
  }
  EXPECT_EQ(fake::read_file(directory() / "elsewhere"), "a stranger's");
  EXPECT_THAT(load().objects, SizeIs(2));
}

TEST_F(IndexTest, RowsThatMakeNoSenseAreSkipped) {
  {
    Index(directory()).apply(many(3));
  }
  const std::string good = digest_of("good").to_string();
  run("INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) "
      "VALUES('rubbish', 0, 1, 1, 1);"
      "INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
      digest_of("negative").to_string() +
      "', 0, -1, 1, 1);"
      "INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
      digest_of("huge").to_string() +
      "', 0, 9223372036854775807, 1, 1);"
      "INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
      digest_of("late").to_string() +
      "', 0, 1, 9223372036854775807, 1);"
      "INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
      digest_of("early").to_string() +
      "', 0, 1, -9223372036854775808, 1);"
      "INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
      good +
      "', 77, 'text', 'text', x'00');"
      "INSERT INTO links VALUES('r', 'rubbish', 1);"
      "INSERT INTO links VALUES('r', '" +
      good +
      "', -9223372036854775808);"
      "INSERT INTO tags VALUES('r', 't', 'rubbish', 1);"
      "INSERT INTO tags VALUES('r', 'u', '" +
      good + "', 9223372036854775807);");
  const auto contents = load();
  EXPECT_FALSE(contents.incomplete);
  EXPECT_THAT(contents.objects, SizeIs(4)) << "the text reads as zero";
  EXPECT_THAT(contents.links, SizeIs(3));
  EXPECT_THAT(contents.tags, SizeIs(3));
}

// Seventeen such rows added up to a small number, and taking them away again
// would end the process, at every start.
TEST_F(IndexTest, RowsOfSizesThatNobodyHasAreSkipped) {
  {
    Index(directory()).apply(many(1));
  }
  for (int i = 0; i < 20; ++i)
    run("INSERT INTO blobs(digest, kind, size_bytes, used_order, used_unix_seconds) VALUES('" +
        digest_of("huge " + std::to_string(i)).to_string() + "', 0, 1152921504606846976, 1, 1);");
  run("UPDATE blobs SET used_unix_seconds=-9223372036854775808, "
      "verified_unix_seconds=9223372036854775807, pulled_unix_seconds=-1");
  const auto contents = load();
  ASSERT_THAT(contents.objects, SizeIs(1));
  const ObjectRow& row = contents.objects.front();
  EXPECT_EQ(row.used_unix_seconds, 0);
  EXPECT_EQ(row.verified_unix_seconds, 0);
  EXPECT_EQ(row.pulled_unix_seconds, 0);
}

TEST_F(IndexTest, AFailedWriteChangesNothingAndTheNextOneWorks) {
  Index index(directory());
  index.apply(many(5));
  {
    const NoGrowth full;
    EXPECT_TRUE(failure_of([&] { index.apply(many(500)); }));
    EXPECT_TRUE(failure_of([&] { index.rewrite(many(500)); }));
    EXPECT_THAT(index.load().objects, SizeIs(5));
  }
  index.apply(many(6));
  EXPECT_THAT(index.load().objects, SizeIs(6));
  EXPECT_FALSE(std::filesystem::exists(set_aside()));
}

TEST_F(IndexTest, AGoodFileIsNotSetAsideBecauseTheDiskFailsNow) {
  {
    Index(directory()).apply(many(5));
  }
  {
    const NoGrowth full;
    try {
      EXPECT_THAT(load().objects, SizeIs(5));
    } catch (const Failure&) {
    }
  }
  EXPECT_FALSE(std::filesystem::exists(set_aside()));
  EXPECT_THAT(load().objects, SizeIs(5));
}

TEST_F(IndexTest, OnAFullDiskCannotBeHadAndLaterCan) {
  std::optional<Errc> code;
  {
    const NoGrowth full;
    code = failure_of([&] { Index index(directory()); });
  }
  EXPECT_TRUE(code);
  Index index(directory());
  index.apply(many(2));
  EXPECT_THAT(index.load().objects, SizeIs(2));
}

TEST_F(IndexTest, LetsNobodyElseIn) {
  Index index(directory());
  index.apply(many(2));
  EXPECT_EQ(failure_of([&] { Index second(directory()); }), Errc::storage_failed);
  EXPECT_FALSE(std::filesystem::exists(set_aside())) << "busy is not damaged";
  index.apply(many(3));
  EXPECT_THAT(index.load().objects, SizeIs(3));
}

TEST_F(IndexTest, DamagedWhileItIsOpenIsBegunAnewByRewrite) {
  {
    Index(directory()).apply(many(60));
  }
  Index index(directory());
  std::string bytes = fake::read_file(database());
  bytes.replace(4096, bytes.size() - 4096, noise(bytes.size() - 4096));
  fake::write_file(database(), bytes);
  EXPECT_TRUE(failure_of([&] { index.apply(many(60)); }));
  index.rewrite(many(7));
  EXPECT_THAT(index.load().objects, SizeIs(7));
}

}  // namespace
}  // namespace staithe::cache
