#include "proxy/auth/password.h"

#include <algorithm>

#include "cache/escape.h"
#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

// A file costs nothing to read, and a change should be seen soon.
constexpr std::chrono::seconds file_life = 60s;
constexpr std::chrono::seconds file_rest = 5s;
// Helpers cost a process and often the network; ECR's passwords last 12 h, GAR's one. What has
// ended before that is refused, and then asked for again.
constexpr std::chrono::hours helper_life = 12h;
constexpr std::chrono::minutes helper_rest = 10min;
constexpr std::chrono::minutes refusal_remembered = 10min;
constexpr std::chrono::minutes acceptance_remembered = 5min;
// How old a refused one may be before its source is asked for another: somebody may be mending it.
constexpr std::chrono::seconds longest_refused_rest = 30s;
// Docker Hub's name in configs and helpers.
constexpr std::string_view hub_key = "https://index.docker.io/v1/";
constexpr std::string_view not_found = "credentials not found in native keychain";
constexpr std::string_view token_username = "<token>";
constexpr std::size_t max_username_bytes = 1024;
constexpr std::size_t max_password_bytes = std::size_t{32} * 1024;

bool has_control(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
}

// Google's `_json_key` has a file of JSON as password, with the line ends that it came with.
bool is_json_key(std::string_view secret) {
  return secret.starts_with('{') && std::ranges::none_of(secret, [](char c) {
           return has_control({&c, 1}) && c != '\n' && c != '\r' && c != '\t';
         });
}

Life life_from_now(const Environment& environment, std::chrono::nanoseconds lasts,
                   std::chrono::nanoseconds rest) {
  return {.since = environment.clock.now(),
          .wall_since = environment.clock.wall(),
          .lasts = lasts,
          .refresh_in = rest};
}

// Checks what somebody else has written. `step` begins the sentence.
Password make_password(const std::string& step, std::string_view username, std::string_view secret,
                       Life life) {
  if (secret.empty()) throw Failure(Errc::identity_missing, step + ": the password is empty");
  if (secret.size() > max_password_bytes || username.size() > max_username_bytes)
    throw Failure(Errc::identity_missing, step + ": the user name or password is far too long");
  // RFC 7617 section 2: no control characters, and no colon in the name.
  if ((has_control(secret) && !is_json_key(secret)) || has_control(username) ||
      username.contains(':'))
    throw Failure(Errc::identity_missing,
                  step +
                      ": the user name or password holds a character that Basic "
                      "authentication cannot send");
  const bool token = username == token_username;
  return {.username = std::string(token ? std::string_view() : username),
          .secret = Secret(secret),
          .identity_token = token,
          .life = life};
}

// Which helpers are run. Asking ourselves for what we are to use would go round in a circle.
bool may_be_run(std::string_view helper) {
  return helper != "staithe" && helper != "staithe-nomad" &&
         std::ranges::all_of(helper, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  c == '.';
         });
}

// The keys under which docker and its friends have kept a registry's entry.
std::vector<std::string> keys_of(const std::string& name) {
  if (name == "docker.io")
    return {std::string(hub_key), "index.docker.io", "docker.io", "https://index.docker.io/v2/",
            "registry-1.docker.io"};
  return {name, "https://" + name, "https://" + name + "/", "https://" + name + "/v2/",
          "https://" + name + "/v1/"};
}

const json::value* find_entry(const json::object& object, const std::string& name) {
  for (const std::string& key : keys_of(name)) {
    if (const json::value* found = object.if_contains(key)) return found;
  }
  return nullptr;
}

// A field that other programs may leave out or leave empty.
std::string_view text_at(const json::object& object, std::string_view name) {
  return text_field(object, name).value_or("");
}

}  // namespace

std::string helper_server(const std::string& name) {
  return name == "docker.io" ? std::string(hub_key) : name;
}

