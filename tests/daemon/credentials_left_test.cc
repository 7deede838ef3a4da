// What a credential that was handed out leaves behind: nothing in the log, nothing in memory, and
// in the status its end.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <boost/json/serialize.hpp>
#include <cstdio>

#include "cache/log.h"
#include "tests/daemon/credentials_case.h"

namespace staithe::daemon {
namespace {

using fake::OtherUser;
using testing::HasSubstr;
using testing::Not;

constexpr const char* guid = "8d3f4b1e-0000-4000-8000-0123456789ab";

TEST_F(CredentialsTest, AreInNoLog) {
  std::FILE* const file = std::tmpfile();
  log::start({.level = log::Level::trace, .format = log::Format::json, .fd = ::fileno(file)});
  parts_["vm"].secret = secret("swordfish-password");
  post("/v1/credential", R"({"registry":"contoso.azurecr.io"})");
  post("/v1/credential", R"({"registry":"contoso.azurecr.io","purpose":"expose-token"})");
  post("/v1/login", R"({"registry":"contoso.azurecr.io","token":"swordfish-token"})");
  post("/v1/login?token=swordfish-query", R"({"registry":"contoso.azurecr.io","x":"swordfish"})");
  post("/v1/credential", std::string(R"({"registry":"contoso.azurecr.io",)") +
                             R"("service_account_token":"swordfish.a.b","client_id":")" + guid +
                             R"(","tenant_id":")" + guid + R"("})");
  log::stop();
  std::string text(1 << 20, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_THAT(text, HasSubstr("registry token shown"));
  EXPECT_THAT(text, HasSubstr("signed in"));
  EXPECT_THAT(text, HasSubstr("control request"));
  EXPECT_THAT(text, Not(HasSubstr("swordfish")));
}

// How often `text`, given backwards so that it stands nowhere itself, is in this process's memory.
std::size_t occurrences(const std::string& backwards) {
  static std::vector<char> window(1 << 20);
  std::size_t found = 0;
  const int memory = ::open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  std::FILE* const maps = std::fopen("/proc/self/maps", "r");
  char line[512];
  while (std::fgets(line, sizeof line, maps)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    char rights[5] = {};
    if (std::sscanf(line, "%lx-%lx %4s", &begin, &end, rights) != 3 || rights[1] != 'w') continue;
    // Windows overlap, so that nothing is missed at their edges.
    for (unsigned long at = begin; at < end; at += window.size() - backwards.size()) {
      const auto wanted = std::min<std::size_t>(window.size(), end - at);
      const ssize_t got = ::pread(memory, window.data(), wanted, static_cast<off_t>(at));
      for (ssize_t i = 0; i + static_cast<ssize_t>(backwards.size()) <= got; ++i) {
        const char* const here = window.data() + i;
        const auto* const real = reinterpret_cast<const char*>(at) + i;
        if (real >= window.data() && real < window.data() + window.size()) continue;
        if (std::equal(backwards.rbegin(), backwards.rend(), here)) ++found;
      }
    }
  }
  std::fill(window.begin(), window.end(), '\0');
  std::fclose(maps);
  ::close(memory);
  return found;
}

std::string turned(std::string text) {
  std::ranges::reverse(text);
  return text;
}

TEST_F(CredentialsTest, AreNowhereInMemoryOnceTheyAreSent) {
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "the sanitizer's shadow is terabytes, and it keeps what was freed";
#endif
  // Both are made at run time, so that neither is a constant of this program.
  const std::string sent = "dnes-" + std::to_string(::getpid()) + "-ecno-nekot-a-si-siht";
  const std::string given = "nevig-" + std::to_string(::getpid()) + "-ecno-drowssap-a-si-siht";
  {
    std::string plain = turned(given);
    parts_["vm"].secret = secret(plain);
    EXPECT_GE(occurrences(given), 1u) << "the search itself finds what is there";
    auth::wipe(plain);
  }
  // The other process builds the request and looks at the answer, and tells only whether it is
  // right.
  const auto ask = [&](const std::string& path, const std::string& before,
                       const std::string& expected_backwards) {
    OtherUser user(::geteuid(), [&](OtherUser::End& end) {
      const std::string answer =
          fake::talk(address(), request("POST", path, before + turned(sent) + "\"}"));
      end.tell(answer.contains(turned(expected_backwards)) ? "right" : "wrong");
    });
    return house_.run(user.all_told(house_.io.get_executor()));
  };
  EXPECT_EQ(ask("/v1/login", R"({"registry":"contoso.azurecr.io","token":")", "hserfer"), "right");
  EXPECT_EQ(ask("/v1/credential",
                std::string(R"({"registry":"contoso.azurecr.io","client_id":")") + guid +
                    R"(","tenant_id":")" + guid + R"(","service_account_token":")",
                "dop-fo-hserfer"),
            "right");
  EXPECT_EQ(ask("/v1/login", R"({"registry":"contoso.azurecr.io","other":")", "dleif"), "right");
  OtherUser user(::geteuid(), [&](OtherUser::End& end) {
    const std::string answer = fake::talk(
        address(), request("POST", "/v1/credential", R"({"registry":"contoso.azurecr.io"})"));
    end.tell(answer.contains(turned(given)) ? "right" : "wrong");
  });
  EXPECT_EQ(house_.run(user.all_told(house_.io.get_executor())), "right");
  parts_["vm"].secret.reset();
  EXPECT_EQ(occurrences(sent), 0u);
  EXPECT_EQ(occurrences(given), 0u);
}

TEST_F(CredentialsTest, StandInStatusByTheirEndsAndFailures) {
  parts_["vm"].endings = {
      {"certificate /etc/staithe/sp.pem", std::chrono::hours(24), std::chrono::hours(24 * 14)},
      {"client secret", std::chrono::hours(24 * 100), std::chrono::hours(24 * 14)}};
  parts_["vm"].last_error = Error{Errc::unreachable, "step, cause, remedy"};
  post("/v1/credential", R"({"registry":"contoso.azurecr.io"})");
  const json::object status = body_of(ask_as(::geteuid(), "GET", "/v1/status"));
  const json::object& registry = status.at("registries").at(0).as_object();
  EXPECT_EQ(registry.at("name").as_string(), "contoso.azurecr.io");
  EXPECT_EQ(registry.at("credentials"),
            (json::array{
                json::object{{"what", "certificate /etc/staithe/sp.pem"},
                             {"expires_in_seconds", 86400},
                             {"near", true}},
                json::object{
                    {"what", "client secret"}, {"expires_in_seconds", 8640000}, {"near", false}}}));
  EXPECT_EQ(registry.at("last_error").as_string(), "step, cause, remedy");
  EXPECT_EQ(registry.at("last_error_class").as_string(), "unreachable");
  EXPECT_THAT(std::string(status.at("secret_memory").as_string()), HasSubstr("locked"));
}

}  // namespace
}  // namespace staithe::daemon
