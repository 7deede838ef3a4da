#include "proxy/auth/password.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "proxy/auth/base64.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::FakePrograms;

// "user:secret", or the error.
std::string shown(const Result<Password>& password) {
  if (!password)
    return to_string(password.error().code) + std::string(": ") + password.error().detail;
  return (password->identity_token ? "token " : "") + password->username + ":" +
         std::string(password->secret.reveal());
}

std::string file_says(const std::string& text, const std::string& username = "user") {
  World world;
  world.files.write("/etc/pw", text);
  PasswordFile source(world.environment(), username, "/etc/pw");
  return shown(world.now(source.fetch()));
}

TEST(PasswordFile, HoldsOnePasswordWithoutItsLineEnd) {
  EXPECT_EQ(file_says("s3cr3t"), "user:s3cr3t");
  EXPECT_EQ(file_says("s3cr3t\n"), "user:s3cr3t");
  EXPECT_EQ(file_says("s3cr3t\r\n"), "user:s3cr3t");
  EXPECT_EQ(file_says(" with spaces : and colons \n"), "user: with spaces : and colons ");
  EXPECT_EQ(file_says("p\xc3\xa4ss"), "user:p\xc3\xa4ss");
}

TEST(PasswordFile, RefusesWhatBasicAuthenticationCannotSend) {
  const std::string unsendable =
      "identity_missing: the file /etc/pw: the user name or password holds a character that Basic "
      "authentication cannot send";
  for (const std::string& text :
       {std::string("s3c\nr3t"), std::string("s3c\0r3t", 7), std::string("s3cr3t\n\n"),
        std::string("s3cr3t\x7f"), std::string("s3c\tr3t"), std::string("\x1b[2Js3cr3t")})
    EXPECT_EQ(file_says(text), unsendable);
  for (const std::string user : {"a:b", "a\r\nX: y", "a\n"})
    EXPECT_EQ(file_says("s3cr3t", user), unsendable);
  // Google's key is JSON, which may stand on many lines.
  EXPECT_EQ(file_says("{\n\t\"type\": 1\n}\n"), "user:{\n\t\"type\": 1\n}");
  EXPECT_EQ(file_says("{\n\x1b}"), unsendable);
  EXPECT_EQ(file_says(""), "identity_missing: the file /etc/pw: the password is empty");
  EXPECT_EQ(file_says("\n"), "identity_missing: the file /etc/pw: the password is empty");
  EXPECT_EQ(file_says(std::string(32 * 1024, 'x')).size(), 5U + 32 * 1024);
  EXPECT_EQ(file_says(std::string(32 * 1024 + 1, 'x')),
            "identity_missing: the file /etc/pw: the user name or password is far too long");
  EXPECT_EQ(file_says("x", std::string(1025, 'u')),
            "identity_missing: the file /etc/pw: the user name or password is far too long");
}

TEST(PasswordFile, IsReadAsAPrivateFile) {
  World world;
  world.files.write("/etc/pw", "x");
  PasswordFile source(world.environment(), "user", "/etc/pw");
  (void)world.now(source.fetch());
  ASSERT_EQ(world.files.asked.size(), 1U);
  EXPECT_TRUE(world.files.asked[0].rules.is_private);
}

struct HelperWorld : World {
  // What the helper says.
  Result<Password> says(std::string output, int exit_status = 0, std::string helper = "ecr-login",
                        std::string server = "contoso.example") {
    programs.play = [=](const ProgramRun&) {
      return FakePrograms::Said{.exit_status = exit_status, .output = output};
    };
    PasswordHelper source(environment(), std::move(helper), std::move(server));
    return now(source.fetch());
  }
};

TEST(PasswordHelper, IsAskedTheWayDockerAsks) {
  HelperWorld world;
  EXPECT_EQ(shown(world.says(R"({"ServerURL":"contoso.example","Username":"AWS","Secret":"s3cr3t"})"
                             "\n")),
            "AWS:s3cr3t");
  ASSERT_EQ(world.programs.runs.size(), 1U);
  EXPECT_EQ(world.programs.runs[0].program, "docker-credential-ecr-login");
  EXPECT_EQ(world.programs.runs[0].arguments, std::vector<std::string>{"get"});
  EXPECT_EQ(world.programs.runs[0].input, "contoso.example");
  EXPECT_EQ(helper_server("contoso.example"), "contoso.example");
  EXPECT_EQ(helper_server("docker.io"), "https://index.docker.io/v1/");
}

