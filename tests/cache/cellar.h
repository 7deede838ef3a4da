// The store with a played disk and clock: what the tests of cache/ live in.
//
//   Cellar cellar({.bytes = 1 << 20});
//   const Digest digest = cellar.fill("the bytes");
//   EXPECT_EQ(cellar.read(digest), "the bytes");
//   cellar.restart();                              a clean stop, and a start
//   cellar.crash(Loss::everything);                a power loss, and a start
//
// The loop runs only inside these calls, and each waits for what it asked for, never for time. An
// operation that is to stand still somewhere is begun by start() and met at a gate of the disk.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <barrier>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cache/blob_writer.h"
#include "cache/store.h"
#include "tests/fake/clock.h"
#include "tests/fake/disk.h"

namespace staithe::cache {

using fake::Call;
using fake::Loss;

inline Digest digest_of(std::string_view bytes) { return digest_of(Algorithm::sha256, bytes); }

// What the environment says instead, to make a test larger or to replay a seed.
inline std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Bytes that differ by `seed`.
inline std::string noise(std::size_t size, std::uint64_t seed = 1) {
  SeededRandom random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random.next());
  return bytes;
}

inline ManifestPtr manifest_of(std::string bytes,
                               std::string media_type = "application/vnd.oci.image.index.v1+json") {
  const Digest digest = digest_of(bytes);
  return std::make_shared<const Manifest>(
      Manifest{.digest = digest, .media_type = std::move(media_type), .bytes = std::move(bytes)});
}

// All bytes of a blob, as a client gets them: from its start to its end, as they become readable.
// Throws what the blob failed with.
inline asio::awaitable<std::string> read_blob(std::shared_ptr<Blob> blob) {
  const Blob::Reading reading(*blob);
  std::string bytes;
  PosixDisk disk;
  while (!blob->whole() || bytes.size() < *blob->size_bytes()) {
    const std::uint64_t ready = co_await blob->wait_past(bytes.size());
    const std::size_t at = bytes.size();
    bytes.resize(ready);
    bytes.resize(at + disk.read(blob->file(), std::span(bytes).subspan(at), at));
    if (bytes.size() != ready) throw std::runtime_error("readable bytes are missing");
  }
  co_return bytes;
}

class Cellar {
 public:
  // Of a coroutine that runs while the test goes on.
  template <class T>
  class Running {
   public:
    bool done() const { return state_->done; }
    // Throws what it threw. Only once it is done.
    T get() {
      if (!state_->done) throw std::logic_error("still running");
      if (state_->error) std::rethrow_exception(state_->error);
      if constexpr (!std::is_void_v<T>) return std::move(*state_->value);
    }
    void cancel() { state_->signal.emit(asio::cancellation_type::terminal); }

   private:
    friend class Cellar;
    struct Nothing {};
    struct State {
      bool done = false;
      std::exception_ptr error;
      std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value;
      asio::cancellation_signal signal;
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
  };

  struct Unopened {};
  explicit Cellar(Size max_size = {.bytes = 1 << 30}) : Cellar(Unopened(), max_size) {
    make();
    open();
  }
  // Has no store yet: make() and open() it.
  explicit Cellar(Unopened, Size max_size = {.bytes = 1 << 30})
      : disk(root()), max_size_(max_size) {
    disk.set_at_gate([this] { asio::post(io, [] {}); });
  }
  ~Cellar() {
    disk.open_gates();
    if (store) close();
  }
  Cellar(const Cellar&) = delete;
  Cellar& operator=(const Cellar&) = delete;

  std::filesystem::path root() const { return directory_.path() / "cache"; }
  Layout layout() const { return Layout(root()); }

  // ---- its life --------------------------------------------------------------------------------

