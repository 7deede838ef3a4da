// The store's pins: images that stay.
//
// Their names are what an operator wants, which no file of the cache tells again, so they stand in
// a file of their own beside the index: a line "registry/repository reference digest" for each,
// where the digest is "-" while it is not known, and the digest of all that as its last line. That
// file says which pins there are; the index holds what they need, and where it was lost, a walk
// over the manifests finds that out again.
//
// What a pin needs is a set of digests in the catalog, and an eviction asks only that. The set
// grows at once when a manifest in it arrives, from the bytes at hand; it shrinks only when a walk
// over the image has shown what is needed by now. So there is no moment at which something needed
// is not in it.
#include <algorithm>
#include <ranges>
#include <utility>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

// More than a person, or a job that pins what a node runs, has use for.
constexpr std::size_t most_pins = 1'000;
// Walks of one image while it is being pulled; then the next manifest that comes starts another.
constexpr int most_walks = 8;
constexpr std::size_t most_pin_file_bytes = 1024 * 1024;

std::string shown(const Catalog::PinName& name) {
  return name.repository + (name.reference.find(':') == std::string::npos ? ":" : "@") +
         name.reference;
}

std::string last_line(std::string_view lines) {
  return digest_of(Algorithm::sha256, lines).to_string() + "\n";
}

struct PinLine {
  Catalog::PinName name;
  std::optional<Digest> followed;
};

// The lines that make sense. `whole` if they are all that was written.
std::vector<PinLine> parse_pins(std::string_view text, bool& whole) {
  const std::size_t last = text.substr(0, text.empty() ? 0 : text.size() - 1).rfind('\n') + 1;
  whole = text.substr(last) == last_line(text.substr(0, last));
  if (whole) text = text.substr(0, last);
  std::vector<PinLine> lines;
  for (const auto part : std::views::split(text, '\n')) {
    const std::string_view line(part.begin(), part.end());
    if (line.empty()) continue;
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first == line.npos ? first : first + 1);
    if (second == line.npos || lines.size() == most_pins) continue;
    if (!std::ranges::all_of(line, [](char c) { return c >= ' ' && c <= '~'; })) continue;
    const std::string_view digest = line.substr(second + 1);
    const auto followed = Digest::parse(digest);
    PinLine pin{.name = {std::string(line.substr(0, first)),
                         std::string(line.substr(first + 1, second - first - 1))},
                .followed = followed ? std::optional(*followed) : std::nullopt};
    if ((!followed && digest != "-") || pin.name.reference.empty() ||
        pin.name.repository.find('/') == std::string::npos)
      continue;
    lines.push_back(std::move(pin));
  }
  return lines;
}

std::vector<Digest> digests_of(const Image& image) {
  std::vector<Digest> digests;
  for (const Image::Part& part : image.parts) digests.push_back(part.digest);
  return digests;
}

}  // namespace

std::optional<Digest> Store::root_of(const Catalog::PinName& name) const {
  if (name.reference.find(':') != std::string::npos) {  // In no tag.
    const auto digest = Digest::parse(name.reference);
    return digest ? std::optional(*digest) : std::nullopt;
  }
  if (const auto tag = catalog_.tag(name.repository, name.reference)) return tag->digest;
  const auto it = followed_.find(name);
  return it == followed_.end() ? std::nullopt : std::optional(it->second);
}

asio::awaitable<void> Store::load_pins() {
  std::string text;
  std::string fault;
  bool there = false;
  try {
    co_await offload(disk_pool_, [&] {
      const File file = disk_.open(layout_.pins());
      if (!file) return;
      text.resize(std::min<std::uint64_t>(disk_.size(file), most_pin_file_bytes));
      text.resize(disk_.read(file, text, 0));
      there = true;
    });
  } catch (const Failure& failure) {
    fault = failure.what();
  }
  bool whole = false;
  std::set<Catalog::PinName> named;
  for (PinLine& line : parse_pins(text, whole)) {
    if (line.followed) followed_.insert_or_assign(line.name, *line.followed);
    if (!catalog_.pins().contains(line.name)) {
      const auto root = root_of(line.name);
      catalog_.put_pin(line.name, root ? std::vector{*root} : std::vector<Digest>());
    }
    named.insert(std::move(line.name));
  }
  if (there && !whole)
    fault = layout_.pins().string() +
            " is damaged: look with staithe ls whether all pins are there and none is too "
            "many";
  if (!fault.empty()) report_("pins not read", fault);
  if (there && fault.empty()) {
    // An index that is older than the file still knows pins that were taken away.
    std::vector<Catalog::PinName> old;
    for (const auto& [name, needs] : catalog_.pins())
      if (!named.contains(name)) old.push_back(name);
    for (const Catalog::PinName& name : old) catalog_.drop_pin(name);
  }
  pins_known_ = catalog_.pins().empty();
}

