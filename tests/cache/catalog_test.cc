#include "cache/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cache/random.h"

namespace staithe::cache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;
using testing::SizeIs;

Digest named(std::string_view name) { return digest_of(Algorithm::sha256, name); }

const Digest a = named("a");
const Digest b = named("b");
const Digest c = named("c");

// The index as tables: what a sequence of changes makes of it.
struct Tables {
  std::map<Digest, ObjectRow> objects;
  std::map<std::pair<Digest, std::string>, std::int64_t> links;
  std::map<std::pair<std::string, std::string>, TagRow> tags;
  std::map<std::pair<Digest, std::uint64_t>, MarkRow> marks;
  std::map<Catalog::PinName, std::set<std::optional<Digest>>> pins;

  void apply(const std::vector<Change>& changes) {
    for (const Change& change : changes) {
      if (const auto* row = std::get_if<ObjectRow>(&change)) {
        objects.insert_or_assign(row->digest, *row);
      } else if (const auto* link = std::get_if<LinkRow>(&change)) {
        links[{link->digest, link->repository}] = link->checked_unix_seconds;
      } else if (const auto* tag = std::get_if<TagRow>(&change)) {
        tags.insert_or_assign({tag->repository, tag->tag}, *tag);
      } else if (const auto* drop = std::get_if<DropObject>(&change)) {
        objects.erase(drop->digest);
        std::erase_if(links, [&](const auto& one) { return one.first.first == drop->digest; });
      } else if (const auto* unlinked = std::get_if<DropLink>(&change)) {
        links.erase({unlinked->digest, unlinked->repository});
      } else if (const auto* gone = std::get_if<DropTag>(&change)) {
        tags.erase({gone->repository, gone->tag});
      } else if (const auto* mark = std::get_if<MarkRow>(&change)) {
        marks.insert_or_assign({mark->digest, mark->extent.end}, *mark);
      } else if (const auto* ended = std::get_if<DropMarks>(&change)) {
        std::erase_if(marks, [&](const auto& one) { return one.first.first == ended->digest; });
      } else if (const auto* pin = std::get_if<PinRow>(&change)) {
        pins[{pin->repository, pin->reference}].insert(pin->digest);
      } else if (const auto* unpinned = std::get_if<DropPin>(&change)) {
        pins.erase({unpinned->repository, unpinned->reference});
      }
    }
  }
  Index::Contents contents() const {
    Index::Contents all;
    for (const auto& [digest, row] : objects) all.objects.push_back(row);
    for (const auto& [key, checked] : links) all.links.push_back({key.second, key.first, checked});
    for (const auto& [key, row] : tags) all.tags.push_back(row);
    for (const auto& [key, row] : marks) all.marks.push_back(row);
    for (const auto& [name, needs] : pins)
      for (const auto& digest : needs)
        all.pins.push_back({name.repository, name.reference, digest});
    return all;
  }
};

std::vector<Digest> oldest_first(const Catalog& catalog) { return catalog.digests(); }

// Rows in whatever order a file that somebody else wrote may give them.
TEST(Catalog, RestoresLinksAndTheOrderOfUseWhateverTheOrderOfTheRows) {
  SeededRandom random(7);
  std::vector<Digest> digests;
  for (int i = 0; i < 50; ++i) digests.push_back(named(std::to_string(i)));
  const auto shuffle = [&](auto& rows) {
    for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random.next() % i]);
  };
  for (const bool sorted : {true, false}) {
    SCOPED_TRACE(sorted);
    Index::Contents contents;
    for (std::size_t i = 0; i < digests.size(); ++i) {
      contents.objects.push_back({.digest = digests[i],
                                  .kind = ObjectKind::blob,
                                  .size_bytes = 1,
                                  .used_order = static_cast<std::int64_t>(i),
                                  .used_unix_seconds = 1,
                                  .reused = i >= 30});
      for (std::size_t link = 0; link < i % 3; ++link)
        contents.links.push_back({"r/" + std::to_string(link), digests[i], 1});
    }
    contents.links.push_back({"r/0", named("not held"), 1});
    if (sorted) {
      std::ranges::sort(contents.objects, {}, &ObjectRow::digest);
      std::ranges::sort(contents.links, {}, &LinkRow::digest);
    } else {
      shuffle(contents.objects);
      shuffle(contents.links);
    }
    Catalog catalog;
    catalog.restore(std::move(contents));
    EXPECT_EQ(catalog.digests(), digests);
    EXPECT_EQ(catalog.protected_bytes(), 20 * cost_bytes(1));
    for (std::size_t i = 0; i < digests.size(); ++i)
      EXPECT_THAT(catalog.repositories_of(digests[i]), SizeIs(i % 3));
    EXPECT_FALSE(catalog.linked("r/0", named("not held")));
  }
}

