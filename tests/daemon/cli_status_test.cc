#include "daemon/cli_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kSample = R"({
 "version":"0.1.0","pid":4242,"uptime_seconds":273965,"state":"ready",
 "listen":["127.0.0.1:5050","[::1]:5050"],
 "cache":{"directory":"/var/cache/staithe","bytes":13207024435,"max_bytes":85899345920,
   "free_bytes":129385308160,"blobs":1234,"manifests":87,"evicted":3,"quarantined":1,
   "mode":"read-write","next_victims":[
    {"digest":"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","kind":"blob",
     "bytes":123457536,"last_used_seconds_ago":273965,"why":"probation"},
    {"digest":"sha256:efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef",
     "kind":"manifest","bytes":4096,"last_used_seconds_ago":null,"why":"protected"}]},
 "traffic":{"requests":12345,"hits":900,"misses":90,"collapsed":10,"stale":0,"errors":0,
   "hit_ratio":0.91,"bytes_served":48425755648,"bytes_saved":43057046528,
   "bytes_fetched":5368709120},
 "registries":[
  {"name":"contoso.azurecr.io","upstream":["https://contoso.azurecr.io"],"identity":"vm",
   "identity_kind":"managed-identity","state":"ok","paused_seconds":0,"last_error":null,
   "tokens":[{"kind":"entra","expires_in_seconds":84000,"renews_in_seconds":42000},
             {"kind":"access","expires_in_seconds":4000,"renews_in_seconds":3000},
             {"kind":"access","expires_in_seconds":3900,"renews_in_seconds":3100}]},
  {"name":"docker.io","upstream":["https://registry-1.docker.io"],"identity":"",
   "identity_kind":"anonymous","state":"throttled","paused_seconds":42,
   "last_error":"registry-1.docker.io answered 429: give docker.io an identity","tokens":[]}],
 "fills":[{"digest":"sha256:abababababababababababababababababababababababababababababababab",
   "registry":"contoso.azurecr.io","repository":"app/web","bytes":123456789,"total":268435456,
   "readers":32}]})";

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Without the colour sequences that paint() makes.
std::string bare(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (text[i] != 'm') ++i;
    } else {
      result += text[i];
    }
  }
  return result;
}

TEST(Status, SaysWhyTheCacheDoesNotStore) {
  json::value status = json::parse(kSample);
  json::object& cache = status.at("cache").as_object();
  cache["mode"] = "pass-through";
  cache["mode_reason"] = "the disk is full: free it";
  const std::string text = render_status(status, Style{});
  EXPECT_THAT(text, HasSubstr("/var/cache/staithe  pass-through\n"));
  EXPECT_THAT(text, HasSubstr("  the disk is full: free it\n"));
}

TEST(Status, ShowsHowEachMirrorFares) {
  json::value status = json::parse(kSample);
  json::object& registry = status.at("registries").at(1).as_object();
  registry["state"] = "ok";
  registry["paused_seconds"] = 0;
  registry["last_error"] = "nobody is at home";
  registry["upstream"] = json::array{"http://127.0.0.1:30020", "https://registry-1.docker.io"};
  registry["upstreams"] = json::parse(R"([
    {"url":"http://127.0.0.1:30020","state":"unreachable","paused_seconds":0,
     "last_error":"nobody is at home"},
    {"url":"https://registry-1.docker.io","state":"throttled","paused_seconds":42,
     "last_error":null}])");
  const std::string text = render_status(status, Style{});
  EXPECT_THAT(text, HasSubstr("docker.io           2 in order"));
  EXPECT_THAT(text, HasSubstr("1. http://127.0.0.1:30020: unreachable; last error: nobody is at "
                              "home\n"));
  EXPECT_THAT(text, HasSubstr("2. https://registry-1.docker.io: throttled for 42s\n"));
  EXPECT_EQ(text.find("nobody is at home"), text.rfind("nobody is at home")) << "said once";
}