asio::awaitable<void> Store::save_pins() {
  const auto turn = co_await pin_turns_.take();
  std::string text;
  for (const auto& [name, needs] : catalog_.pins()) {
    const auto root = root_of(name);
    text += name.repository + " " + name.reference + " " + (root ? root->to_string() : "-") + "\n";
  }
  text += last_line(text);
  co_await offload(disk_pool_, [&] {
    if (!in_place())
      throw Failure(Errc::storage_failed,
                    layout_.root().string() + " was removed or replaced while it was in use");
    disk_.remove(layout_.new_pins());  // Of a start that was killed here.
    try {
      const File file = disk_.create(layout_.new_pins());
      disk_.write(file, text, 0);
      disk_.sync(file);
      disk_.rename(layout_.new_pins(), layout_.pins());
    } catch (const Failure&) {
      remove_quietly(disk_, layout_.new_pins());
      throw;
    }
    disk_.sync_directory(layout_.root());
  });
}

asio::awaitable<Image> Store::pin(std::string repository, std::string reference) {
  const Catalog::PinName name{std::move(repository), std::move(reference)};
  const auto before = catalog_.pins().find(name);
  const bool was_pinned = before != catalog_.pins().end();
  const std::vector<Digest> needs = was_pinned ? before->second : std::vector<Digest>();
  if (!was_pinned) {
    if (catalog_.pins().size() >= most_pins)
      throw Failure(Errc::too_large, "there are " + std::to_string(most_pins) +
                                         " pins already: take one away with staithe unpin IMAGE");
    const auto root = root_of(name);
    catalog_.put_pin(name, root ? std::vector{*root} : std::vector<Digest>());
  }
  const auto undo = [&] {
    if (was_pinned) {
      catalog_.put_pin(name, needs);
    } else {
      followed_.erase(name);
      catalog_.drop_pin(name);
    }
  };
  std::exception_ptr failed;
  try {
    Image image = co_await follow_pin(name);
    if (image.cut)
      throw Failure(Errc::too_large, shown(name) + " has more than " +
                                         std::to_string(most_image_parts) +
                                         " parts, which is more than a pin may hold");
    co_await write_index_durably();
    co_await save_pins();
    co_return image;
  } catch (...) {
    failed = std::current_exception();
  }
  undo();
  co_await unsave_pins();
  std::rethrow_exception(failed);
}

asio::awaitable<bool> Store::unpin(std::string repository, std::string reference) {
  const Catalog::PinName name{std::move(repository), std::move(reference)};
  const auto pin = catalog_.pins().find(name);
  if (pin == catalog_.pins().end()) co_return false;
  const std::vector<Digest> needs = pin->second;
  catalog_.drop_pin(name);
  const auto followed = root_of(name);
  followed_.erase(name);
  std::exception_ptr failed;
  try {
    co_await write_index_durably();
    co_await save_pins();
    co_return true;
  } catch (...) {
    failed = std::current_exception();
  }
  catalog_.put_pin(name, needs);
  if (followed) followed_.insert_or_assign(name, *followed);
  follow_later(name);
  co_await unsave_pins();
  std::rethrow_exception(failed);
}

// After a change that was taken back: the file may have it already, and not be synced.
asio::awaitable<void> Store::unsave_pins() {
  try {
    co_await save_pins();
  } catch (const Failure&) {  // It has the old names still, or the next change writes it.
  }
}