TEST(Catalog, KeepsTheMarksOfBlobsThatWereBegun) {
  Catalog catalog;
  Tables tables;
  catalog.mark(a, 1, {{0, 4096}, b});
  catalog.mark(a, 1, {{4096, 8192}, c});
  catalog.mark(b, 2, {{0, 4096}, c});
  tables.apply(catalog.take_changes());
  catalog.mark(a, 3, {{0, 100}, c});  // Begun anew.
  catalog.drop_partial(b);
  tables.apply(catalog.take_changes());
  for (const bool restored : {false, true}) {
    SCOPED_TRACE(restored);
    Catalog other;
    if (restored) other.restore(tables.contents());
    const Catalog& now = restored ? other : catalog;
    EXPECT_THAT(now.partials(), SizeIs(1));
    const Catalog::Partial* partial = now.partial(a);
    ASSERT_TRUE(partial);
    EXPECT_EQ(partial->number, 3u);
    ASSERT_THAT(partial->marks, SizeIs(1));
    EXPECT_EQ(partial->marks[0].extent.end, 100u);
    EXPECT_EQ(partial->marks[0].content, c);
    EXPECT_FALSE(now.partial(b));
  }
}

TEST(Catalog, KeepsWhatAnyPinNeeds) {
  Catalog catalog;
  Tables tables;
  catalog.put_pin({"r/app", "1"}, {a, b, a});
  catalog.put_pin({"r/app", "2"}, {b, c});
  catalog.put_pin({"r/app", "3"}, {});
  tables.apply(catalog.take_changes());
  EXPECT_TRUE(catalog.pinned(a) && catalog.pinned(b) && catalog.pinned(c));
  catalog.put_pin({"r/app", "1"}, {b});
  EXPECT_FALSE(catalog.pinned(a));
  EXPECT_TRUE(catalog.drop_pin({"r/app", "2"}));
  EXPECT_FALSE(catalog.drop_pin({"r/app", "2"}));
  EXPECT_TRUE(catalog.pinned(b));
  EXPECT_FALSE(catalog.pinned(c));
  tables.apply(catalog.take_changes());
  Catalog restored;
  restored.restore(tables.contents());
  EXPECT_EQ(restored.pins(), catalog.pins());
  EXPECT_TRUE(restored.pinned(b));
  EXPECT_FALSE(restored.pinned(a) || restored.pinned(c));
  Tables anew;
  anew.apply(restored.everything());
  EXPECT_EQ(anew.pins, tables.pins);
}

TEST(Catalog, OrdersObjectsByTheirLastUse) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 10);
  catalog.add(b, ObjectKind::blob, 2, true, 11);
  catalog.add(c, ObjectKind::manifest, 3, true, 12);
  EXPECT_THAT(oldest_first(catalog), ElementsAre(a, b, c));
  catalog.touch(a, 13);
  EXPECT_THAT(oldest_first(catalog), ElementsAre(b, c, a));
  catalog.touch(named("nobody"), 14);
  catalog.drop(c);
  EXPECT_THAT(oldest_first(catalog), ElementsAre(b, a));
  EXPECT_EQ(catalog.find(c), nullptr);
  EXPECT_EQ(catalog.find(a)->used_unix_seconds, 13);
}

TEST(Catalog, CountsWholeBlocksAndKinds) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 0);
  catalog.add(b, ObjectKind::manifest, 4097, true, 0);
  catalog.add_found(c, ObjectKind::blob, 0);
  EXPECT_EQ(catalog.totals().bytes, 3u * 4096);
  EXPECT_EQ(catalog.totals().blobs, 2u);
  EXPECT_EQ(catalog.totals().manifests, 1u);
  catalog.add(a, ObjectKind::blob, 8192, true, 0);
  EXPECT_EQ(catalog.totals().bytes, 4u * 4096);
  EXPECT_EQ(catalog.totals().blobs, 2u);
  for (const Digest& digest : {a, b, c}) catalog.drop(digest);
  EXPECT_EQ(catalog.totals().bytes, 0u);
  EXPECT_EQ(catalog.totals().blobs + catalog.totals().manifests, 0u);
}