TEST(Status, ShowsHowFarTheScrubIs) {
  json::value status = json::parse(kSample);
  json::object& cache = status.at("cache").as_object();
  const auto line_with = [&](const char* scrub) {
    cache["scrub"] = json::parse(scrub);
    for (const std::string& line : lines_of(render_status(status, Style{})))
      if (line.starts_with("  scrub")) return line;
    return std::string();
  };
  EXPECT_EQ(line_with(R"({"state":"yielding","objects":10,"total_objects":40,"bytes":1073741824,
                          "total_bytes":4294967296,"damaged":1,"unreadable":0,
                          "began_seconds_ago":61,"ended_seconds_ago":null,"next_in_seconds":null})"),
            "  scrub yielding  25.0% of 4.0 GiB  10 of 40 objects  since 1m 1s  1 damaged");
  EXPECT_EQ(line_with(R"({"state":"waiting","objects":40,"total_objects":40,"bytes":4294967296,
                          "total_bytes":4294967296,"damaged":0,"unreadable":0,
                          "began_seconds_ago":7200,"ended_seconds_ago":3600,
                          "next_in_seconds":86400})"),
            "  scrub waiting  last one 1h ago  40 objects  0 damaged  next look in 1d");
  EXPECT_EQ(line_with(R"({"state":"off","objects":0,"ended_seconds_ago":null})"), "  scrub off");
}

TEST(Status, SaysThatLinesOfTheLogAreMissing) {
  json::value status = json::parse(kSample);
  EXPECT_THAT(render_status(status, Style{}), Not(HasSubstr("lost")));
  status.as_object()["log"] = json::object{{"dropped", 0}};
  EXPECT_THAT(render_status(status, Style{}), Not(HasSubstr("lost")));
  status.as_object()["log"] = json::object{{"dropped", 12}};
  EXPECT_THAT(render_status(status, Style{}), HasSubstr("\n  12 lines of the log were lost"));
}

TEST(Status, SaysWhatIsPinnedOnceSomethingIs) {
  json::value status = json::parse(kSample);
  json::object& cache = status.at("cache").as_object();
  cache["pins"] = 0;
  cache["pinned_bytes"] = 0;
  EXPECT_THAT(render_status(status, Style{}), Not(HasSubstr("pinned")));
  cache["pins"] = 2;
  cache["pinned_bytes"] = 1 << 30;
  EXPECT_THAT(render_status(status, Style{}),
              HasSubstr("\n  2 pinned  1.0 GiB of it kept for them\n"));
  cache["pinned_bytes"] = 85899345920;
  EXPECT_THAT(render_status(status, {.columns = 0, .colour = true, .utf8 = false}),
              HasSubstr("\x1b[33m80.0 GiB of it kept for them"));
}

