#include "daemon/setup_apply.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <optional>

#include "cache/digest.h"
#include "cache/escape.h"
#include "daemon/unified_diff.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr const char* state_directory = "/var/lib/staithe-setup";
constexpr const char* record_file = "record.json";
constexpr int record_version = 1;
constexpr FileOwner private_file{.mode = 0600};

std::string sha256(std::string_view text) {
  return cache::digest_of(cache::Algorithm::sha256, text).hex();
}

// The copy of a text in the record's directory: its file's name, so that people find it, and what
// it is, so that no copy is ever overwritten by another.
std::string copy_name(const std::filesystem::path& path, std::string_view text) {
  return path.filename().native() + "." + sha256(text).substr(0, 16);
}

struct Entry {
  std::filesystem::path path;
  bool existed = false;
  FileOwner owner{};                   // as it was
  std::string before{};                // copy of what it was; empty if it did not exist
  std::string before_sha256{};         // of that copy
  std::vector<std::string> written{};  // copies of what setup made of it, the last one at the end
};

struct Record {
  std::vector<Entry> files;
  std::vector<std::filesystem::path> directories;  // made by setup, the outer ones first
  std::vector<Restart> restarts;                   // after undo
};

std::string text_of(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (!value || !value->is_string()) throw Failure(Errc::storage_failed, "a field is missing");
  return std::string(value->get_string());
}

template <class T>
T number_of(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  boost::system::error_code error;
  const T number = value ? value->to_number<T>(error) : T();
  if (!value || error) throw Failure(Errc::storage_failed, "a field is missing");
  return number;
}

const json::array& array_of(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (!value || !value->is_array()) throw Failure(Errc::storage_failed, "a field is missing");
  return value->get_array();
}

json::object to_json(const Record& record, Client client) {
  json::array files;
  for (const Entry& entry : record.files) {
    json::array written;
    for (const std::string& copy : entry.written) written.emplace_back(copy);
    files.push_back(json::object{{"path", entry.path.native()},
                                 {"existed", entry.existed},
                                 {"mode", entry.owner.mode},
                                 {"uid", entry.owner.uid},
                                 {"gid", entry.owner.gid},
                                 {"before", entry.before},
                                 {"before_sha256", entry.before_sha256},
                                 {"written", std::move(written)}});
  }
  json::array directories;
  for (const auto& directory : record.directories) directories.emplace_back(directory.native());
  json::array restarts;
  for (const Restart& restart : record.restarts)
    restarts.push_back(json::object{{"command", restart.command}, {"why", restart.why}});
  return {{"version", record_version},
          {"client", to_string(client)},
          {"files", std::move(files)},
          {"directories", std::move(directories)},
          {"restarts", std::move(restarts)}};
}

Record record_of(const json::value& value) {
  if (!value.is_object()) throw Failure(Errc::storage_failed, "it is not an object");
  const json::object& object = value.get_object();
  if (number_of<int>(object, "version") != record_version)
    throw Failure(Errc::storage_failed, "it was written by another version of staithe");
  Record record;
  for (const json::value& item : array_of(object, "files")) {
    const json::object& file = item.as_object();
    const json::value* existed = file.if_contains("existed");
    Entry entry{.path = text_of(file, "path"),
                .existed = existed && existed->is_bool() && existed->get_bool(),
                .owner = {number_of<mode_t>(file, "mode"), number_of<uid_t>(file, "uid"),
                          number_of<gid_t>(file, "gid")},
                .before = text_of(file, "before"),
                .before_sha256 = text_of(file, "before_sha256"),
                .written = {}};
    for (const json::value& copy : array_of(file, "written"))
      entry.written.emplace_back(copy.as_string());
    record.files.push_back(std::move(entry));
  }
  for (const json::value& directory : array_of(object, "directories"))
    record.directories.emplace_back(std::string(directory.as_string()));
  for (const json::value& restart : array_of(object, "restarts"))
    record.restarts.push_back(
        {text_of(restart.as_object(), "command"), text_of(restart.as_object(), "why")});
  return record;
}

