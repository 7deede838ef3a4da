#include "daemon/warming.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "cache/log.h"
#include "daemon/terminal.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

using namespace std::chrono_literals;

// Transfers at one time, of all warms together: enough that the next is asked for while one ends.
constexpr std::size_t most_blobs_at_once = 2;
// On a machine that never stops pulling a warm would never end: after so long without beginning
// one, one at a time is begun beside the clients' transfers.
constexpr auto longest_wait = 5s;
// How soon the end of a transfer is seen; and how often is told how far it is.
constexpr auto look_interval = 50ms;
constexpr auto line_interval = 500ms;
// Real images have at most a few hundred manifests, and an index names no indexes.
constexpr std::size_t most_manifests = 1'000;
constexpr int most_depth = 3;

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

json::value number_or_null(const std::optional<std::uint64_t>& number) {
  return number ? json::value(*number) : json::value(nullptr);
}

Failure stopping() { return {Errc::cancelled, "the daemon is stopping"}; }

}  // namespace

std::string full_name(const ImageName& image) {
  const std::string reference = image.reference.empty() ? "latest" : image.reference;
  return image.registry + "/" + image.repository +
         (reference.find(':') == std::string::npos ? ":" : "@") + reference;
}

// One blob of an image.
struct Warmer::Part {
  cache::Digest digest;
  std::optional<std::uint64_t> total;  // as the manifest says
  Image* image;
};

struct Warmer::Image {
  ImageName asked;
  std::string name;
  proxy::RegistryPtr registry = {};
  std::string repository = {};
  std::optional<cache::Digest> digest = {};
  std::string platforms = {};
  std::vector<Part> parts = {};
  std::uint64_t total = 0;  // of its blobs, as far as the manifests say
  std::uint64_t here = 0;   // of that, what is stored
  std::size_t left = 0;     // blobs
  bool fetched = false;     // something of it, now
  bool queued = false;      // its blobs are known, and counted in `left`
  std::string error = {};

  json::object describe(std::string_view state) const {
    return {{"kind", "image"},
            {"image", name},
            {"state", state},
            {"digest", digest ? json::value(digest->to_string()) : json::value(nullptr)},
            {"platforms", text_or_null(platforms)},
            {"blobs", parts.size()},
            {"bytes", here},
            {"total", total},
            {"error", text_or_null(error)}};
  }
  std::string_view end_state() const {
    return !error.empty() ? "failed" : fetched ? "done" : "cached";
  }
};

struct Warmer::Active {
  Part part;
  std::shared_ptr<cache::Blob> blob;
};

struct Warmer::Run {
  Order order;
  Tell tell;
  Instant began;
  Instant told;
  Instant begun;                  // the last blob that had to be fetched
  std::deque<Image> images = {};  // parts point to them
  std::deque<Part> waiting = {};
  std::list<Active> active = {};
  std::set<cache::Digest> fetched = {};
  std::size_t blobs = 0;
  std::uint64_t bytes_cached = 0;
  std::uint64_t bytes_fetched = 0;
  std::uint64_t total = 0;
  std::size_t waits_for = 0;  // clients' transfers
};

asio::awaitable<void> Warmer::run(Order order, Tell tell) {
  const Instant now = sources_.clock.now();
  Run run{
      .order = std::move(order), .tell = std::move(tell), .began = now, .told = now, .begun = now};
  const struct Listed {
    std::list<Run*>& runs;
    std::list<Run*>::iterator at;
    ~Listed() { runs.erase(at); }
  } listed{runs_, runs_.insert(runs_.end(), &run)};
  for (const ImageName& asked : run.order.images)
    run.images.push_back({.asked = asked, .name = full_name(asked)});
  // All are looked up before the first byte of a blob is fetched: what is wrong with a list shows
  // at once.
  for (Image& image : run.images) {
    co_await look_up(run, image);
    co_await run.tell(image.describe(image.error.empty() ? "fetching" : "failed"));
  }
  for (const Image* image : refuse_what_has_no_room(run))
    co_await run.tell(image->describe("failed"));
  for (const Image* image : queue_parts(run)) co_await run.tell(image->describe("cached"));
  co_await transfer(run);

  json::array errors;
  for (const Image& image : run.images) {
    if (!image.error.empty())
      errors.push_back(json::object{{"image", image.name}, {"error", image.error}});
  }
  const std::size_t failed = errors.size();
  const double seconds = std::chrono::duration<double>(sources_.clock.now() - run.began).count();
  log::info("images warmed", {{"asker", run.order.asker},
                              {"images", run.images.size()},
                              {"failed", failed},
                              {"bytes_fetched", run.bytes_fetched}});
  co_await run.tell(json::object{{"kind", "sum"},
                                 {"done", true},
                                 {"images", run.images.size()},
                                 {"failed", failed},
                                 {"blobs", run.blobs},
                                 {"bytes_cached", run.bytes_cached},
                                 {"bytes_fetched", run.bytes_fetched},
                                 {"seconds", seconds},
                                 {"errors", std::move(errors)}});
}