TEST(Catalog, AddedAgainAnObjectKeepsItsLinksAndBecomesTheLastUsed) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, false, 1);
  catalog.link("r/one", a, 5);
  catalog.add(b, ObjectKind::blob, 1, true, 2);
  catalog.add(a, ObjectKind::blob, 1, true, 3);
  EXPECT_THAT(oldest_first(catalog), ElementsAre(b, a));
  EXPECT_THAT(catalog.linked("r/one", a), Optional(5));
  EXPECT_TRUE(catalog.find(a)->verified);
}

TEST(Catalog, WhatIsFoundWithoutARowIsTheLeastRecentlyUsed) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  catalog.add_found(b, ObjectKind::blob, 1);
  catalog.add_found(c, ObjectKind::blob, 1);
  catalog.add_found(a, ObjectKind::blob, 999);
  EXPECT_THAT(oldest_first(catalog), ElementsAre(c, b, a));
  EXPECT_EQ(catalog.find(a)->size_bytes, 1u) << "what is known stays";
  EXPECT_FALSE(catalog.find(b)->verified);
  Tables tables;
  tables.apply(catalog.take_changes());
  Catalog again;
  again.restore(tables.contents());
  EXPECT_THAT(oldest_first(again), ElementsAre(c, b, a));
}

TEST(Catalog, LinksBelongToTheirObjectAndGoWithIt) {
  Catalog catalog;
  catalog.link("r/one", a, 5);
  EXPECT_FALSE(catalog.linked("r/one", a)) << "nothing to belong to";
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  catalog.link("r/one", a, 5);
  catalog.link("r/two", a, 6);
  catalog.link("r/one", a, 7);
  EXPECT_THAT(catalog.linked("r/one", a), Optional(7));
  EXPECT_THAT(catalog.linked("r/two", a), Optional(6));
  EXPECT_FALSE(catalog.linked("r/three", a));
  catalog.unlink("r/one", a);
  catalog.unlink("r/none", a);
  EXPECT_FALSE(catalog.linked("r/one", a));
  catalog.drop(a);
  EXPECT_FALSE(catalog.linked("r/two", a));
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  EXPECT_FALSE(catalog.linked("r/two", a));
}

TEST(Catalog, BoundsTheLinksOfAnObject) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  for (int i = 0; i < 1500; ++i) catalog.link("r/" + std::to_string(i), a, 1);
  EXPECT_TRUE(catalog.linked("r/999", a));
  EXPECT_FALSE(catalog.linked("r/1000", a)) << "such a repository asks upstream each time";
  Tables tables;
  tables.apply(catalog.take_changes());
  EXPECT_THAT(tables.links, SizeIs(1000));
}

TEST(Catalog, TagsMoveAndGo) {
  Catalog catalog;
  catalog.put_tag("r/one", "latest", a, 5);
  catalog.put_tag("r/one", "latest", b, 6);
  catalog.put_tag("r/on", "elatest", c, 7);
  EXPECT_EQ(catalog.tag_count(), 2u) << "names that join to the same text are two";
  EXPECT_EQ(catalog.tag("r/one", "latest")->digest, b);
  EXPECT_EQ(catalog.tag("r/one", "latest")->checked_unix_seconds, 6);
  catalog.drop_tag("r/one", "latest");
  catalog.drop_tag("r/one", "latest");
  EXPECT_FALSE(catalog.tag("r/one", "latest"));
  EXPECT_TRUE(catalog.tag("r/on", "elatest"));
}

TEST(CatalogChanges, OfNothingAreNone) {
  Catalog catalog;
  EXPECT_THAT(catalog.take_changes(), IsEmpty());
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  EXPECT_THAT(catalog.take_changes(), SizeIs(1));
  EXPECT_THAT(catalog.take_changes(), IsEmpty());
}

TEST(CatalogChanges, ManyUsesOfOneObjectAreOneRow) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  catalog.take_changes();
  for (int i = 0; i < 1000; ++i) catalog.touch(a, i);
  EXPECT_THAT(catalog.take_changes(), SizeIs(1));
}

