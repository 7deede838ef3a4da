// `staithe setup`, the doing half: writes what a plan says, and takes it back.
//
// What setup has done to a client's files is on record below /var/lib/staithe-setup/CLIENT/: which
// files, what each was (with a copy), what setup has made of it, which directories it made. Not in
// staithed's own state directory, whose owner is a user without rights: what root puts back into
// /etc must come from where only root writes.
//
// The record is on the disk before the first file changes, and every file changes by one rename,
// so each is its old or its new self at any moment. After an interruption apply() goes on from
// whatever is there, and undo() knows both. Blocking; one process at a time, by a lock.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/error.h"
#include "daemon/setup.h"
#include "daemon/setup_disk.h"

namespace staithe::daemon {

// "/var/lib/staithe-setup/containerd". podman and CRI-O read the same files, so they share one:
// what was done for one was done for both.
std::filesystem::path setup_directory(Client client);

// Writes all changes of a plan that has no refusals. An error names the file and the cause: a file
// is not what the plan saw, others have changed our lines in it since, the disk fails. After an
// error of the first two kinds nothing has changed.
Result<void> apply_setup(const SetupDisk& disk, const Plan& plan);

struct Undone {
  bool anything = false;                        // there was something to take back
  std::vector<std::filesystem::path> restored;  // as they were, or gone if they were not there
  std::vector<std::filesystem::path> merged;    // without our part, with what others changed since
  std::vector<std::filesystem::path> left;      // directories that others have put files into
  // With `force`: the file, and where its last text is kept.
  std::vector<std::pair<std::filesystem::path, std::filesystem::path>> replaced;
  std::vector<Restart> restarts;

  // A file in which others have changed the lines that are ours.
  struct Conflict {
    std::filesystem::path path;
    std::optional<std::string> ours;   // as setup has written it
    std::optional<std::string> found;  // as it is; none if it is gone
  };
  std::vector<Conflict> conflicts;  // if there are any, nothing was changed
};

// Gives every file back as it was before the first apply, with its mode and owner. A file in which
// others have changed other lines since keeps those. `force` takes back also where they have
// changed ours.
Result<Undone> undo_setup(const SetupDisk& disk, Client client, bool force);

// What is on record of a client, for those who only look: whether something is applied.
bool is_set_up(const SetupDisk& disk, Client client);

}  // namespace staithe::daemon
