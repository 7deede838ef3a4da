#include "cache/catalog.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace staithe::cache {

namespace {

// More tags than a machine pulls in years; the bound keeps a client that invents tags from growing
// the table. Only tags that upstream has confirmed enter.
constexpr std::size_t max_tags = 100'000;

// Repositories that share one object; beyond this a further one asks upstream each time.
constexpr std::size_t max_links_of_object = 1'000;

}  // namespace

void Catalog::restore(Index::Contents contents) {
  assert(objects_.empty());
  objects_.reserve(contents.objects.size());
  std::vector<Entry*> entries;  // in the order of the rows
  entries.reserve(contents.objects.size());
  for (const ObjectRow& row : contents.objects) {
    const auto [it, inserted] = objects_.try_emplace(row.digest);
    if (!inserted) continue;
    Entry& entry = it->second;
    entry.digest = &it->first;
    entry.object = {.kind = row.kind,
                    .size_bytes = row.size_bytes,
                    .used_order = row.used_order,
                    .used_unix_seconds = row.used_unix_seconds,
                    .reused = row.reused,
                    .pulled_unix_seconds = row.pulled_unix_seconds,
                    .verified_unix_seconds = row.verified_unix_seconds,
                    .verified = false};
    entries.push_back(&entry);
    count(entry.object, true);
    last_order_ = std::max(last_order_, row.used_order);
    first_order_ = std::min(first_order_, row.used_order);
  }
  // Links usually come as their objects do, so a look at the next one spares most searches.
  auto next = entries.begin();
  Entry* holder = nullptr;
  for (const LinkRow& row : contents.links) {
    if (!holder || *holder->digest != row.digest) {
      while (next != entries.end() && *(*next)->digest < row.digest) ++next;
      holder = nullptr;
      if (next != entries.end() && *(*next)->digest == row.digest) {
        holder = *next++;
      } else if (const auto it = objects_.find(row.digest); it != objects_.end()) {
        holder = &it->second;
      }
    }
    if (holder) holder->links.push_back({intern(row.repository), row.checked_unix_seconds});
  }
  std::ranges::sort(entries, {}, [](const Entry* entry) {
    return std::pair(entry->object.reused, entry->object.used_order);
  });
  for (Entry* entry : entries) {
    order_.push_back(*entry);
    if (entry->object.reused && first_protected_ == order_.end())
      first_protected_ = order_.iterator_to(*entry);
  }
  for (const TagRow& row : contents.tags)
    tags_.insert_or_assign(tag_key(row.repository, row.tag),
                           Tag{row.digest, row.checked_unix_seconds});
  for (const MarkRow& row : contents.marks) {
    Partial& partial = partials_[row.digest];
    if (partial.marks.empty()) partial.number = row.number;
    if (partial.number == row.number) partial.marks.push_back({row.extent, row.content});
  }
  for (const PinRow& row : contents.pins) {
    auto& needs = pins_[{row.repository, row.reference}];
    if (!row.digest) continue;
    needs.push_back(*row.digest);
    ++pinned_[*row.digest];
  }
}

const Catalog::Object* Catalog::find(const Digest& digest) const {
  const auto it = objects_.find(digest);
  return it == objects_.end() ? nullptr : &it->second.object;
}

void Catalog::add(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes, bool verified,
                  std::int64_t now_unix_seconds) {
  const auto [it, inserted] = objects_.try_emplace(digest);
  Entry& entry = it->second;
  if (inserted) {
    entry.digest = &it->first;
    order_.insert(first_protected_, entry);
    entry.object = {.kind = kind,
                    .size_bytes = size_bytes,
                    .used_order = ++last_order_,
                    .used_unix_seconds = now_unix_seconds,
                    .reused = false,
                    .pulled_unix_seconds = now_unix_seconds,
                    .verified_unix_seconds = 0,
                    .verified = false};
  } else {
    count(entry.object, false);
    entry.object.kind = kind;
    entry.object.size_bytes = size_bytes;
  }
  entry.object.verified_unix_seconds = verified ? now_unix_seconds : 0;
  entry.object.verified = verified;
  count(entry.object, true);
  if (!inserted) use(entry, now_unix_seconds);
  note(entry);
}

void Catalog::add_found(const Digest& digest, ObjectKind kind, std::uint64_t size_bytes) {
  const auto [it, inserted] = objects_.try_emplace(digest);
  if (!inserted) return;
  Entry& entry = it->second;
  entry.digest = &it->first;
  entry.object = {.kind = kind,
                  .size_bytes = size_bytes,
                  .used_order = --first_order_,
                  .used_unix_seconds = 0,
                  .reused = false,
                  .pulled_unix_seconds = 0,
                  .verified_unix_seconds = 0,
                  .verified = false};
  order_.push_front(entry);
  count(entry.object, true);
  note(entry);
}