// Each is a way in which the order of changes could go wrong.
TEST(CatalogChanges, EndWithWhatTheCatalogHolds) {
  struct Case {
    const char* name;
    void (*before)(Catalog&);
    void (*then)(Catalog&);
  };
  const auto add = [](Catalog& catalog) { catalog.add(a, ObjectKind::blob, 1, true, 1); };
  const auto add_linked = [](Catalog& catalog) {
    catalog.add(a, ObjectKind::blob, 1, true, 1);
    catalog.link("r/one", a, 5);
  };
  const auto nothing = [](Catalog&) {};
  const std::vector<Case> cases = {
      {"add then link", nothing, add_linked},
      {"link of a row written before", add, [](Catalog& k) { k.link("r/one", a, 5); }},
      {"drop", add_linked, [](Catalog& k) { k.drop(a); }},
      {"drop then add", add_linked,
       [](Catalog& k) {
         k.drop(a);
         k.add(a, ObjectKind::blob, 2, true, 2);
       }},
      {"drop, add, link", add_linked,
       [](Catalog& k) {
         k.drop(a);
         k.add(a, ObjectKind::blob, 2, true, 2);
         k.link("r/two", a, 6);
       }},
      {"link then drop", add,
       [](Catalog& k) {
         k.link("r/one", a, 5);
         k.drop(a);
       }},
      {"link, drop, add", add,
       [](Catalog& k) {
         k.link("r/one", a, 5);
         k.drop(a);
         k.add(a, ObjectKind::blob, 2, true, 2);
       }},
      {"add then drop", nothing,
       [](Catalog& k) {
         k.add(a, ObjectKind::blob, 2, true, 2);
         k.link("r/one", a, 5);
         k.drop(a);
       }},
      {"unlink", add_linked, [](Catalog& k) { k.unlink("r/one", a); }},
      {"unlink then link", add_linked,
       [](Catalog& k) {
         k.unlink("r/one", a);
         k.link("r/one", a, 9);
       }},
      {"link then unlink", add,
       [](Catalog& k) {
         k.link("r/one", a, 9);
         k.unlink("r/one", a);
       }},
      {"unlink then drop", add_linked,
       [](Catalog& k) {
         k.unlink("r/one", a);
         k.drop(a);
       }},
      {"the other kind", add_linked,
       [](Catalog& k) {
         k.drop(a);
         k.add_found(a, ObjectKind::manifest, 7);
       }},
      {"tag put, dropped, put", [](Catalog& k) { k.put_tag("r/one", "t", a, 1); },
       [](Catalog& k) {
         k.drop_tag("r/one", "t");
         k.put_tag("r/one", "t", b, 2);
       }},
      {"tag put then dropped", nothing,
       [](Catalog& k) {
         k.put_tag("r/one", "t", a, 1);
         k.drop_tag("r/one", "t");
       }},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    Catalog catalog;
    Tables tables;
    one.before(catalog);
    tables.apply(catalog.take_changes());
    one.then(catalog);
    tables.apply(catalog.take_changes());
    Tables anew;
    anew.apply(catalog.everything());
    EXPECT_EQ(tables.links, anew.links);
    EXPECT_EQ(tables.tags.size(), anew.tags.size());
    ASSERT_EQ(tables.objects.size(), anew.objects.size());
    for (const auto& [digest, row] : anew.objects) {
      EXPECT_EQ(tables.objects.at(digest).size_bytes, row.size_bytes);
      EXPECT_EQ(tables.objects.at(digest).used_order, row.used_order);
      EXPECT_EQ(tables.objects.at(digest).kind, row.kind);
    }
  }
}

