// The order in which objects go: the rules of cache/eviction.h, in the catalog.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "cache/catalog.h"
#include "cache/random.h"
#include "tests/cache/eviction_model.h"

namespace staithe::cache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t now = 1'767'225'600;
constexpr std::int64_t later = now + 600;

Digest named(const std::string& name) { return digest_of(Algorithm::sha256, name); }

const Digest a = named("a");
const Digest b = named("b");
const Digest c = named("c");
const Digest d = named("d");

// One block each.
void add(Catalog& catalog, const std::vector<Digest>& digests, std::int64_t when = now) {
  for (const Digest& digest : digests) catalog.add(digest, ObjectKind::blob, 1, true, when);
}

std::vector<EvictionModel::Place> order_of(const Catalog& catalog) {
  std::vector<EvictionModel::Place> all;
  for (const Digest& digest : catalog.digests()) {
    const Catalog::Object* object = catalog.find(digest);
    all.push_back({digest, object->reused});
  }
  return all;
}

std::vector<Digest> protected_of(const Catalog& catalog) {
  std::vector<Digest> all;
  for (const auto& place : order_of(catalog))
    if (place.is_protected) all.push_back(place.digest);
  return all;
}

// The rows as the index keeps them, and a catalog from them.
class Rows {
 public:
  void take(Catalog& catalog) {
    for (const Change& change : catalog.take_changes()) {
      if (const auto* row = std::get_if<ObjectRow>(&change))
        rows_.insert_or_assign(row->digest, *row);
      if (const auto* drop = std::get_if<DropObject>(&change)) rows_.erase(drop->digest);
    }
  }
  void restore(Catalog& catalog) const {
    Index::Contents contents;
    for (const auto& [digest, row] : rows_) contents.objects.push_back(row);
    catalog.restore(std::move(contents));
  }

 private:
  std::map<Digest, ObjectRow> rows_;
};

TEST(LaterPull, BeginsTenMinutesAfterTheOneBefore) {
  constexpr Protection protection;
  EXPECT_FALSE(protection.is_later_pull(now, now));
  EXPECT_FALSE(protection.is_later_pull(now, now + 599));
  EXPECT_TRUE(protection.is_later_pull(now, now + 600));
  EXPECT_TRUE(protection.is_later_pull(0, now)) << "of what was found, the pull is long past";
  EXPECT_FALSE(protection.is_later_pull(now, now - 1)) << "a clock that was set back says nothing";
  EXPECT_FALSE(protection.is_later_pull(now, 0));
}

TEST(LaterPull, TakesAnyTimes) {
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  EXPECT_TRUE(Protection().is_later_pull(least, most));
  EXPECT_FALSE(Protection().is_later_pull(most, least));
  EXPECT_FALSE(Protection().is_later_pull(least, least));
}

TEST(ProtectedShare, IsOfAllThatMayBeHeld) {
  EXPECT_EQ(Protection().protected_bytes(0), 0u);
  EXPECT_EQ(Protection().protected_bytes(1), 0u);
  EXPECT_EQ(Protection().protected_bytes(199), 159u);
  EXPECT_EQ(Protection().protected_bytes(std::numeric_limits<std::uint64_t>::max()),
            14'757'395'258'967'641'292u);
}

TEST(CatalogOrder, WhatALaterPullUsesAgainGoesLast) {
  Catalog catalog;
  add(catalog, {a, b, c});
  catalog.touch(a, later);
  EXPECT_THAT(catalog.digests(), ElementsAre(b, c, a));
  add(catalog, {d}, later);
  EXPECT_THAT(catalog.digests(), ElementsAre(b, c, d, a)) << "newer, and not used again yet";
  catalog.touch(b, later + 1);
  EXPECT_THAT(catalog.digests(), ElementsAre(c, d, a, b));
  catalog.touch(a, later + 2);
  EXPECT_THAT(catalog.digests(), ElementsAre(c, d, b, a));
  EXPECT_THAT(protected_of(catalog), ElementsAre(b, a));
  EXPECT_EQ(catalog.protected_bytes(), 2u * 4096);
}

TEST(CatalogOrder, ManyRequestsOfOnePullAreOneUse) {
  Catalog catalog;
  add(catalog, {a, b});
  for (std::int64_t second = 0; second < 600; ++second) catalog.touch(a, now + second);
  EXPECT_THAT(catalog.digests(), ElementsAre(b, a));
  EXPECT_THAT(protected_of(catalog), IsEmpty());
}

TEST(CatalogOrder, WhatIsUsedAllTheTimeIsUsedAgain) {
  Catalog catalog;
  add(catalog, {a});
  for (std::int64_t second = 0; second <= 900; second += 300) catalog.touch(a, now + second);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a)) << "though no pause was ten minutes long";
}

