// What the log tells of requests: once what lasts, and line by line what somebody traces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cstdio>
#include <sstream>

#include "cache/log.h"
#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Reply;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;

const std::string trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string traced = "traceparent: 00-" + trace_id + "-00f067aa0ba902b7-01\r\n";
const std::string unrecorded = "traceparent: 00-" + trace_id + "-00f067aa0ba902b7-00\r\n";

class Told : public testing::Test {
 protected:
  Told() {
    log::start({.level = log::Level::info, .format = log::Format::json, .fd = ::fileno(file_)});
    house_.emplace();
    play(Reply{.status = 200,
               .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                           {"Docker-Content-Digest", digest_.to_string()}},
               .body = bytes_});
  }
  ~Told() override {
    house_.reset();
    log::stop();
    std::fclose(file_);
  }

  void play(const Reply& reply) {
    house_->upstream.on("https://r.example/v2/app/manifests/", [reply](const Asked& asked) {
      Reply answer = reply;
      if (asked.method == "HEAD") answer.body.clear();
      return answer;
    });
  }
  // All lines with these words; the log ends here.
  std::vector<json::object> lines(std::string_view event) {
    log::stop();
    std::rewind(file_);
    std::string text;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) text += static_cast<char>(c);
    std::istringstream stream(text);
    std::vector<json::object> found;
    for (std::string line; std::getline(stream, line);) {
      json::object object = json::parse(line).as_object();
      if (object.at("event").as_string() == event) found.push_back(std::move(object));
    }
    return found;
  }

  std::FILE* file_ = std::tmpfile();
  std::optional<House> house_;
  const std::string bytes_ = R"({"layers":[]})";
  const cache::Digest digest_ = cache::digest_of(cache::Algorithm::sha256, bytes_);
  const std::string by_tag_ = "/v2/app/manifests/1";
  const std::string by_digest_ = "/v2/app/manifests/" + digest_.to_string();
};

TEST_F(Told, IsTheWayOfATracedRequest) {
  EXPECT_EQ(house_->get(by_tag_, traced).status, 200);
  const auto digest = house_->play_blob("app", "some bytes");
  EXPECT_EQ(house_->get("/v2/app/blobs/" + digest.to_string(), traced).status, 200);
  EXPECT_EQ(house_->get("/v2/app/manifests/1").status, 200) << "nobody records this one";
  const auto asked = lines("upstream asked");
  ASSERT_EQ(asked.size(), 2U);
  EXPECT_EQ(asked[0].at("what").as_string(), "app/manifests/1");
  EXPECT_EQ(asked[1].at("what").as_string(), "app/blobs/" + digest.to_string());
  for (const json::object& line : asked) {
    EXPECT_EQ(line.at("trace_id").as_string(), trace_id);
    EXPECT_EQ(line.at("level").as_string(), "info");
    EXPECT_GE(line.at("microseconds").to_number<int>(), 0);
  }
}

TEST_F(Told, IsTheRequestItselfWithItsTrace) {
  house_->get(by_tag_, traced);
  house_->get(by_tag_);
  EXPECT_EQ(house_->get("/v2/nobody.example/app/manifests/1", traced).status, 404);
  EXPECT_EQ(house_->get(by_tag_, unrecorded).status, 200);
  const auto told = lines("request");
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0].at("trace_id").as_string(), trace_id);
  EXPECT_EQ(told[0].at("parent_id").as_string(), "00f067aa0ba902b7");
  EXPECT_EQ(told[0].at("status").to_number<int>(), 200);
  EXPECT_EQ(told[1].at("status").to_number<int>(), 404);
}

TEST_F(Told, IsAHitThatIsTracedToo) {
  for (int i = 0; i < 3; ++i) house_->get(by_digest_);
  const auto before = house_->proxy.meter().at_front().requests;
  EXPECT_TRUE(house_->get_kept(by_digest_, traced).ends_with(bytes_));
  EXPECT_EQ(house_->proxy.meter().at_front().requests, before) << "the main loop writes the log";
  EXPECT_TRUE(house_->get_kept(by_digest_, unrecorded).ends_with(bytes_));
  EXPECT_EQ(house_->proxy.meter().at_front().requests, before + 1);
  const auto told = lines("request");
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].at("cache").as_string(), "staithe; hit");
}

TEST_F(Told, NothingGoesUpstream) {
  house_->get(by_tag_, traced + "tracestate: vendor=secret\r\n");
  ASSERT_FALSE(house_->upstream.asked().empty());
  for (const Asked& asked : house_->upstream.asked()) {
    EXPECT_EQ(asked.headers.find("traceparent"), nullptr);
    EXPECT_EQ(asked.headers.find("tracestate"), nullptr);
  }
}

TEST_F(Told, IgnoresWhatIsNoTraceOrTwoOfThem) {
  house_->get(by_tag_, "traceparent: 00-nonsense\r\n");
  house_->get(by_tag_, traced + traced);
  EXPECT_THAT(lines("request"), IsEmpty());
}

TEST_F(Told, AreOnlySoManyTracedRequestsPerSecond) {
  for (int i = 0; i < 200; ++i) house_->get("/v2/", traced);
  house_->clock.pass(2s);
  house_->get("/v2/", traced);
  const auto told = lines("request");
  EXPECT_GE(told.size(), 21U);
  EXPECT_LT(told.size(), 201U);
  const auto left_out = lines("traced requests were not told of, as there were too many");
  ASSERT_FALSE(left_out.empty());
  std::int64_t sum = 0;
  for (const json::object& line : left_out) sum += line.at("requests").to_number<int>();
  EXPECT_EQ(told.size() + static_cast<std::size_t>(sum), 201U);
}

// Upstream is down, and everybody pulls.
TEST_F(Told, IsThatATagIsStaleOnceAMinuteAndRegistry) {
  house_->get(by_tag_);
  play(Reply::failure(Errc::unreachable, "r.example is down"));
  for (int i = 0; i < 50; ++i)
    EXPECT_TRUE(house_->get(by_tag_).field("Cache-Status").starts_with("staithe; fwd=stale"));
  house_->clock.pass(2min);
  house_->get(by_tag_);
  const auto stale = lines("tag served stale");
  ASSERT_EQ(stale.size(), 2U);
  EXPECT_FALSE(stale[0].contains("left_out"));
  EXPECT_EQ(stale[1].at("left_out").to_number<int>(), 49);
}

}  // namespace
}  // namespace staithe::proxy