asio::awaitable<Password> PasswordFile::fetch() {
  const Life life = life_from_now(environment_, file_life, file_rest);
  const Secret text = co_await environment_.files.read(path_, FileRules{});
  co_return make_password("the file " + printable(path_.native()), username_,
                          without_line_end(text.reveal()), life);
}

asio::awaitable<Password> PasswordHelper::fetch() {
  const Life life = life_from_now(environment_, helper_life, helper_rest);
  const std::string program = "docker-credential-" + helper_;
  const std::string step =
      "asking " + printable(program, 100) + " for the password of " + printable(server_);
  if (!may_be_run(helper_))
    throw Failure(Errc::identity_missing, step + ": this helper is not run; use another");
  ProgramRun run;
  run.program = program;
  run.arguments = {"get"};
  run.input = server_;
  const ProgramResult result = co_await environment_.programs.run(std::move(run));
  // Helpers say what is wrong on stdout, where the secret would be: only the known text is told.
  if (result.exit_status != 0) {
    if (without_line_end(result.output.reveal()) == not_found)
      throw Failure(Errc::identity_missing,
                    step + ": it has none; store one with docker login, or correct [identity]");
    throw Failure(Errc::upstream_failed, step + ": it failed with exit status " +
                                             std::to_string(result.exit_status) + "; run `echo " +
                                             printable(server_) + " | " + program +
                                             " get` as the user of staithed to see why");
  }
  const Result<json::value> parsed = parse_json_object(result.output.reveal());
  if (!parsed) throw Failure(Errc::upstream_nonsense, step + ": its answer is not JSON");
  const auto username = text_field(parsed->get_object(), "Username");
  const auto secret = text_field(parsed->get_object(), "Secret");
  if (!username || !secret)
    throw Failure(Errc::upstream_nonsense, step + ": its answer has no Username and Secret");
  co_return make_password(step, *username, *secret, life);
}

asio::awaitable<Password> DockerConfig::fetch() {
  const Life life = life_from_now(environment_, file_life, file_rest);
  const std::string step = "looking for " + printable(name_) + " in " + printable(path_.native());
  // kubelet mounts secrets as links, readable to the whole pod.
  const Secret text = co_await environment_.files.read(path_, FileRules{.is_private = false});
  const Result<json::value> parsed = parse_json_object(text.reveal());
  if (!parsed)
    throw Failure(Errc::identity_missing, step + ": it is not a docker config.json (bad JSON)");
  const json::object& config = parsed->get_object();
  std::string helper;
  if (const json::value* helpers = config.if_contains("credHelpers");
      helpers && helpers->is_object()) {
    if (const json::value* found = find_entry(helpers->get_object(), name_);
        found && found->is_string())
      helper = std::string(found->get_string());
  }
  const json::value* auths = config.if_contains("auths");
  const json::value* entry =
      auths && auths->is_object() ? find_entry(auths->get_object(), name_) : nullptr;
  if (helper.empty() && entry && entry->is_object()) {
    const json::object& fields = entry->get_object();
    if (const std::string_view token = text_at(fields, "identitytoken"); !token.empty())
      co_return make_password(step, token_username, token, life);
    if (const std::string_view both = text_at(fields, "auth"); !both.empty()) {
      Result<std::string> decoded = decode_base64(both);
      const std::size_t colon = decoded ? decoded->find(':') : std::string::npos;
      if (colon == std::string::npos)
        throw Failure(Errc::identity_missing,
                      step + ": its auth is not base64 of user:password; log in again");
      const Secret kept = Secret::take(std::move(*decoded));
      const std::string_view pair = kept.reveal();
      // Some writers end the password with NUL bytes.
      std::string_view secret = pair.substr(colon + 1);
      while (secret.ends_with('\0')) secret.remove_suffix(1);
      co_return make_password(step, pair.substr(0, colon), secret, life);
    }
    if (const std::string_view secret = text_at(fields, "password"); !secret.empty())
      co_return make_password(step, text_at(fields, "username"), secret, life);
  }
  if (helper.empty()) helper = std::string(text_at(config, "credsStore"));
  if (helper.empty())
    throw Failure(Errc::identity_missing,
                  step + ": there is no entry for it; docker login it, or correct [identity]");
  if (!may_be_run(helper))
    throw Failure(Errc::identity_missing, step + ": it names the credential helper " +
                                              printable(helper, 60) + ", which is not run");
  PasswordHelper source(environment_, std::move(helper), helper_server(name_));
  co_return co_await source.fetch();
}