// The directory of a client's record, held by this process alone.
class Books {
 public:
  // Without `make`, nothing is made, and there may be no directory to lock.
  Books(const SetupDisk& disk, Client client, bool make)
      : disk_(disk), client_(client), directory_(setup_directory(client)) {
    if (make) {
      for (const std::filesystem::path path : {"/var", "/var/lib"})
        if (!disk_.has_directory(path)) disk_.make_directory(path, 0755);
      disk_.make_directory(state_directory, 0700);
      disk_.make_directory(directory_, 0700);
    }
    const std::filesystem::path real = disk_.at(state_directory);
    lock_ = ::open(real.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (lock_ < 0) {
      if (errno == ENOENT && !make) return;
      throw Failure(Errc::storage_failed, printable(real.native(), 400) + " cannot be opened (" +
                                              describe_errno(errno) + "): run it as root");
    }
    if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      ::close(lock_);
      throw Failure(Errc::in_use, "another staithe setup is at work: wait for it to end");
    }
  }
  ~Books() {
    if (lock_ >= 0) ::close(lock_);
  }
  Books(const Books&) = delete;
  Books& operator=(const Books&) = delete;

  std::optional<Record> load() const {
    const auto state = disk_.read(directory_ / record_file);
    if (!state) return std::nullopt;
    boost::system::error_code error;
    const json::value value = json::parse(state->content, error);
    try {
      if (error) throw Failure(Errc::storage_failed, error.message());
      return record_of(value);
    } catch (const std::exception& why) {
      throw Failure(Errc::storage_failed,
                    (directory_ / record_file).native() + " cannot be used (" +
                        printable(why.what(), 200) +
                        "): the copies beside it are what the files were; put them back by hand "
                        "and remove the directory");
    }
  }

  void save(const Record& record) const {
    disk_.write(directory_ / record_file, json::serialize(to_json(record, client_)) + "\n",
                owner());
  }

  // A copy for later; returns its name.
  std::string keep(const std::filesystem::path& path, std::string_view text) const {
    std::string name = copy_name(path, text);
    const auto present = disk_.read(directory_ / name);
    if (!present || present->content != text) disk_.write(directory_ / name, text, owner());
    return name;
  }

  std::string kept(const std::string& name) const {
    auto state = disk_.read(directory_ / name);
    if (!state) {
      throw Failure(Errc::storage_failed,
                    (directory_ / name).native() + " is gone: it was the copy that undo puts back");
    }
    return std::move(state->content);
  }

  std::string before(const Entry& entry) const {
    if (!entry.existed) return {};
    std::string text = kept(entry.before);
    if (sha256(text) != entry.before_sha256) {
      throw Failure(Errc::storage_failed,
                    (directory_ / entry.before).native() +
                        " is not what setup has put there: it is not put back; see to " +
                        entry.path.native() + " by hand");
    }
    return text;
  }

  // The end of the record, but for copies that somebody was told of. The record goes first: what is
  // left without it is of no meaning.
  void close(const std::vector<std::string>& except) const {
    disk_.remove(directory_ / record_file);
    clear(except);
    disk_.remove_directory(directory_);
    disk_.remove_directory(state_directory);
  }

  // Copies that nothing refers to, and what an interrupted write has left.
  void clear(const std::vector<std::string>& except) const {
    for (const std::string& name : disk_.list(directory_)) {
      if (name != record_file && std::ranges::find(except, name) == except.end() &&
          !name.ends_with(".replaced")) {
        disk_.remove(directory_ / name);
      }
    }
  }

  const std::filesystem::path& directory() const { return directory_; }
  bool is_there() const { return lock_ >= 0 && disk_.has_directory(directory_); }

 private:
  static FileOwner owner() {
    return {.mode = private_file.mode, .uid = ::geteuid(), .gid = ::getegid()};
  }

  const SetupDisk& disk_;
  Client client_;
  std::filesystem::path directory_;
  int lock_ = -1;
};

// The copy of ours that this text is; null if it is none.
const std::string* written_as(const Entry& entry, std::string_view text) {
  const std::string name = copy_name(entry.path, text);
  const auto found = std::ranges::find(entry.written, name);
  return found == entry.written.end() ? nullptr : &*found;
}

