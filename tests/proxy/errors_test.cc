#include "proxy/errors.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace staithe::proxy {
namespace {

constexpr int last_code = static_cast<int>(Errc::config);

TEST(Errors, NeverTellAClientToLogInOrToHammer) {
  for (int i = 0; i <= last_code; ++i) {
    const auto code = static_cast<Errc>(i);
    for (const int status : {reply_for(code).status, reply_for_blob(code).status}) {
      EXPECT_NE(status, 401) << to_string(code);
      EXPECT_NE(status, 429) << to_string(code);
      EXPECT_GE(status, 400) << to_string(code);
      EXPECT_FALSE(reason_phrase(status).empty()) << status;
    }
    EXPECT_STRNE(to_string(code), "unknown");
  }
}

TEST(Errors, OfABlobSendClientsToTheNextSourceAtOnce) {
  for (const Errc code : {Errc::unreachable, Errc::upstream_failed, Errc::throttled, Errc::denied,
                          Errc::unauthorized, Errc::storage_failed, Errc::blob_unknown}) {
    EXPECT_EQ(reply_for_blob(code).status, 404);
    EXPECT_EQ(reply_for_blob(code).code, "BLOB_UNKNOWN");
  }
  EXPECT_EQ(reply_for_blob(Errc::range_not_satisfiable).status, 416);
  EXPECT_EQ(reply_for_blob(Errc::registry_unknown).code, "NAME_UNKNOWN");
}

TEST(Errors, AreOciBodies) {
  const auto body = boost::json::parse(error_body("DENIED", "say \"please\"\n"));
  EXPECT_EQ(body.at("errors").at(0).at("code").as_string(), "DENIED");
  EXPECT_EQ(body.at("errors").at(0).at("message").as_string(), "say \"please\"\n");
}

}  // namespace
}  // namespace staithe::proxy
