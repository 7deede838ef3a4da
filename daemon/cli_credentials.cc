#include "daemon/cli_credentials.h"

#include <openssl/evp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <ctime>
#include <utility>
#include <vector>

#include "cache/escape.h"
#include "daemon/cli_output.h"
#include "daemon/credential_client.h"
#include "daemon/server_url.h"
#include "daemon/values.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using proxy::auth::wipe;
using std::chrono::seconds;

constexpr std::size_t max_token_bytes = 64 << 10;

int wrong_usage(const CliContext& context, std::string_view command, std::string_view what) {
  context.err << "staithe: " << what << " (see staithe " << command << " --help)\n";
  return kExitBadUsage;
}

// The registry as the daemon knows it, from what people type.
Result<std::string> registry_of(std::string_view text) {
  auto url = parse_server_url(text);
  if (!url) return std::unexpected(std::move(url.error()));
  const std::string& name = url->registry;
  if (name.find_first_of(".:") == std::string::npos && name != "localhost") {
    return fail(Errc::name_invalid, "\"" + printable(name, 80) +
                                        "\" is no registry's host name: write it in full, \"" +
                                        printable(name, 80) + ".azurecr.io\" for instance");
  }
  return name;
}

std::string life(std::optional<seconds> left) {
  return left ? "valid for " + show_seconds(static_cast<double>(left->count()))
              : std::string("without a known end");
}