  void make() {
    store = std::make_unique<Store>(
        io.get_executor(),
        Settings{.directory = root(),
                 .max_size = max_size_,
                 .min_free = min_free,
                 .mark_every_bytes = mark_every_bytes,
                 .least_kept_bytes = least_kept_bytes,
                 .begin_to_sync_every_bytes = begin_to_sync_every_bytes,
                 .scrub_interval = scrub_interval},
        disk, clock, [this](std::string_view event, std::string_view sentence) {
          reports.push_back(std::string(event) + ": " + std::string(sentence));
        });
  }
  bool opened() const { return opened_; }
  // Returns when index and disk have been compared and all is quiet.
  void open() {
    run(store->open());
    opened_ = true;
    run_until([this] { return store->reconciled(); });
    settle();
  }
  void close() {
    run(store->close());
    store.reset();
    opened_ = false;
    io.restart();
    io.poll();  // What the pools have left for the loop.
  }
  void restart() {
    close();
    make();
    open();
  }
  // Partial blobs are kept however small they are. From the next make() on.
  void keep_small_partials() {
    mark_every_bytes = 8 * 1024;
    least_kept_bytes = 1;
  }
  // All at once, without a goodbye: a kill -9 or a loss of power, and the next start. Writers and
  // blobs are gone before.
  void crash(Loss loss, std::uint64_t seed = 1) {
    die(loss, seed);
    make();
    open();
  }
  // The same without the start.
  void die(Loss loss, std::uint64_t seed = 1) {
    disk.lose_power();
    if (opened_) run_until([this] { return clock.sleepers() == background_sleepers; });
    const auto index = save_index();
    close();
    restore_index(index);
    SeededRandom random(seed);
    disk.restore(loss, random);
  }

  // The files of the index as they are now. Nothing writes them at that moment.
  using IndexFiles = std::map<std::string, std::string>;
  IndexFiles save_index() const {
    IndexFiles files;
    for (const char* name : {"index.db", "index.db-wal"})
      if (std::filesystem::exists(root() / name)) files[name] = fake::read_file(root() / name);
    return files;
  }
  void restore_index(const IndexFiles& files) const {
    for (const char* name : {"index.db", "index.db-wal", "index.db-shm"})
      std::filesystem::remove_all(root() / name);
    for (const auto& [name, bytes] : files) fake::write_file(root() / name, bytes);
  }

  // ---- the loop --------------------------------------------------------------------------------

  template <class T>
  Running<T> start(asio::awaitable<T> work) {
    Running<T> running;
    auto state = running.state_;
    if constexpr (std::is_void_v<T>) {
      asio::co_spawn(io, std::move(work),
                     asio::bind_cancellation_slot(state->signal.slot(), [state](auto error) {
                       state->error = error;
                       state->done = true;
                     }));
    } else {
      asio::co_spawn(
          io, std::move(work),
          asio::bind_cancellation_slot(state->signal.slot(), [state](auto error, T value) {
            state->error = error;
            if (!error) state->value.emplace(std::move(value));
            state->done = true;
          }));
    }
    poll();
    return running;
  }
  template <class T>
  T wait(Running<T> running) {
    run_until([&] { return running.done(); });
    return running.get();
  }
  template <class T>
  T run(asio::awaitable<T> work) {
    return wait(start(std::move(work)));
  }
  // Runs until the condition holds; fails the test if nothing happens any more.
  void run_until(const std::function<bool()>& condition) {
    while (!condition()) {
      io.restart();
      if (io.run_one_for(std::chrono::seconds(20)) == 0)
        throw std::runtime_error("stuck: nothing happens any more");
    }
  }
  // Runs until a call has come to the gate.
  void meet(const std::shared_ptr<fake::DiskGate>& gate) {
    run_until([&] { return gate->reached(); });
  }
  void poll() {
    io.restart();
    io.poll();
  }
  // Runs until loop and disk pool have nothing to do. No gate may be closed.
  void settle() {
    for (;;) {
      io.restart();
      std::size_t ran = io.poll();
      // When every thread of the pool has come here, all that was before is done.
      const auto everybody = std::make_shared<std::barrier<>>(disk_threads + 1);
      for (int i = 0; i < disk_threads; ++i)
        asio::post(store->disk_pool(), [everybody] { everybody->arrive_and_wait(); });
      everybody->arrive_and_wait();
      io.restart();
      ran += io.poll();
      if (ran == 0) return;
    }
  }
  // Time passes; the index is written, and the bounds are looked at.
  void pass(std::chrono::nanoseconds duration) {
    clock.advance(duration);
    run_until([this] { return clock.sleepers() == background_sleepers; });
  }

