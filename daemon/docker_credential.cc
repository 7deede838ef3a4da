#include "daemon/docker_credential.h"

#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <expected>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "cache/escape.h"
#include "daemon/credential_client.h"
#include "daemon/login_store.h"
#include "daemon/server_url.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using proxy::auth::wipe;

constexpr std::string_view no_server_url = "no credentials server URL";
constexpr std::string_view no_username = "no credentials username";
constexpr std::size_t max_input_bytes = 128 << 10;
constexpr std::chrono::seconds list_patience{5};

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(space);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

// All of stdin; nothing if it is more than a helper is ever told.
std::optional<std::string> read_input(std::istream& in) {
  std::string text(max_input_bytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > max_input_bytes) {
    wipe(text);
    return std::nullopt;
  }
  return text;
}

// What a helper has to say when it cannot do what it was asked to.
struct Trouble {
  std::string message;
};
struct NotFound {};
using Found = std::variant<Login, NotFound, Trouble>;

class Helper {
 public:
  Helper(const HelperContext& context, std::string_view program)
      : context_(context),
        program_(program),
        nomad_(program.ends_with("-nomad")),
        socket_(control_socket_of(context.environment)) {}

  int run(std::string_view action) {
    if (action == "version") {
      context_.out << program_ << " (staithe) " STAITHE_VERSION "\n";
      return done();
    }
    if (action == "list") return list();
    if (action != "get" && action != "store" && action != "erase")
      return failure(std::string(program_) + ": unknown action: " + printable(action, 60));
    auto input = read_input(context_.in);
    if (!input) return trouble("what stands on stdin is longer than a server URL or a login");
    const int status = action == "get"     ? get(trimmed(*input))
                       : action == "erase" ? erase(trimmed(*input))
                                           : store(*input);
    wipe(*input);
    return status;
  }

  int failure(std::string_view message) {
    context_.out << message << "\n";
    context_.err << message << "\n";
    context_.out.flush();
    return 1;
  }

 private:
  int trouble(std::string_view message) { return failure("staithe: " + std::string(message)); }

  int done() {
    context_.out.flush();
    return context_.out ? 0 : 1;
  }

  // docker trims and compares, so nothing else may stand there.
  int not_found() {
    context_.out << kCredentialsNotFound << "\n" << std::flush;
    return 1;
  }

  int get(std::string_view given) {
    if (given.empty()) return failure(no_server_url);
    const auto server = parse(given);
    if (!server) return trouble(server.error().detail);
    Found found = look_up(*server);
    if (const Trouble* bad = std::get_if<Trouble>(&found)) return trouble(bad->message);
    Login* login = std::get_if<Login>(&found);
    if (!login && !nomad_) return not_found();
    // Nomad takes any failure as its task's, and empty strings for "none".
    json::object answer(proxy::auth::wiping_memory());
    answer["ServerURL"] = given;
    answer["Username"] = login ? login->username : "";
    answer["Secret"] = login ? login->secret.reveal() : std::string_view();
    std::string text = json::serialize(answer);
    context_.out << text << "\n";
    wipe(text);
    return done();
  }

  int store(std::string_view input) {
    const auto value = proxy::auth::parse_json_object(input);
    if (!value) {
      return trouble(
          "what stands on stdin is not the JSON of a login: ServerURL, Username and Secret");
    }
    const json::object& object = value->get_object();
    const auto given = proxy::auth::text_field(object, "ServerURL");
    const auto username = proxy::auth::text_field(object, "Username");
    const auto secret = proxy::auth::text_field(object, "Secret");
    if (!given || !username || !secret)
      return trouble("ServerURL, Username and Secret of a login are strings");
    if (trimmed(*given).empty()) return failure(no_server_url);
    if (username->empty()) return failure(no_username);
    if (secret->size() > kMaxLoginSecretBytes)
      return trouble("the secret is longer than 64 KiB, so it is none");
    const auto server = parse(trimmed(*given));
    if (!server) return trouble(server.error().detail);
    // docker stores what it has logged in with; the daemon's registries need nothing of it.
    if (is_managed(*server)) return done();
    auto own = open_login_store(context_.environment, context_.err);
    if (!own) return trouble(own.error().detail);
    const auto stored =
        (*own)->put(*server, Login{std::string(*username), proxy::auth::Secret(*secret)});
    if (!stored) return trouble(stored.error().detail);
    return done();
  }

