// [[registry]] verify_callers, through the whole proxy: the real listener and store, and a played
// registry that knows its users.
#include "proxy/caller_proofs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "proxy/auth/base64.h"
#include "proxy/auth/trust.h"
#include "tests/fake/files.h"
#include "tests/fake/house.h"
#include "tests/fake/programs.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Answer;
using fake::Asked;
using fake::Reply;
using testing::HasSubstr;
using testing::Not;

const std::string image =
    R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",)"
    R"("config":{"digest":"sha256:)" +
    std::string(64, 'a') + R"("},"layers":[]})";
const std::string layer = "the private bytes of a layer";

std::string basic(const std::string& user, const std::string& password) {
  return "Authorization: Basic " + auth::encode_base64(user + ":" + password) + "\r\n";
}

// A registry with accounts and a token server. Who comes without any token is this machine, whose
// own credentials House leaves out.
class Accounts {
 public:
  struct Account {
    std::string password;
    std::set<std::string> repositories;
  };

  explicit Accounts(fake::House& house) : house_(house) {
    house.upstream.on("https://r.example", [this](const Asked& asked) { return answer(asked); });
  }

  std::map<std::string, Account> accounts;
  std::set<std::string> open;  // repositories that everybody may read
  bool down = false;
  bool throttled = false;
  bool basic_only = false;  // no tokens: the password comes with every request
  fake::Gate* gate = nullptr;
  // When a user was last shown a repository: "alice team/app".
  std::map<std::string, Instant> shown;
  std::size_t token_requests = 0;
  std::size_t refused_passwords = 0;
  std::size_t questions = 0;  // of callers, at the registry itself

 private:
  Reply answer(const Asked& asked) {
    if (down) return Reply::failure(Errc::unreachable, "r.example does not answer");
    const std::string path = asked.target.substr(0, asked.target.find('?'));
    const std::string field(asked.headers.get("Authorization"));
    if (path == "/token") return token(asked, field);
    if (path == "/v2/") return challenge();
    const std::size_t kind = std::min(path.find("/manifests/"), path.find("/blobs/"));
    const std::size_t end = std::min(kind, path.find("/tags/list"));
    const std::string repository = path.substr(4, end - 4);
    if (!field.empty()) {
      ++questions;
      const std::string user = user_of(field);
      if (throttled) return {.status = 429, .headers = {{"Retry-After", "2"}}};
      if (user.empty()) return challenge();
      if (!may(user, repository)) return {.status = 403};
      shown[user + " " + repository] = house_.clock.now();
    }
    return content(asked, path);
  }