void Catalog::touch(const Digest& digest, std::int64_t now_unix_seconds) {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return;
  use(it->second, now_unix_seconds);
  note(it->second);
}

void Catalog::use(Entry& entry, std::int64_t now_unix_seconds) {
  Object& object = entry.object;
  const bool later = protection_.is_later_pull(object.pulled_unix_seconds, now_unix_seconds);
  if (later || now_unix_seconds < object.pulled_unix_seconds)
    object.pulled_unix_seconds = now_unix_seconds;
  object.used_unix_seconds = now_unix_seconds;
  object.used_order = ++last_order_;
  step_off(entry);
  if (object.reused) {
    order_.splice(order_.end(), order_, order_.iterator_to(entry));
    if (first_protected_ == order_.end()) first_protected_ = order_.iterator_to(entry);
  } else {
    order_.splice(first_protected_, order_, order_.iterator_to(entry));
    // One as large as the whole share would send all others back.
    if (later && cost_bytes(object.size_bytes) < most_protected_bytes_) protect(entry);
  }
}

void Catalog::step_off(Entry& entry) {
  if (order_.iterator_to(entry) == first_protected_) ++first_protected_;
}

void Catalog::protect(Entry& entry) {
  const auto position = order_.iterator_to(entry);
  order_.splice(order_.end(), order_, position);
  if (first_protected_ == order_.end()) first_protected_ = position;
  entry.object.reused = true;
  protected_bytes_ += cost_bytes(entry.object.size_bytes);
  while (protected_bytes_ > most_protected_bytes_ && first_protected_ != position) {
    // The least recently used protected object stands beside the most recently used of probation,
    // so it changes sides where it is; its order is from now, as a restart must find it there.
    Entry& back = *first_protected_++;
    back.object.reused = false;
    back.object.used_order = ++last_order_;
    protected_bytes_ -= cost_bytes(back.object.size_bytes);
    note(back);
  }
}

void Catalog::note(Entry& entry) {
  if (std::exchange(entry.noted, true)) return;
  noted_.push_back(*entry.digest);
}

void Catalog::set_verified(const Digest& digest, std::int64_t now_unix_seconds) {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return;
  it->second.object.verified = true;
  it->second.object.verified_unix_seconds = now_unix_seconds;
  note(it->second);
}

void Catalog::set_size(const Digest& digest, std::uint64_t size_bytes) {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return;
  Object& object = it->second.object;
  count(object, false);
  object.size_bytes = size_bytes;
  count(object, true);
  note(it->second);
}

void Catalog::drop(const Digest& digest) {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return;
  count(it->second.object, false);
  step_off(it->second);
  order_.erase(order_.iterator_to(it->second));
  objects_.erase(it);
  changes_.emplace_back(DropObject{digest});
  tell_gone(digest, false);
}

void Catalog::link(std::string_view repository, const Digest& digest,
                   std::int64_t checked_unix_seconds) {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return;
  const RepositoryId id = intern(repository);
  auto& links = it->second.links;
  const auto found = std::ranges::find(links, id, &Link::repository);
  if (found != links.end()) {
    found->checked_unix_seconds = checked_unix_seconds;
  } else if (links.size() < max_links_of_object) {
    links.push_back({id, checked_unix_seconds});
  } else {
    return;
  }
  changes_.emplace_back(LinkRow{std::string(repository), digest, checked_unix_seconds});
}

void Catalog::unlink(std::string_view repository, const Digest& digest) {
  const auto it = objects_.find(digest);
  const auto id = interned(repository);
  if (it == objects_.end() || !id) return;
  if (std::erase_if(it->second.links, [&](const Link& link) { return link.repository == *id; }) ==
      0)
    return;
  changes_.emplace_back(DropLink{std::string(repository), digest});
  tell_gone(digest, false);
}

std::optional<std::int64_t> Catalog::linked(std::string_view repository,
                                            const Digest& digest) const {
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return std::nullopt;
  const auto id = interned(repository);
  if (!id) return std::nullopt;
  const auto found = std::ranges::find(it->second.links, *id, &Link::repository);
  if (found == it->second.links.end()) return std::nullopt;
  return found->checked_unix_seconds;
}

std::vector<std::string> Catalog::repositories_of(const Digest& digest) const {
  std::vector<std::string> names;
  const auto it = objects_.find(digest);
  if (it == objects_.end()) return names;
  for (const Link& link : it->second.links) names.push_back(repositories_[link.repository]);
  return names;
}

