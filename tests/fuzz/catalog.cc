// The accounting of what is cached (threats T18, F7): after any history the sums are those of the
// objects, victims give back what is asked for, and the index that has been told every change holds
// what the catalog does.
#include "cache/catalog.h"

#include <array>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

using namespace cache;  // NOLINT: this file is about one namespace

constexpr std::array<const char*, 3> repositories{"contoso.azurecr.io/app", "docker.io/library/x",
                                                  "localhost/y"};
constexpr std::array<const char*, 2> tag_names{"latest", "1"};

const std::vector<Digest>& digests() {
  static const std::vector<Digest> all = [] {
    std::vector<Digest> made;
    for (const char c : {'a', 'b', 'c', 'd', 'e', 'f'})
      made.push_back(digest_of(Algorithm::sha256, std::string_view(&c, 1)));
    return made;
  }();
  return all;
}

// What an index holds that was told these changes.
class Told {
 public:
  void apply(const std::vector<Change>& changes) {
    for (const Change& change : changes) std::visit([this](const auto& row) { put(row); }, change);
  }
  bool operator==(const Told&) const = default;

 private:
  void put(const ObjectRow& row) {
    objects_.insert_or_assign(
        row.digest, std::tuple(row.kind, row.size_bytes, row.used_order, row.used_unix_seconds,
                               row.reused, row.verified_unix_seconds, row.pulled_unix_seconds));
  }
  void put(const LinkRow& row) {
    links_[{row.repository, row.digest.to_string()}] = row.checked_unix_seconds;
  }
  void put(const TagRow& row) {
    tags_[{row.repository, row.tag}] = {row.digest.to_string(), row.checked_unix_seconds};
  }
  void put(const MarkRow& row) {
    marks_[{row.digest.to_string(), row.extent.begin, row.extent.end}] = {row.number,
                                                                          row.content.to_string()};
  }
  void put(const PinRow& row) {
    pins_.insert({row.repository, row.reference, row.digest ? row.digest->to_string() : ""});
  }
  void put(const DropObject& drop) {
    objects_.erase(drop.digest);
    std::erase_if(links_,
                  [&](const auto& link) { return link.first.second == drop.digest.to_string(); });
  }
  void put(const DropLink& drop) { links_.erase({drop.repository, drop.digest.to_string()}); }
  void put(const DropTag& drop) { tags_.erase({drop.repository, drop.tag}); }
  void put(const DropMarks& drop) {
    std::erase_if(marks_, [&](const auto& mark) {
      return std::get<0>(mark.first) == drop.digest.to_string();
    });
  }
  void put(const DropPin& drop) {
    std::erase_if(pins_, [&](const auto& pin) {
      return std::get<0>(pin) == drop.repository && std::get<1>(pin) == drop.reference;
    });
  }

  using Names = std::pair<std::string, std::string>;
  std::map<Digest, std::tuple<ObjectKind, std::uint64_t, std::int64_t, std::int64_t, bool,
                              std::int64_t, std::int64_t>>
      objects_;
  std::map<Names, std::int64_t> links_;
  std::map<Names, std::pair<std::string, std::int64_t>> tags_;
  std::map<std::tuple<std::string, std::uint64_t, std::uint64_t>,
           std::pair<std::uint64_t, std::string>>
      marks_;
  std::set<std::tuple<std::string, std::string, std::string>> pins_;
};