asio::awaitable<void> Warmer::look_up(Run& run, Image& image) {
  if (stopping_) throw stopping();
  try {
    image.registry = sources_.registries.find(image.asked.registry);
    image.repository = image.registry->canonical(image.asked.repository);
    co_await walk(run, image);
  } catch (const Failure& failure) {
    image.error = failure.error().detail;
    image.parts.clear();
  }
}

struct Warmer::Manifest {
  cache::Digest digest;
  int depth;
};

asio::awaitable<void> Warmer::walk(Run& run, Image& image) {
  proxy::Manifests& manifests = sources_.proxy.manifests();
  auto reference = value_or_throw(
      proxy::Reference::parse(image.asked.reference.empty() ? "latest" : image.asked.reference));
  cache::ManifestPtr manifest =
      co_await manifests.find(image.registry, image.repository, std::move(reference));
  image.digest = manifest->digest;
  std::set<cache::Digest> seen{manifest->digest};
  std::deque<Manifest> to_read;
  for (int depth = 0;;) {
    const auto entries = index_entries(manifest->bytes);
    const auto taken = chosen(entries, run.order.platform);
    if (!entries.empty() && taken.empty())
      throw Failure(Errc::manifest_unknown,
                    image.name + " has nothing for " + run.order.platform.to_string() +
                        "; it is there "
                        "for " +
                        platforms_of(entries) + ": choose one of these with --platform");
    if (const std::string names = platforms_of(taken); !names.empty())
      image.platforms += (image.platforms.empty() ? "" : ", ") + names;
    for (const IndexEntry& entry : taken)
      if (seen.insert(entry.digest).second) to_read.push_back({entry.digest, depth + 1});
    take_blobs(image, *manifest, seen);
    if (to_read.empty()) break;
    if (to_read.front().depth > most_depth || seen.size() > cache::most_image_parts ||
        to_read.size() > most_manifests)
      throw Failure(Errc::too_large, image.name + " is no image: its manifests name more than " +
                                         std::to_string(most_manifests) + " others, or each other");
    if (stopping_) throw stopping();
    // An index may have hundreds, and silence would end the connection.
    if (sources_.clock.now() - run.told >= line_interval) {
      run.told = sources_.clock.now();
      co_await run.tell(image.describe("fetching"));
    }
    depth = to_read.front().depth;
    auto child = value_or_throw(proxy::Reference::parse(to_read.front().digest.to_string()));
    to_read.pop_front();
    manifest = co_await manifests.find(image.registry, image.repository, std::move(child));
  }
}

void Warmer::take_blobs(Image& image, const cache::Manifest& manifest,
                        std::set<cache::Digest>& seen) {
  const cache::References references = cache::references_of(manifest.bytes);
  if (references.cut)
    throw Failure(Errc::too_large, image.name + " names more than " +
                                       std::to_string(cache::most_references) +
                                       " parts, which no client pulls");
  for (const cache::Descriptor& blob : references.blobs) {
    if (!seen.insert(blob.digest).second) continue;
    image.parts.push_back({.digest = blob.digest, .total = blob.size_bytes, .image = &image});
    image.total += blob.size_bytes.value_or(0);
  }
}