Passwords::Passwords(std::string name, std::vector<std::shared_ptr<PasswordKeeper>> candidates,
                     bool renewable, Environment environment)
    : name_(std::move(name)), renewable_(renewable), environment_(environment) {
  for (auto& keeper : candidates)
    candidates_.push_back({.keeper = std::move(keeper), .refused = {}, .accepted = nullptr});
}

asio::awaitable<Passwords::Pick> Passwords::get() {
  std::optional<Error> missing;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    std::shared_ptr<const Password> password;
    try {
      password = co_await candidates_[i].keeper->get();
      if (is_refused(candidates_[i], *password) && is_rested(*password))
        password = co_await candidates_[i].keeper->get_other_than(password);
    } catch (const Failure& failure) {
      if (failure.code() == Errc::cancelled) throw;
      if (!missing) missing = failure.error();
    }
    if (!password || is_refused(candidates_[i], *password)) continue;
    co_return Pick{std::move(password), i};
  }
  if (missing) throw Failure(*missing);
  throw Failure(
      Errc::unauthorized,
      name_ + (candidates_.size() > 1 ? ": both passwords were refused" : " was refused") +
          "; it is not sent again for " + std::to_string(refusal_remembered.count()) +
          " minutes. Put the right one into its file or helper: that is seen within half a "
          "minute, and at once after staithe renew");
}

bool Passwords::is_refused(const Candidate& candidate, const Password& password) const {
  return !candidate.refused.empty() && password.secret == candidate.refused &&
         environment_.clock.now() - candidate.refused_at < refusal_remembered;
}

bool Passwords::is_rested(const Password& password) const {
  const auto rest = std::min<std::chrono::nanoseconds>(
      password.life.refresh_in.value_or(longest_refused_rest), longest_refused_rest);
  return environment_.clock.now() - password.life.since >= rest;
}

void Passwords::accepted(const Pick& pick) {
  Candidate& candidate = candidates_.at(pick.candidate);
  candidate.accepted = pick.password;
  candidate.accepted_at = environment_.clock.now();
}

void Passwords::refused(const Pick& pick) {
  Candidate& candidate = candidates_.at(pick.candidate);
  const Instant now = environment_.clock.now();
  // Whatever it was about, the source may have another one by now.
  candidate.keeper->discard(pick.password.get());
  if (candidate.accepted && candidate.accepted->secret == pick.password->secret &&
      now - candidate.accepted_at < acceptance_remembered)
    return;
  candidate.refused = Secret(pick.password->secret.reveal());
  candidate.refused_at = now;
}

bool Passwords::ended(const Pick& pick) {
  // One that was just fetched is refused for another reason than its age.
  if (!renewable_ || environment_.clock.now() - pick.password->life.since < 1min) return false;
  return candidates_.at(pick.candidate).keeper->discard(pick.password.get());
}

asio::awaitable<void> Passwords::renew() {
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const std::shared_ptr<PasswordKeeper> keeper = candidates_[i].keeper;
    candidates_[i].refused = Secret();
    co_await keeper->renew();
  }
}

std::string Passwords::username() const {
  for (const Candidate& candidate : candidates_) {
    if (const auto password = candidate.keeper->current(); password)
      return password->identity_token ? std::string(token_username) : password->username;
  }
  return {};
}

std::optional<Error> Passwords::last_error() const {
  for (const Candidate& candidate : candidates_) {
    if (candidate.keeper->last_error()) return candidate.keeper->last_error();
  }
  return std::nullopt;
}

}  // namespace staithe::proxy::auth
