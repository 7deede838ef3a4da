// A digest that one repository shows is no right of another (threat T5), at whatever moment of a
// transfer it is asked for.
#include <gtest/gtest.h>

#include <string>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::Asked;
using fake::Gate;
using fake::House;
using fake::Reply;

class ScopeTest : public testing::Test {
 protected:
  std::string blob_of(const std::string& repository) const {
    return "r.example/v2/" + repository + "/blobs/" + digest_.to_string();
  }
  // Asks without waiting for the answer.
  void ask(const std::string& repository, Answer& answer) {
    asio::co_spawn(house_.io,
                   house_.ask("GET /v2/r.example/" + repository + "/blobs/" + digest_.to_string() +
                              " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                   [this, &answer](std::exception_ptr, Answer got) {
                     answer = std::move(got);
                     ++answered_;
                   });
  }
  bool was_asked(const std::string& repository) const {
    return std::ranges::any_of(house_.upstream.asked(), [&](const Asked& asked) {
      return asked.url == "https://" + blob_of(repository);
    });
  }

  House house_;
  const std::string bytes_ = "bytes of one repository";
  const cache::Digest digest_ = cache::digest_of(cache::Algorithm::sha256, bytes_);
  Gate gate_{house_.io.get_executor()};
  int answered_ = 0;
};

TEST_F(ScopeTest, ATransferWhoseAnswerIsAwaitedIsNotSharedUnproved) {
  house_.upstream.on("https://" + blob_of("private"), [this](const Asked&) {
    return Reply{.status = 200,
                 .headers = {{"Content-Length", std::to_string(bytes_.size())}},
                 .body = bytes_,
                 .gate = &gate_};
  });
  house_.upstream.on("https://" + blob_of("other"),
                     [](const Asked&) { return Reply{.status = 404}; });
  Answer mine;
  Answer theirs;
  ask("private", mine);
  house_.run_until_true([&] { return gate_.waiting() > 0; });
  ask("other", theirs);
  house_.run_until_true([&] { return answered_ == 1; });
  EXPECT_EQ(theirs.status, 404);
  EXPECT_TRUE(was_asked("other"));
  gate_.open();
  house_.run_until_true([&] { return answered_ == 2; });
  EXPECT_EQ(mine.body, bytes_);
  EXPECT_FALSE(house_.store.link_age("r.example/other", digest_));
}

TEST_F(ScopeTest, WhoIsShownItTooSharesTheTransfer) {
  house_.upstream.on("https://" + blob_of("private"), [this](const Asked&) {
    return Reply{.status = 200,
                 .headers = {{"Content-Length", std::to_string(bytes_.size())}},
                 .body = bytes_,
                 .gate = &gate_};
  });
  house_.upstream.on("https://" + blob_of("other"),
                     [this](const Asked& asked) { return House::blob_reply(asked, bytes_); });
  Answer mine;
  Answer theirs;
  ask("private", mine);
  house_.run_until_true([&] { return gate_.waiting() > 0; });
  ask("other", theirs);
  house_.run_until_true([&] { return was_asked("other"); });
  gate_.open();
  house_.run_until_true([&] { return answered_ == 2; });
  EXPECT_EQ(mine.body, bytes_);
  EXPECT_EQ(theirs.body, bytes_);
  EXPECT_EQ(house_.upstream_gets(digest_), 1u);
  house_.run_until_true([&] { return !house_.fills.under_way(digest_); });
  EXPECT_TRUE(house_.store.link_age("r.example/other", digest_));
}

}  // namespace
}  // namespace staithe::proxy