TEST(PasswordHelper, MayGiveAnIdentityToken) {
  HelperWorld world;
  EXPECT_EQ(shown(world.says(R"({"Username":"<token>","Secret":"t0ken"})")), "token :t0ken");
}

TEST(PasswordHelper, ThatHasNoneIsToldApartFromOneThatFails) {
  HelperWorld world;
  EXPECT_EQ(shown(world.says("credentials not found in native keychain\n", 1)),
            "identity_missing: asking docker-credential-ecr-login for the password of "
            "contoso.example: it has none; store one with docker login, or correct [identity]");
  EXPECT_EQ(shown(world.says("s3cr3t: no network", 2)),
            "upstream_failed: asking docker-credential-ecr-login for the password of "
            "contoso.example: it failed with exit status 2; run `echo contoso.example | "
            "docker-credential-ecr-login get` as the user of staithed to see why");
}

TEST(PasswordHelper, SaysNothingOfWhatItMisunderstood) {
  HelperWorld world;
  for (const std::string& output :
       {std::string(), std::string("s3cr3t"), std::string("[]"), std::string("\"s3cr3t\""),
        std::string(R"({"Username":"u","Secret":"s3cr3t"} x)"),
        std::string(R"({"Username":["u"],"Secret":"s3cr3t"})"),
        std::string(R"({"Username":"u","Secret":5})"), std::string(R"({"Username":"u"})"),
        std::string(R"({"Username":"u","Secret":""})"),
        std::string(R"({"Username":"u","Secret":null})"),
        std::string(R"({"Username":"a:b","Secret":"s3cr3t"})"),
        std::string(R"({"Username":"a\nb","Secret":"s3cr3t"})"),
        std::string(R"({"Username":"u","Secret":"s3cr3t\u0000"})"),
        std::string(R"({"Username":"u","Secret":"s3cr3t\r\nX: y"})"),
        "{\"Username\":\"u\",\"Secret\":\"" + std::string(33'000, 's') + "\"}",
        std::string(60'000, '['), std::string("{\"Secret\":\"s3cr3t\xff\"}")}) {
    const auto password = world.says(output);
    ASSERT_FALSE(password) << output.substr(0, 80);
    EXPECT_TRUE(password.error().detail.starts_with(
        "asking docker-credential-ecr-login for the password of contoso.example: "));
    EXPECT_FALSE(password.error().detail.contains("s3cr3t")) << password.error().detail;
    EXPECT_LT(password.error().detail.size(), 300U);
  }
}

TEST(PasswordHelper, IsNeverOurselvesAndNeverAPath) {
  HelperWorld world;
  for (const std::string helper :
       {"staithe", "staithe-nomad", "../staithe", "a b", "a;b", "a/b", "a\nb", "A"}) {
    const auto password = world.says("{}", 0, helper);
    ASSERT_FALSE(password);
    EXPECT_EQ(password.error().code, Errc::identity_missing);
    EXPECT_TRUE(password.error().detail.ends_with(": this helper is not run; use another"));
    EXPECT_FALSE(password.error().detail.contains('\n'));
  }
  EXPECT_TRUE(world.programs.runs.empty());
}

struct ConfigWorld : World {
  ConfigWorld() {
    programs.play = [](const ProgramRun& run) {
      return FakePrograms::Said{.output = R"({"Username":")" + run.program + R"(","Secret":"for )" +
                                          run.input + "\"}"};
    };
  }
  std::string says(const std::string& text, const std::string& name = "contoso.example") {
    files.write("/run/config.json", text);
    DockerConfig source(environment(), "/run/config.json", name);
    return shown(now(source.fetch()));
  }
};

std::string auth(std::string_view pair) { return R"({"auth":")" + encode_base64(pair) + "\"}"; }

TEST(DockerConfig, HoldsUserAndPasswordUnderAnyOfTheKeysThatDockerWrites) {
  ConfigWorld world;
  for (const std::string key :
       {"contoso.example", "https://contoso.example", "https://contoso.example/",
        "https://contoso.example/v1/", "https://contoso.example/v2/"})
    EXPECT_EQ(world.says(R"({"auths":{"other":{},")" + key + "\":" + auth("user:s3c:r3t") + "}}"),
              "user:s3c:r3t")
        << key;
  for (const std::string key : {"https://index.docker.io/v1/", "docker.io", "index.docker.io",
                                "https://index.docker.io/v2/", "registry-1.docker.io"})
    EXPECT_EQ(world.says(R"({"auths":{")" + key + "\":" + auth("user:pw") + "}}", "docker.io"),
              "user:pw")
        << key;
  // What kubectl writes, and what an old docker writes.
  EXPECT_EQ(world.says(R"({"auths":{"contoso.example":{"username":"u","password":"p","auth":"")"
                       R"(}}})"),
            "u:p");
  EXPECT_EQ(world.says(R"({"auths":{"contoso.example":)" + auth(std::string("u:p\0\0", 5)) + "}}"),
            "u:p");
  // An identity token comes first: the auth beside it has no password.
  EXPECT_EQ(world.says(R"({"auths":{"contoso.example":{"auth":")" + encode_base64("u:") +
                       R"(","identitytoken":"t0ken"}}})"),
            "token :t0ken");
}