// RFC 3339 in UTC: "2026-11-21T15:04:05Z".
std::string show_time(std::chrono::system_clock::time_point when) {
  const std::time_t seconds_since_1970 = std::chrono::system_clock::to_time_t(when);
  std::tm parts{};
  gmtime_r(&seconds_since_1970, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string base64(std::string_view text) {
  std::string result(4 * ((text.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(result.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  result.resize(static_cast<std::size_t>(size));
  return result;
}

// The credential that may be shown to whoever runs the command; the daemon says whether it may.
std::expected<Credential, int> exposed(const CliContext& context,
                                       const std::filesystem::path& socket,
                                       const std::string& registry) {
  auto credential = ask_credential(socket, {.registry = registry, .expose_token = true});
  if (!credential) return std::unexpected(report(context, credential.error()));
  if (!*credential) {
    context.err << "staithe: staithed has no credential for " << registry
                << ": give it an identity in staithe.toml, or a token with staithe login "
                << registry << " --token-stdin\n";
    return std::unexpected(kExitFailed);
  }
  return **std::move(credential);
}

// RFC 1123: what Kubernetes takes as a name (`dots`) or a namespace.
bool is_kubernetes_name(std::string_view text, bool dots) {
  const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= (dots ? 253u : 63u) && word(text.front()) &&
         word(text.back()) && std::ranges::all_of(text, [&](char c) {
           return word(c) || c == '-' || (dots && c == '.');
         });
}

std::string secret_name(std::string_view registry) {
  std::string name = "staithe-";
  for (const char c : registry) {
    const bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    name += word ? c : '-';
  }
  while (name.ends_with('-')) name.pop_back();
  return name;
}

// The docker configuration that kubelet reads from a pull secret.
std::string docker_config(const std::string& registry, const Credential& credential) {
  const json::storage_ptr memory = proxy::auth::wiping_memory();
  std::string pair;
  pair.reserve(credential.username.size() + 1 + credential.password.size_bytes());
  pair += credential.username;
  pair += ':';
  pair += credential.password.reveal();
  json::object entry(memory);
  entry["username"] = credential.username;
  entry["password"] = credential.password.reveal();
  std::string auth = base64(pair);
  entry["auth"] = auth;
  wipe(auth);
  wipe(pair);
  json::object auths(memory);
  auths[registry == "docker.io" ? to_server_url(registry) : registry] = std::move(entry);
  json::object root(memory);
  root["auths"] = std::move(auths);
  return json::serialize(root);
}

// `az acr login --expose-token` writes JSON; what it is asked for is in there.
proxy::auth::Secret token_of(std::string_view input) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t begin = std::min(input.find_first_not_of(space), input.size());
  input.remove_prefix(begin);
  input = input.substr(0, input.find_last_not_of(space) + 1);
  if (!input.starts_with('{')) return proxy::auth::Secret(input);
  const auto value = proxy::auth::parse_json_object(input);
  if (!value) return {};
  return proxy::auth::Secret(
      proxy::auth::text_field(value->get_object(), "accessToken").value_or(std::string_view()));
}

std::string text_of(const json::object& object, std::string_view name) {
  return printable(proxy::auth::text_field(object, name).value_or(std::string_view()), 500);
}

}  // namespace

CredentialCommands::CredentialCommands(CLI::App& app) {
  const auto add = [&](const char* name, const char* what, const char* footer) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_flag("--json", as_json_, "JSON instead of text");
    command->footer(footer);
    return command;
  };
  const auto add_registry = [&](CLI::App* command) {
    return command->add_option("registry", registry_, "As image names write it: contoso.azurecr.io")
        ->type_name("REGISTRY");
  };

  token_ = add("token", "A registry's token, for a program that staithed does not serve",
               "Examples:\n"
               "  staithe token contoso.azurecr.io\n"
               "  staithe token contoso.azurecr.io --raw | docker login contoso.azurecr.io \\\n"
               "    -u 00000000-0000-0000-0000-000000000000 --password-stdin\n"
               "As az acr login --expose-token: {\"accessToken\",\"loginServer\"}; with --raw the\n"
               "token alone.\n"
               "For root and the user that staithed runs as. The token ends by itself: prefer\n"
               "docker-credential-staithe, which gives a new one each time.");
  add_registry(token_)->required();
  token_->add_flag("--raw", raw_, "The token alone");

  pull_secret_ =
      add("pull-secret", "A Kubernetes pull secret for a registry, as YAML",
          "Example:\n"
          "  staithe pull-secret contoso.azurecr.io --namespace web | kubectl apply -f -\n"
          "Its token ends after some hours, and the first line says when: kubelet's\n"
          "staithe-credential-provider needs no such secret.");
  add_registry(pull_secret_)->required();
  pull_secret_->add_option("--name", name_, "The secret's name (default: staithe-REGISTRY)")
      ->type_name("NAME");
  pull_secret_->add_option("--namespace,-n", namespace_, "Its namespace (default: kubectl's)")
      ->type_name("NAMESPACE");

  renew_ = add("renew", "Get new tokens now, for one registry or for all",
               "Examples:\n  staithe renew\n  staithe renew contoso.azurecr.io\n"
               "Exit status 1 if one of them could not be renewed.");
  add_registry(renew_);

  login_ = add("login", "Hand staithed a token for a registry",
               "Example:\n"
               "  az acr login -n contoso --expose-token | staithe login contoso.azurecr.io "
               "--token-stdin\n"
               "An Entra access token or a refresh token of ACR; from stdin only, because other\n"
               "users see the arguments of a process.");
  add_registry(login_)->required();
  login_->allow_extras();  // to refuse them without showing them: one may be a token
  login_->add_flag("--token-stdin", token_stdin_, "Read the token from stdin");

  logout_ = add("logout", "Make staithed forget a token that login gave it",
                "Example:\n  staithe logout contoso.azurecr.io");
  add_registry(logout_)->required();
}

bool CredentialCommands::may_hold_secret(int argc, const char* const* argv) {
  return std::any_of(argv + std::min(argc, 1), argv + argc,
                     [](const char* argument) { return argument == std::string_view("login"); });
}

std::string_view CredentialCommands::why_not_an_argument() {
  return "login is written staithe login REGISTRY --token-stdin, with nothing else: a token is "
         "read "
         "from stdin, because every user of this machine sees the arguments of a process; if one "
         "stood there, take it for known to them";
}

std::optional<int> CredentialCommands::run(const CliContext& context,
                                           const std::filesystem::path& socket) {
  using Command = int (CredentialCommands::*)(const CliContext&, const std::filesystem::path&);
  const std::vector<std::pair<CLI::App*, Command>> commands{
      {token_, &CredentialCommands::token},
      {pull_secret_, &CredentialCommands::pull_secret},
      {renew_, &CredentialCommands::renew},
      {login_, &CredentialCommands::login},
      {logout_, &CredentialCommands::logout}};
  for (const auto& [app, command] : commands) {
    if (!app->parsed()) continue;
    if (!registry_.empty()) {
      auto registry = registry_of(registry_);
      // What stands in the registry's place may be the token; no other command is given one.
      if (!registry && app == login_) return wrong_usage(context, "login", why_not_an_argument());
      if (!registry) return wrong_usage(context, app->get_name(), registry.error().detail);
      registry_ = *std::move(registry);
    }
    return (this->*command)(context, socket);
  }
  return std::nullopt;
}

int CredentialCommands::token(const CliContext& context, const std::filesystem::path& socket) {
  const auto credential = exposed(context, socket, registry_);
  if (!credential) return credential.error();
  if (!raw_) {
    json::object object(proxy::auth::wiping_memory());
    object["accessToken"] = credential->password.reveal();
    object["loginServer"] = registry_;
    std::string text = json::serialize(object);
    context.out << text << "\n";
    wipe(text);
    return finish(context);
  }
  context.out << credential->password.reveal() << "\n";
  if (context.terminal.is_terminal) {
    context.err << "staithe: user name " << printable(credential->username, 255) << ", "
                << life(credential->expires_in) << "\n";
  }
  return finish(context);
}

int CredentialCommands::pull_secret(const CliContext& context,
                                    const std::filesystem::path& socket) {
  if (name_.empty()) name_ = secret_name(registry_);
  if (!is_kubernetes_name(name_, true)) {
    return wrong_usage(
        context, "pull-secret",
        "a secret's name has lower-case letters, digits, dashes and dots, not " + shown(name_));
  }
  if (!namespace_.empty() && !is_kubernetes_name(namespace_, false)) {
    return wrong_usage(
        context, "pull-secret",
        "a namespace has lower-case letters, digits and dashes, not " + shown(namespace_));
  }
  const auto credential = exposed(context, socket, registry_);
  if (!credential) return credential.error();

  std::string when = "its credential is " + life(credential->expires_in);
  if (credential->expires_in) {
    when += ", until " + show_time(context.now() + *credential->expires_in);
  }
  std::string config = docker_config(registry_, *credential);
  std::string data = base64(config);
  wipe(config);
  std::string text;
  text.reserve(data.size() + 4096);
  if (as_json_) {
    json::object metadata{{"name", name_}};
    if (!namespace_.empty()) metadata["namespace"] = namespace_;
    json::object root(proxy::auth::wiping_memory());
    root["apiVersion"] = "v1";
    root["kind"] = "Secret";
    root["metadata"] = std::move(metadata);
    root["type"] = "kubernetes.io/dockerconfigjson";
    json::object values(proxy::auth::wiping_memory());
    values[".dockerconfigjson"] = data;
    root["data"] = std::move(values);
    text = json::serialize(root) + "\n";
    context.err << "staithe: " << when << "\n";  // JSON has no comments
  } else {
    // Names in quotes: YAML would read "123" and "true" as something else than text.
    text = "# Pull secret for " + registry_ + ": " + when + ".\napiVersion: v1\nkind: Secret\n" +
           "metadata:\n  name: \"" + name_ + "\"\n";
    if (!namespace_.empty()) text += "  namespace: \"" + namespace_ + "\"\n";
    text += "type: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: ";
    text += data;
    text += "\n";
  }
  wipe(data);
  context.out << text;
  wipe(text);
  return finish(context);
}

int CredentialCommands::renew(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer =
      control_post(socket, "/v1/renew", json::serialize(json::object{{"registry", registry_}}));
  if (!answer) return report(context, answer.error());
  const json::value* list = answer->get_object().if_contains("renewed");
  if (!list || !list->is_array()) {
    return report(context, {false,
                            "staithed's answer does not say what was renewed: staithe and "
                            "staithed are of different versions"});
  }
  bool all_good = true;
  std::vector<Row> rows;
  for (const json::value& item : list->get_array()) {
    const json::object* one = item.if_object();
    if (!one) continue;
    const json::value* ok = one->if_contains("ok");
    const bool good = ok && ok->is_bool() && ok->get_bool();
    all_good = all_good && good;
    Row row{{{text_of(*one, "registry")},
             {text_of(*one, "identity")},
             {good ? "renewed" : "failed", good ? Tone::good : Tone::bad}},
            {}};
    if (!good) row.notes.push_back({text_of(*one, "error"), Tone::bad});
    rows.push_back(std::move(row));
  }
  if (as_json_) {
    print_json(context, *answer);
  } else if (rows.empty()) {
    context.out << "staithed holds no token that could be renewed\n";
  } else {
    context.out << table(rows, 0, context.terminal.style);
  }
  const int status = finish(context);
  return all_good ? status : kExitFailed;
}

int CredentialCommands::login(const CliContext& context, const std::filesystem::path& socket) {
  if (!login_->remaining().empty()) return wrong_usage(context, "login", why_not_an_argument());
  if (!token_stdin_) {
    return wrong_usage(context, "login",
                       "login reads the token from stdin: add --token-stdin and pipe it in");
  }
  std::string input(max_token_bytes + 1, '\0');
  context.in.read(input.data(), static_cast<std::streamsize>(input.size()));
  input.resize(static_cast<std::size_t>(context.in.gcount()));
  const bool too_long = input.size() > max_token_bytes;
  const proxy::auth::Secret token = too_long ? proxy::auth::Secret() : token_of(input);
  wipe(input);
  if (too_long)
    return wrong_usage(context, "login", "what stands on stdin is too long for a token");
  if (token.empty() ||
      !std::ranges::all_of(token.reveal(), [](char c) { return c > ' ' && c <= '~'; }))
    return wrong_usage(context, "login", "what stands on stdin is no token");

  json::object question(proxy::auth::wiping_memory());
  question["registry"] = registry_;
  question["token"] = token.reveal();
  const auto answer = control_post(socket, "/v1/login", json::serialize(question));
  if (!answer) return report(context, answer.error());
  if (as_json_) {
    print_json(context, *answer);
    return finish(context);
  }
  const json::object& object = answer->get_object();
  const auto left = proxy::auth::number_field(object, "expires_in_seconds");
  std::optional<seconds> expires_in;
  if (left && *left) expires_in = seconds(**left);
  context.out << registry_ << ": signed in with "
              << (text_of(object, "kind") == "refresh" ? "a refresh token" : "an Entra token")
              << ", " << life(expires_in) << "\n";
  return finish(context);
}

int CredentialCommands::logout(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer =
      control_post(socket, "/v1/logout", json::serialize(json::object{{"registry", registry_}}));
  if (!answer) return report(context, answer.error());
  if (as_json_) {
    print_json(context, *answer);
    return finish(context);
  }
  const json::value* was = answer->get_object().if_contains("was_signed_in");
  const bool signed_in = was && was->is_bool() && was->get_bool();
  context.out << registry_ << (signed_in ? ": signed out\n" : ": was not signed in\n");
  return finish(context);
}

}  // namespace staithe::daemon