  // Removes what the user once stored, also for a registry that the daemon has taken over since.
  int erase(std::string_view given) {
    if (given.empty()) return failure(no_server_url);
    const auto server = parse(given);
    if (!server) return trouble(server.error().detail);
    auto own = open_login_store(context_.environment, context_.err);
    const auto erased = own ? (*own)->erase(*server) : Result<void>(std::unexpected(own.error()));
    if (!erased && !is_managed(*server)) return trouble(erased.error().detail);
    return done();
  }

  // docker asks `get` for each of these and fails as a whole if one fails; it never fails for a
  // daemon or a file that cannot be asked.
  int list() {
    std::map<std::string, std::string> all;
    auto own = open_login_store(context_.environment, context_.err);
    const auto logins = own ? (*own)->list() : std::unexpected(own.error());
    if (logins) {
      for (const auto& [server, username] : *logins) all[server] = username;
    } else {
      context_.err << "staithe: " << logins.error().detail << "\n";
    }
    if (const auto managed = list_credentials(socket_, list_patience)) {
      for (const ManagedRegistry& one : *managed) {
        if (const auto url = parse_server_url(one.registry))
          all[to_server_url(url->registry)] = one.username;
      }
    }
    json::object answer;
    for (const auto& [server, username] : all) answer[server] = username;
    context_.out << json::serialize(answer) << "\n";
    return done();
  }

  Result<Server> parse(std::string_view given) const {
    auto url = parse_server_url(given);
    if (!url) return std::unexpected(std::move(url.error()));
    // Old Nomad asks for "https://library/redis": what names no registry is on Docker Hub.
    const bool names_registry =
        url->registry.find_first_of(".:") != std::string::npos || url->registry == "localhost";
    if (nomad_ && !names_registry && !url->repository.empty())
      url = ServerUrl{"docker.io", url->registry + "/" + url->repository, ""};
    return Server{std::string(given), *std::move(url)};
  }

  std::expected<std::optional<Credential>, ControlError> ask(const Server& server) const {
    if (!server.url.note.empty()) return std::nullopt;
    return ask_credential(socket_,
                          {.registry = server.url.registry, .repository = server.url.repository});
  }

  bool is_managed(const Server& server) const {
    const auto credential = ask(server);
    return credential ? credential->has_value() : identity_failed(credential.error());
  }

  Found look_up(const Server& server) const {
    auto credential = ask(server);
    if (credential && *credential) return as_login(server, **std::move(credential));
    if (!credential && identity_failed(credential.error()))
      return Trouble{credential.error().message};
    auto own = open_login_store(context_.environment, context_.err);
    if (!own) return Trouble{own.error().detail};
    auto login = (*own)->get(server);
    if (!login) return Trouble{login.error().detail};
    if (*login) return **std::move(login);
    // Of Azure's registries hardly one is public, so the missing daemon is what the user must hear
    // of. Everywhere else a pull without credentials is the usual thing.
    if (!credential && is_acr_host(server.url.registry)) {
      return Trouble{"no credential for " + server.url.registry + ": " +
                     credential.error().message};
    }
    return NotFound{};
  }

  // The user name `<token>` says that the secret is a refresh token. Not every client knows it, and
  // what ACR gives works as a password too, so there it is said only on request. Nomad never does.
  Login as_login(const Server& server, Credential credential) const {
    const bool asked = is_acr_host(server.url.registry) &&
                       context_.environment.get("STAITHE_DOCKER_USERNAME") == "token";
    if (!nomad_ && (credential.identity_token || asked)) credential.username = "<token>";
    return {std::move(credential.username), std::move(credential.password)};
  }

  const HelperContext& context_;
  std::string_view program_;
  bool nomad_;
  std::filesystem::path socket_;
};

}  // namespace

int run_docker_credential(int argc, const char* const* argv, const HelperContext& context) {
  std::string_view program = argc > 0 ? base_name(argv[0]) : "";
  // What is not one of our two names is a link of the user's; it behaves as the first.
  program = program == "docker-credential-staithe-nomad" ? program : "docker-credential-staithe";
  Helper helper(context, program);
  if (argc != 2) {
    return helper.failure("usage: " + std::string(program) + " <store|get|erase|list|version>");
  }
  return helper.run(argv[1]);
}

}  // namespace staithe::daemon