// In the order of the list, so that the first ones are warm where not all have room beside each
// other: else they would push each other out.
std::vector<const Warmer::Image*> Warmer::refuse_what_has_no_room(Run& run) const {
  std::vector<const Image*> refused;
  const cache::Store::Stats stats = sources_.store.stats();
  std::uint64_t room = stats.max_bytes - std::min(stats.max_bytes, stats.pinned_bytes);
  std::set<cache::Digest> counted;
  for (Image& image : run.images) {
    if (!image.error.empty()) continue;
    std::uint64_t needs = 0;
    for (const Part& part : image.parts)
      if (!counted.contains(part.digest) && !sources_.store.pinned(part.digest))
        needs += part.total.value_or(0);
    if (needs > room) {
      image.error = image.name + " takes " + show_bytes(static_cast<double>(needs)) +
                    " more, and beside what is pinned and what stands before it in the list the "
                    "cache has room for " +
                    show_bytes(static_cast<double>(room)) + ": raise cache.max_size, or warm less";
      refused.push_back(&image);
      continue;
    }
    const bool all_here = std::ranges::all_of(
        image.parts, [&](const Part& part) { return sources_.store.object(part.digest); });
    if (!all_here && stats.mode != cache::Store::Mode::read_write) {
      image.error = "the cache does not store at present: " + stats.mode_reason;
      refused.push_back(&image);
      continue;
    }
    room -= needs;
    for (const Part& part : image.parts) counted.insert(part.digest);
  }
  return refused;
}

// Gives those that have no blobs, and so are here.
std::vector<const Warmer::Image*> Warmer::queue_parts(Run& run) {
  std::vector<const Image*> without;
  for (Image& image : run.images) {
    if (!image.error.empty()) continue;
    image.left = image.parts.size();
    image.queued = true;
    run.total += image.total;
    for (const Part& part : image.parts) run.waiting.push_back(part);
    if (image.parts.empty()) without.push_back(&image);
  }
  return without;
}

asio::awaitable<void> Warmer::transfer(Run& run) {
  while (!run.waiting.empty() || !run.active.empty()) {
    if (stopping_) throw stopping();
    run.waits_for = client_fills();
    // What is stored needs no transfer, only the proof that it may be had from here.
    const bool next_is_here =
        !run.waiting.empty() && sources_.store.object(run.waiting.front().digest);
    const bool waited = sources_.clock.now() - run.begun >= longest_wait;
    const bool may_begin =
        run.waits_for == 0 ? started_.size() < most_blobs_at_once : waited && started_.empty();
    if (!run.waiting.empty() && (next_is_here || may_begin)) {
      if (!next_is_here) run.begun = sources_.clock.now();
      co_await begin(run);
      continue;
    }
    if (co_await end_finished(run)) continue;
    co_await tell_progress(run);
    co_await sources_.clock.sleep_for(look_interval);
  }
}

asio::awaitable<void> Warmer::begin(Run& run) {
  Part part = run.waiting.front();
  run.waiting.pop_front();
  Image& image = *part.image;
  if (!image.error.empty()) {  // It is not warm whatever comes, and upstream may be gone.
    if (--image.left == 0) co_await run.tell(image.describe("failed"));
    co_return;
  }
  ++run.blobs;
  std::shared_ptr<cache::Blob> blob;
  std::string error;
  const bool was_here = sources_.store.object(part.digest) != nullptr;
  if (!was_here) started_.insert(part.digest);
  try {
    blob = co_await sources_.proxy.blobs().want(image.registry, image.repository, part.digest);
  } catch (const Failure& failure) {
    error = failure.error().detail;
  }
  if (blob && sources_.fills.under_way(part.digest)) {
    started_.insert(part.digest);
    run.active.push_back({.part = part, .blob = std::move(blob)});
    co_return;
  }
  started_.erase(part.digest);
  if (error.empty() && blob && !sources_.store.object(part.digest))
    error = "blob " + part.digest.to_string() + " of " + image.name +
            " could not be stored: staithe status says how the cache is";
  const bool failed = !error.empty();
  co_await end(run, part, failed ? "failed" : was_here ? "cached" : "done", std::move(error));
}