void Catalog::put_tag(std::string_view repository, std::string_view tag, const Digest& digest,
                      std::int64_t checked_unix_seconds) {
  std::string key = tag_key(repository, tag);
  if (!tags_.contains(key) && tags_.size() >= max_tags) {
    const std::string oldest = tags_.begin()->first;
    const std::size_t end = oldest.find('\n');
    drop_tag(std::string_view(oldest).substr(0, end), std::string_view(oldest).substr(end + 1));
  }
  // Told also if the digest stays, since its age does not.
  if (const auto before = tags_.find(key); before != tags_.end())
    tell_gone(Digest(before->second.digest), true);
  tags_.insert_or_assign(std::move(key), Tag{digest, checked_unix_seconds});
  changes_.emplace_back(
      TagRow{std::string(repository), std::string(tag), digest, checked_unix_seconds});
}

std::optional<Catalog::Tag> Catalog::tag(std::string_view repository, std::string_view tag) const {
  const auto it = tags_.find(tag_key(repository, tag));
  if (it == tags_.end()) return std::nullopt;
  return it->second;
}

void Catalog::drop_tag(std::string_view repository, std::string_view tag) {
  const auto it = tags_.find(tag_key(repository, tag));
  if (it == tags_.end()) return;
  const Digest digest = it->second.digest;
  tags_.erase(it);
  tell_gone(digest, true);
  changes_.emplace_back(DropTag{std::string(repository), std::string(tag)});
}

std::vector<TagRow> Catalog::tags() const {
  std::vector<TagRow> rows;
  rows.reserve(tags_.size());
  for (const auto& [key, tag] : tags_) {
    const std::size_t end = key.find('\n');
    rows.push_back({key.substr(0, end), key.substr(end + 1), tag.digest, tag.checked_unix_seconds});
  }
  return rows;
}

void Catalog::mark(const Digest& digest, std::uint64_t number, Mark mark) {
  Partial& partial = partials_[digest];
  if (partial.number != number && !partial.marks.empty()) {
    partial.marks.clear();
    changes_.emplace_back(DropMarks{digest});
  }
  partial.number = number;
  partial.marks.push_back(mark);
  changes_.emplace_back(MarkRow{digest, number, mark.extent, mark.content});
}

const Catalog::Partial* Catalog::partial(const Digest& digest) const {
  const auto it = partials_.find(digest);
  return it == partials_.end() ? nullptr : &it->second;
}

void Catalog::keep_marks(const Digest& digest, std::vector<Mark> marks) {
  const auto it = partials_.find(digest);
  if (it == partials_.end() || it->second.marks.size() == marks.size()) return;
  if (marks.empty()) return drop_partial(digest);
  it->second.marks = std::move(marks);
  changes_.emplace_back(DropMarks{digest});
  for (const Mark& mark : it->second.marks)
    changes_.emplace_back(MarkRow{digest, it->second.number, mark.extent, mark.content});
}

std::uint64_t Catalog::Partial::first_end() const {
  return std::ranges::min(marks, {}, [](const Mark& mark) { return mark.extent.end; }).extent.end;
}

std::uint64_t Catalog::Partial::last_end() const {
  return std::ranges::max(marks, {}, [](const Mark& mark) { return mark.extent.end; }).extent.end;
}

void Catalog::drop_partial(const Digest& digest) {
  if (partials_.erase(digest) > 0) changes_.emplace_back(DropMarks{digest});
}

void Catalog::put_pin(const PinName& name, std::vector<Digest> needs) {
  std::ranges::sort(needs);
  needs.erase(std::ranges::unique(needs).begin(), needs.end());
  if (const auto it = pins_.find(name); it != pins_.end() && it->second == needs) return;
  forget_pin(name);
  changes_.emplace_back(PinRow{name.repository, name.reference, std::nullopt});
  for (const Digest& digest : needs) {
    ++pinned_[digest];
    changes_.emplace_back(PinRow{name.repository, name.reference, digest});
  }
  pins_[name] = std::move(needs);
}

bool Catalog::drop_pin(const PinName& name) {
  if (!pins_.contains(name)) return false;
  forget_pin(name);
  return true;
}

std::uint64_t Catalog::pinned_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [digest, pins] : pinned_)
    if (const Object* object = find(digest)) bytes += cost_bytes(object->size_bytes);
  return bytes;
}

void Catalog::forget_pin(const PinName& name) {
  const auto it = pins_.find(name);
  if (it == pins_.end()) return;
  for (const Digest& digest : it->second)
    if (--pinned_.at(digest) == 0) pinned_.erase(digest);
  pins_.erase(it);
  changes_.emplace_back(DropPin{name.repository, name.reference});
}

