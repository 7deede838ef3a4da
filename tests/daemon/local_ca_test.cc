#include "daemon/local_ca.h"

#include <gtest/gtest.h>

#include <set>

#include "daemon/setup.h"
#include "daemon/unified_diff.h"
#include "tests/fake/machine.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;

const WallTime now = std::chrono::sys_days(std::chrono::year(2026) / 6 / 1);

TEST(LocalCertificate, IsGoodUntilItsRenewalIsDue) {
  const LocalCertificate made = make_local_certificate(now);
  EXPECT_TRUE(is_good_local_certificate(made.authority, made.server, now));
  const auto due = now + local_certificate_life - local_certificate_renewal;
  EXPECT_TRUE(is_good_local_certificate(made.authority, made.server, due - 1h));
  EXPECT_FALSE(is_good_local_certificate(made.authority, made.server, due + 1h));
}

TEST(LocalCertificate, IsOneOfAKind) {
  const LocalCertificate one = make_local_certificate(now);
  const LocalCertificate two = make_local_certificate(now);
  EXPECT_NE(one.authority, two.authority);
  EXPECT_FALSE(is_good_local_certificate(two.authority, one.server, now));
  EXPECT_FALSE(is_good_local_certificate(one.authority, two.server, now));
  EXPECT_FALSE(is_good_local_certificate(one.authority, one.authority, now));
  for (const char* text : {"", "nothing", "-----BEGIN CERTIFICATE-----\n"}) {
    EXPECT_FALSE(is_good_local_certificate(one.authority, text, now));
    EXPECT_FALSE(is_good_local_certificate(text, one.server, now));
  }
}

TEST(LocalCertificate, LeavesNoKeyOfTheAuthority) {
  const LocalCertificate made = make_local_certificate(now);
  EXPECT_EQ(made.authority.find("PRIVATE"), std::string::npos);
  const std::size_t first = made.server.find("BEGIN PRIVATE KEY");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(made.server.find("BEGIN PRIVATE KEY", first + 1), std::string::npos);
}

TEST(LocalCertificate, IsNeverShown) {
  const LocalCertificate made = make_local_certificate(now);
  const std::string diff = without_secrets(unified_diff("/key.pem", std::nullopt, made.server));
  EXPECT_NE(diff.find("BEGIN PRIVATE KEY"), std::string::npos);
  for (std::size_t at = 0; at < made.server.size();) {
    const std::size_t end = made.server.find('\n', at);
    const std::string line = made.server.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("-----") || line.size() < 32) continue;
    EXPECT_EQ(diff.find(line), std::string::npos) << line;
  }
}

fake::FakeMachine node() {
  fake::FakeMachine machine;
  machine.program("dockerd", "").program("containerd", "").program("podman", "");
  machine.file("/lib/systemd/system/staithed.service", "[Service]\n");
  machine.file("/etc/staithe/staithe.toml", "# mine\n[log]\nlevel = \"warn\"\n");
  return machine;
}

Plan plan_of(const fake::FakeMachine& machine, WallTime at = now) {
  Plan plan{.client = Client::tls};
  plan_tls(plan, machine, at);
  return plan;
}

TEST(SetupTls, WritesTheCertificateTheListenerAndWhomClientsTrust) {
  fake::FakeMachine machine = node();
  const Plan plan = plan_of(machine);
  EXPECT_TRUE(plan.refusals.empty());
  std::set<std::string> paths;
  for (const FileChange& change : plan.changes) {
    paths.insert(change.path.native());
    const bool secret = change.path == "/etc/staithe/tls/localhost.pem";
    EXPECT_EQ(change.mode, secret ? std::optional(0600U) : std::nullopt) << change.path;
    EXPECT_EQ(change.after.contains("PRIVATE"), secret) << change.path;
  }
  const std::set<std::string> expected{"/etc/staithe/tls/localhost.pem",
                                       "/etc/staithe/tls/ca.crt",
                                       "/etc/staithe/staithe.toml",
                                       "/etc/systemd/system/staithed.service.d/50-tls.conf",
                                       "/etc/docker/certs.d/localhost:5443/ca.crt",
                                       "/etc/docker/certs.d/127.0.0.1:5443/ca.crt",
                                       "/etc/containerd/certs.d/localhost:5443/ca.crt",
                                       "/etc/containerd/certs.d/localhost:5443/hosts.toml",
                                       "/etc/containerd/certs.d/127.0.0.1:5443/ca.crt",
                                       "/etc/containerd/certs.d/127.0.0.1:5443/hosts.toml",
                                       "/etc/containers/certs.d/localhost:5443/ca.crt",
                                       "/etc/containers/certs.d/127.0.0.1:5443/ca.crt"};
  EXPECT_EQ(paths, expected);
  machine.apply(plan);
  EXPECT_TRUE(machine.files["/etc/staithe/staithe.toml"].starts_with("# mine\n[log]"));
  EXPECT_NE(machine.files["/etc/staithe/staithe.toml"].find("tls = [\"127.0.0.1:5443\"]"),
            std::string::npos);
  EXPECT_TRUE(is_good_local_certificate(machine.files["/etc/staithe/tls/ca.crt"],
                                        machine.files["/etc/staithe/tls/localhost.pem"], now));
  EXPECT_TRUE(plan_of(machine).changes.empty()) << "a second time there is nothing to do";
}

TEST(SetupTls, RenewsAheadOfTheEnd) {
  fake::FakeMachine machine = node();
  machine.apply(plan_of(machine));
  const std::string before = machine.files["/etc/staithe/tls/localhost.pem"];
  machine.apply(plan_of(machine, now + local_certificate_life - 59 * 24h));
  EXPECT_NE(machine.files["/etc/staithe/tls/localhost.pem"], before);
  EXPECT_EQ(machine.files["/etc/docker/certs.d/localhost:5443/ca.crt"],
            machine.files["/etc/staithe/tls/ca.crt"]);
}

TEST(SetupTls, WithoutAUnitNamesTheFileItself) {
  fake::FakeMachine machine;
  machine.apply(plan_of(machine));
  EXPECT_NE(machine.files["/etc/staithe/staithe.toml"].find(
                "tls_file = \"/etc/staithe/tls/localhost.pem\""),
            std::string::npos);
  EXPECT_EQ(machine.files.size(), 3U) << "no client is installed here";
}

}  // namespace
}  // namespace staithe::daemon
