#include "daemon/doctor_mends.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <string>
#include <vector>

#include "daemon/doctor.h"
#include "daemon/doctor_recorder.h"
#include "daemon/doctor_step.h"
#include "tests/fake/house.h"

namespace staithe::daemon {
namespace {

using proxy::IdentityKind;
using proxy::IdentitySettings;
using testing::HasSubstr;
using testing::Not;

const std::vector<std::string> suffixes = {"azurecr.io"};

MendFor whose(const IdentitySettings& identity, std::string registry = "contoso.azurecr.io") {
  const std::string upstream = "https://" + registry;
  return {.registry = registry,
          .upstream = upstream,
          .host = registry,
          .repository = "team/app",
          .reference = "1",
          .identity_name = "vm",
          .identity = &identity,
          .acr_suffixes = &suffixes};
}

TEST(DoctorMends, NameTheIdentityThatIsMissing) {
  IdentitySettings identity{.kind = IdentityKind::managed_identity};
  const Error missing{Errc::identity_missing, "Identity not found"};
  EXPECT_THAT(mend_for("identity", missing, whose(identity)),
              HasSubstr("az vm identity assign --resource-group GROUP --name VM switches on"));
  identity.client_id = "1234";
  EXPECT_THAT(mend_for("identity", missing, whose(identity)),
              HasSubstr("correct the id 1234 in [identity.vm]"));
  identity.resource_id = "/subscriptions/x";
  EXPECT_THAT(mend_for("identity", missing, whose(identity)),
              HasSubstr("--identities /subscriptions/x"));
}

TEST(DoctorMends, ReadTheNumberThatEntraGives) {
  const IdentitySettings identity{.kind = IdentityKind::service_principal,
                                  .client_id = "app-id",
                                  .client_secret_file = "/etc/staithe/secret"};
  const auto mend = [&](std::string said) {
    return mend_for("entra", Error{Errc::unauthorized, "invalid_client " + said}, whose(identity));
  };
  EXPECT_THAT(mend("AADSTS7000222: the keys have expired"),
              HasSubstr("az ad app credential reset --id app-id --append, and put the new "
                        "password into /etc/staithe/secret"));
  EXPECT_THAT(mend("AADSTS7000215: wrong"), HasSubstr("not its id"));
  EXPECT_THAT(mend("AADSTS700016: x"), HasSubstr("az ad sp show --id app-id"));
  EXPECT_THAT(mend("AADSTS90002: x"), HasSubstr("correct tenant_id in [identity.vm]"));
  EXPECT_THAT(mend("AADSTS700024: x"), HasSubstr("timedatectl"));
  // One number is the beginning of another.
  EXPECT_THAT(mend("AADSTS700213: x"), HasSubstr("subject"));
  EXPECT_THAT(mend("AADSTS70021: x"), HasSubstr("fits the token:"));
  EXPECT_THAT(mend("AADSTS12345678: x"), HasSubstr("see what Entra says"));
}

TEST(DoctorMends, GrantTheRoleWhereOneIsMissing) {
  const IdentitySettings identity{.kind = IdentityKind::managed_identity, .client_id = "1234"};
  for (const auto& [step, code] : std::vector<std::pair<const char*, Errc>>{
           {"exchange", Errc::unauthorized}, {"token", Errc::denied}, {"manifest", Errc::denied}})
    EXPECT_THAT(mend_for(step, Error{code, ""}, whose(identity)),
                HasSubstr("az role assignment create --assignee 1234 --role AcrPull --scope $(az "
                          "acr show --name contoso --query id --output tsv)"))
        << step;
  EXPECT_THAT(mend_for("token", Error{Errc::denied, ""}, whose(identity, "quay.io")),
              Not(HasSubstr("az ")));
}

TEST(DoctorMends, TellTheThreeWaysToBeOutOfReachApart) {
  const IdentitySettings identity;
  const auto mend = [&](std::string detail) {
    return mend_for("challenge", Error{Errc::unreachable, std::move(detail)}, whose(identity));
  };
  EXPECT_THAT(mend("Could not resolve host: x"), HasSubstr("getent hosts contoso.azurecr.io"));
  EXPECT_THAT(mend("SSL certificate problem: self-signed"), HasSubstr("ca_file"));
  EXPECT_THAT(mend("Connection timed out"), HasSubstr("firewall"));
}

TEST(DoctorMends, OfABlobsHostAreAboutThatHost) {
  const IdentitySettings identity;
  MendFor blob = whose(identity);
  blob.host = "eusmanaged1.blob.core.windows.net";
  EXPECT_THAT(mend_for("blob-host", Error{Errc::unreachable, "timed out"}, blob),
              HasSubstr("az acr show-endpoints --name contoso"));
  EXPECT_THAT(mend_for("blob-host", Error{Errc::denied, ""}, blob), HasSubstr("link"));
  EXPECT_THAT(mend_for("blob-host", Error{Errc::upstream_nonsense, "add it to data_hosts"}, blob),
              HasSubstr("data_hosts of the [[registry]]"));
}

// Every class of error that a step may end with, but for being stopped.
TEST(DoctorMends, AreThereForEveryStepAndClass) {
  for (const IdentityKind kind :
       {IdentityKind::anonymous, IdentityKind::managed_identity, IdentityKind::service_principal,
        IdentityKind::workload_identity, IdentityKind::basic, IdentityKind::token,
        IdentityKind::helper, IdentityKind::docker_config}) {
    const IdentitySettings identity{.kind = kind};
    for (const char* step :
         {"identity", "entra", "challenge", "exchange", "token", "manifest", "blob-host"})
      for (const Errc code :
           {Errc::denied, Errc::unauthorized, Errc::identity_missing, Errc::firewall,
            Errc::throttled, Errc::unreachable, Errc::upstream_failed, Errc::upstream_nonsense,
            Errc::manifest_unknown, Errc::name_unknown, Errc::blob_unknown, Errc::config,
            Errc::too_large, Errc::storage_failed, Errc::bad_request})
        EXPECT_NE(mend_for(step, Error{code, "it failed"}, whose(identity)), "")
            << step << " " << to_string(code) << " " << proxy::to_string(kind);
  }
}

TEST(DoctorRecorder, NotesWhatWasAskedAndNoQuery) {
  fake::House house;
  house.upstream.on("https://data.example", [](const fake::Asked&) {
    return fake::Reply{.status = 206, .headers = {{"Date", "Thu, 01 Jan 1970 00:00:10 GMT"}}};
  });
  DoctorRecorder recorder(house.upstream, house.clock, 2);
  const auto ask = [&](const std::string& url) {
    return house.run(recorder.send({.url = *proxy::Url::parse(url), .limits = {}}))->status();
  };
  EXPECT_EQ(ask("https://data.example/blob?sig=very-secret"), 206);
  EXPECT_THROW(ask("https://nobody.example/"), Failure);
  EXPECT_EQ(in_words(recorder.entries()),
            "GET https://data.example/blob: 206; GET https://nobody.example/: no answer");
  EXPECT_GT(*recorder.entries().front().clock_ahead, std::chrono::hours(24 * 365));
  try {
    ask("https://data.example/blob");
    FAIL() << "there is a bound";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::throttled);
  }
  EXPECT_EQ(house.upstream.count("https://data.example"), 1u);
}

TEST(DoctorStep, IsReadAsItWasWritten) {
  const DoctorStep step{.step = "exchange",
                        .subject = "contoso.azurecr.io",
                        .state = StepState::failed,
                        .tried = "POST x: 401",
                        .took = std::chrono::milliseconds(31),
                        .finding = "refused",
                        .mend = "mend it",
                        .error_class = "unauthorized"};
  const auto line = boost::json::parse(boost::json::serialize(to_json(step)));
  EXPECT_TRUE(is_step(line));
  EXPECT_EQ(boost::json::serialize(to_json(step_of(line))), boost::json::serialize(line));
  EXPECT_EQ(to_json(DoctorStep{.step = "x"}).at("mend"), nullptr);
  // From another version, or no daemon at all.
  const auto strange =
      boost::json::parse(R"({"kind":"step","state":"dire","finding":"\u001b[2J"})");
  EXPECT_EQ(step_of(strange).state, StepState::failed);
  EXPECT_THAT(step_of(strange).finding, Not(HasSubstr("\x1b")));
}

TEST(DoctorOrder, TellsARegistryFromAnImage) {
  proxy::RegistrySettings configured;
  configured.name = "localhost:5000";
  const auto parse = [&](const std::string& target) {
    return *parse_doctor_order(R"({"target":")" + target + R"("})", {configured});
  };
  EXPECT_EQ(parse("contoso.azurecr.io").registry, "contoso.azurecr.io");
  EXPECT_EQ(parse("contoso.azurecr.io").repository, "");
  EXPECT_EQ(parse("localhost:5000").registry, "localhost:5000");
  EXPECT_EQ(parse("contoso.azurecr.io/team/app:1").repository, "team/app");
  EXPECT_EQ(parse("contoso.azurecr.io/team/app:1").reference, "1");
  EXPECT_EQ(parse("busybox:1.36").registry, "docker.io");
  EXPECT_EQ(parse("busybox").repository, "library/busybox");
  EXPECT_EQ(parse("").registry, "");
  EXPECT_EQ(parse_doctor_order("", {})->registry, "");
  for (const char* bad : {"[]", "{\"target\":1}", "{\"image\":\"x\"}", "{", R"({"target":"a b"})"})
    EXPECT_FALSE(parse_doctor_order(bad, {})) << bad;
}

}  // namespace
}  // namespace staithe::daemon