class History {
 public:
  void step(Input& input) {
    const Digest& digest = digests()[input.below(digests().size())];
    const char* const repository = repositories[input.below(repositories.size())];
    const char* const tag = tag_names[input.below(tag_names.size())];
    now_ += static_cast<std::int64_t>(input.below(2000)) - 200;  // Clocks are set back, too.
    switch (input.below(16)) {
      case 0:
      case 1:
        catalog_.add(digest, input.flag() ? ObjectKind::blob : ObjectKind::manifest,
                     input.below(100'000), input.flag(), now_);
        break;
      case 2:
        catalog_.add_found(digest, ObjectKind::blob, input.below(100'000));
        break;
      case 3:
      case 4:
        catalog_.touch(digest, now_);
        break;
      case 5:
        catalog_.set_verified(digest, now_);
        break;
      case 6:
        catalog_.set_size(digest, input.below(100'000));
        break;
      case 7:
        catalog_.drop(digest);
        break;
      case 8:
        catalog_.link(repository, digest, now_);
        break;
      case 9:
        catalog_.unlink(repository, digest);
        break;
      case 10:
        catalog_.put_tag(repository, tag, digest, now_);
        break;
      case 11:
        catalog_.drop_tag(repository, tag);
        break;
      case 12:
        catalog_.put_pin({repository, tag}, {digest, digests()[input.below(digests().size())]});
        break;
      case 13:
        catalog_.drop_pin({repository, tag});
        break;
      case 14:
        mark(digest, input);
        break;
      default:
        catalog_.set_allowed_bytes(input.below(300'000));
        told_.apply(catalog_.take_changes(input.below(4)));
        break;
    }
    check_sums();
    check_victims(input);
  }

  void finish() {
    while (catalog_.has_changes()) told_.apply(catalog_.take_changes(2));
    Told everything;
    everything.apply(catalog_.everything());
    check(told_ == everything);
  }

 private:
  void mark(const Digest& digest, Input& input) {
    if (input.below(4) == 0) {
      catalog_.drop_partial(digest);
      return;
    }
    const std::uint64_t begin = input.below(1000);
    catalog_.mark(digest, input.below(3),
                  {.extent = {begin, begin + 1 + input.below(1000)}, .content = digests().front()});
  }

  void check_sums() const {
    Catalog::Totals sums;
    std::uint64_t reused = 0;
    std::set<Digest> seen;
    bool protected_part = false;
    for (const Digest& digest : catalog_.digests()) {
      check(seen.insert(digest).second);
      const Catalog::Object* object = catalog_.find(digest);
      check(object != nullptr);
      const std::uint64_t cost = cost_bytes(object->size_bytes);
      sums.bytes += cost;
      ++(object->kind == ObjectKind::blob ? sums.blobs : sums.manifests);
      if (object->reused) reused += cost;
      // The protected go last.
      check(object->reused || !protected_part);
      protected_part = object->reused;
    }
    check(sums.bytes == catalog_.totals().bytes && sums.blobs == catalog_.totals().blobs &&
          sums.manifests == catalog_.totals().manifests);
    check(reused == catalog_.protected_bytes());
    std::set<Digest> needed;
    for (const auto& [name, needs] : catalog_.pins()) needed.insert(needs.begin(), needs.end());
    for (const Digest& digest : digests())
      check(catalog_.pinned(digest) == needed.contains(digest));
    check(catalog_.pinned_bytes() <= catalog_.totals().bytes);
  }

  void check_victims(Input& input) const {
    const std::uint64_t excess = input.below(400'000);
    const auto evictable = [this](const Digest& digest) { return !catalog_.pinned(digest); };
    std::uint64_t gained = 0;
    std::uint64_t most = 0;
    for (const Candidate& candidate : catalog_.oldest_first(evictable))
      most += candidate.evictable ? candidate.bytes : 0;
    const auto victims = choose_victims(catalog_.oldest_first(evictable), excess);
    for (const Digest& victim : victims) {
      check(gained < excess);  // None goes for nothing.
      check(!catalog_.pinned(victim));
      gained += cost_bytes(catalog_.find(victim)->size_bytes);
    }
    check(gained >= std::min(excess, most));
  }

  Catalog catalog_;
  Told told_;
  std::int64_t now_ = 1'800'000'000;
};

void check_budget(Input& input) {
  const Budget budget{.max_bytes = input.number(), .min_free_bytes = input.number()};
  const std::uint64_t used = input.number(6);
  const std::uint64_t free = input.number(6);
  const std::uint64_t allowed = allowed_bytes(budget, used, free);
  check(allowed <= budget.max_bytes && allowed <= used + free);
  check(headroom_bytes(allowed) <= allowed / 32);
  check(Protection{}.protected_bytes(allowed) <= allowed);
  const std::uint64_t size = input.number();
  check(cost_bytes(size) >= size);
}

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  if (input.byte() == 0) {
    check_budget(input);
    return;
  }
  History history;
  for (int steps = 0; steps < 100 && !input.empty(); ++steps) history.step(input);
  history.finish();
}

}  // namespace staithe::fuzz