TEST(Status, ShowsDaemonCacheTrafficRegistriesAndFills) {
  EXPECT_EQ(render_status(json::parse(kSample), Style{}),
            R"(staithed 0.1.0  ready  pid 4242  up 3d 4h
listens on  127.0.0.1:5050  [::1]:5050

CACHE  /var/cache/staithe  read-write
  12.3 GiB of 80.0 GiB  [###---------------------]  15.4%  120.5 GiB free on disk
  1234 blobs  87 manifests  3 evicted  1 quarantined
  NEXT TO GO           KIND      SIZE       LAST USED  WHY
  sha256:cdcdcdcdcdcd  blob      117.7 MiB  3d 4h ago  probation
  sha256:efefefefefef  manifest  4.0 KiB    not known  protected

TRAFFIC
  12345 requests  900 hits  90 misses  10 collapsed  0 stale  0 errors
  91.0% hit ratio  45.1 GiB served  5.0 GiB fetched  40.1 GiB saved

REGISTRIES
  NAME                UPSTREAM                      IDENTITY               STATE
  contoso.azurecr.io  https://contoso.azurecr.io    vm (managed-identity)  ok
    tokens: entra valid for 23h 20m, renewed in 11h 40m; 2 access valid for 1h 5m, renewed in 50m
  docker.io           https://registry-1.docker.io  anonymous              throttled for 42s
    last error: registry-1.docker.io answered 429: give docker.io an identity

FILLS
  sha256:abababababab  contoso.azurecr.io/app/web  [####------]  46.0%  32 readers
    117.7 MiB of 256.0 MiB
)");
}

TEST(Status, ShowsFirstWhatMovesWhereTheScreenMayBeTooSmall) {
  const std::string text = render_status(json::parse(kSample), Style{}, Order::transfers_first);
  EXPECT_LT(text.find("\nFILLS\n"), text.find("\nCACHE"));
  EXPECT_THAT(text, testing::StartsWith("staithed 0.1.0  ready"));
}

TEST(Status, WarnsOfWhatAPersonHasToRenewSoon) {
  json::value status = json::parse(kSample);
  json::object& registry = status.at("registries").at(0).get_object();
  registry["credentials"] = json::parse(
      R"([{"what":"certificate /etc/staithe/sp.pem","expires_in_seconds":172800,"near":true},
          {"what":"client secret","expires_in_seconds":99999999,"near":false},
          {"what":"token /run/t","expires_in_seconds":-5,"near":true}, 7, {"near":"yes"}])");
  registry["tokens"] =
      json::parse(R"([{"kind":"login","expires_in_seconds":7200,"renews_in_seconds":null}])");
  const std::string text = render_status(status, Style{});
  EXPECT_THAT(text, HasSubstr("\n    renew: certificate /etc/staithe/sp.pem ends in 2d\n"));
  EXPECT_THAT(text, HasSubstr("\n    renew: token /run/t has ended\n"));
  EXPECT_THAT(text, Not(HasSubstr("client secret")));
  EXPECT_THAT(text, HasSubstr("tokens: login valid for 2h, not renewed by itself"));
  const Style colour{.columns = 0, .colour = true, .utf8 = false};
  EXPECT_THAT(render_status(status, colour), HasSubstr("\x1b[33mrenew: certificate"));
}

TEST(Status, TellsOfTheTlsListenersCertificate) {
  json::value status = json::parse(kSample);
  const auto shown = [&](const char* tls) {
    status.get_object()["tls"] = json::parse(tls);
    return render_status(status, Style{.columns = 0, .colour = true, .utf8 = false});
  };
  EXPECT_THAT(shown("null"), Not(HasSubstr("TLS")));
  EXPECT_THAT(
      bare(shown(R"({"expires_in_seconds":71020800,"near":false,"handshakes":12,"failed":0})")),
      HasSubstr("\n  TLS certificate valid for 822d  12 handshakes  0 failed\n"));
  EXPECT_THAT(shown(R"({"expires_in_seconds":86400,"near":true,"failed":3})"),
              AllOf(HasSubstr("\x1b[33mTLS certificate ends in 1d: staithe setup --tls --apply"),
                    HasSubstr("\x1b[33m3 failed")));
  EXPECT_THAT(shown(R"({"expires_in_seconds":0,"near":true})"),
              HasSubstr("\x1b[31mTLS certificate has ended: staithe setup --tls --apply"));
  EXPECT_THAT(shown(R"({"expires_in_seconds":86400000,"fault":"it is gone"})"),
              HasSubstr("\x1b[31mnot reloaded: it is gone"));
}

TEST(Status, FitsTheTerminal) {
  const json::value status = json::parse(kSample);
  for (std::size_t columns = 40; columns <= 200; ++columns) {
    for (const bool utf8 : {false, true}) {
      const std::string text = render_status(status, {columns, true, utf8});
      for (const std::string& line : lines_of(bare(text))) {
        EXPECT_LE(column_count(line), columns) << line;
      }
      EXPECT_THAT(text, HasSubstr("contoso"));
    }
  }
  // Narrower than anyone has it: no crash, no endless loop.
  for (std::size_t columns = 1; columns < 40; ++columns)
    render_status(status, {columns, true, true});
}

TEST(Status, IsColouredOnlyOnRequest) {
  EXPECT_THAT(render_status(json::parse(kSample), Style{}), Not(HasSubstr("\x1b")));
  const Style colour{.columns = 0, .colour = true, .utf8 = false};
  const std::string text = render_status(json::parse(kSample), colour);
  EXPECT_THAT(text, HasSubstr("\x1b[32mok\x1b[0m"));
  EXPECT_THAT(text, HasSubstr("\x1b[33mthrottled for 42s\x1b[0m"));
  EXPECT_THAT(text, HasSubstr("\x1b[33m1 quarantined\x1b[0m"));
  EXPECT_EQ(bare(text), render_status(json::parse(kSample), Style{}));
}

TEST(Status, TellsWhatARegistryStillGrantsAndWhenItIsTriedAgain) {
  json::value status = json::parse(kSample);
  json::object& hub = status.at("registries").at(1).get_object();
  hub["rate_limit"] = json::object{{"limit", 100}, {"remaining", 76}, {"window_seconds", 21600}};
  hub["state"] = "unreachable";
  hub["paused_seconds"] = 0;
  hub["retry_in_seconds"] = 7;
  const std::string text = render_status(status, Style{});
  EXPECT_THAT(text, HasSubstr("76 of 100 pulls left per 6h"));
  EXPECT_THAT(text, HasSubstr("unreachable, tried again in 7s"));
}

TEST(Status, EscapesWhatItIsGiven) {
  json::value status = json::parse(kSample);
  status.at("registries").at(0).get_object()["credentials"] =
      json::array{json::object{{"what", "\x1b[2J\u202e"}, {"near", true}}};
  const std::string hostile = "\x1b[2J\r\n\u009b\u202efake";
  json::object& registry = status.at("registries").at(0).get_object();
  for (const char* key : {"name", "identity", "identity_kind", "state", "last_error"}) {
    registry[key] = hostile;
  }
  registry["upstream"] = json::array{hostile};
  registry["tokens"].get_array().at(0).get_object()["kind"] = hostile;
  json::object& fill = status.at("fills").at(0).get_object();
  for (const char* key : {"digest", "registry", "repository"}) fill[key] = hostile;
  for (const char* key : {"version", "state"}) status.get_object()[key] = hostile;
  status.get_object()["tls"] = json::object{{"expires_in_seconds", 1}, {"fault", hostile}};
  status.get_object()["listen"] = json::array{hostile};
  status.at("cache").get_object()["directory"] = hostile;
  status.at("cache").get_object()["mode"] = hostile;
  json::object& victim = status.at("cache").at("next_victims").at(0).get_object();
  for (const char* key : {"digest", "kind", "why"}) victim[key] = hostile;
  for (const char c : render_status(status, Style{})) {
    EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~'));
  }
}

TEST(Status, OfAnIdleDaemonHasNoFillsAndNoDivisionByZero) {
  const std::string text = render_status(
      json::parse(R"({"version":"0.1.0","state":"ready","cache":{"bytes":0,"max_bytes":0},
                      "traffic":{},"registries":[],"fills":[]})"),
      Style{});
  EXPECT_THAT(text, HasSubstr("no hit ratio yet"));
  EXPECT_THAT(text, HasSubstr("none asked for yet"));
  EXPECT_THAT(text, Not(HasSubstr("FILLS")));
  EXPECT_THAT(text, Not(HasSubstr("NEXT TO GO")));
  EXPECT_THAT(text, Not(HasSubstr("nan")));
}