  // ---- short words -----------------------------------------------------------------------------

  Digest fill(std::string_view bytes, bool known_size = true) {
    const Digest digest = digest_of(bytes);
    run(fill_with(digest, std::string(bytes), known_size));
    return digest;
  }
  // Nothing if it is not there; throws Failure if it breaks off.
  std::optional<std::string> read(const Digest& digest) {
    const auto blob = run(store->find(digest));
    if (!blob) return std::nullopt;
    return run(read_blob(blob));
  }
  std::unique_ptr<BlobWriter> begin(std::string_view bytes, bool known_size = true) {
    return run(
        store->begin(digest_of(bytes), known_size ? std::optional(bytes.size()) : std::nullopt));
  }
  void append(BlobWriter& writer, std::string_view bytes) { run(writer.append(bytes)); }
  ManifestPtr manifest(const Digest& digest) { return run(store->manifest(digest)); }
  Digest put_manifest(std::string bytes) {
    const auto manifest = manifest_of(std::move(bytes));
    store->put_manifest(manifest);
    settle();
    return manifest->digest;
  }
  std::filesystem::path path(const Digest& digest, ObjectKind kind = ObjectKind::blob) const {
    return layout().object(kind, digest);
  }
  bool on_disk(const Digest& digest, ObjectKind kind = ObjectKind::blob) const {
    return std::filesystem::exists(path(digest, kind));
  }
  // Whole blocks of all files in the directories of the store.
  std::uint64_t bytes_on_disk() const {
    std::uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root()))
      if (entry.is_regular_file() && entry.path().parent_path() != root())
        bytes += cost_bytes(entry.file_size());
    return bytes;
  }
  std::size_t files_in(const std::filesystem::path& directory) const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory))
      ++count;
    return count;
  }

 private:
  static constexpr int disk_threads = 4;
  static constexpr std::size_t background_sleepers = 3;  // the index, the bounds, the scrub

  asio::awaitable<void> fill_with(Digest digest, std::string bytes, bool known_size) {
    const bool resumes = known_size && store->resumable(digest);
    const auto writer = resumes
                            ? co_await store->resume(digest, bytes.size())
                            : co_await store->begin(
                                  digest, known_size ? std::optional(bytes.size()) : std::nullopt);
    co_await writer->recover();
    for (std::size_t at = writer->written_bytes(); at < bytes.size(); at += 64 * 1024)
      co_await writer->append(
          std::span(bytes).subspan(at).first(std::min<std::size_t>(64 * 1024, bytes.size() - at)));
    co_await writer->commit();
  }

  fake::TemporaryDirectory directory_;

 public:
  asio::io_context io;
  fake::ManualClock clock{io};
  fake::Disk disk;
  Size min_free{};
  std::uint64_t mark_every_bytes = Settings().mark_every_bytes;
  std::uint64_t least_kept_bytes = Settings().least_kept_bytes;
  std::uint64_t begin_to_sync_every_bytes = Settings().begin_to_sync_every_bytes;
  std::chrono::milliseconds scrub_interval{0};
  std::vector<std::string> reports;
  std::unique_ptr<Store> store;

 private:
  Size max_size_;
  bool opened_ = false;
};

// No file may grow for as long as this lives: what a full disk is to SQLite.
class NoGrowth {
 public:
  NoGrowth() : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    struct rlimit none = old_;
    none.rlim_cur = 0;
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  ~NoGrowth() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  struct rlimit old_{};
};

// The code of the Failure that `work` throws, or nothing.
template <class Work>
std::optional<Errc> failure_of(Work work) {
  try {
    work();
  } catch (const Failure& failure) {
    return failure.code();
  }
  return std::nullopt;
}

}  // namespace staithe::cache