TEST(DockerConfig, IsForOneRegistryAndNoOther) {
  ConfigWorld world;
  for (const std::string key :
       {"contoso.example.evil", "xcontoso.example", "contoso", "http://contoso.example",
        "*.example", "https://contoso.example/v3/", "contoso.example:5000", "contoso.example/app"})
    EXPECT_EQ(world.says(R"({"auths":{")" + key + "\":" + auth("user:s3cr3t") + "}}"),
              "identity_missing: looking for contoso.example in /run/config.json: there is no "
              "entry for it; docker login it, or correct [identity]")
        << key;
  EXPECT_TRUE(world.programs.runs.empty());
}

TEST(DockerConfig, AsksTheHelperOfTheRegistryThenItsEntryThenTheOneForAll) {
  ConfigWorld world;
  const std::string auths = R"("auths":{"contoso.example":)" + auth("user:pw") + "}";
  EXPECT_EQ(world.says(R"({"credHelpers":{"contoso.example":"ecr-login"},"credsStore":"pass",)" +
                       auths + "}"),
            "docker-credential-ecr-login:for contoso.example");
  EXPECT_EQ(
      world.says(R"({"credHelpers":{"other":"ecr-login"},"credsStore":"pass",)" + auths + "}"),
      "user:pw");
  EXPECT_EQ(world.says(R"({"auths":{"contoso.example":{}},"credsStore":"pass"})"),
            "docker-credential-pass:for contoso.example");
  EXPECT_EQ(world.says(R"({"credsStore":"desktop.exe"})", "docker.io"),
            "docker-credential-desktop.exe:for https://index.docker.io/v1/");
}

TEST(DockerConfig, RunsNeitherUsNorAPath) {
  ConfigWorld world;
  for (const std::string helper :
       {"staithe", "staithe-nomad", "../../bin/sh", "a b", "$(id)", "/x"})
    for (const std::string& text : {R"({"credsStore":")" + helper + "\"}",
                                    R"({"credHelpers":{"contoso.example":")" + helper + "\"}}"})
      EXPECT_EQ(world.says(text),
                "identity_missing: looking for contoso.example in /run/config.json: it names the "
                "credential helper " +
                    helper + ", which is not run");
  EXPECT_TRUE(world.programs.runs.empty());
}

