// `staithe setup`, the deciding half: what has to stand in which file so that a client of this
// machine pulls through staithed.
//
// Planners are pure: they see the machine through `Machine`, which only reads, and give back whole
// new texts of files; setup_apply.h writes them and takes them back. An edit changes or inserts
// what is ours and keeps every other byte. What cannot be edited safely is refused, with the text
// to write by hand. What depends on a client's version follows registry-clients.md, whose section a
// comment names.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/clock.h"
#include "cache/error.h"

namespace staithe::daemon {

// `tls` is none of them: `staithe setup --tls`, whose files are kept and taken back as theirs are.
enum class Client { containerd, docker, podman, crio, buildkit, k3s, rke2, kubelet, nomad, tls };
inline constexpr std::array all_clients{Client::containerd, Client::docker,   Client::podman,
                                        Client::crio,       Client::buildkit, Client::k3s,
                                        Client::rke2,       Client::kubelet,  Client::nomad};
// "containerd", as the command line has it; "cri-o" is crio.
std::string_view to_string(Client client);
std::optional<Client> parse_client(std::string_view name);

// A configuration file that is longer is none that setup edits.
inline constexpr std::size_t most_client_file_bytes = 1 << 20;

// What a planner may see of the machine. Paths are absolute and below the machine's root, wherever
// that is for us. Nothing here changes anything.
class Machine {
 public:
  virtual ~Machine() = default;
  // A regular file's text; none if there is no such file. An error for a link, a directory and all
  // else that must not be replaced by a file.
  virtual Result<std::optional<std::string>> read(const std::filesystem::path& path) const = 0;
  // The names in a directory in their order; none if it is not there.
  virtual std::vector<std::string> list(const std::filesystem::path& directory) const = 0;
  // Where a program is, as the machine's own paths have it; empty if it is not installed.
  virtual std::filesystem::path find(std::string_view program) const = 0;
  // What a program says; nothing if it is not installed, fails or takes long.
  virtual std::optional<std::string> run(std::string_view program,
                                         const std::vector<std::string>& arguments,
                                         std::string_view input = {}) const = 0;
  // Whether its services can be asked: false for the tree of another machine (--root).
  virtual bool is_running() const = 0;
};

struct Version {
  int major = 0;
  int minor = 0;
  int patch = 0;
  auto operator<=>(const Version&) const = default;
};
// The first "1.6" or "v1.6.20" of a program's answer; none if there is none.
std::optional<Version> parse_version(std::string_view text);
std::string to_string(const Version& version);

struct ServedRegistry {
  std::string name;  // "contoso.azurecr.io" or "*.azurecr.io"
  bool is_default = false;
  bool has_identity = false;
};

// What the clients have to know of staithed.
struct Served {
  std::string address;  // of its listener: "127.0.0.1:5050"
  std::vector<ServedRegistry> registries;
  // Hosts below the wildcards that are known by name: of images in the cache.
  std::vector<std::string> seen;

  std::string url() const { return "http://" + address; }
  // Registries that have a name of their own.
  std::vector<std::string> named() const;
  // Likewise, and then those below the wildcards that were seen: for who cannot write a wildcard.
  std::vector<std::string> hosts() const;
  std::vector<std::string> wildcards() const;
};
// "contoso.azurecr.io" is served by that name or by "*.azurecr.io".
bool serves(const std::vector<ServedRegistry>& registries, std::string_view host);

struct FileChange {
  std::filesystem::path path;
  std::optional<std::string> before;  // none: the file is new
  std::string after;
  std::optional<unsigned> mode = {};  // of a new file; none: 0644
};

// What has to be written by hand, and why.
struct Refusal {
  std::filesystem::path path;
  std::string why;
  std::string text;  // what to write; may be empty
};

// What an operator has to do after the files have changed; setup does none of it.
struct Restart {
  std::string command;  // "systemctl restart containerd"
  std::string why;
};

// How a client names the registry when it asks; decides how the self-test asks.
enum class Asks { by_ns, by_path, by_nothing, kubelet_credential, nomad_credential };

struct Plan {
  Client client = Client::containerd;
  bool found = false;     // the client is installed
  std::string version{};  // as it says; empty if unknown
  std::vector<FileChange> changes{};
  std::vector<std::filesystem::path> settled{};  // say already what they have to
  std::vector<Refusal> refusals{};               // with one of them nothing is applied
  std::vector<std::string> warnings{};
  std::vector<Restart> restarts{};       // of the changes; none if there are none
  std::vector<Restart> undo_restarts{};  // when they are taken back, if that wants others
  Asks asks = Asks::by_ns;
};

// The plan for a client, whether it is installed or not.
Plan plan_setup(Client client, const Machine& machine, const Served& service);

// For `staithe setup --tls`: where the TLS listener is, and the plan for it.
inline constexpr std::string_view tls_port = "5443";
void plan_tls(Plan& plan, const Machine& machine, WallTime now);

// For the planners.

// A new text for a file from its present one (none: it does not exist).
using Edit = std::function<Result<std::string>(const std::optional<std::string>& text)>;
// Adds to `plan` what `edit` makes of the file; with an error, a refusal with `by_hand`. Several
// edits of one file are one change.
void propose(Plan& plan, const Machine& machine, const std::filesystem::path& path,
             const std::string& by_hand, const Edit& edit);
// Sentence for wildcards that a client cannot write down; nothing without wildcards.
void warn_of_wildcards(Plan& plan, const Served& service, std::string_view why);
// The text of the first of those files that holds `word`: path and text. For flags in units.
std::optional<std::filesystem::path> file_with(const Machine& machine,
                                               const std::vector<std::filesystem::path>& files,
                                               std::string_view word);
// The unit of a service with its drop-ins, wherever systemd finds them.
std::vector<std::filesystem::path> unit_files(const Machine& machine, std::string_view service);

void plan_containerd(Plan& plan, const Machine& machine, const Served& service);
void plan_docker(Plan& plan, const Machine& machine, const Served& service);
void plan_containers(Plan& plan, const Machine& machine, const Served& service);  // podman, CRI-O
void plan_buildkit(Plan& plan, const Machine& machine, const Served& service);
void plan_k3s(Plan& plan, const Machine& machine, const Served& service);  // and RKE2
void plan_kubelet(Plan& plan, const Machine& machine, const Served& service);
void plan_nomad(Plan& plan, const Machine& machine, const Served& service);

// hosts.toml files below `directory`, for whoever reads them by containerd's library.
struct HostsToml {
  std::filesystem::path directory;  // "/etc/containerd/certs.d"
  std::string reader;               // "containerd 1.6.20", for the file's first line
  bool dial_timeout = false;        // registry-clients.md section 5: containerd 2.0.7 and 2.1
  bool referrers = false;           // a word that fails the whole file before containerd 2.2
  bool use_default = false;         // "_default" is looked up, and the registry asked after it
};
void plan_hosts_toml(Plan& plan, const Machine& machine, const Served& service,
                     const HostsToml& kind);

}  // namespace staithe::daemon