  Reply challenge() const {
    return {.status = 401,
            .headers = {{"WWW-Authenticate",
                         basic_only ? "Basic realm=\"r\""
                                    : R"(Bearer realm="https://r.example/token",service="r")"}}};
  }

  Reply token(const Asked& asked, const std::string& field) {
    ++token_requests;
    std::string user = "nobody";
    if (!field.empty()) {
      user = user_by_password(field);
      if (user.empty()) {
        ++refused_passwords;
        return {.status = 401};
      }
    }
    const std::string scope = asked.field("scope");
    const std::string repository = scope.substr(11, scope.rfind(':') - 11);
    Reply reply = Reply::json(R"({"token":"for-)" + user + R"("})");
    reply.gate = gate;
    if (user == "nobody" && !open.contains(repository)) return {.status = 401};
    return reply;
  }

  std::string user_by_password(const std::string& field) const {
    for (const auto& [name, account] : accounts)
      if (field == "Basic " + auth::encode_base64(name + ":" + account.password)) return name;
    return {};
  }
  std::string user_of(const std::string& field) {
    if (field.starts_with("Basic ")) {
      const std::string user = user_by_password(field);
      if (user.empty()) ++refused_passwords;
      return user;
    }
    const std::string user = field.substr(std::string("Bearer for-").size());
    return field.starts_with("Bearer for-") && (user == "nobody" || accounts.contains(user))
               ? user
               : std::string();
  }
  bool may(const std::string& user, const std::string& repository) const {
    if (open.contains(repository)) return true;
    const auto account = accounts.find(user);
    return account != accounts.end() && account->second.repositories.contains(repository);
  }

  static Reply content(const Asked& asked, const std::string& path) {
    if (path.ends_with("/tags/list")) return Reply::json(R"({"name":"x","tags":["1"]})");
    if (path.contains("/manifests/") && !path.ends_with("/absent")) {
      const std::string digest = cache::digest_of(cache::Algorithm::sha256, image).to_string();
      Reply reply{.headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                              {"Content-Length", std::to_string(image.size())},
                              {"Docker-Content-Digest", digest}}};
      if (asked.method != "HEAD") reply.body = image;
      return reply;
    }
    if (path.ends_with(cache::digest_of(cache::Algorithm::sha256, layer).to_string()))
      return fake::House::blob_reply(asked, layer);
    return {.status = 404};
  }

  fake::House& house_;
};

class Callers : public testing::Test {
 protected:
  explicit Callers(int speed = 1)
      : house_({.bytes = 1 << 30}, nullptr, speed),
        registry_(house_),
        tasks_(house_.io.get_executor(), [](auto, auto) {}),
        proofs_(house_.io.get_executor(),
                {.http = house_.upstream,
                 .clock = house_.clock,
                 .tasks = tasks_,
                 .random = random_,
                 .files = files_,
                 .programs = programs_,
                 .limits = {}},
                [](const Registry& registry) {
                  const Origin origin = Url::parse("https://" + registry.name())->origin();
                  return CallerDoor{.origin = origin,
                                    .prefix = {},
                                    .ca_file = {},
                                    .password_rule = [origin](std::string_view realm) {
                                      return auth::check_password_realm(origin, realm, {});
                                    }};
                }) {
    house_.proxy.judge_callers_by(
        [this](CallerProofs::Question question) { return proofs_.judge(std::move(question)); });
    house_.registries.replace(settings(), false);
    registry_.accounts["alice"] = {.password = "alices-secret", .repositories = {"team/app"}};
    registry_.accounts["bob"] = {.password = "bobs-secret", .repositories = {"other/app"}};
    registry_.open = {"open/app"};
  }
  ~Callers() override {
    house_.proxy.judge_callers_by({});
    tasks_.cancel();
    house_.run(tasks_.join());
  }

  static std::vector<RegistrySettings> settings(std::size_t connections = 16) {
    RegistrySettings ours;
    ours.name = "r.example";
    ours.is_default = true;
    ours.max_connections = connections;
    ours.freshness.tag_ttl = 1h;
    ours.verify_callers = true;
    RegistrySettings other;
    other.name = "free.example";
    other.freshness.tag_ttl = 1h;
    return {ours, other};
  }

  static std::string manifest(const std::string& repository, const std::string& reference = "1") {
    return "/v2/r.example/" + repository + "/manifests/" + reference;
  }
  static std::string blob(const std::string& repository) {
    return "/v2/r.example/" + repository + "/blobs/" +
           cache::digest_of(cache::Algorithm::sha256, layer).to_string();
  }
  Answer pull(const std::string& repository, const std::string& credential = {}) {
    return house_.get(manifest(repository), credential);
  }
  // Both are in the cache, and may be served for the rest of the hour without asking upstream.
  void fill(const std::string& repository) {
    ASSERT_EQ(pull(repository, alice_).status, 200);
    ASSERT_EQ(house_.get(blob(repository), alice_).status, 200);
  }
  static std::string message(const Answer& answer) { return answer.body; }

  const std::string alice_ = basic("alice", "alices-secret");
  const std::string bob_ = basic("bob", "bobs-secret");
  fake::House house_;
  Accounts registry_;
  SeededRandom random_{1};
  fake::FakeFiles files_;
  fake::FakePrograms programs_;
  TaskGroup tasks_;
  CallerProofs proofs_;
};

TEST_F(Callers, WithoutACredentialAreAskedForOneAndSeeNothing) {
  fill("team/app");
  for (const std::string& target :
       {manifest("team/app"), blob("team/app"), std::string("/v2/r.example/team/app/tags/list"),
        std::string("/v2/team/app/manifests/1?ns=r.example")}) {
    const Answer answer = house_.get(target);
    EXPECT_EQ(answer.status, 401) << target;
    EXPECT_EQ(answer.field("WWW-Authenticate"), "Basic realm=\"staithe\", charset=\"UTF-8\"");
    EXPECT_THAT(message(answer), HasSubstr("verify_callers"));
    EXPECT_THAT(answer.body, Not(HasSubstr("private bytes")));
    EXPECT_EQ(house_.get(target, basic("", "")).status, 401) << "an empty pair is none";
  }
  EXPECT_EQ(house_.proxy.traffic().denied_caller, 8U);
}

TEST_F(Callers, WithTheRightAreServedAndNotJudgedAgain) {
  EXPECT_EQ(pull("team/app", alice_).body, image);
  const std::size_t asked = registry_.questions + registry_.token_requests;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(pull("team/app", alice_).field("Cache-Status"), "staithe; hit");
    EXPECT_EQ(house_.get(blob("team/app"), alice_).body, layer);
  }
  EXPECT_EQ(registry_.questions + registry_.token_requests, asked);
  EXPECT_EQ(proofs_.figures().proven, 1U);
}

TEST_F(Callers, WithAWrongPasswordAreRefusedAndAskedAgain) {
  fill("team/app");
  const Answer answer = pull("team/app", basic("alice", "guess-one"));
  EXPECT_EQ(answer.status, 401);
  EXPECT_NE(answer.field("WWW-Authenticate"), "");
  EXPECT_THAT(answer.body, Not(HasSubstr("guess-one")));
  const std::size_t asked = house_.upstream.asked().size();
  EXPECT_EQ(pull("team/app", basic("alice", "guess-one")).status, 401);
  EXPECT_EQ(house_.upstream.asked().size(), asked) << "what was refused is not tried again at once";
}

TEST_F(Callers, WithTheRightToAnotherRepositoryAreRefused) {
  fill("team/app");
  const Answer answer = pull("team/app", bob_);
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.field("WWW-Authenticate"), "");
  EXPECT_EQ(house_.get(blob("team/app"), bob_).status, 403);
  EXPECT_EQ(pull("other/app", bob_).status, 200);
  EXPECT_EQ(pull("other/app", alice_).status, 403);
}