TEST(Status, BoundsWhatItShows) {
  json::value status = json::parse(kSample);
  json::array& registries = status.at("registries").get_array();
  while (registries.size() < 1000) registries.push_back(json::value(registries.front()));
  json::array& fills = status.at("fills").get_array();
  while (fills.size() < 1000) fills.push_back(json::value(fills.front()));
  const std::string text = render_status(status, Style{});
  EXPECT_THAT(text, HasSubstr("and 800 more"));
  EXPECT_THAT(text, HasSubstr("and 970 more"));
}

// Replaces random parts of the sample by values of other types.
void damage(json::value& value, std::mt19937& random) {
  if (random() % 8 == 0) {
    const json::value others[] = {
        nullptr, -1e308,           1e308, "text", json::array{1, "x"}, json::object{{"a", 1}},
        true,    std::uint64_t(-1)};
    value = others[random() % std::size(others)];
    return;
  }
  if (auto* object = value.if_object()) {
    for (auto& member : *object) damage(member.value(), random);
  } else if (auto* array = value.if_array()) {
    for (json::value& item : *array) damage(item, random);
  }
}

TEST(Status, TakesJsonOfAnyShape) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    json::value status = json::parse(kSample);
    damage(status, random);
    for (const std::string& line : lines_of(render_status(status, {80, false, true}))) {
      EXPECT_LE(column_count(line), 80u) << line;
    }
  }
}

}  // namespace
}  // namespace staithe::daemon
