#include "proxy/upstream.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "tests/fake/clock.h"
#include "tests/fake/http.h"

namespace staithe::proxy {
namespace {

using fake::Asked;
using fake::Reply;

// Hands out "Bearer 1", "Bearer 2", ... and counts what it is told.
class CountingAuthorizer final : public auth::Authorizer {
 public:
  asio::awaitable<auth::Authorization> for_pull(std::string) override {
    co_return std::make_shared<const auth::Secret>("Bearer ", std::to_string(token));
  }
  bool refused(const std::string&, const auth::Authorization&, const Headers&) override {
    ++refusals;
    ++token;
    return true;
  }
  bool forbidden(const auth::Authorization&) override { return false; }
  asio::awaitable<auth::Login> login() override { throw Failure(Errc::not_found, "none"); }
  std::string login_name() const override { return {}; }
  asio::awaitable<void> renew() override { co_return; }
  std::vector<auth::TokenStatus> tokens() const override { return {}; }
  std::vector<auth::Ending> endings() const override { return {}; }
  std::optional<Error> last_error() const override { return std::nullopt; }
  int token = 1;
  int refusals = 0;
};

class UpstreamTest : public testing::Test {
 protected:
  UpstreamTest() {
    auto authorizer = std::make_unique<CountingAuthorizer>();
    authorizer_ = authorizer.get();
    Url base = *Url::parse("https://contoso.azurecr.io");
    RedirectPolicy redirects{
        .registry = base.origin(), .data_hosts = {"data.example"}, .acr_suffixes = {"azurecr.io"}};
    upstream_.emplace(io_.get_executor(),
                      Upstream::Settings{.base = std::move(base),
                                         .prefix = "mirror/",
                                         .ca_file = {},
                                         .redirects = std::move(redirects),
                                         .max_connections = 2,
                                         .limits = {}},
                      std::move(authorizer), http_, clock_);
  }

  // The status of the answer, or the failure's class.
  std::pair<int, std::optional<Errc>> get(const std::string& what = "blobs/x",
                                          std::shared_ptr<Upstream::Place> place = nullptr) {
    std::pair<int, std::optional<Errc>> outcome{0, std::nullopt};
    bool done = false;
    asio::co_spawn(io_, upstream_->send({.repository = "app", .what = what, .place = place}),
                   [&](std::exception_ptr error, std::unique_ptr<HttpResponse> response) {
                     done = true;
                     if (response) outcome.first = response->status();
                     try {
                       if (error) std::rethrow_exception(error);
                     } catch (const Failure& failure) {
                       outcome.second = failure.code();
                     }
                   });
    clock_.settle();
    while (!done && clock_.advance_to_next()) {
    }
    EXPECT_TRUE(done);
    return outcome;
  }
  static Reply to(const std::string& location) {
    return {.status = 307, .headers = {{"Location", location}}};
  }