TEST_F(Callers, WhoseRightIsTakenAwayEndWithinTheBound) {
  fill("team/app");
  registry_.accounts["alice"].repositories.clear();
  EXPECT_EQ(pull("team/app", alice_).status, 200) << "this is the bound, and not before it";
  house_.clock.pass(proof_bound);
  EXPECT_EQ(pull("team/app", alice_).status, 403);
  EXPECT_EQ(house_.get(blob("team/app"), alice_).status, 403);
  registry_.accounts["alice"].repositories = {"team/app"};
  house_.clock.pass(refusal_bound);
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  registry_.accounts["alice"].password = "changed";
  house_.clock.pass(proof_bound);
  EXPECT_EQ(pull("team/app", alice_).status, 401);
  EXPECT_EQ(pull("team/app", basic("alice", "changed")).status, 200);
}

TEST_F(Callers, NeedNoCredentialForWhatIsPublic) {
  EXPECT_EQ(pull("open/app").body, image);
  EXPECT_EQ(pull("open/app", basic("alice", "guess")).status, 200);
  EXPECT_EQ(registry_.refused_passwords, 0U) << "what everybody may see needs no proof";
  registry_.open.clear();
  house_.clock.pass(proof_bound);
  EXPECT_EQ(pull("open/app").status, 401);
}

TEST_F(Callers, KeepTheirProofWhileUpstreamIsDownAndGetNoneThen) {
  fill("team/app");
  registry_.down = true;
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  const Answer answer = pull("team/app", bob_);
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(message(answer), HasSubstr("whether you may read r.example/team/app"));
  EXPECT_EQ(pull("team/app").status, 503);
  house_.clock.pass(proof_bound);
  EXPECT_EQ(pull("team/app", alice_).status, 503);
  registry_.down = false;
  house_.clock.pass(2min);  // by which the pauses after the failures are over
  EXPECT_EQ(pull("team/app", alice_).status, 200);
}