std::vector<Digest> Catalog::digests() const {
  std::vector<Digest> digests;
  digests.reserve(objects_.size());
  for (const Entry& entry : order_) digests.push_back(*entry.digest);
  return digests;
}

std::vector<Change> Catalog::take_changes(std::size_t most) {
  std::vector<Change> changes;
  const bool all = noted_.size() <= most;
  changes.reserve(std::min(noted_.size(), most) + (all ? changes_.size() : 0));
  // Drops come first: an object dropped and added again must end up there. Links follow objects, in
  // the order noted.
  std::vector<Change> others;
  for (Change& change : changes_) {
    if (std::holds_alternative<DropObject>(change)) {
      changes.push_back(std::move(change));
    } else {
      others.push_back(std::move(change));
    }
  }
  for (std::size_t i = 0; i < most && !noted_.empty(); ++i) {
    const auto it = objects_.find(noted_.back());
    noted_.pop_back();
    if (it == objects_.end() || !std::exchange(it->second.noted, false)) continue;
    changes.emplace_back(row(it->first, it->second.object));
  }
  changes_.clear();
  if (!all) {
    changes_ = std::move(others);
    return changes;
  }
  for (Change& change : others) {
    // A link noted before its object was dropped went with it.
    if (const auto* link = std::get_if<LinkRow>(&change);
        link && !linked(link->repository, link->digest))
      continue;
    changes.push_back(std::move(change));
  }
  return changes;
}

void Catalog::forget_changes() {
  for (const Digest& digest : noted_)
    if (const auto it = objects_.find(digest); it != objects_.end()) it->second.noted = false;
  noted_.clear();
  changes_.clear();
}

std::vector<Change> Catalog::everything() const {
  std::vector<Change> changes;
  add_objects(digests(), changes);
  add_others(changes);
  return changes;
}

void Catalog::add_objects(std::span<const Digest> digests, std::vector<Change>& changes) const {
  for (const Digest& digest : digests) {
    const auto it = objects_.find(digest);
    if (it == objects_.end()) continue;
    changes.emplace_back(row(digest, it->second.object));
    for (const Link& link : it->second.links)
      changes.emplace_back(
          LinkRow{repositories_[link.repository], digest, link.checked_unix_seconds});
  }
}

void Catalog::add_others(std::vector<Change>& changes) const {
  for (TagRow& tag : tags()) changes.emplace_back(std::move(tag));
  for (const auto& [digest, partial] : partials_)
    for (const Mark& mark : partial.marks)
      changes.emplace_back(MarkRow{digest, partial.number, mark.extent, mark.content});
  for (const auto& [name, needs] : pins_) {
    changes.emplace_back(PinRow{name.repository, name.reference, std::nullopt});
    for (const Digest& digest : needs)
      changes.emplace_back(PinRow{name.repository, name.reference, digest});
  }
}

Catalog::RepositoryId Catalog::intern(std::string_view repository) {
  if (const auto known = interned(repository)) return *known;
  const auto id = static_cast<RepositoryId>(repositories_.size());
  repositories_.emplace_back(repository);
  repository_ids_.emplace(repositories_.back(), id);
  return id;
}

std::optional<Catalog::RepositoryId> Catalog::interned(std::string_view repository) const {
  const auto it = repository_ids_.find(repository);
  if (it == repository_ids_.end()) return std::nullopt;
  return it->second;
}

ObjectRow Catalog::row(const Digest& digest, const Object& object) const {
  return {.digest = digest,
          .kind = object.kind,
          .size_bytes = object.size_bytes,
          .used_order = object.used_order,
          .used_unix_seconds = object.used_unix_seconds,
          .reused = object.reused,
          .verified_unix_seconds = object.verified_unix_seconds,
          .pulled_unix_seconds = object.pulled_unix_seconds};
}

void Catalog::count(const Object& object, bool added) {
  const std::uint64_t cost = cost_bytes(object.size_bytes);
  std::size_t& number = object.kind == ObjectKind::blob ? totals_.blobs : totals_.manifests;
  if (added) {
    totals_.bytes += cost;
    if (object.reused) protected_bytes_ += cost;
    ++number;
  } else {
    assert(totals_.bytes >= cost && number > 0);
    totals_.bytes -= cost;
    if (object.reused) protected_bytes_ -= cost;
    --number;
  }
}

std::string Catalog::tag_key(std::string_view repository, std::string_view tag) {
  std::string key;
  key.reserve(repository.size() + 1 + tag.size());
  key += repository;
  key += '\n';  // In neither grammar.
  key += tag;
  return key;
}

}  // namespace staithe::cache