TEST(DockerConfig, ThatIsBrokenQuotesNothing) {
  ConfigWorld world;
  const auto one = [](const std::string& entry) {
    return R"({"auths":{"contoso.example":)" + entry + "}}";
  };
  for (const std::string& text : {std::string(),
                                  std::string("s3cr3t"),
                                  std::string("[]"),
                                  std::string("null"),
                                  std::string(R"({"auths":"s3cr3t"})"),
                                  std::string(R"({"auths":["s3cr3t"]})"),
                                  std::string(R"({"credHelpers":["s3cr3t"]})"),
                                  std::string(R"({"credsStore":["s3cr3t"]})"),
                                  one("null"),
                                  one(R"("s3cr3t")"),
                                  one("{}"),
                                  one(R"({"auth":5})"),
                                  one(R"({"auth":"s3cr3t"})"),
                                  one(R"({"auth":"####"})"),
                                  one(R"({"auth":"dTpzM2NyM3"})"),
                                  one(auth("s3cr3t-without-colon")),
                                  one(auth("u:")),
                                  one(auth("u:s3cr3t\n")),
                                  one(auth("u\n:s3cr3t")),
                                  one(auth(std::string("u:\0\0", 4))),
                                  one(auth("u:" + std::string(33'000, 's'))),
                                  one(R"({"username":"u"})"),
                                  one(R"({"identitytoken":"s3cr3t\r\n"})"),
                                  std::string(60'000, '{')}) {
    const std::string said = world.says(text);
    EXPECT_TRUE(said.starts_with("identity_missing: looking for contoso.example in ")) << said;
    EXPECT_FALSE(said.contains("s3cr3t")) << said;
  }
}

// Passwords over keepers over files that a test changes.
class TwoPasswords : public testing::Test {
 protected:
  TwoPasswords() {
    world.files.write("/1", "one\n");
    world.files.write("/2", "two\n");
    make(false);
  }
  void make(bool renewable) {
    std::vector<std::shared_ptr<PasswordKeeper>> keepers;
    for (const char* file : {"/1", "/2"})
      keepers.push_back(std::make_shared<PasswordKeeper>(
          "password", Kind::password,
          std::make_unique<PasswordFile>(world.environment(), "user", file), world.environment()));
    passwords = std::make_unique<Passwords>("the password for contoso", std::move(keepers),
                                            renewable, world.environment());
  }
  Passwords::Pick pick() { return value_or_throw(world.now(passwords->get())); }
  std::string got() {
    auto outcome = world.now(passwords->get());
    return outcome ? std::string(outcome->password->secret.reveal()) : outcome.error().detail;
  }

  World world;
  std::unique_ptr<Passwords> passwords;
  const std::string both_refused =
      "the password for contoso: both passwords were refused; it is not sent again for 10 minutes. "
      "Put the right one into its file or helper: that is seen within half a minute, and at once "
      "after staithe renew";
};

TEST_F(TwoPasswords, TheFirstIsUsedUntilItIsRefused) {
  EXPECT_EQ(passwords->username(), "");
  EXPECT_EQ(got(), "one");
  EXPECT_EQ(passwords->username(), "user");
  EXPECT_EQ(got(), "one");
  passwords->refused(pick());
  for (int minute = 0; minute < 9; ++minute) {
    EXPECT_EQ(got(), "two");
    world.clock.advance(1min);
  }
}

TEST_F(TwoPasswords, BothRefusedAreNotSentAgainForTenMinutes) {
  passwords->refused(pick());
  passwords->refused(pick());
  for (int second = 0; second < 599; ++second) {
    EXPECT_EQ(got(), both_refused);
    world.clock.advance(1s);
  }
  EXPECT_EQ(world.now(passwords->get()).error().code, Errc::unauthorized);
  world.clock.advance(1s);
  EXPECT_EQ(got(), "one");
}

TEST_F(TwoPasswords, OneThatHasChangedWhenItIsRefusedIsReplacedAtOnce) {
  const auto old = pick();
  world.files.write("/1", "changed");
  passwords->refused(old);
  EXPECT_EQ(got(), "changed");
}

TEST_F(TwoPasswords, OneThatIsChangedAfterItsRefusalIsSeenWithTheNextLook) {
  passwords->refused(pick());
  passwords->refused(pick());
  EXPECT_EQ(got(), both_refused);
  world.files.write("/2", "mended");
  world.clock.advance(5s);
  EXPECT_EQ(got(), "mended");
}

TEST_F(TwoPasswords, AStormOfCallersReadsARefusedFileOncePerLook) {
  passwords->refused(pick());
  passwords->refused(pick());
  (void)got();
  world.files.asked.clear();
  for (int second = 0; second < 60; ++second) {
    for (int i = 0; i < 100; ++i) EXPECT_EQ(got(), both_refused);
    world.clock.advance(1s);
  }
  EXPECT_LE(world.files.asked.size(), 26U);  // Two files, every 5 s.
}

TEST_F(TwoPasswords, AMissingFileIsToldUnlessTheOtherServes) {
  world.files.remove("/1");
  EXPECT_EQ(got(), "two");
  ASSERT_TRUE(passwords->last_error());
  EXPECT_EQ(passwords->last_error()->detail, "the file /1 cannot be read");
  passwords->refused(pick());
  EXPECT_EQ(got(), "the file /1 cannot be read");
}

TEST_F(TwoPasswords, RenewForgetsWhatWasRefusedAndReadsAnew) {
  passwords->refused(pick());
  passwords->refused(pick());
  EXPECT_EQ(got(), both_refused);
  EXPECT_TRUE(world.now([](Passwords& of) -> asio::awaitable<int> {
    co_await of.renew();
    co_return 0;
  }(*passwords)));
  EXPECT_EQ(got(), "one");
}

TEST_F(TwoPasswords, AnEndIsOnlyBelievedOfWhatCanBeRenewedAndIsNotNew) {
  world.clock.advance(1h);
  const auto fixed = pick();
  world.clock.advance(2min);
  EXPECT_FALSE(passwords->ended(fixed));
  make(true);
  const auto fresh = pick();
  EXPECT_FALSE(passwords->ended(fresh));
  world.clock.advance(59s);
  const auto aged = pick();
  world.clock.advance(1s);
  EXPECT_TRUE(passwords->ended(fresh));
  (void)aged;
}

TEST(Passwords, OfAHelperAreAskedForEveryTenMinutesAndNotForEveryPull) {
  World world;
  int runs = 0;
  world.programs.play = [&](const ProgramRun&) {
    return FakePrograms::Said{.output = R"({"Username":"AWS","Secret":"s)" +
                                        std::to_string(++runs) + "\"}"};
  };
  Passwords passwords(
      "p",
      {std::make_shared<PasswordKeeper>(
          "p", Kind::password,
          std::make_unique<PasswordHelper>(world.environment(), "ecr-login", "r.example"),
          world.environment())},
      true, world.environment());
  for (int second = 0; second < 599; ++second) {
    EXPECT_EQ(world.now(passwords.get())->password->secret.reveal(), "s1");
    world.clock.advance(1s);
  }
  EXPECT_EQ(runs, 1);
  // While it is used it is renewed, no more often than every ten minutes.
  for (int minute = 0; minute < 24 * 60; ++minute) {
    EXPECT_TRUE(world.now(passwords.get()));
    world.clock.advance(1min);
  }
  EXPECT_LE(runs, 146);
  // One that fails is no pull's concern while the last password lasts.
  world.programs.play = [](const ProgramRun&) -> FakePrograms::Said {
    throw Failure(Errc::unreachable, "the program took longer than 60 s and was ended");
  };
  for (int hour = 0; hour < 11; ++hour) {
    EXPECT_TRUE(world.now(passwords.get()));
    world.clock.advance(1h);
  }
  world.clock.advance(2h);
  EXPECT_EQ(world.now(passwords.get()).error().code, Errc::unreachable);
}

TEST(Passwords, OfAHelperThatWasRefusedIsAskedForAgainAfterHalfAMinute) {
  World world;
  std::string secret = "old";
  world.programs.play = [&](const ProgramRun&) {
    return FakePrograms::Said{.output = R"({"Username":"u","Secret":")" + secret + "\"}"};
  };
  Passwords passwords(
      "p",
      {std::make_shared<PasswordKeeper>(
          "p", Kind::password,
          std::make_unique<PasswordHelper>(world.environment(), "pass", "r.example"),
          world.environment())},
      true, world.environment());
  passwords.refused(world.now(passwords.get()).value());
  for (int second = 0; second < 20; ++second) {
    EXPECT_FALSE(world.now(passwords.get()));
    world.clock.advance(1s);
  }
  EXPECT_EQ(world.programs.runs.size(), 2U);
  secret = "new";
  world.clock.advance(10s);
  EXPECT_EQ(world.now(passwords.get())->password->secret.reveal(), "new");
}

}  // namespace
}  // namespace staithe::proxy::auth