asio::awaitable<Image> Store::follow_pin(Catalog::PinName name) {
  Image image;
  for (int walk = 0; walk < most_walks; ++walk) {
    const auto root = root_of(name);
    const std::uint64_t changes = pin_changes_;
    if (!root) co_return Image();
    image = co_await this->image(*root);
    if (changes != pin_changes_) continue;  // A manifest has come meanwhile, or the tag has moved.
    if (!catalog_.pins().contains(name)) co_return image;
    followed_.insert_or_assign(name, *root);
    // What cannot be read says nothing about what it needs.
    if (image.parts.front().stored || !image.media_type.empty()) {
      if (!image.cut) catalog_.put_pin(name, digests_of(image));
    }
    co_return image;
  }
  co_return image;
}

void Store::follow_later(const Catalog::PinName& name) {
  to_follow_.insert(name);
  if (!following_ && reconciled_) tasks_.spawn("pins", follow_pins());
}

asio::awaitable<void> Store::follow_all_pins() {
  for (const auto& [name, needs] : catalog_.pins()) to_follow_.insert(name);
  co_await follow_pins();
}

asio::awaitable<void> Store::follow_pins() {
  if (std::exchange(following_, true)) co_return;
  struct Following {
    explicit Following(bool& of) : flag(of) {}
    Following(const Following&) = delete;
    Following& operator=(const Following&) = delete;
    ~Following() { flag = false; }
    bool& flag;
  };
  const Following following(following_);
  bool moved = false;
  while (!to_follow_.empty()) {
    const Catalog::PinName name = *to_follow_.begin();
    to_follow_.erase(to_follow_.begin());
    const auto before = followed_.find(name);
    const auto old_root = before == followed_.end() ? std::nullopt : std::optional(before->second);
    const Image image = co_await follow_pin(name);
    const auto after = followed_.find(name);
    moved = moved || (after != followed_.end() && old_root != after->second);
    if (image.cut)
      report_("pin too large", shown(name) + " has more than " + std::to_string(most_image_parts) +
                                   " parts: the rest may be evicted; take the pin away with "
                                   "staithe unpin");
  }
  pins_known_ = true;
  if (!moved) co_return;
  std::string fault;
  try {
    co_await save_pins();
  } catch (const Failure& failure) {
    fault = failure.what();
  }
  if (!fault.empty())
    report_("pins not written",
            fault + "; should the index be lost too, pinned tags are kept from their next pull on");
}

void Store::note_tag(std::string_view repository, std::string_view tag, const Digest& digest) {
  if (catalog_.pins().empty()) return;
  const Catalog::PinName name{std::string(repository), std::string(tag)};
  const auto pin = catalog_.pins().find(name);
  if (pin == catalog_.pins().end()) return;
  if (const auto it = followed_.find(name); it != followed_.end() && it->second == digest) return;
  ++pin_changes_;
  std::vector<Digest> needs = pin->second;  // The old ones too, until it is known what the new are.
  needs.push_back(digest);
  catalog_.put_pin(name, std::move(needs));
  follow_later(name);
}

void Store::note_manifest(const Manifest& manifest) {
  if (!catalog_.pinned(manifest.digest)) return;
  const References references = references_of(manifest.bytes);
  std::vector<std::pair<Catalog::PinName, std::vector<Digest>>> grown;
  for (const auto& [name, needs] : catalog_.pins()) {
    if (!std::ranges::binary_search(needs, manifest.digest)) continue;
    std::vector<Digest> all = needs;
    for (const auto* list : {&references.manifests, &references.blobs})
      for (const Descriptor& descriptor : *list)
        if (all.size() < most_image_parts && !std::ranges::binary_search(needs, descriptor.digest))
          all.push_back(descriptor.digest);
    grown.emplace_back(name, std::move(all));
  }
  ++pin_changes_;
  for (auto& [name, needs] : grown) {
    catalog_.put_pin(name, std::move(needs));
    follow_later(name);
  }
}

std::string Store::pinned_note() const {
  const std::uint64_t bytes = catalog_.pinned_bytes();
  if (bytes == 0) return {};
  return " and of which pinned images take " + std::to_string(bytes) +
         " (staithe ls shows them, staithe unpin lets one go)";
}

}  // namespace staithe::cache