TEST_F(Callers, ThatComeTogetherAreOneQuestion) {
  fake::Gate gate(house_.io.get_executor());
  registry_.gate = &gate;
  const std::string text = "GET " + manifest("team/app") +
                           " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + alice_ +
                           "\r\n";
  std::vector<std::optional<int>> statuses(8);
  for (auto& status : statuses)
    asio::co_spawn(house_.io, house_.ask(text),
                   [&status](std::exception_ptr, Answer answer) { status = answer.status; });
  house_.run_until_true([&] { return gate.waiting() > 0; });
  gate.open();
  house_.run_until_true([&] {
    return std::ranges::all_of(statuses, [](const auto& status) { return status.has_value(); });
  });
  for (const auto& status : statuses) EXPECT_EQ(status, 200);
  EXPECT_EQ(registry_.token_requests, 1U);
  EXPECT_EQ(registry_.questions, 1U);
}

TEST_F(Callers, ThatGuessDoNotGetAnAccountLocked) {
  fill("team/app");
  for (int i = 0; i < 40; ++i)
    EXPECT_NE(pull("team/app", basic("bob", "guess" + std::to_string(i))).status, 200);
  EXPECT_LE(registry_.refused_passwords, 6U);
  EXPECT_GE(proofs_.figures().bounded, 34U);
  const Answer answer = pull("team/app", basic("bob", "one-more"));
  EXPECT_EQ(answer.status, 403);
  EXPECT_THAT(message(answer), HasSubstr("so that no account is locked"));
  // Who has a proof keeps it, and other accounts are no worse off.
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  registry_.accounts["carol"] = {.password = "carols-secret", .repositories = {"team/app"}};
  EXPECT_EQ(pull("team/app", basic("carol", "carols-secret")).status, 200);
  house_.clock.pass(10min);
  EXPECT_EQ(pull("other/app", bob_).status, 200);
}

TEST_F(Callers, ThatGuessWithoutAnAccountEndToo) {
  for (int i = 0; i < 200; ++i)
    pull("team/app", basic("user" + std::to_string(i), "guess" + std::to_string(i)));
  EXPECT_LE(registry_.refused_passwords, 70U);
}

TEST_F(Callers, AreNotAnsweredFromMemory) {
  fill("team/app");
  EXPECT_EQ(house_.proxy.answers().size(), 0U);
  EXPECT_EQ(house_.get_kept(manifest("team/app")), "");
  EXPECT_EQ(house_.get_kept(blob("team/app")), "");
}

TEST_F(Callers, AreNotAskedWhereTheRequestNamesNoRegistry) {
  fill("team/app");
  const std::size_t asked = house_.upstream.asked().size();
  const Answer answer = house_.get("/v2/team/app/manifests/1", alice_);
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.field("WWW-Authenticate"), "");
  EXPECT_THAT(message(answer), HasSubstr("names no registry"));
  // dockerd offers the Hub's password to every mirror: it goes nowhere.
  for (std::size_t i = asked; i < house_.upstream.asked().size(); ++i)
    EXPECT_EQ(house_.upstream.asked()[i].everything().find("alice"), std::string::npos);
  EXPECT_EQ(house_.get("/v2/open/app/manifests/1").status, 200);
}

TEST_F(Callers, OfOtherRegistriesAreNeverAskedAndTheirCredentialsGoNowhere) {
  house_.upstream.on("https://free.example", [](const Asked&) { return Reply{.status = 403}; });
  const Answer answer = house_.get("/v2/free.example/app/manifests/1", alice_);
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.field("WWW-Authenticate"), "");
  for (const Asked& asked : house_.upstream.asked())
    EXPECT_EQ(asked.headers.find("Authorization"), nullptr);
  EXPECT_EQ(house_.upstream.leaks("alices-secret", "https://r.example").size(), 0U);
}

