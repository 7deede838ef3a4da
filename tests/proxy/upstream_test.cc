#include "proxy/upstream.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "proxy/auth/source.h"
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
    if (trouble) throw Failure(*trouble);
    if (clock && clock->now() < postponed_until)
      throw auth::Postponed(Errc::throttled, "not now", postponed_until - clock->now());
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
  asio::awaitable<std::string> probe(auth::Part, std::string) override { co_return ""; }
  asio::awaitable<void> renew() override { co_return; }
  std::vector<auth::TokenStatus> tokens() const override { return {}; }
  std::vector<auth::Ending> endings() const override { return {}; }
  std::optional<Error> last_error() const override { return std::nullopt; }
  int token = 1;
  int refusals = 0;
  std::optional<Error> trouble;  // of the token server
  const Clock* clock = nullptr;
  Instant postponed_until{};
};

class UpstreamTest : public testing::Test {
 protected:
  UpstreamTest() {
    auto authorizer = std::make_unique<CountingAuthorizer>();
    authorizer_ = authorizer.get();
    authorizer_->clock = &clock_;
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
                      std::move(authorizer), http_, clock_, random_);
  }
  ~UpstreamTest() override {
    while (clock_.advance_to_next()) {
    }
  }

  // The status of the answer, or the failure's class.
  std::pair<int, std::optional<Errc>> get(const std::string& what = "blobs/x",
                                          std::shared_ptr<Upstream::Place> place = nullptr) {
    return send({.repository = "app", .what = what, .place = std::move(place)});
  }
  std::pair<int, std::optional<Errc>> send(Upstream::Ask ask) {
    std::pair<int, std::optional<Errc>> outcome{0, std::nullopt};
    bool done = false;
    asio::co_spawn(io_, upstream_->send(std::move(ask)),
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
  // So often that it is left alone.
  void fail(const std::string& what, std::shared_ptr<Upstream::Place> place = nullptr) {
    for (int i = 0; i < Breaker::failures_in_a_row; ++i) get(what, place);
  }
  static Reply to(const std::string& location) {
    return {.status = 307, .headers = {{"Location", location}}};
  }

  asio::io_context io_;
  fake::ManualClock clock_{io_};
  fake::FakeHttpClient http_{clock_};
  SeededRandom random_{1};
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

TEST_F(UpstreamTest, SaysOfEveryDialWhoHasNamedItsHost) {
  http_.on("https://contoso.azurecr.io", {to("https://data.example/1")});
  http_.on("https://data.example", {to("https://contoso.azurecr.io.blob.core.windows.net/2")});
  http_.on("https://contoso.azurecr.io.blob.core.windows.net", {Reply{}});
  EXPECT_EQ(get().first, 200);
  ASSERT_EQ(http_.asked().size(), 3U);
  for (const auto& asked : http_.asked())
    EXPECT_EQ(asked.host_named_by, HostNamedBy::configuration) << asked.url;
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

TEST_F(UpstreamTest, TroubleOfTheDataHostIsNotHeldAgainstTheRegistry) {
  http_.on("https://contoso.azurecr.io", {to("https://data.example/x")});
  http_.on("https://contoso.azurecr.io/v2/mirror/app/manifests", {Reply{}});
  http_.on("https://data.example", {Reply::failure(Errc::unreachable, "data.example is down")});
  fail("blobs/x");
  EXPECT_EQ(upstream_->health(), Health::unreachable);
  EXPECT_TRUE(upstream_->retry_in());
  EXPECT_EQ(get("manifests/1").first, 200);
  http_.forget();
  EXPECT_EQ(get("blobs/x").second, Errc::unreachable);
  EXPECT_EQ(http_.count("https://data.example"), 0U);
  EXPECT_EQ(upstream_->last_error()->detail, "data.example is down") << "without when it is tried";
}

TEST_F(UpstreamTest, AFurtherRangeIsFetchedWhileTheRegistryIsAwayOrAsksForAPause) {
  const auto place = std::make_shared<Upstream::Place>();
  const auto find = [&] {
    http_.on("https://contoso.azurecr.io", {to("https://data.example/1?sig=1")});
    http_.on("https://data.example", {Reply{.status = 206}});
    EXPECT_EQ(get("blobs/x", place).first, 206);
  };
  find();
  http_.on("https://contoso.azurecr.io", {Reply::failure(Errc::unreachable, "it is down")});
  fail("manifests/1");
  authorizer_->trouble = Error{Errc::unreachable, "so is the token server"};
  EXPECT_EQ(get("blobs/x", place).first, 206);
  EXPECT_LE(upstream_->next_try(place.get()), clock_.now());
  EXPECT_GT(upstream_->next_try(), clock_.now());

  authorizer_->trouble.reset();
  clock_.advance(std::chrono::minutes(1));
  find();
  http_.on("https://contoso.azurecr.io",
           {Reply{.status = 429, .headers = {{"Retry-After", "200"}}}});
  EXPECT_EQ(get("manifests/1").second, Errc::throttled);
  EXPECT_EQ(get("blobs/x", place).first, 206);
}

TEST_F(UpstreamTest, AFurtherRangeWaitsOutAPauseToo) {
  const auto place = std::make_shared<Upstream::Place>();
  http_.on("https://contoso.azurecr.io", {to("https://data.example/1?sig=1")});
  http_.on("https://data.example",
           {Reply{.status = 206}, Reply{.status = 503, .headers = {{"Retry-After", "2"}}},
            Reply{.status = 206}});
  EXPECT_EQ(get("blobs/x", place).first, 206);
  const Instant began = clock_.now();
  EXPECT_EQ(get("blobs/x", place).first, 206);
  EXPECT_GE(clock_.now() - began, std::chrono::seconds(2));
  EXPECT_EQ(http_.count("https://contoso.azurecr.io"), 1U) << "it is still the same place";
}

TEST_F(UpstreamTest, ATokenServerThatIsDownDoesNotCloseTheWayToTheRegistry) {
  http_.on("https://contoso.azurecr.io", {Reply{}});
  authorizer_->trouble = Error{Errc::unreachable, "the token server is down"};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(get().second, Errc::unreachable);
  EXPECT_TRUE(http_.asked().empty());
  EXPECT_FALSE(upstream_->retry_in());
  EXPECT_LE(upstream_->next_try(), clock_.now());
  authorizer_->trouble.reset();
  EXPECT_EQ(get().first, 200);
}

TEST_F(UpstreamTest, AShortPauseOfTheTokenServerIsWaitedOutALongOneIsNot) {
  http_.on("https://contoso.azurecr.io", {Reply{}});
  authorizer_->postponed_until = clock_.now() + std::chrono::seconds(4);
  const Instant began = clock_.now();
  EXPECT_EQ(get().first, 200);
  EXPECT_GE(clock_.now() - began, std::chrono::seconds(4));
  authorizer_->postponed_until = clock_.now() + std::chrono::seconds(4);
  EXPECT_EQ(send({.repository = "app", .what = "manifests/1", .patient = false}).second,
            Errc::throttled);
  authorizer_->postponed_until = clock_.now() + std::chrono::seconds(60);
  const Instant again = clock_.now();
  EXPECT_EQ(get().second, Errc::throttled);
  EXPECT_EQ(clock_.now(), again);
}

TEST_F(UpstreamTest, ThePatienceOfOneAskIsForItsWholeWay) {
  const Reply pauses{.status = 429, .headers = {{"Retry-After", "4"}}};
  authorizer_->postponed_until = clock_.now() + std::chrono::seconds(4);
  http_.on("https://contoso.azurecr.io", {pauses, to("https://data.example/x")});
  http_.on("https://data.example", {pauses, Reply{}});
  const Instant began = clock_.now();
  EXPECT_EQ(get().second, Errc::throttled) << "the third of them";
  EXPECT_LE(clock_.now() - began, Pause::patience + Pause::most_spread);
  http_.on("https://contoso.azurecr.io", {pauses});
  const Instant again = clock_.now();
  EXPECT_EQ(get("manifests/1").second, Errc::throttled);
  EXPECT_LE(clock_.now() - again, Pause::patience + Pause::most_spread);
}

TEST_F(UpstreamTest, AnsweredRefusalsAreNoReasonToLeaveItAlone) {
  for (const int status : {400, 401, 403, 404, 416, 500}) {
    http_.on("https://contoso.azurecr.io", {Reply{.status = status}});
    for (int i = 0; i < 30; ++i) EXPECT_EQ(get("manifests/1").first, status);
    EXPECT_FALSE(upstream_->retry_in()) << status;
  }
}

TEST_F(UpstreamTest, KnowsTheLimitsOfAcrAndOfNobodyElse) {
  Url base = *Url::parse("https://registry.example");
  Upstream other(io_.get_executor(),
                 Upstream::Settings{.base = base,
                                    .prefix = {},
                                    .ca_file = {},
                                    .redirects = {.registry = base.origin(),
                                                  .data_hosts = {},
                                                  .acr_suffixes = {"azurecr.io"}},
                                    .max_connections = 2,
                                    .limits = {}},
                 std::make_unique<CountingAuthorizer>(), http_, clock_, random_);
  http_.on("https://registry.example", {Reply{}});
  http_.on("https://contoso.azurecr.io", {Reply{}});
  for (Upstream* upstream : {&other, &*upstream_}) {
    const Instant began = clock_.now();
    for (int i = 0; i < 200; ++i) {
      asio::co_spawn(io_, upstream->send({.repository = "app", .what = "manifests/1"}),
                     [](std::exception_ptr, std::unique_ptr<HttpResponse>) {});
      clock_.settle();
    }
    while (clock_.advance_to_next()) {
    }
    EXPECT_EQ(clock_.now() == began, upstream == &other);
  }
  EXPECT_EQ(http_.asked().size(), 400U);
}

TEST_F(UpstreamTest, HedgesQuestionsButNeverATransfer) {
  Reply usual{};
  usual.delay = std::chrono::milliseconds(10);
  http_.on("https://contoso.azurecr.io", {usual});
  for (int i = 0; i < 20; ++i) get("manifests/1");
  Reply late{};
  late.delay = std::chrono::seconds(1);
  http_.on("https://contoso.azurecr.io", {late});
  const auto requests_for = [&](Upstream::Ask ask) {
    http_.forget();
    EXPECT_EQ(send(std::move(ask)).first, 200);
    return http_.asked().size();
  };
  EXPECT_EQ(requests_for({.repository = "app", .what = "manifests/1"}), 2U);
  EXPECT_EQ(requests_for({.method = "HEAD", .repository = "app", .what = "blobs/x"}), 2U);
  EXPECT_EQ(requests_for({.repository = "app", .what = "blobs/x"}), 1U);
  EXPECT_EQ(requests_for({.repository = "app", .what = "tags/list"}), 1U);
  EXPECT_EQ(upstream_->stats().hedges, 2U);
}

TEST_F(UpstreamTest, RemembersThePullsThatItStillGrants) {
  EXPECT_FALSE(upstream_->quota());
  http_.on("https://contoso.azurecr.io", {Reply{.headers = {{"ratelimit-limit", "100;w=21600"},
                                                            {"ratelimit-remaining", "76;w=21600"}}},
                                          Reply{}});
  get("manifests/1");
  get("manifests/2");
  ASSERT_TRUE(upstream_->quota());
  EXPECT_EQ(upstream_->quota()->remaining, 76U);
}

TEST_F(UpstreamTest, TransfersAndRequestsDrawOnOneBudget) {
  int left = 0;
  while (upstream_->may_retry()) ++left;
  EXPECT_EQ(left, RetryBudget::reserve);
  http_.on("https://contoso.azurecr.io", {Reply{.status = 502}});
  EXPECT_EQ(get().first, 502);
  EXPECT_EQ(http_.asked().size(), 1U) << "nothing is left for a repeat";
  upstream_->note_progress(RetryBudget::bytes_per_retry);
  EXPECT_TRUE(upstream_->may_retry());
}

// What waits in a pause holds no connection, so a caller that would not wait is told at once.
TEST_F(UpstreamTest, TheImpatientAreNotKeptByThoseWhoWaitOutAPause) {
  http_.on("https://contoso.azurecr.io",
           {Reply{.status = 429, .headers = {{"Retry-After", "4"}}}, Reply{}});
  int done = 0;
  for (int i = 0; i < 100; ++i) {
    asio::co_spawn(io_, upstream_->send({.repository = "app", .what = "manifests/1"}),
                   [&](std::exception_ptr, std::unique_ptr<HttpResponse>) { ++done; });
    clock_.settle();
  }
  const Instant began = clock_.now();
  EXPECT_EQ(send({.repository = "app", .what = "manifests/1", .patient = false}).second,
            Errc::throttled);
  EXPECT_EQ(clock_.now(), began);
  while (clock_.advance_to_next()) {
  }
  EXPECT_EQ(done, 100);
  EXPECT_EQ(http_.asked().size(), 101U);
}

}  // namespace
}  // namespace staithe::proxy
