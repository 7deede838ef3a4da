#include "daemon/ending_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "cache/log.h"
#include "tests/fake/house.h"
#include "tests/proxy/auth/make_jwt.h"
#include "tests/proxy/auth/world.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using proxy::auth::Ending;
using testing::HasSubstr;
using testing::Not;

// Says when its secrets end, and nothing else.
class Holder final : public fake::NoCredentials {
 public:
  explicit Holder(const std::vector<Ending>& held) : held_(held) {}
  std::vector<Ending> endings() const override { return held_; }

 private:
  const std::vector<Ending>& held_;
};

class EndingWatchTest : public testing::Test {
 protected:
  EndingWatchTest() {
    log::start({.format = log::Format::text, .fd = ::fileno(file_)});
    (void)registries_.find("contoso.azurecr.io")->upstream("app");
  }
  ~EndingWatchTest() override { std::fclose(file_); }

  std::string logged() {
    log::stop();
    std::string text(65536, '\0');
    std::rewind(file_);
    text.resize(std::fread(text.data(), 1, text.size(), file_));
    return text;
  }

  std::size_t times(std::string_view what) {
    const std::string text = logged();
    std::size_t count = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++count;
    return count;
  }

  std::FILE* const file_ = std::tmpfile();
  proxy::auth::World world_;
  std::vector<Ending> held_;
  proxy::Registries registries_{
      [] {
        proxy::RegistrySettings entry;
        entry.name = "contoso.azurecr.io";
        return std::vector{entry};
      }(),
      [this](const std::string& name, const proxy::RegistrySettings&, const std::string&) {
        proxy::Url base = proxy::Url::parse("https://" + name).value();
        proxy::RedirectPolicy redirects{
            .registry = base.origin(), .data_hosts = {}, .acr_suffixes = {}};
        return std::make_unique<proxy::Upstream>(
            world_.io.get_executor(),
            proxy::Upstream::Settings{.base = std::move(base),
                                      .prefix = {},
                                      .ca_file = {},
                                      .redirects = std::move(redirects),
                                      .max_connections = 1,
                                      .limits = {}},
            std::make_unique<Holder>(held_), world_.http, world_.clock);
      }};
  proxy::auth::Identities identities_{proxy::AzureSettings{}, {}, world_.environment()};
  EndingWatch watch_{world_.clock, registries_, identities_};
};

TEST_F(EndingWatchTest, WarnsOfWhatIsNearAndOfNothingElse) {
  held_ = {{"certificate /near.pem", 29 * 24h, 30 * 24h},
           {"certificate /far.pem", 31 * 24h, 30 * 24h}};
  watch_.look();
  const std::string text = logged();
  EXPECT_THAT(text, HasSubstr("certificate /near.pem ends in 29 days"));
  EXPECT_THAT(text, HasSubstr("registry=contoso.azurecr.io"));
  EXPECT_THAT(text, Not(HasSubstr("far.pem")));
}

TEST_F(EndingWatchTest, SaysSoOnceADayAndEveryTenMinutesOnTheLast) {
  held_ = {{"certificate /sp.pem", 48h, 30 * 24h}};
  for (int minute = 0; minute < 24 * 60; ++minute) {
    watch_.look();
    world_.clock.advance(1min);
    held_[0].expires_in -= 60s;
  }
  held_[0].expires_in = 23h;
  for (int minute = 0; minute < 60; ++minute) {
    watch_.look();
    world_.clock.advance(1min);
  }
  EXPECT_EQ(times("credential ends soon"), 1U + 6U);
}

// The watch must not end with it: nobody would be warned of anything any more.
TEST_F(EndingWatchTest, ASignInMayEndAfterItsRegistryHasGone) {
  const proxy::auth::Place contoso = proxy::auth::at({"https", "contoso.azurecr.io", 443});
  const auto now = std::chrono::floor<std::chrono::seconds>(world_.clock.wall()).time_since_epoch();
  const std::string token = proxy::auth::make_jwt(
      R"({"iss":"Azure Container Registry","aud":"contoso.azurecr.io","exp":)" +
      std::to_string(now.count() + 3600) + "}");
  ASSERT_TRUE(identities_.sign_in(contoso, proxy::auth::Secret(token)));
  registries_.use_identity(contoso.name, std::string(proxy::auth::Identities::signed_in));
  registries_.replace({}, true);
  world_.clock.advance(2h);
  EXPECT_NO_THROW(watch_.look());
  EXPECT_FALSE(identities_.is_signed_in(contoso.name));
  EXPECT_THAT(logged(), HasSubstr("sign-in ended"));
}

TEST_F(EndingWatchTest, SaysWhatHelpsWhereThatIsNotANewOneInItsPlace) {
  held_ = {{.what = "secret /s", .expires_in = 24h, .warns_ahead = 30 * 24h},
           {.what = "certificate of listen.tls_file",
            .expires_in = 48h,
            .warns_ahead = 30 * 24h,
            .remedy = "make another"}};
  watch_.look();
  const std::string text = logged();
  EXPECT_THAT(text, HasSubstr("certificate of listen.tls_file ends in 2 days: make another\""));
  EXPECT_THAT(text,
              HasSubstr("secret /s ends in 24 hours: put a new one in its place before, which "
                        "is seen at once"));
}

TEST_F(EndingWatchTest, OfWhatHasEndedIsAnError) {
  held_ = {{"secret in /etc/staithe/secret", -5s, 30 * 24h}};
  watch_.look();
  const std::string text = logged();
  EXPECT_THAT(text, HasSubstr("error"));
  EXPECT_THAT(text, HasSubstr("secret in /etc/staithe/secret has ended"));
}

}  // namespace
}  // namespace staithe::daemon
