#include "daemon/login_store.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <utility>

#include "cache/escape.h"
#include "daemon/child.h"
#include "daemon/docker_credential.h"
#include "daemon/docker_store.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using proxy::auth::wipe;

constexpr std::size_t max_suffix_bytes = 64;
constexpr std::chrono::seconds helper_patience{45};  // it may ask the user
constexpr const char* variable = "STAITHE_DOCKER_STORE";

bool is_suffix(std::string_view text) {
  return !text.empty() && text.size() <= max_suffix_bytes && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(space);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

// Another credential helper, asked as docker would ask it.
class HelperStore final : public LoginStore {
 public:
  explicit HelperStore(std::filesystem::path program) : program_(std::move(program)) {}

  Result<std::optional<Login>> get(const Server& server) override {
    auto answer = ask("get", server.given);
    if (!answer) return std::unexpected(answer.error());
    if (!*answer) return std::nullopt;
    const auto value = proxy::auth::parse_json_object(**answer);
    wipe(**answer);
    if (!value) return nonsense("get");
    const auto username = proxy::auth::text_field(value->get_object(), "Username");
    const auto secret = proxy::auth::text_field(value->get_object(), "Secret");
    if (!username || !secret) return nonsense("get");
    return Login{std::string(*username), proxy::auth::Secret(*secret)};
  }

  Result<void> put(const Server& server, const Login& login) override {
    json::object object(proxy::auth::wiping_memory());
    object["ServerURL"] = server.given;
    object["Username"] = login.username;
    object["Secret"] = login.secret.reveal();
    std::string text = json::serialize(object);
    const auto answer = ask("store", text);
    wipe(text);
    if (!answer) return std::unexpected(answer.error());
    return {};
  }

  Result<void> erase(const Server& server) override {
    const auto answer = ask("erase", server.given);
    if (!answer) return std::unexpected(answer.error());
    return {};
  }

  Result<std::vector<std::pair<std::string, std::string>>> list() override {
    const auto answer = ask("list", "unused");
    if (!answer) return std::unexpected(answer.error());
    std::vector<std::pair<std::string, std::string>> result;
    if (!*answer) return result;
    const auto value = proxy::auth::parse_json_object(**answer);
    if (!value) return nonsense("list");
    for (const auto& [server, username] : value->get_object()) {
      if (username.is_string()) result.emplace_back(server, username.get_string());
    }
    return result;
  }

 private:
  std::string name() const { return printable(program_.filename().native(), 100); }

  std::unexpected<Error> nonsense(std::string_view action) const {
    return fail(Errc::upstream_nonsense,
                name() + " " + std::string(action) +
                    " did not answer as a credential helper does: check $" + variable);
  }

  // What it wrote; nothing if it knows no such credential.
  Result<std::optional<std::string>> ask(std::string_view action, std::string_view input) const {
    // Without the variable, so that another name of this very program ends in its own file.
    auto result = run_child({.program = program_,
                             .arguments = {std::string(action)},
                             .input = input,
                             .show_stderr = true,
                             .without_variable = variable,
                             .timeout = helper_patience});
    if (!result) return std::unexpected(result.error());
    if (result->status == 0) return std::optional(std::move(result->output));
    const std::string_view said = trimmed(result->output);
    if (said == kCredentialsNotFound) return std::nullopt;
    // A helper that fails and yet writes a credential must not see it shown.
    const std::string words = said.starts_with('{') ? "" : printable(said, 300);
    wipe(result->output);
    return fail(Errc::storage_failed, name() + " " + std::string(action) + " failed with status " +
                                          std::to_string(result->status) +
                                          (words.empty() ? "" : ": " + words));
  }

  std::filesystem::path program_;
};

}  // namespace

Result<std::unique_ptr<LoginStore>> open_login_store(const Environment& environment,
                                                     std::ostream& notes) {
  const std::string_view suffix = environment.get(variable);
  if (suffix.empty()) {
    return std::make_unique<DockerStore>(
        docker_store_directory(environment),
        Sealer(find_program("systemd-creds", environment.get("PATH")), environment.uid == 0),
        notes);
  }
  if (!is_suffix(suffix)) {
    return fail(Errc::config, std::string("$") + variable +
                                  " is the part of a helper's name after docker-credential-, in "
                                  "lower-case letters, digits and dashes: \"pass\", for instance");
  }
  if (suffix == "staithe" || suffix.starts_with("staithe-")) {
    return fail(Errc::config, std::string("$") + variable +
                                  " names this helper itself: name another one, or unset it for a "
                                  "file of its own");
  }
  const std::string name = "docker-credential-" + std::string(suffix);
  std::filesystem::path program = find_program(name, environment.get("PATH"));
  if (program.empty()) {
    return fail(Errc::config, name + " is not on the PATH: install it, or unset $" + variable);
  }
  return std::make_unique<HelperStore>(std::move(program));
}

}  // namespace staithe::daemon
