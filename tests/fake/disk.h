// A disk that a test owns: the machine's, below one directory, with faults, gates and power loss.
//
//   TemporaryDirectory directory;
//   fake::Disk disk(directory.path() / "cache");
//   disk.fail(Call::sync, EIO);              the next sync fails
//   disk.fail_at(7, ENOSPC);                 the seventh call from now fails, whatever it is
//   auto gate = disk.hold(Call::rename);     the next rename waits at the gate
//   ... gate->reached() ... gate->open();
//   disk.lose_power_at(7);                   before the seventh changing call from now; or
//   lose_power()
//   ... close the store; every call fails meanwhile ...
//   disk.restore(Loss::everything, random);  what the machine finds when it is on again
//
// A power loss takes what was not synced: the bytes of a file (nothing, a part or NULs are left),
// its name (a created file is gone, a renamed one has its old name, a removed one is back), a new
// directory with all that is in it. Files that others write there (index.db, lock) stay as they
// are. Calls come from the threads of a pool, the rest from the test's.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/disk.h"
#include "cache/eviction.h"
#include "cache/random.h"

namespace staithe::fake {

// In memory where that is possible, since SQLite syncs for real; $TMPDIR says otherwise.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const bool in_memory = !std::getenv("TMPDIR") && std::filesystem::is_directory("/dev/shm");
    const std::filesystem::path base =
        in_memory ? "/dev/shm" : std::filesystem::temp_directory_path();
    std::string pattern = (base / "staithe_test.XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::ssize(bytes));
}

enum class Call {
  open,
  create,
  reopen,
  size,
  allocated,
  preallocate,
  write,
  read,
  sync,
  sync_directory,
  rename,
  remove,
  make_directory,
  list,
  space,
};

// What a loss of power takes of that which was not synced.
enum class Loss {
  nothing,     // kill -9: the kernel goes on
  everything,  // the oldest state there can be
  some,        // each by chance
};

// Where a call waits until the test has seen to something.
class DiskGate {
 public:
  bool reached() {
    const std::scoped_lock lock(mutex_);
    return reached_;
  }
  void open() {
    const std::scoped_lock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  friend class Disk;
  void pass(const std::function<void()>& at_gate) {
    std::unique_lock lock(mutex_);
    reached_ = true;
    at_gate();
    changed_.wait(lock, [this] { return open_; });
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  bool open_ = false;
};

class Disk final : public cache::Disk {
 public:
  // What is there already counts as synced.
  explicit Disk(std::filesystem::path root) : root_(std::move(root)) { adopt(); }

  // ---- faults, from the test's thread ----------------------------------------------------------

  // The next `times` calls of this kind fail.
  void fail(Call call, int error_number, int times = 1) {
    const std::scoped_lock lock(mutex_);
    failing_[call] = {error_number, times};
  }
  // All calls that change something fail, as on a file system that turned read-only.
  void turn_read_only() {
    for (const Call call : {Call::create, Call::write, Call::rename, Call::remove})
      fail(call, EROFS, std::numeric_limits<int>::max());
    fail(Call::make_directory, EROFS, std::numeric_limits<int>::max());
    const std::scoped_lock lock(mutex_);
    read_only_ = true;
  }
  void heal() {
    const std::scoped_lock lock(mutex_);
    failing_.clear();
    fail_at_.reset();
    read_only_ = false;
  }
  // The `k`-th call from now, from 1, fails; list() and allocated() are not counted, since a start
  // calls them for each of a thousand directories.
  void fail_at(std::uint64_t k, int error_number) {
    const std::scoped_lock lock(mutex_);
    fail_at_ = {countable_calls_ + k, error_number};
  }
  // False if it has not come to that call yet.
  bool failed() const {
    const std::scoped_lock lock(mutex_);
    return fail_at_ && countable_calls_ >= fail_at_->first;
  }
  // The next call of this kind, after `pass` more, waits; calls that come after it pass.
  std::shared_ptr<DiskGate> hold(Call call, int pass = 0) {
    const std::scoped_lock lock(mutex_);
    all_gates_.push_back(std::make_shared<DiskGate>());
    gates_[call] = {all_gates_.back(), pass};
    return all_gates_.back();
  }
  // Called when a call has come to a gate, to wake the test.
  void set_at_gate(std::function<void()> at_gate) { at_gate_ = std::move(at_gate); }
  // For the end of a test that failed.
  void open_gates() {
    const std::scoped_lock lock(mutex_);
    for (const auto& gate : all_gates_) gate->open();
    gates_.clear();
  }
  // Silently puts other bytes in the file, as a bad disk or a stranger does.
  void damage(const std::filesystem::path& path, std::string_view bytes) {
    const std::scoped_lock lock(mutex_);
    const NodePtr node = at(directory_of(path).now, path.filename());
    if (!node) throw std::runtime_error("no file " + path.string());
    write_file(path, bytes);
    node->bytes = bytes;
    node->size_bytes = bytes.size();
    count_live();
  }
  std::uint64_t calls(Call call) const {
    const std::scoped_lock lock(mutex_);
    const auto it = calls_of_.find(call);
    return it == calls_of_.end() ? 0 : it->second;
  }
  // What the cache's files and what is free make up together; others have the rest.
  void set_capacity(std::uint64_t bytes) {
    const std::scoped_lock lock(mutex_);
    capacity_bytes_ = bytes;
  }

  // No inodes beyond this many files, no blocks beyond this many bytes (a quota); neither shows in
  // what is said to be free.
  void limit_files(std::size_t files) {
    const std::scoped_lock lock(mutex_);
    max_files_ = files;
  }
  void limit_bytes(std::uint64_t bytes) {
    const std::scoped_lock lock(mutex_);
    max_bytes_ = bytes;
  }

  // What the files took at most, in whole blocks, since the last call of this.
  std::uint64_t take_peak_bytes() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(peak_bytes_, live_bytes_);
  }

  // ---- power -----------------------------------------------------------------------------------

  void lose_power() {
    const std::scoped_lock lock(mutex_);
    cut_power();
  }
  // Before the `k`-th call from now, from 1, that would change something.
  void lose_power_at(std::uint64_t k) {
    const std::scoped_lock lock(mutex_);
    lose_power_at_ = changes_ + k;
  }
  bool powerless() const {
    const std::scoped_lock lock(mutex_);
    return powerless_;
  }

  void restore(Loss loss, Random& random) {
    const std::scoped_lock lock(mutex_);
    if (!powerless_) cut_power();
    std::error_code ignored;  // Not made yet.
    for (const auto& entry : std::filesystem::directory_iterator(root_, ignored))
      if (entry.is_directory()) std::filesystem::remove_all(entry.path());
    const auto lost = [&] {
      return loss == Loss::everything || (loss == Loss::some && random.next() % 2 == 0);
    };
    for (auto& [path, directory] : directories_) {  // Parents come before what is in them.
      if (path == root_.parent_path()) continue;
      if (path != root_) {
        if (!std::filesystem::exists(path.parent_path())) continue;
        if (!directory.durable && lost()) continue;
        std::filesystem::create_directory(path);
        std::filesystem::permissions(path, std::filesystem::perms::owner_all);
      }
      std::set<std::string> names;
      for (const auto& [name, node] : directory.now) names.insert(name);
      for (const auto& [name, node] : directory.synced) names.insert(name);
      for (const std::string& name : names) {
        const NodePtr now = at(directory.now, name);
        const NodePtr synced = at(directory.synced, name);
        const NodePtr node = now != synced && lost() ? synced : now;
        if (!node) continue;
        write_file(path / name, node->synced ? node->bytes : torn(node->bytes, lost(), random));
      }
    }
    powerless_ = false;
    lose_power_at_.reset();
    adopt();
  }

  // ---- the disk --------------------------------------------------------------------------------

  cache::File open(const std::filesystem::path& path) override {
    const auto lock = enter(Call::open, path);
    return posix_.open(path);
  }
  cache::File create(const std::filesystem::path& path) override {
    const auto lock = enter(Call::create, path);
    if (files() >= max_files_) throw failure(ENOSPC, path);
    cache::File file = posix_.create(path);
    const auto node = std::make_shared<Node>();
    by_inode_[inode_of(file)] = node;
    directory_of(path).now[path.filename()] = node;
    return file;
  }
  cache::File reopen(const std::filesystem::path& path) override {
    const auto lock = enter(Call::reopen, path);
    return posix_.reopen(path);
  }
  std::uint64_t size(const cache::File& file) override {
    const auto lock = enter(Call::size, {});
    return posix_.size(file);
  }
  // Of files that others write there, and of directories, nothing is told.
  std::uint64_t allocated(const std::filesystem::path& path) override {
    const auto lock = enter(Call::allocated, path);
    if (path.parent_path() == root_ || !std::filesystem::is_regular_file(path)) return 0;
    return cache::cost_bytes(std::filesystem::file_size(path));
  }
  bool preallocate(const cache::File&, std::uint64_t) override {
    const auto lock = enter(Call::preallocate, {});
    return false;
  }
  void write(const cache::File& file, std::span<const char> bytes, std::uint64_t offset) override {
    const auto lock = enter(Call::write, {});
    Node& node = *by_inode_.at(inode_of(file));
    const std::uint64_t others = live_bytes_ - cache::cost_bytes(node.size_bytes);
    if (others + cache::cost_bytes(std::max(node.size_bytes, offset + bytes.size())) > max_bytes_)
      throw failure(EDQUOT, {});
    posix_.write(file, bytes, offset);
    node.synced = false;
    node.size_bytes = std::max(node.size_bytes, offset + bytes.size());
    count_live();
  }
  std::size_t read(const cache::File& file, std::span<char> bytes, std::uint64_t offset) override {
    const auto lock = enter(Call::read, {});
    return posix_.read(file, bytes, offset);
  }
  // What was hinted at; nothing comes of it.
  std::atomic<int> begun_to_sync = 0;
  std::atomic<std::uint64_t> let_go_bytes = 0;
  void begin_to_sync(const cache::File&) override { ++begun_to_sync; }
  void let_go(const cache::File&, std::uint64_t bytes) override { let_go_bytes = bytes; }

  void sync(const cache::File& file) override {
    const auto lock = enter(Call::sync, {});
    Node& node = *by_inode_.at(inode_of(file));
    node.bytes.resize(posix_.size(file));
    posix_.read(file, node.bytes, 0);
    node.synced = true;
  }
  void sync_directory(const std::filesystem::path& directory) override {
    const auto lock = enter(Call::sync_directory, directory);
    if (!std::filesystem::is_directory(directory)) throw failure(ENOENT, directory);
    Directory& synced = directories_[directory];
    synced.synced = synced.now;
    for (auto& [path, inner] : directories_)
      if (path.parent_path() == directory) inner.durable = true;
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    const auto lock = enter(Call::rename, to);
    posix_.rename(from, to);
    directory_of(to).now[to.filename()] = take(from);
    count_live();
  }
  bool remove(const std::filesystem::path& path) override {
    const auto lock = enter(Call::remove, path);
    const bool removed = posix_.remove(path);
    if (removed) take(path);
    count_live();
    return removed;
  }
  bool make_directory(const std::filesystem::path& path) override {
    // That it is there is seen before there is a need for space.
    if (std::filesystem::exists(std::filesystem::symlink_status(path))) return false;
    const auto lock = enter(Call::make_directory, path);
    const bool made = posix_.make_directory(path);
    if (made) directories_[path] = {};
    return made;
  }
  void list(const std::filesystem::path& directory,
            const std::function<void(const std::string&, std::uint64_t)>& visit) override {
    const auto lock = enter(Call::list, directory);
    posix_.list(directory, visit);
  }
  cache::Space space(const std::filesystem::path& path) override {
    const auto lock = enter(Call::space, path);
    return {.total_bytes = std::uint64_t{1} << 40,
            .free_bytes = capacity_bytes_ - std::min(capacity_bytes_, live_bytes_),
            .read_only = read_only_};
  }

 private:
  struct Node {
    std::string bytes;  // as last synced, or, once the power is off, as last written
    bool synced = false;
    std::uint64_t size_bytes = 0;
  };
  using NodePtr = std::shared_ptr<Node>;
  struct Directory {
    std::map<std::string, NodePtr> now;
    std::map<std::string, NodePtr> synced;
    bool durable = false;  // its own name is
  };

  std::unique_lock<std::mutex> enter(Call call, const std::filesystem::path& path) {
    std::unique_lock lock(mutex_);
    ++calls_of_[call];
    const bool counted = call != Call::list && call != Call::allocated;
    const std::uint64_t number = counted ? ++countable_calls_ : countable_calls_;
    if (const auto it = gates_.find(call); it != gates_.end() && it->second.pass-- == 0) {
      const std::shared_ptr<DiskGate> gate = it->second.gate;
      gates_.erase(it);
      lock.unlock();
      gate->pass(at_gate_);
      lock.lock();
    }
    const bool changing = call != Call::open && call != Call::size && call != Call::read &&
                          call != Call::list && call != Call::space && call != Call::reopen &&
                          call != Call::allocated;
    if (changing && lose_power_at_ && ++changes_ >= *lose_power_at_) cut_power();
    if (powerless_) throw failure(EIO, path);
    if (counted && fail_at_ && fail_at_->first == number) throw failure(fail_at_->second, path);
    if (const auto it = failing_.find(call); it != failing_.end() && it->second.times > 0) {
      --it->second.times;
      throw failure(it->second.error_number, path);
    }
    return lock;
  }

  static Failure failure(int error_number, const std::filesystem::path& path) {
    const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
    return {full ? Errc::storage_full : Errc::storage_failed,
            "played fault at " + path.string() + ": " + describe_errno(error_number)};
  }

  void cut_power() {
    if (powerless_) return;
    powerless_ = true;
    for (auto& [path, directory] : directories_)
      for (auto& [name, node] : directory.now)
        if (!node->synced) node->bytes = read_file(path / name);
  }

  // The bytes of a file that was not synced, after the loss.
  static std::string torn(std::string bytes, bool lost, Random& random) {
    if (!lost || bytes.empty()) return bytes;
    switch (random.next() % 3) {
      case 0:
        return {};
      case 1:
        return bytes.substr(0, random.next() % bytes.size());
      default: {
        const std::size_t from = random.next() % bytes.size();
        return bytes.replace(from, std::string::npos, bytes.size() - from, '\0');
      }
    }
  }

  static NodePtr at(const std::map<std::string, NodePtr>& names, const std::string& name) {
    const auto it = names.find(name);
    return it == names.end() ? nullptr : it->second;
  }
  Directory& directory_of(const std::filesystem::path& path) {
    return directories_[path.parent_path()];
  }
  // Takes the name out of its directory.
  NodePtr take(const std::filesystem::path& path) {
    auto& names = directory_of(path).now;
    const auto it = names.find(path.filename());
    if (it == names.end()) return nullptr;
    return names.extract(it).mapped();
  }
  std::size_t files() const {
    std::size_t count = 0;
    for (const auto& [path, directory] : directories_) count += directory.now.size();
    return count;
  }
  void count_live() {
    live_bytes_ = 0;
    for (const auto& [path, directory] : directories_)
      for (const auto& [name, node] : directory.now)
        if (node) live_bytes_ += cache::cost_bytes(node->size_bytes);
    peak_bytes_ = std::max(peak_bytes_, live_bytes_);
  }
  // Takes what stands below the root as it is; what stands directly in it is others'.
  void adopt() {
    directories_.clear();
    by_inode_.clear();
    std::error_code ignored;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root_, ignored)) {
      if (entry.is_directory()) {
        directories_[entry.path()].durable = true;
      } else if (entry.is_regular_file() && entry.path().parent_path() != root_) {
        const auto node = std::make_shared<Node>();
        node->bytes = read_file(entry.path());
        node->size_bytes = node->bytes.size();
        node->synced = true;
        Directory& directory = directory_of(entry.path());
        directory.now[entry.path().filename()] = node;
        directory.synced[entry.path().filename()] = node;
        by_inode_[inode_of(entry.path())] = node;
      }
    }
    peak_bytes_ = 0;
    count_live();
  }
  static std::uint64_t inode_of(const cache::File& file) {
    struct stat status{};
    ::fstat(file.fd(), &status);
    return status.st_ino;
  }
  static std::uint64_t inode_of(const std::filesystem::path& path) {
    struct stat status{};
    ::lstat(path.c_str(), &status);
    return status.st_ino;
  }

  struct Failing {
    int error_number = 0;
    int times = 0;
  };

  const std::filesystem::path root_;
  cache::PosixDisk posix_;
  mutable std::mutex mutex_;
  std::map<Call, Failing> failing_;
  std::optional<std::pair<std::uint64_t, int>> fail_at_;
  struct Waiting {
    std::shared_ptr<DiskGate> gate;
    int pass = 0;
  };
  std::map<Call, Waiting> gates_;  // closed, and nobody there yet
  std::vector<std::shared_ptr<DiskGate>> all_gates_;
  std::function<void()> at_gate_ = [] {};
  std::uint64_t countable_calls_ = 0;
  std::map<Call, std::uint64_t> calls_of_;
  std::uint64_t changes_ = 0;
  std::optional<std::uint64_t> lose_power_at_;
  bool powerless_ = false;
  bool read_only_ = false;
  std::size_t max_files_ = std::numeric_limits<std::size_t>::max();
  std::uint64_t max_bytes_ = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t capacity_bytes_ = std::uint64_t{1} << 40;

  std::map<std::filesystem::path, Directory> directories_;
  std::map<std::uint64_t, NodePtr> by_inode_;
  std::uint64_t live_bytes_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace staithe::fake
