#include "daemon/doctor_listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "proxy/tls_gate.h"
#include "tests/fake/listener.h"
#include "tests/proxy/auth/make_certificate.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

// A port of loopback that somebody listens on; what it says is `answer`, to one caller.
class Port {
 public:
  explicit Port(std::string answer) {
    if (answer.empty()) return;
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int client = listener_.accept();
      char question[4096];
      (void)!::recv(client, question, sizeof question, 0);
      (void)!::send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
      ::close(client);
    });
  }
  ~Port() {
    if (thread_.joinable()) thread_.join();
  }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  const fake::Listener& listener() const { return listener_; }
  unsigned number() const { return listener_.port(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(number()); }

 private:
  const fake::Listener listener_;
  std::thread thread_;
};

// Likewise, with TLS.
class TlsPort {
 public:
  explicit TlsPort(std::string answer) : port_("") {
    const proxy::auth::Pair pair = proxy::auth::make_pair();
    gate_.use(proxy::TlsContext::from_pem(pair.key + pair.certificate).value());
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int client = port_.listener().accept();
      const int plain = gate_.admit(client, std::chrono::minutes(1));
      pollfd waiting{.fd = plain, .events = POLLIN, .revents = 0};
      char question[4096];
      if (::poll(&waiting, 1, 60'000) > 0) {
        const ssize_t n = ::recv(plain, question, sizeof question, 0);
        if (n > 0) asked_.assign(question, static_cast<std::size_t>(n));
      }
      (void)!::send(plain, answer.data(), answer.size(), MSG_NOSIGNAL);
      ::close(plain);
    });
  }
  ~TlsPort() {
    if (thread_.joinable()) thread_.join();
  }
  std::string address() const { return "tls:" + port_.address(); }
  const std::string& asked() const {
    if (thread_.joinable()) thread_.join();
    return asked_;
  }

 private:
  Port port_;
  proxy::TlsGate gate_{1};
  std::string asked_;
  mutable std::thread thread_;
};

TEST(DoctorListener, IsStaithedByWhatItAnswers) {
  const Port ours("HTTP/1.1 200 OK\r\nCache-Status: staithe\r\nContent-Length: 2\r\n\r\n{}");
  const ListenerFinding answer = ask_listener(ours.address());
  EXPECT_TRUE(answer.is_staithed);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(listener_step(ours.address(), answer, true, "").state, StepState::ok);
  EXPECT_EQ(listener_step(ours.address(), answer, false, "").state, StepState::warning);
}

TEST(DoctorListener, OfAnotherProgramIsAFailureWithItsName) {
  for (const char* said : {"HTTP/1.0 501 Nothing\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"}) {
    const Port other(said);
    const ListenerFinding answer = ask_listener(other.address());
    EXPECT_FALSE(answer.is_staithed);
    const DoctorStep step = listener_step(other.address(), answer, false, "sshd (pid 7)");
    EXPECT_EQ(step.state, StepState::failed);
    EXPECT_THAT(step.finding, HasSubstr("sshd (pid 7)"));
    EXPECT_THAT(step.mend, HasSubstr("listen.registry"));
  }
}

TEST(DoctorListener, ThatNobodyHasIsATroubleOnlyIfStaithedRuns) {
  ListenerFinding refused{.error = ECONNREFUSED};
  EXPECT_EQ(listener_step("127.0.0.1:5050", refused, true, "").state, StepState::failed);
  EXPECT_EQ(listener_step("127.0.0.1:5050", refused, false, "").state, StepState::skipped);
  EXPECT_EQ(ask_listener("unix:/nonexistent.sock").error, ENOENT);
}

TEST(DoctorListener, ThatSaysNothingIsNotWaitedForLong) {
  for (const char* scheme : {"", "tls:"}) {
    const Port silent("");
    EXPECT_EQ(ask_listener(scheme + silent.address(), std::chrono::milliseconds(50)).error,
              ETIMEDOUT);
  }
}

TEST(DoctorListener, OfTlsIsAskedByTls) {
  const TlsPort ours("HTTP/1.1 200 OK\r\nCache-Status: staithe\r\nContent-Length: 2\r\n\r\n{}");
  const ListenerFinding answer = ask_listener(ours.address());
  EXPECT_EQ(answer.error, 0);
  EXPECT_TRUE(answer.is_staithed);
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(ours.asked(), testing::StartsWith("GET /v2/ HTTP/1.1\r\n"));
}

TEST(DoctorListener, WithoutTlsWhereItShouldBeIsAnotherProgram) {
  const Port other("HTTP/1.1 400 Bad Request\r\n\r\n");
  const std::string address = "tls:" + other.address();
  const ListenerFinding answer = ask_listener(address);
  EXPECT_EQ(answer.error, EPROTO);
  const DoctorStep step = listener_step(address, answer, true, "nginx (pid 7)");
  EXPECT_EQ(step.state, StepState::failed);
  EXPECT_THAT(step.finding, HasSubstr("nginx (pid 7)"));
  EXPECT_THAT(step.mend, HasSubstr("listen.tls"));
}

TEST(DoctorListener, WhoHasAPortIsFoundOut) {
  const Port ours("");
  EXPECT_THAT(who_listens("/", ours.number()),
              HasSubstr("(pid " + std::to_string(::getpid()) + ")"));
  EXPECT_EQ(who_listens("/nonexistent", ours.number()), "");
}

}  // namespace
}  // namespace staithe::daemon
