#include "daemon/control.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/fake/house.h"

namespace staithe::daemon {
namespace {

using fake::Answer;
using fake::House;

class ControlTest : public testing::Test {
 protected:
  static Config defaults() { return *parse_config("", "staithe.toml", Environment()); }

  Answer ask(const std::string& text) {
    proxy::Server server(house_.io.get_executor(),
                         {.connections = 10, .connection = {.body_bytes = 1000}}, control_,
                         house_.store.disk_pool());
    server.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
    server.start();
    Answer answer = house_.run(house_.ask_at(server.addresses().front(), text));
    house_.run(server.stop());
    return answer;
  }
  Answer get(const std::string& path) {
    return ask("GET " + path + " HTTP/1.1\r\nHost: staithe\r\nConnection: close\r\n\r\n");
  }

  House house_;
  const Config config_ = defaults();
  TaskGroup tasks_{house_.io.get_executor(), [](std::string_view, std::string_view) {}};
  Access access_{house_.io.get_executor(), house_.clock, tasks_, ::geteuid()};
  Credentials credentials_{{.loop = house_.io.get_executor(),
                            .config = config_,
                            .registries = house_.registries,
                            .access = access_,
                            .tasks = tasks_,
                            .doors = {}}};
  Control control_{{.config = config_,
                    .clock = house_.clock,
                    .store = house_.store,
                    .proxy = house_.proxy,
                    .registries = house_.registries,
                    .fills = house_.fills,
                    .access = access_,
                    .credentials = credentials_,
                    .reload = [] { return Faults(); }}};
};

TEST_F(ControlTest, StatusHoldsWhatTheContractNames) {
  const auto digest = house_.play_blob("app", "some bytes");
  house_.get("/v2/r.example/app/blobs/" + digest.to_string());
  control_.set_addresses({"127.0.0.1:5050"});
  control_.set_state(Control::State::ready);
  const Answer answer = get("/v1/status");
  ASSERT_EQ(answer.status, 200);
  const auto status = boost::json::parse(answer.body).as_object();
  for (const char* key : {"version", "pid", "uptime_seconds", "state", "listen", "cache", "traffic",
                          "registries", "fills"})
    EXPECT_TRUE(status.contains(key)) << key;
  const auto& cache = status.at("cache").as_object();
  for (const char* key : {"directory", "bytes", "max_bytes", "free_bytes", "blobs", "manifests",
                          "evicted", "quarantined", "mode", "mode_reason"})
    EXPECT_TRUE(cache.contains(key)) << key;
  const auto& traffic = status.at("traffic").as_object();
  for (const char* key : {"requests", "hits", "misses", "collapsed", "stale", "errors",
                          "bytes_served", "bytes_fetched"})
    EXPECT_TRUE(traffic.contains(key)) << key;
  EXPECT_EQ(traffic.at("misses").to_number<int>(), 1);
  EXPECT_EQ(traffic.at("bytes_fetched").to_number<int>(), 10);
  EXPECT_EQ(status.at("state").as_string(), "ready");
  const auto& registries = status.at("registries").as_array();
  ASSERT_EQ(registries.size(), 2U);  // One was asked for, one is only configured.
  for (const auto& registry : registries) {
    for (const char* key :
         {"name", "upstream", "identity", "identity_kind", "state", "paused_seconds", "last_error",
          "last_error_class", "tokens", "credentials"})
      EXPECT_TRUE(registry.as_object().contains(key)) << key;
  }
  EXPECT_EQ(registries.at(0).at("name").as_string(), "r.example");
  EXPECT_EQ(registries.at(0).at("state").as_string(), "ok");
  EXPECT_EQ(registries.at(1).at("state").as_string(), "idle");
}

TEST_F(ControlTest, TellsTheEffectiveConfiguration) {
  const auto answer = boost::json::parse(get("/v1/config").body).as_object();
  EXPECT_TRUE(parse_config(std::string_view(answer.at("toml").as_string()), "x", Environment()));
  EXPECT_TRUE(answer.at("json").is_object());
}

TEST_F(ControlTest, IsReadyOnlyWhileServing) {
  EXPECT_EQ(get("/readyz").status, 503);
  control_.set_state(Control::State::ready);
  EXPECT_EQ(get("/readyz").status, 200);
  control_.set_state(Control::State::draining);
  EXPECT_EQ(get("/readyz").status, 503);
}

TEST_F(ControlTest, SaysWhatItDoesNotOffer) {
  EXPECT_EQ(get("/v1/nothing").status, 404);
  EXPECT_EQ(ask("POST /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
                "2\r\n\r\n{}")
                .status,
            405);
}

}  // namespace
}  // namespace staithe::daemon