TEST(CatalogOrder, AFloodOfTenCachesLeavesTheProtectedUntouched) {
  constexpr std::uint64_t blocks = 100;
  Catalog catalog;
  catalog.set_allowed_bytes(blocks * 4096);
  std::vector<Digest> used;
  for (std::uint64_t i = 0; i < 80; ++i) used.push_back(named("used " + std::to_string(i)));
  add(catalog, used);
  for (const Digest& digest : used) catalog.touch(digest, later);
  for (std::uint64_t i = 0; i < 10 * blocks; ++i) {
    const Digest once = named("once " + std::to_string(i));
    const auto order = catalog.oldest_first([](const Digest&) { return true; });
    if (catalog.totals().bytes == blocks * 4096)
      for (const Digest& victim : choose_victims(order, 4096)) catalog.drop(victim);
    add(catalog, {once}, later + 1);
    // A pull asks more than once, for minutes.
    for (const std::int64_t again : {1, 30, 500}) catalog.touch(once, later + again);
  }
  EXPECT_EQ(protected_of(catalog), used);
  EXPECT_EQ(catalog.totals().bytes, blocks * 4096);
}

TEST(CatalogOrder, WhatExceedsTheShareGoesBackAsTheLastOfProbation) {
  Catalog catalog;
  catalog.set_allowed_bytes(5 * 4096);  // four of them protected
  const Digest e = named("e");
  add(catalog, {a, b, c, d, e});
  for (const Digest& digest : {a, b, c, d, e}) catalog.touch(digest, later);
  EXPECT_THAT(protected_of(catalog), ElementsAre(b, c, d, e));
  EXPECT_EQ(catalog.digests().front(), a);
  const Digest f = named("f");
  add(catalog, {f}, later);
  catalog.touch(f, later + 600);
  EXPECT_THAT(catalog.digests(), ElementsAre(a, b, c, d, e, f));
  EXPECT_THAT(protected_of(catalog), ElementsAre(c, d, e, f));
  // It was protected, so it is used again at once when its next pull comes.
  catalog.touch(a, later + 600);
  EXPECT_THAT(catalog.digests(), ElementsAre(b, c, d, e, f, a));
  EXPECT_EQ(catalog.protected_bytes(), 4u * 4096);
}

TEST(CatalogOrder, OneLargeObjectSendsBackAsManyAsItNeeds) {
  Catalog catalog;
  catalog.set_allowed_bytes(10 * 4096);
  add(catalog, {a, b, c});
  catalog.add(d, ObjectKind::blob, 6 * 4096, true, now);
  for (const Digest& digest : {a, b, c, d}) catalog.touch(digest, later);
  EXPECT_THAT(protected_of(catalog), ElementsAre(b, c, d));
}

TEST(CatalogOrder, AnObjectAsLargeAsTheShareStaysOnProbation) {
  Catalog catalog;
  catalog.set_allowed_bytes(10 * 4096);
  add(catalog, {a, b});
  catalog.touch(a, later);
  catalog.add(c, ObjectKind::blob, 8 * 4096, true, now);
  catalog.touch(c, later);
  EXPECT_THAT(catalog.digests(), ElementsAre(b, c, a))
      << "protected, it would send all others back";
  EXPECT_THAT(protected_of(catalog), ElementsAre(a));
}

TEST(CatalogOrder, ASmallerBoundTakesEffectWhenTheNextIsProtected) {
  Catalog catalog;
  catalog.set_allowed_bytes(100 * 4096);
  add(catalog, {a, b, c, d});
  for (const Digest& digest : {a, b, c}) catalog.touch(digest, later);
  catalog.set_allowed_bytes(3 * 4096);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a, b, c));
  catalog.touch(d, later);
  EXPECT_THAT(protected_of(catalog), ElementsAre(c, d));
  catalog.set_allowed_bytes(0);
  catalog.touch(a, later + 600);
  EXPECT_THAT(protected_of(catalog), ElementsAre(c, d)) << "nothing fits, so nothing changes sides";
}

TEST(CatalogOrder, WithoutLaterUsesIsPlainlyThatOfUse) {
  Catalog catalog;
  std::vector<Digest> order;
  SeededRandom random(1);
  for (int i = 0; i < 500; ++i) {
    const Digest digest = named(std::to_string(random.next() % 20));
    std::erase(order, digest);
    order.push_back(digest);
    if (catalog.find(digest)) {
      catalog.touch(digest, now + i);
    } else {
      add(catalog, {digest}, now + i);
    }
    ASSERT_EQ(catalog.digests(), order);
  }
}

TEST(CatalogOrder, WhatIsFoundIsOnProbationAndProtectedByItsFirstUse) {
  Catalog catalog;
  add(catalog, {a});
  catalog.touch(a, later);
  catalog.add_found(b, ObjectKind::blob, 1);
  catalog.add_found(c, ObjectKind::blob, 1);
  EXPECT_THAT(catalog.digests(), ElementsAre(c, b, a));
  catalog.touch(c, later);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a, c)) << "an earlier pull has brought it";
}

TEST(CatalogOrder, AnObjectStoredAgainStaysOnItsSide) {
  Catalog catalog;
  add(catalog, {a, b});
  catalog.touch(a, later);
  catalog.add(a, ObjectKind::blob, 5000, true, later + 1);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a));
  EXPECT_EQ(catalog.protected_bytes(), 8192u);
  catalog.add(b, ObjectKind::blob, 1, true, now + 1);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a));
  catalog.set_size(a, 1);
  EXPECT_EQ(catalog.protected_bytes(), 4096u);
  catalog.drop(a);
  EXPECT_EQ(catalog.protected_bytes(), 0u);
  add(catalog, {a}, later + 2);
  EXPECT_THAT(protected_of(catalog), IsEmpty()) << "once gone, it begins anew";
}

