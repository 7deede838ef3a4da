// The user's own logins in one file, sealed with systemd-creds where this machine has a working
// one.
//
//   <directory>/docker-logins        {"version":1,"logins":{"https://ghcr.io":{...}}}, or what
//                                    systemd-creds made of it
//   <directory>/docker-logins.new    being written; of no meaning
//   <directory>/docker-logins.lock   held while the file is replaced
//   <directory>/docker-logins.damaged-N   what could not be read, set aside
//
// The directory is 0700, the files are 0600, all of them the user's own; a link or another owner is
// refused. A reader sees the old file or the new one, writers wait for each other.
#pragma once

#include <filesystem>
#include <map>
#include <ostream>
#include <string>
#include <string_view>

#include "daemon/login_store.h"

namespace staithe::daemon {

// systemd-creds of this machine. With the host's key, not the TPM's: a firmware update changes what
// the TPM seals to, and the user would have to log in everywhere again.
class Sealer {
 public:
  // `program` may be empty: then nothing works.
  Sealer(std::filesystem::path program, bool for_system)
      : program_(std::move(program)), for_system_(for_system) {}

  // Empty if this machine cannot seal, or could not open what it has sealed.
  std::string seal(std::string_view text) const;
  Result<std::string> open(std::string_view sealed) const;
  // True if sealing and opening work now, so that what cannot be opened is at fault itself.
  bool works() const;

 private:
  Result<std::string> run(std::string_view verb, std::string_view input) const;

  std::filesystem::path program_;
  bool for_system_;
};

class DockerStore final : public LoginStore {
 public:
  DockerStore(std::filesystem::path directory, Sealer sealer, std::ostream& notes)
      : directory_(std::move(directory)), sealer_(std::move(sealer)), notes_(notes) {}

  Result<std::optional<Login>> get(const Server& server) override;
  Result<void> put(const Server& server, const Login& login) override;
  Result<void> erase(const Server& server) override;
  Result<std::vector<std::pair<std::string, std::string>>> list() override;

 private:
  using Logins = std::map<std::string, Login, std::less<>>;

  // Without the lock. A damaged file is Errc::upstream_nonsense, any other trouble something else.
  Result<Logins> load(int directory) const;
  // For readers: sets a damaged file aside and says so as an error. No directory is no login.
  Result<Logins> load_to_read();
  // For writers, who hold the lock: sets a damaged file aside, notes it and begins anew.
  Result<Logins> load_to_change(int directory);
  Result<void> save(int directory, const Logins& logins) const;
  // Renames the file to the first free .damaged-N; returns the sentence that says so.
  Result<std::string> set_aside(int directory, const std::string& why) const;
  std::string where(std::string_view name) const;

  std::filesystem::path directory_;
  Sealer sealer_;
  std::ostream& notes_;
};

// The name under which a server's login is kept and listed.
std::string login_key(const ServerUrl& url);

}  // namespace staithe::daemon