TEST_F(Callers, LearnFromThePingThatACredentialMayHelp) {
  const Answer ping = house_.get("/v2/");
  EXPECT_EQ(ping.status, 200) << "dockerd answers a 401 with the Hub's password";
  EXPECT_EQ(ping.field("WWW-Authenticate"), "Basic realm=\"staithe\", charset=\"UTF-8\"");
  auto all = settings();
  all[0].verify_callers = false;
  house_.registries.replace(all, true);
  EXPECT_EQ(house_.get("/v2/").field("WWW-Authenticate"), "");
  EXPECT_EQ(pull("team/app").status, 200);
}

TEST_F(Callers, KeepTheirProofOverAReloadThatChangesNothing) {
  fill("team/app");
  const std::size_t questions = registry_.questions;
  house_.registries.replace(settings(), true);
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  EXPECT_EQ(registry_.questions, questions);
  house_.registries.replace(settings(8), true);
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  EXPECT_EQ(registry_.questions, questions + 1) << "another configuration is another question";
}

TEST_F(Callers, MayBringATokenOfTheRegistrys) {
  fill("team/app");
  EXPECT_EQ(pull("team/app", "Authorization: Bearer for-alice\r\n").status, 200);
  EXPECT_EQ(pull("team/app", "Authorization: Bearer for-bob\r\n").status, 403);
  EXPECT_EQ(pull("team/app", "Authorization: Bearer forged\r\n").status, 401);
  EXPECT_EQ(pull("team/app", "Authorization: Digest forged\r\n").status, 401);
}

TEST_F(Callers, AreJudgedByAPasswordWhereTheRegistryGivesNoTokens) {
  registry_.basic_only = true;
  EXPECT_EQ(pull("team/app", alice_).status, 200);
  EXPECT_EQ(pull("team/app", basic("alice", "guess")).status, 401);
  EXPECT_EQ(pull("team/app", bob_).status, 403);
  EXPECT_EQ(pull("team/app").status, 401);
}

TEST_F(Callers, AreToldWhatIsNotThereOnlyWhereTheyMayLook) {
  EXPECT_EQ(house_.get(manifest("team/app", "absent"), alice_).status, 404);
  EXPECT_EQ(house_.get(manifest("team/app", "absent")).status, 401);
  EXPECT_EQ(house_.get(manifest("team/app", "absent"), bob_).status, 403);
  EXPECT_EQ(pull("team/app", alice_).status, 200) << "one absence says nothing of the rest";
}