TEST(CatalogOrder, AClockThatIsSetBackCostsOneUse) {
  Catalog catalog;
  add(catalog, {a, b}, now + 1'000'000);
  catalog.touch(a, now);
  catalog.touch(a, now + 599);
  EXPECT_THAT(protected_of(catalog), IsEmpty());
  catalog.touch(a, now + 600);
  EXPECT_THAT(protected_of(catalog), ElementsAre(a))
      << "ten minutes after its first use since then";
}

TEST(CatalogOrder, SurvivesAnyClock) {
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  Catalog catalog;
  for (const std::int64_t when : {most, least, std::int64_t{0}, now, most, least}) {
    catalog.add(a, ObjectKind::blob, 1, true, when);
    catalog.add(b, ObjectKind::blob, 1, true, when);
    catalog.touch(a, when);
    EXPECT_THAT(catalog.digests(), testing::UnorderedElementsAre(a, b));
  }
  catalog.touch(a, now);
  catalog.touch(a, now + 600);
  EXPECT_THAT(protected_of(catalog), testing::Contains(a));
}

TEST(CatalogOrder, SurvivesARestartWithWhatWentBack) {
  Catalog catalog;
  catalog.set_allowed_bytes(5 * 4096);
  const Digest e = named("e");
  add(catalog, {a, b, c, d, e});
  Rows rows;
  for (const Digest& digest : {b, a, c, d}) catalog.touch(digest, later);
  add(catalog, {named("f")}, later);
  catalog.add_found(named("g"), ObjectKind::blob, 1);
  rows.take(catalog);
  catalog.touch(e, later);
  EXPECT_THAT(catalog.digests(), ElementsAre(named("g"), named("f"), b, a, c, d, e));
  rows.take(catalog);
  Catalog again;
  rows.restore(again);
  EXPECT_EQ(order_of(again), order_of(catalog));
  EXPECT_EQ(again.protected_bytes(), catalog.protected_bytes());
  EXPECT_THAT(again.take_changes(), IsEmpty());
  // And it goes on the same.
  for (Catalog* one : {&catalog, &again}) {
    one->set_allowed_bytes(5 * 4096);
    one->touch(b, later + 599);
    one->touch(named("f"), later + 600);
  }
  EXPECT_EQ(order_of(again), order_of(catalog));
}

TEST(CatalogOrder, OfAnyHistoryIsWhatTheRulesSay) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    constexpr std::uint64_t allowed = 20 * 4096;
    auto catalog = std::make_unique<Catalog>();
    catalog->set_allowed_bytes(allowed);
    EvictionModel model(allowed * 8 / 10);
    Rows rows;
    std::int64_t when = now;
    for (int i = 0; i < 300 && !HasFailure(); ++i) {
      const Digest digest = named(std::to_string(random.next() % 12));
      const bool there = catalog->find(digest) != nullptr;
      const std::uint64_t size = random.next() % (6 * 4096);
      when += static_cast<std::int64_t>(random.next() % 400);
      if (random.next() % 30 == 0) when -= static_cast<std::int64_t>(random.next() % 5'000);
      switch (random.next() % 8) {
        case 0:
        case 1:
          if (there) break;
          catalog->add(digest, ObjectKind::blob, size, true, when);
          model.add(digest, size, when);
          break;
        case 2:
          if (random.next() % 4 != 0 || there) break;
          catalog->add_found(digest, ObjectKind::manifest, size);
          model.add_found(digest, size);
          break;
        case 3:
          if (random.next() % 2 != 0) break;
          catalog->drop(digest);
          model.drop(digest);
          break;
        case 4:
          rows.take(*catalog);
          if (random.next() % 8 != 0) break;
          catalog = std::make_unique<Catalog>();
          rows.restore(*catalog);
          catalog->set_allowed_bytes(allowed);
          break;
        default:
          catalog->touch(digest, when);
          if (there) model.touch(digest, when);
      }
      ASSERT_EQ(order_of(*catalog), model.order());
      ASSERT_EQ(catalog->protected_bytes(), model.protected_bytes());
      ASSERT_LE(catalog->protected_bytes(), allowed * 8 / 10);
    }
  }
}

TEST(CatalogOrder, AUseTakesNoMemory) {
  Catalog catalog;
  catalog.set_allowed_bytes(1'000 * 4096);
  std::vector<Digest> digests;
  for (int i = 0; i < 1'000; ++i) digests.push_back(named(std::to_string(i)));
  add(catalog, digests);
  catalog.take_changes();
  const auto before = ::mallinfo2().uordblks;
  for (const std::int64_t when : {now, later, later + 600})
    for (const Digest& digest : digests) catalog.touch(digest, when);
  EXPECT_EQ(::mallinfo2().uordblks, before);
}

}  // namespace
}  // namespace staithe::cache