// True if one of them has ended.
asio::awaitable<bool> Warmer::end_finished(Run& run) {
  const auto finished = std::ranges::find_if(run.active, [&](const Active& active) {
    return !sources_.fills.under_way(active.part.digest);
  });
  if (finished == run.active.end()) co_return false;
  Active active = std::move(*finished);
  run.active.erase(finished);
  started_.erase(active.part.digest);
  std::string error;
  if (!sources_.store.object(active.part.digest)) {
    error = "blob " + active.part.digest.to_string() + " of " + active.part.image->name;
    error += active.blob->error() ? ": " + active.blob->error()->detail
                                  : std::string(
                                        " could not be stored: staithe status says how "
                                        "the cache is");
  }
  const bool failed = !error.empty();
  co_await end(run, active.part, failed ? "failed" : "done", std::move(error));
  co_return true;
}

asio::awaitable<void> Warmer::tell_progress(Run& run) {
  if (sources_.clock.now() - run.told < line_interval) co_return;
  run.told = sources_.clock.now();
  if (run.active.empty()) {
    co_await run.tell(json::object{{"kind", "waiting"}, {"client_fills", run.waits_for}});
    co_return;
  }
  std::map<cache::Digest, proxy::Fills::Progress> under_way;
  for (auto& fill : sources_.fills.progress()) under_way.emplace(fill.digest, std::move(fill));
  std::vector<json::object> lines;  // first, since what is told about may end meanwhile
  for (const Active& active : run.active) {
    const auto it = under_way.find(active.part.digest);
    if (it == under_way.end()) continue;
    const proxy::Fills::Progress& fill = it->second;
    lines.push_back(json::object{
        {"kind", "blob"},
        {"image", active.part.image->name},
        {"digest", active.part.digest.to_string()},
        {"state", "fetching"},
        {"bytes", fill.bytes},
        {"total", number_or_null(fill.total ? fill.total : active.part.total)},
        {"bytes_per_second",
         fill.bytes_per_second > 0 ? json::value(fill.bytes_per_second) : json::value(nullptr)},
        {"error", nullptr}});
  }
  for (json::object& line : lines) co_await run.tell(std::move(line));
}

asio::awaitable<void> Warmer::end(Run& run, Part& part, std::string state, std::string error) {
  Image& image = *part.image;
  // The same transfer may have been for two images.
  if (state == "done" && !run.fetched.insert(part.digest).second) state = "cached";
  const cache::Catalog::Object* object = sources_.store.object(part.digest);
  const std::uint64_t bytes = object ? object->size_bytes : 0;
  if (error.empty()) {
    image.here += bytes;
    if (state == "cached") {
      run.bytes_cached += bytes;
    } else {
      run.bytes_fetched += bytes;
      image.fetched = true;
    }
  } else if (image.error.empty()) {
    image.error = error;
  }
  --image.left;
  co_await run.tell(
      json::object{{"kind", "blob"},
                   {"image", image.name},
                   {"digest", part.digest.to_string()},
                   {"state", state},
                   {"bytes", bytes},
                   {"total", number_or_null(object ? std::optional(bytes) : part.total)},
                   {"bytes_per_second", nullptr},
                   {"error", text_or_null(error)}});
  if (image.left == 0) co_await run.tell(image.describe(image.end_state()));
}

// Those that no warm has begun, or that a client reads too.
std::size_t Warmer::client_fills() {
  std::erase_if(started_,
                [&](const cache::Digest& digest) { return !sources_.fills.under_way(digest); });
  return static_cast<std::size_t>(
      std::ranges::count_if(sources_.fills.progress(), [&](const proxy::Fills::Progress& fill) {
        return fill.readers > 0 || !started_.contains(fill.digest);
      }));
}

json::array Warmer::running() const {
  json::array all;
  for (const Run* run : runs_) {
    std::uint64_t bytes = run->bytes_cached + run->bytes_fetched;
    for (const auto& fill : sources_.fills.progress())
      for (const Active& active : run->active)
        if (active.part.digest == fill.digest) bytes += fill.bytes;
    const auto left = std::ranges::count_if(run->images, [](const Image& image) {
      return image.error.empty() && (image.left > 0 || !image.queued);
    });
    all.push_back(json::object{{"asker", run->order.asker},
                               {"platform", run->order.platform.to_string()},
                               {"images", run->images.size()},
                               {"images_left", left},
                               {"blobs_left", run->waiting.size() + run->active.size()},
                               {"bytes", bytes},
                               {"total", run->total},
                               {"waits_for_client_fills", run->waits_for}});
  }
  return all;
}

}  // namespace staithe::daemon