TEST(CatalogChanges, OfAnyHistoryGiveTheSameCatalogAgain) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    Catalog catalog;
    Tables tables;
    for (int i = 0; i < 100; ++i) {
      const Digest digest = named(std::to_string(random.next() % 5));
      const std::string repository = "r/" + std::to_string(random.next() % 3);
      const auto now = static_cast<std::int64_t>(i);
      switch (random.next() % 9) {
        case 0:
          catalog.add(digest, ObjectKind::blob, random.next() % 10'000, true, now);
          break;
        case 1:
          catalog.add_found(digest, ObjectKind::manifest, random.next() % 10'000);
          break;
        case 2:
          catalog.touch(digest, now);
          break;
        case 3:
          catalog.drop(digest);
          break;
        case 4:
          catalog.link(repository, digest, now);
          break;
        case 5:
          catalog.unlink(repository, digest);
          break;
        case 6:
          catalog.put_tag(repository, "t", digest, now);
          break;
        case 7:
          catalog.drop_tag(repository, "t");
          break;
        default:  // Often not all of them at once.
          tables.apply(catalog.take_changes(1 + random.next() % 4));
      }
    }
    while (catalog.has_changes()) tables.apply(catalog.take_changes(2));
    Catalog again;
    again.restore(tables.contents());
    EXPECT_EQ(oldest_first(again), oldest_first(catalog));
    EXPECT_EQ(again.totals().bytes, catalog.totals().bytes);
    EXPECT_EQ(again.totals().blobs, catalog.totals().blobs);
    for (int d = 0; d < 5; ++d)
      for (int r = 0; r < 3; ++r)
        EXPECT_EQ(again.linked("r/" + std::to_string(r), named(std::to_string(d))),
                  catalog.linked("r/" + std::to_string(r), named(std::to_string(d))));
    EXPECT_EQ(again.tag_count(), catalog.tag_count());
    EXPECT_EQ(tables.links.size(), [&] {
      std::size_t links = 0;
      for (const Change& change : catalog.everything())
        links += std::holds_alternative<LinkRow>(change) ? 1 : 0;
      return links;
    }()) << "no row of a link stays behind";
  }
}

TEST(CatalogRestore, TakesWhatMakesSense) {
  Catalog catalog;
  Index::Contents contents;
  contents.objects = {{a, ObjectKind::blob, 1, 7, 1},
                      {b, ObjectKind::blob, 1, -3, 1},
                      {a, ObjectKind::manifest, 5, 9, 1},  // a second row for one digest
                      {c, ObjectKind::manifest, 1, 7, 1}};
  contents.links = {{"r/one", a, 5}, {"r/one", named("nobody"), 5}};
  contents.tags = {{"r/one", "t", named("nobody"), 5}};
  catalog.restore(std::move(contents));
  EXPECT_EQ(catalog.totals().blobs, 2u);
  EXPECT_EQ(catalog.totals().manifests, 1u);
  EXPECT_EQ(oldest_first(catalog).front(), b);
  EXPECT_THAT(oldest_first(catalog), SizeIs(3));
  EXPECT_TRUE(catalog.linked("r/one", a));
  EXPECT_THAT(catalog.take_changes(), IsEmpty());
  catalog.touch(b, 1);
  EXPECT_EQ(oldest_first(catalog).back(), b) << "used later than all that came before";
  EXPECT_GT(catalog.find(b)->used_order, 7);
}

TEST(CatalogChanges, AreForgottenForAnIndexThatIsWrittenFromEverything) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 1, true, 1);
  catalog.link("r/one", a, 1);
  catalog.put_tag("r/one", "t", a, 1);
  EXPECT_TRUE(catalog.has_changes());
  catalog.forget_changes();
  EXPECT_FALSE(catalog.has_changes());
  EXPECT_THAT(catalog.take_changes(), IsEmpty());
  EXPECT_THAT(catalog.everything(), SizeIs(3));
  std::vector<Change> parts;
  catalog.add_objects(std::vector{b, a}, parts);
  EXPECT_THAT(parts, SizeIs(2)) << "the object that is there, and its link";
  catalog.add_others(parts);
  EXPECT_THAT(parts, SizeIs(3));
}

TEST(CatalogCandidates, ComeFromTheOldestWithTheirCost) {
  Catalog catalog;
  catalog.add(a, ObjectKind::blob, 5000, true, 1);
  catalog.add(b, ObjectKind::blob, 1, true, 1);
  std::vector<std::tuple<Digest, std::uint64_t, bool>> seen;
  for (const Candidate& one :
       catalog.oldest_first([](const Digest& digest) { return digest == b; }))
    seen.emplace_back(one.digest, one.bytes, one.evictable);
  EXPECT_THAT(seen, ElementsAre(std::tuple(a, 8192u, false), std::tuple(b, 4096u, true)));
}

}  // namespace
}  // namespace staithe::cache