  asio::io_context io_;
  fake::ManualClock clock_{io_};
  fake::FakeHttpClient http_{clock_};
  CountingAuthorizer* authorizer_ = nullptr;
  std::optional<Upstream> upstream_;
};

TEST_F(UpstreamTest, SendsTheCredentialToTheRegistryOnly) {
  http_.on("https://contoso.azurecr.io", {to("https://data.example/x?sig=s")});
  http_.on("https://data.example", {Reply{.body = "bytes"}});
  EXPECT_EQ(get().first, 200);
  ASSERT_EQ(http_.asked().size(), 2U);
  EXPECT_EQ(http_.asked()[0].url, "https://contoso.azurecr.io/v2/mirror/app/blobs/x");
  EXPECT_EQ(http_.asked()[0].headers.get("Authorization"), "Bearer 1");
  EXPECT_EQ(http_.asked()[1].headers.find("Authorization"), nullptr);
}

TEST_F(UpstreamTest, DoesNotTakeTheCredentialUpAgainWhenTheChainComesBack) {
  http_.on("https://contoso.azurecr.io/v2", {to("https://data.example/x")});
  http_.on("https://data.example", {to("https://contoso.azurecr.io/back")});
  http_.on("https://contoso.azurecr.io/back", {Reply{}});
  EXPECT_EQ(get().first, 200);
  EXPECT_EQ(http_.last("https://contoso.azurecr.io/back")->headers.find("Authorization"), nullptr);
}

TEST_F(UpstreamTest, AsksForOneNewTokenAfterA401AndRepeatsOnce) {
  http_.on("https://contoso.azurecr.io", {Reply{.status = 401}, Reply{.status = 200}});
  EXPECT_EQ(get().first, 200);
  EXPECT_EQ(authorizer_->refusals, 1);
  EXPECT_EQ(http_.asked()[1].headers.get("Authorization"), "Bearer 2");
  http_.on("https://contoso.azurecr.io", {Reply{.status = 401}});
  EXPECT_EQ(get().first, 401);
  EXPECT_EQ(authorizer_->refusals, 2);
  EXPECT_EQ(upstream_->health(), Health::unauthorized);
}

TEST_F(UpstreamTest, TakesA401OfAnotherHostForNoWordAboutItsToken) {
  http_.on("https://contoso.azurecr.io", {to("https://data.example/x")});
  http_.on("https://data.example", {Reply{.status = 401}});
  EXPECT_EQ(get().first, 401);
  EXPECT_EQ(authorizer_->refusals, 0);
}

TEST_F(UpstreamTest, GetsANewSignedUrlWhenOneHasExpired) {
  http_.on("https://contoso.azurecr.io",
           {to("https://data.example/old?sig=1"), to("https://data.example/new?sig=2")});
  http_.on("https://data.example/old", {Reply{.status = 403}});
  http_.on("https://data.example/new", {Reply{.status = 200}});
  EXPECT_EQ(get().first, 200);
}

TEST_F(UpstreamTest, GoesBackToWhereATransferWasFoundUntilThatEnds) {
  const auto place = std::make_shared<Upstream::Place>();
  http_.on("https://contoso.azurecr.io",
           {to("https://data.example/1?sig=1"), to("https://data.example/2?sig=2")});
  http_.on("https://data.example/1",
           {Reply{.status = 206}, Reply{.status = 206}, Reply{.status = 403}});
  http_.on("https://data.example/2",
           {Reply{.status = 206}, Reply{.error = Error{Errc::unreachable, "gone"}}});
  EXPECT_EQ(get("blobs/x", place).first, 206);
  EXPECT_EQ(get("blobs/x", place).first, 206);
  ASSERT_EQ(http_.asked().size(), 3U);
  EXPECT_EQ(http_.asked()[2].url, "https://data.example/1?sig=1");
  EXPECT_EQ(http_.asked()[2].headers.find("Authorization"), nullptr);
  EXPECT_EQ(get("blobs/x", place).first, 206);
  ASSERT_TRUE(place->url);
  EXPECT_EQ(place->url->wire(), "https://data.example/2?sig=2");
  EXPECT_EQ(get("blobs/x", place).second, Errc::unreachable);
  EXPECT_FALSE(place->url);
}

TEST_F(UpstreamTest, GivesUpARedirectThatNeverEnds) {
  http_.on("https://contoso.azurecr.io", {to("/again")});
  EXPECT_EQ(get().second, Errc::upstream_nonsense);
  EXPECT_EQ(http_.asked().size(), static_cast<std::size_t>(max_redirects) + 1);
}

TEST_F(UpstreamTest, WaitsOutAShortPauseAndFailsFastInALongOne) {
  http_.on("https://contoso.azurecr.io",
           {Reply{.status = 429, .headers = {{"Retry-After", "3"}}}, Reply{.status = 200}});
  const Instant begun = clock_.now();
  EXPECT_EQ(get().first, 200);
  EXPECT_GE(clock_.now() - begun, std::chrono::seconds(3));
  http_.on("https://contoso.azurecr.io",
           {Reply{.status = 429, .headers = {{"Retry-After", "60"}}}});
  http_.forget();
  EXPECT_EQ(get().second, Errc::throttled);
  EXPECT_EQ(upstream_->health(), Health::throttled);
  EXPECT_GT(upstream_->paused(), std::chrono::seconds(50));
  EXPECT_EQ(get().second, Errc::throttled);  // Nothing is sent during the pause.
  EXPECT_EQ(http_.asked().size(), 1U);
}

TEST_F(UpstreamTest, TellsHowItFares) {
  EXPECT_EQ(upstream_->health(), Health::idle);
  EXPECT_EQ(get().second, Errc::unreachable);  // Nobody plays it yet.
  EXPECT_EQ(upstream_->health(), Health::unreachable);
  EXPECT_EQ(upstream_->last_error()->code, Errc::unreachable);
  http_.on("https://contoso.azurecr.io", {Reply{.status = 200}});
  EXPECT_EQ(get().first, 200);
  EXPECT_EQ(upstream_->health(), Health::ok);
  EXPECT_FALSE(upstream_->last_error());
}

}  // namespace
}  // namespace staithe::proxy
