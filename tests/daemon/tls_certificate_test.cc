#include "daemon/tls_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fstream>

#include "tests/proxy/auth/make_certificate.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using proxy::auth::make_pair;
using proxy::auth::Pair;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const WallTime now = std::chrono::sys_days(std::chrono::year(2026) / 11 / 22);

proxy::TlsContextPtr ending(const char* not_after) {
  const Pair pair = make_pair({.not_after = not_after});
  return proxy::TlsContext::from_pem(pair.key + pair.certificate).value();
}

class TlsCertificate : public testing::Test {
 protected:
  TlsCertificate() {
    std::string pattern = testing::TempDir() + "/tls_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    file_ = directory_ / "localhost.pem";
  }
  ~TlsCertificate() override { std::filesystem::remove_all(directory_); }

  void write(const std::string& text, mode_t mode = 0600) {
    std::ofstream(file_) << text;
    ::chmod(file_.c_str(), mode);
  }
  DoctorStep examine(const proxy::TlsContextPtr& served = nullptr, bool is_private = true) {
    DoctorStep step;
    asio::io_context io;
    asio::thread_pool pool(1);
    proxy::auth::PosixFiles files(pool);
    asio::co_spawn(io, examine_tls_file(files, file_, is_private, served, now),
                   [&](const std::exception_ptr& failed, DoctorStep found) {
                     EXPECT_FALSE(failed);
                     step = std::move(found);
                   });
    io.run();
    return step;
  }

  std::filesystem::path directory_;
  std::filesystem::path file_;
};

TEST_F(TlsCertificate, IsJudgedByTheTimeThatIsLeft) {
  const auto judge = [&](const char* not_after) {
    const proxy::TlsContextPtr context = ending(not_after);
    return tls_step(file_, context, context, now);
  };
  const DoctorStep fine = judge("20261222000000Z");  // 30 days
  EXPECT_EQ(fine.state, StepState::ok) << fine.finding;
  EXPECT_EQ(fine.finding, "its certificate is good for 30d");
  EXPECT_EQ(fine.mend, "");
  const DoctorStep near = judge("20261221235959Z");
  EXPECT_EQ(near.state, StepState::warning);
  EXPECT_THAT(near.mend, HasSubstr("staithe setup --tls --apply"));
  const DoctorStep last_second = judge("20261122000001Z");
  EXPECT_EQ(last_second.state, StepState::warning);
  for (const char* over : {"20261122000000Z", "20261121000000Z"}) {
    const DoctorStep ended = judge(over);
    EXPECT_EQ(ended.state, StepState::failed);
    EXPECT_THAT(ended.finding, HasSubstr("ended"));
    EXPECT_THAT(ended.mend, HasSubstr("staithe setup --tls --apply"));
  }
}

TEST_F(TlsCertificate, ThatCannotBeUsedIsAFailureThatQuotesNoneOfIt) {
  const Pair good = make_pair();
  const Pair other = make_pair({.new_key = true});
  const auto wrong = [&](const DoctorStep& step, const char* why) {
    EXPECT_EQ(step.state, StepState::failed) << why;
    EXPECT_THAT(step.finding, AllOf(HasSubstr("listen.tls_file: "), HasSubstr(why)));
    EXPECT_THAT(step.finding, Not(HasSubstr(good.key.substr(40, 20))));
    EXPECT_THAT(step.mend, HasSubstr("staithe setup --tls --apply"));
    EXPECT_EQ(step.error_class, "config");
  };
  wrong(examine(), "cannot be read");
  write("not a certificate");
  wrong(examine(), "no private key");
  write(good.key);
  wrong(examine(), "no certificate");
  write(other.key + good.certificate);
  wrong(examine(), "a key that is not its certificate's");
  write(good.key + good.certificate, 0644);
  wrong(examine(), "chmod 0600");
  EXPECT_EQ(examine(nullptr, false).state, StepState::ok) << "whose it has to be is not asked";
  ::chmod(file_.c_str(), 0600);
  EXPECT_EQ(examine().state, StepState::ok);
}

TEST_F(TlsCertificate, OfTheFileMayBeAnotherThanIsServed) {
  const Pair renewed = make_pair({.not_after = "20341231235959Z"});
  write(renewed.key + renewed.certificate);
  const auto same = proxy::TlsContext::from_pem(renewed.key + renewed.certificate).value();
  EXPECT_EQ(examine(same).state, StepState::ok);
  const DoctorStep step = examine(ending("20261201000000Z"));
  EXPECT_EQ(step.state, StepState::warning);
  EXPECT_THAT(step.finding, HasSubstr("staithed serves another"));
  EXPECT_THAT(step.finding, HasSubstr("is good for 9d"));
  EXPECT_EQ(step.mend, "staithe reload");
  EXPECT_THAT(examine(ending("20261101000000Z")).finding, HasSubstr("which has ended"));
  write("nonsense");
  EXPECT_THAT(examine(same).finding, HasSubstr("serves the one it has read before"));
}

TEST(TlsState, IsToldAsItIs) {
  EXPECT_TRUE(tls_status(std::nullopt).is_null());
  TlsState state{.file = "/etc/staithe/tls/localhost.pem",
                 .expires_in = 31 * 24h,
                 .figures = {.open = 2, .handshakes = 7, .failed = 3}};
  auto told = tls_status(state).as_object();
  EXPECT_EQ(told.at("file"), "/etc/staithe/tls/localhost.pem");
  EXPECT_EQ(told.at("expires_in_seconds"), 31 * 86400);
  EXPECT_FALSE(told.at("near").as_bool());
  EXPECT_TRUE(told.at("fault").is_null());
  EXPECT_EQ(told.at("handshakes"), 7);
  EXPECT_EQ(told.at("failed"), 3);
  EXPECT_EQ(told.at("open"), 2);
  state.expires_in = 29 * 24h;
  state.fault = "it is gone";
  told = tls_status(state).as_object();
  EXPECT_TRUE(told.at("near").as_bool());
  EXPECT_EQ(told.at("fault"), "it is gone");
  const proxy::auth::Ending end = ending_of(state);
  EXPECT_TRUE(end.is_near());
  EXPECT_THAT(end.what, HasSubstr("/etc/staithe/tls/localhost.pem"));
  EXPECT_THAT(end.remedy, HasSubstr("staithe setup --tls --apply"));
}

}  // namespace
}  // namespace staithe::daemon