TEST_F(Callers, OfATransferThatTheyMayNotJoinAreRefused) {
  // Bob asks for what alice is fetching.
  fake::Gate gate(house_.io.get_executor());
  ASSERT_EQ(pull("team/app", alice_).status, 200);
  const std::string url = "https://r.example/v2/team/app/blobs/" +
                          cache::digest_of(cache::Algorithm::sha256, layer).to_string();
  house_.upstream.on(url, [&](const Asked& asked) {
    if (!asked.headers.get("Authorization").empty()) return Reply{.status = 403};
    Reply reply = fake::House::blob_reply(asked, layer);
    reply.gate = &gate;
    return reply;
  });
  std::optional<Answer> first;
  asio::co_spawn(
      house_.io,
      house_.ask("GET " + blob("team/app") +
                 " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + alice_ + "\r\n"),
      [&](std::exception_ptr, Answer answer) { first = std::move(answer); });
  house_.run_until_true([&] { return gate.waiting() > 0; });
  EXPECT_EQ(house_.get(blob("team/app"), bob_).status, 403);
  gate.open();
  house_.run_until_true([&] { return first.has_value(); });
  EXPECT_EQ(first->body, layer);
}

TEST_F(Callers, SendNothingOfACredentialAnywhereElse) {
  fill("team/app");
  pull("team/app", bob_);
  for (const char* secret : {"alices-secret", "bobs-secret"})
    EXPECT_EQ(house_.upstream.leaks(secret, "https://r.example").size(), 0U);
  for (const Asked& asked : house_.upstream.asked()) {
    const bool token = asked.target.starts_with("/token");
    const bool basic = asked.headers.get("Authorization").starts_with("Basic ");
    EXPECT_TRUE(!basic || token) << asked.url;
  }
}

TEST_F(Callers, ThatSendTwoCredentialsAreRefused) {
  EXPECT_EQ(pull("team/app", alice_ + bob_).status, 400);
}

// Whatever happens: who gets private bytes has been shown them by the registry itself, by its own
// credential, within the bound and under the configuration of the moment.
class CallersAtRandom : public Callers, public testing::WithParamInterface<int> {
 protected:
  CallersAtRandom() : Callers(200) {}
};

TEST_P(CallersAtRandom, SeeNoPrivateByteWithoutAProofWithinTheBound) {
  SeededRandom random(static_cast<std::uint64_t>(GetParam()));
  const auto pick = [&](std::size_t count) { return random.next() % count; };
  const std::vector<std::string> users{"alice", "bob", "nobody", "guesser"};
  const std::vector<std::string> repositories{"team/app", "other/app", "open/app"};
  Instant configured = house_.clock.now();
  std::size_t connections = 16;
  std::size_t served = 0;
  std::size_t refused = 0;
  for (int step = 0; step < 500; ++step) {
    const std::string& repository = repositories[pick(repositories.size())];
    switch (pick(10)) {
      case 0:
        registry_.accounts["alice"].repositories = {repository};
        break;
      case 1:
        if (pick(3) == 0) registry_.accounts[users[pick(2)]].repositories.clear();
        break;
      case 2:
        registry_.accounts["bob"].password = pick(2) ? "bobs-secret" : "another";
        break;
      case 3:
        registry_.down = pick(3) == 0;
        registry_.throttled = pick(6) == 0;
        break;
      case 4:
        if (pick(2)) {
          const std::size_t other = 8 + pick(8);
          if (std::exchange(connections, other) != other) configured = house_.clock.now();
        }
        house_.registries.replace(settings(connections), pick(2));
        break;
      case 5:
        house_.clock.pass(std::chrono::seconds(pick(400)));
        break;
      case 6:
        if (pick(2)) {
          registry_.open.erase("open/app");
        } else {
          registry_.open.insert("open/app");
        }
        break;
      default: {
        const std::string& user = users[pick(users.size())];
        const std::string credential = user == "nobody"    ? std::string()
                                       : user == "guesser" ? basic("alice", "no")
                                       : user == "alice"   ? alice_
                                                           : bob_;
        const Instant before = house_.clock.now();
        const Answer answer =
            house_.get(pick(2) ? manifest(repository) : blob(repository), credential);
        if (answer.status != 200) {
          ++refused;
          EXPECT_THAT(answer.body, Not(HasSubstr(layer)));
          EXPECT_THAT(answer.body, Not(HasSubstr("schemaVersion")));
          break;
        }
        ++served;
        // By its own right, or by everybody's.
        Instant last{};
        for (const std::string& as : {user, std::string("nobody")})
          if (const auto found = registry_.shown.find(as + " " + repository);
              found != registry_.shown.end())
            last = std::max(last, found->second);
        EXPECT_GE(last + proof_bound, before) << user << " " << repository << " step " << step;
        EXPECT_GE(last, configured) << "a proof of another configuration";
      }
    }
  }
  EXPECT_GT(served, 0U);
  EXPECT_GT(refused, 20U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CallersAtRandom, testing::Range(1, 9));

TEST(Allowance, RunsOutAndComesBack) {
  Instant now{std::chrono::hours(1)};
  Allowance allowance(3, 10s);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(allowance.take(now));
  EXPECT_FALSE(allowance.take(now));
  allowance.give_back();
  EXPECT_TRUE(allowance.take(now));
  EXPECT_FALSE(allowance.take(now + 9s));
  EXPECT_TRUE(allowance.take(now + 10s));
  EXPECT_FALSE(allowance.take(now + 10s));
  EXPECT_FALSE(allowance.is_whole(now + 30s));
  EXPECT_TRUE(allowance.is_whole(now + 40s));
  // An hour of rest is no more than the whole of it.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(allowance.take(now + 1h));
  EXPECT_FALSE(allowance.take(now + 1h));
}

}  // namespace
}  // namespace staithe::proxy