// `text` without what setup has put into it; none if that cannot be told apart.
std::optional<std::string> without_ours(const Books& books, const Entry& entry,
                                        const std::string& text) {
  if (!entry.existed || entry.written.empty()) return std::nullopt;
  return without_change(books.before(entry), books.kept(entry.written.back()), text);
}

// Takes up into the record what the file is now, before setup changes it.
void begin_entry(const Books& books, Entry& entry, const std::optional<FileState>& now) {
  entry.existed = now.has_value();
  if (!now) {
    entry.owner = {.mode = 0644, .uid = ::geteuid(), .gid = ::getegid()};
    entry.before.clear();
    entry.before_sha256.clear();
    return;
  }
  entry.owner = now->owner;
  entry.before = books.keep(entry.path, now->content);
  entry.before_sha256 = sha256(now->content);
}

void note_missing_directories(const SetupDisk& disk, const std::filesystem::path& file,
                              Record& record) {
  std::vector<std::filesystem::path> missing;
  for (auto parent = file.parent_path(); !disk.has_directory(parent) && parent != "/";
       parent = parent.parent_path()) {
    missing.push_back(parent);
  }
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    if (std::ranges::find(record.directories, *it) == record.directories.end())
      record.directories.push_back(*it);
  }
}

void apply(const SetupDisk& disk, const Plan& plan) {
  const Books books(disk, plan.client, true);
  Record record = books.load().value_or(Record{});
  for (const Entry& entry : record.files) disk.remove_leftover(entry.path);
  std::vector<FileOwner> owners;
  for (const FileChange& change : plan.changes) {
    const auto now = disk.read(change.path);
    if (now.has_value() != change.before.has_value() || (now && now->content != *change.before)) {
      throw Failure(Errc::config, change.path.native() +
                                      " was changed while setup looked at it: run setup again");
    }
    auto entry = std::ranges::find(record.files, change.path, &Entry::path);
    if (entry == record.files.end()) {
      record.files.push_back({.path = change.path, .owner = {}});
      entry = record.files.end() - 1;
      begin_entry(books, *entry, now);
    } else if (!now) {
      // Somebody has removed it since; that is how it is without us.
      begin_entry(books, *entry, now);
    } else if (!written_as(*entry, now->content) &&
               !(entry->existed && books.before(*entry) == now->content)) {
      const auto rest = without_ours(books, *entry, now->content);
      if (!rest) {
        throw Failure(Errc::config,
                      change.path.native() +
                          " was changed since in the lines that setup has written, so undo could "
                          "not tell them apart any more: staithe setup " +
                          std::string(to_string(plan.client)) +
                          " --undo shows both; with --force it puts back what was there before");
      }
      begin_entry(books, *entry, FileState{*rest, now->owner});
    }
    owners.push_back(now ? now->owner : entry->owner);
    if (!now && change.mode) owners.back().mode = static_cast<mode_t>(*change.mode);
    entry->written.push_back(books.keep(change.path, change.after));
    note_missing_directories(disk, change.path, record);
  }
  for (const Restart& restart : plan.undo_restarts.empty() ? plan.restarts : plan.undo_restarts) {
    if (std::ranges::find(record.restarts, restart.command, &Restart::command) ==
        record.restarts.end()) {
      record.restarts.push_back(restart);
    }
  }
  books.save(record);
  for (const auto& directory : record.directories)
    if (!plan.changes.empty() && !disk.has_directory(directory))
      disk.make_directory(directory, 0755);
  for (std::size_t i = 0; i < plan.changes.size(); ++i)
    disk.write(plan.changes[i].path, plan.changes[i].after, owners[i]);
  // From here on only the last text is ours.
  std::vector<std::string> copies;
  for (Entry& entry : record.files) {
    if (std::ranges::find(plan.changes, entry.path, &FileChange::path) != plan.changes.end())
      entry.written.erase(entry.written.begin(), entry.written.end() - 1);
    copies.insert(copies.end(), entry.written.begin(), entry.written.end());
    if (entry.existed) copies.push_back(entry.before);
  }
  books.save(record);
  books.clear(copies);
}

