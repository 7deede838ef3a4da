#include "proxy/answers.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace staithe::proxy {

namespace {

// Of an entry beside its texts: itself, the answer, three places in lists and maps.
constexpr std::uint64_t entry_bytes = 512;

std::string joined(std::string_view head, std::string_view body) {
  std::string text;
  text.reserve(head.size() + 2 + body.size());
  text.append(head).append("\r\n").append(body);
  return text;
}

}  // namespace

Answer::Answer(cache::Digest of, std::string_view head, std::string_view body)
    : digest(of), text(joined(head, body)), head_size(head.size()) {
  assert(head.ends_with("\r\n"));
}

std::string Answer::age_field(Instant now) const {
  if (!confirmed) return {};
  const auto age = std::chrono::floor<std::chrono::seconds>(now - *confirmed);
  return "Age: " + std::to_string(std::max<std::int64_t>(0, age.count())) + "\r\n";
}

std::uint64_t Answers::cost(const Entry& entry) {
  return entry_bytes + entry.target.size() + entry.answer->text.size();
}

Answers::Shard& Answers::shard_of(std::string_view target) const {
  return shards_[std::hash<std::string_view>()(target) % shards_.size()];
}

AnswerPtr Answers::find(std::string_view target, Instant now) const {
  const Shard& shard = shard_of(target);
  AnswerPtr answer;
  {
    const std::scoped_lock lock(shard.mutex);
    const auto it = shard.by_target.find(target);
    if (it == shard.by_target.end() || now >= it->second->answer->until) return nullptr;
    answer = it->second->answer;
  }
  // Read first: what is set already costs the others nothing.
  if (!answer->fresh.load(std::memory_order_relaxed))
    answer->fresh.store(true, std::memory_order_relaxed);
  if (!answer->used.load(std::memory_order_relaxed)) {
    answer->used.store(true, std::memory_order_relaxed);
    any_used_.store(true, std::memory_order_release);
  }
  return answer;
}

void Answers::put(std::string_view target, AnswerPtr answer, std::uint64_t as_of) {
  if (as_of != taken_back_) return;
  Shard& shard = shard_of(target);
  if (const auto it = shard.by_target.find(target); it != shard.by_target.end()) remove(it->second);
  Entry entry{std::string(target), std::move(answer)};
  const std::uint64_t bytes = cost(entry);
  if (entry.answer->body().size() > most_body_bytes || bytes > most_bytes_) return;
  make_room(bytes);
  bytes_ += bytes;
  order_.push_back(std::move(entry));
  const auto place = std::prev(order_.end());
  by_digest_.emplace(place->answer->digest, place);
  const std::scoped_lock lock(shard.mutex);
  shard.by_target.emplace(place->target, place);
}

// Second chance: who was found since the hand came by last goes to the back once more.
void Answers::make_room(std::uint64_t bytes) {
  while (bytes_ + bytes > most_bytes_) {
    assert(!order_.empty());
    const auto first = order_.begin();
    if (first->answer->fresh.exchange(false, std::memory_order_relaxed)) {
      order_.splice(order_.end(), order_, first);
    } else {
      remove(first);
    }
  }
}

void Answers::remove(Order::iterator entry) {
  Shard& shard = shard_of(entry->target);
  {
    const std::scoped_lock lock(shard.mutex);
    shard.by_target.erase(entry->target);
  }
  const auto [begin, end] = by_digest_.equal_range(entry->answer->digest);
  for (auto it = begin; it != end; ++it) {
    if (it->second != entry) continue;
    by_digest_.erase(it);
    break;
  }
  bytes_ -= cost(*entry);
  order_.erase(entry);
}

void Answers::erase(const cache::Digest& digest, bool by_tag_only) {
  ++taken_back_;
  const auto [begin, end] = by_digest_.equal_range(digest);
  std::vector<Order::iterator> gone;
  for (auto it = begin; it != end; ++it) {
    if (!by_tag_only || it->second->answer->confirmed) gone.push_back(it->second);
  }
  for (const auto entry : gone) remove(entry);
}

void Answers::clear() {
  ++taken_back_;
  while (!order_.empty()) remove(order_.begin());
}

void Answers::take_used(const std::function<void(const cache::Digest&)>& tell) {
  if (!any_used_.exchange(false, std::memory_order_acquire)) return;
  for (const Entry& entry : order_) {
    if (entry.answer->used.exchange(false, std::memory_order_relaxed)) tell(entry.answer->digest);
  }
}

}  // namespace staithe::proxy
