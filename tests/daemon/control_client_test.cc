#include "daemon/control_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json/object.hpp>
#include <chrono>
#include <future>
#include <string>
#include <vector>

#include "daemon/credential_client.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using fake::answer;
using fake::body_of;
using fake::refusal;
using testing::HasSubstr;
using testing::Not;

class ControlPost : public testing::Test, protected fake::ControlDaemon {};

TEST_F(ControlPost, SendsOneRequestWithItsBodyAndReadsTheAnswer) {
  std::string asked;
  serve([&](const std::string& request) {
    asked = request;
    return answer(R"({"a":1})");
  });
  const std::string body = "{\"token\":\"" + std::string(100'000, 'x') + "\"}";
  const auto value = control_post(socket_, "/v1/login", body);
  ASSERT_TRUE(value) << value.error().message;
  EXPECT_EQ(value->at("a").as_int64(), 1);
  stop();
  EXPECT_THAT(asked, testing::StartsWith("POST /v1/login HTTP/1.1\r\nHost: localhost\r\n"));
  EXPECT_THAT(asked, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_EQ(body_of(asked), body);
  EXPECT_EQ(requests_, 1);
}

TEST_F(ControlPost, TellsARefusalFromADaemonThatIsNotThere) {
  auto value = control_post(socket_, "/v1/login", "{}");
  ASSERT_FALSE(value);
  EXPECT_TRUE(value.error().unreachable);
  EXPECT_EQ(value.error().status, 0);
  serve(refusal("403 Forbidden", "DENIED", "not for you"));
  value = control_post(socket_, "/v1/login", "{}");
  ASSERT_FALSE(value);
  EXPECT_FALSE(value.error().unreachable);
  EXPECT_EQ(value.error().status, 403);
  EXPECT_EQ(value.error().code, "DENIED");
  EXPECT_EQ(value.error().message, "not for you");
}

TEST_F(ControlPost, DoesNotTakeNonsenseForAnAnswerNorShowIt) {
  const std::vector<std::string> nonsense{
      "",
      "SSH-2.0-OpenSSH_9.2\r\n",
      answer("[\"topsecret\"]"),
      answer("{\"password\":\"topsecret\""),
      answer(std::string(20, '[') + std::string(20, ']')),
      "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kMaxControlPostAnswerBytes + 1) +
          "\r\n\r\n"};
  std::size_t turn = 0;
  serve([&](const std::string&) { return nonsense.at(turn++); });
  for (const std::string& text : nonsense) {
    const auto value = control_post(socket_, "/v1/credential", "{}");
    ASSERT_FALSE(value) << text;
    EXPECT_TRUE(value.error().unreachable) << text;
    EXPECT_THAT(value.error().message, Not(HasSubstr("topsecret")));
  }
}

TEST_F(ControlPost, WaitsNoLongerThanItWasTold) {
  std::promise<void> done;
  serve([waiting = done.get_future().share()](const std::string&) {
    waiting.wait();
    return std::string();
  });
  const auto value = control_post(socket_, "/v1/credential", "{}", 50ms);
  done.set_value();
  ASSERT_FALSE(value);
  EXPECT_THAT(value.error().message, HasSubstr("does not answer"));
}

class AskCredential : public ControlPost {};

TEST_F(AskCredential, SaysWhatIsKnownOfACredential) {
  serve(answer(R"({"registry":"r.example","username":"<token>","password":"p",)"
               R"("identity_token":true,"renewable":true,"expires_in_seconds":60})"));
  const auto credential = ask_credential(socket_, {.registry = "r.example"});
  ASSERT_TRUE(credential && *credential);
  EXPECT_EQ((*credential)->password.reveal(), "p");
  EXPECT_TRUE((*credential)->identity_token);
  EXPECT_EQ((*credential)->expires_in, 60s);
}

TEST_F(AskCredential, TakesOnlyTheDaemonsOwnWordForNotManaged) {
  const std::vector<std::pair<std::string, bool>> cases{
      {refusal("404 Not Found", "NOT_MANAGED", "none"), true},
      {refusal("404 Not Found", "UNSUPPORTED", "there is nothing at this path"), false},
      {answer("", "404 Not Found"), false},
      {refusal("405 Not Allowed", "UNSUPPORTED", "an older daemon"), false}};
  std::size_t turn = 0;
  serve([&](const std::string&) { return cases.at(turn++).first; });
  for (const auto& [text, not_managed] : cases) {
    const auto credential = ask_credential(socket_, {.registry = "r.example"});
    EXPECT_EQ(credential.has_value(), not_managed) << text;
    if (credential) EXPECT_FALSE(*credential);
    if (!credential) EXPECT_FALSE(identity_failed(credential.error()));
  }
}

TEST_F(AskCredential, KnowsAnIdentityThatFailsByItsStatus) {
  for (const char* status : {"502 Bad Gateway", "503 Service Unavailable"}) {
    stop();
    std::filesystem::remove(socket_);
    serve(refusal(status, "UNAVAILABLE", "no answer from IMDS"));
    const auto credential = ask_credential(socket_, {.registry = "r.example"});
    ASSERT_FALSE(credential);
    EXPECT_TRUE(identity_failed(credential.error()));
  }
  EXPECT_FALSE(identity_failed({.unreachable = true, .message = "gone"}));
}

}  // namespace
}  // namespace staithe::daemon