// What undo does with one file.
struct Step {
  const Entry* entry;
  std::optional<FileState> now;
  std::optional<std::string> text;  // to be written; none: to be removed
  FileOwner owner;
  enum class Kind { nothing, restore, merge, replace } kind = Kind::nothing;
};

Step plan_step(const Books& books, const SetupDisk& disk, const Entry& entry) {
  Step step{.entry = &entry, .now = disk.read(entry.path), .text = {}, .owner = entry.owner};
  if (entry.existed) step.text = books.before(entry);
  if (!step.now) {
    if (entry.existed) step.kind = Step::Kind::replace;  // somebody has removed it since
    return step;
  }
  if (entry.existed && step.now->content == *step.text && step.now->owner == entry.owner)
    return step;
  if (written_as(entry, step.now->content) || (entry.existed && step.now->content == *step.text)) {
    step.kind = Step::Kind::restore;
    return step;
  }
  step.kind = Step::Kind::replace;
  if (auto rest = without_ours(books, entry, step.now->content)) {
    step.kind = Step::Kind::merge;
    step.text = std::move(rest);
    step.owner = step.now->owner;
  }
  return step;
}

Undone undo(const SetupDisk& disk, Client client, bool force) {
  Undone undone;
  const Books books(disk, client, false);
  if (!books.is_there()) {
    disk.remove_directory(state_directory);  // nothing, if there is none
    return undone;
  }
  const auto record = books.load();
  if (!record) {
    books.clear({});  // An interrupted apply has left copies, and has changed nothing.
    disk.remove_directory(books.directory());
    disk.remove_directory(state_directory);
    return undone;
  }
  std::vector<Step> steps;
  for (const Entry& entry : record->files) steps.push_back(plan_step(books, disk, entry));
  for (const Step& step : steps) {
    if (step.kind != Step::Kind::replace || force) continue;
    undone.conflicts.push_back({step.entry->path,
                                step.entry->written.empty()
                                    ? std::nullopt
                                    : std::optional(books.kept(step.entry->written.back())),
                                step.now ? std::optional(step.now->content) : std::nullopt});
  }
  if (!undone.conflicts.empty()) return undone;
  undone.anything = true;
  undone.restarts = record->restarts;
  for (const Step& step : steps) {
    const std::filesystem::path& path = step.entry->path;
    disk.remove_leftover(path);
    if (step.kind == Step::Kind::nothing) continue;
    if (step.kind == Step::Kind::replace && step.now) {
      const std::filesystem::path copy =
          books.directory() / (copy_name(path, step.now->content) + ".replaced");
      disk.write(copy, step.now->content,
                 {.mode = private_file.mode, .uid = ::geteuid(), .gid = ::getegid()});
      undone.replaced.emplace_back(path, copy);
    }
    if (step.text) {
      disk.write(path, *step.text, step.owner);
    } else {
      disk.remove(path);
    }
    (step.kind == Step::Kind::merge ? undone.merged : undone.restored).push_back(path);
  }
  for (auto it = record->directories.rbegin(); it != record->directories.rend(); ++it)
    if (!disk.remove_directory(*it)) undone.left.push_back(*it);
  books.close({});
  return undone;
}

}  // namespace

std::filesystem::path setup_directory(Client client) {
  const bool shared = client == Client::podman || client == Client::crio;
  return std::filesystem::path(state_directory) / (shared ? "containers" : to_string(client));
}

Result<void> apply_setup(const SetupDisk& disk, const Plan& plan) {
  try {
    // Without changes there may still be an interrupted apply to end.
    if (!plan.changes.empty() || is_set_up(disk, plan.client)) apply(disk, plan);
    return {};
  } catch (const Failure& failure) {
    return std::unexpected(failure.error());
  }
}

Result<Undone> undo_setup(const SetupDisk& disk, Client client, bool force) {
  try {
    return undo(disk, client, force);
  } catch (const Failure& failure) {
    return std::unexpected(failure.error());
  }
}

bool is_set_up(const SetupDisk& disk, Client client) {
  try {
    return disk.read(setup_directory(client) / record_file).has_value();
  } catch (const Failure&) {
    return false;
  }
}

}  // namespace staithe::daemon
