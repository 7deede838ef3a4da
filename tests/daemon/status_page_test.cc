#include "daemon/status_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cache/digest.h"
#include "proxy/auth/base64.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* sample = R"({
 "version":"0.1.0","host":"node17","pid":4242,"uptime_seconds":273965,"state":"ready",
 "listen":["127.0.0.1:5050","[::1]:5050"],
 "cache":{"directory":"/var/cache/staithe","bytes":13207024435,"max_bytes":85899345920,
   "free_bytes":129385308160,"blobs":1234,"manifests":87,"evicted":3,"quarantined":1,"pins":2,
   "pinned_bytes":1048576,"mode":"pass-through","mode_reason":"the disk is full: free it",
   "scrub":{"state":"running","objects":10,"total_objects":40,"bytes":1073741824,
     "total_bytes":4294967296,"damaged":1,"unreadable":0,"began_seconds_ago":61,
     "ended_seconds_ago":null,"next_in_seconds":null}},
 "traffic":{"requests":12345,"hits":900,"misses":90,"collapsed":10,"stale":0,"errors":0,
   "denied":2,"hit_ratio":0.91,"bytes_served":48425755648,"bytes_saved":43057046528,
   "bytes_fetched":5368709120},
 "connections":{"open":12},
 "tls":{"file":"/etc/staithe/tls/localhost.pem","expires_in_seconds":86400,"near":true,
   "fault":"the file is gone: staithe setup --tls --apply","handshakes":12,"failed":1},
 "registries":[
  {"name":"contoso.azurecr.io","upstream":["https://contoso.azurecr.io"],"upstreams":[{}],
   "identity":"vm","identity_kind":"managed-identity","state":"ok","paused_seconds":0,
   "requests":345,"throttled":0,"refused":0,"last_error":null,
   "credentials":[{"what":"certificate /etc/staithe/sp.pem","expires_in_seconds":86400,
     "near":true}],
   "tokens":[
    {"kind":"entra","age_seconds":2400,"expires_in_seconds":84000,"renews_in_seconds":42000},
    {"kind":"access","age_seconds":400,"expires_in_seconds":4000,"renews_in_seconds":3000},
    {"kind":"access","age_seconds":500,"expires_in_seconds":3900,"renews_in_seconds":100},
    {"kind":"login","age_seconds":500,"expires_in_seconds":3900,"renews_in_seconds":null}]},
  {"name":"docker.io","upstream":["http://127.0.0.1:30020","https://registry-1.docker.io"],
   "identity":"","identity_kind":"anonymous","state":"throttled","paused_seconds":42,
   "requests":7,"throttled":3,"refused":1,
   "rate_limit":{"limit":100,"remaining":7,"window_seconds":21600,"source":"203.0.113.7"},
   "upstreams":[
    {"url":"http://127.0.0.1:30020","state":"unreachable","paused_seconds":0,
     "last_error":"nobody is at home: start it"},
    {"url":"https://registry-1.docker.io","state":"throttled","paused_seconds":42,
     "last_error":null}],
   "last_error":"nobody is at home: start it","tokens":[],"credentials":[]},
  {"name":"ghcr.io","upstream":["https://ghcr.io"],"identity":null,"identity_kind":"anonymous",
   "state":"idle","paused_seconds":0,"last_error":null,"tokens":[],"credentials":[]},
  {"name":"ecr.example","upstream":["https://ecr.example"],"identity":"aws",
   "identity_kind":"helper","state":"unauthorized","paused_seconds":0,"requests":1,
   "last_error":"the helper ecr-login ended with 1: run it by hand","tokens":[],"credentials":[]}],
 "fills":[
  {"digest":"sha256:abababababababababababababababababababababababababababababababab",
   "registry":"contoso.azurecr.io","repository":"app/web","bytes":123456789,"total":268435456,
   "readers":32,"connections":4,"bytes_per_second":20971520,"seconds_left":7},
  {"digest":"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
   "registry":"contoso.azurecr.io","repository":"app/db","bytes":1024,"total":null,
   "readers":1}],
 "warm":{"configured":{"images":3,"warm":1,"failed":1,"next_try_in_seconds":25,
    "errors":[{"image":"contoso.azurecr.io/none:1","error":"is not there: push it"}]},
  "running":[{"asker":"boot","platform":"linux/amd64","images":3,"images_left":1,"blobs_left":4,
    "bytes":1048576,"total":4194304,"waits_for_client_fills":1}]}})";

const WallTime half_past_one = std::chrono::sys_days(std::chrono::year(2026) / 11 / 22) +
                               std::chrono::hours(1) + std::chrono::minutes(30) +
                               std::chrono::seconds(5);

std::string page_of(const json::value& status) { return render_status_page(status, half_past_one); }

// ---- a reader of HTML that accepts no more than what the page writes -----------------------

struct Element {
  std::string name;
  std::vector<std::pair<std::string, std::string>> attributes;
  std::string content;  // of style and script, and of elements with text alone
};

struct Document {
  std::vector<Element> elements;
  std::string fault;  // empty if it is well-formed

  // What a browser makes of it, but for the texts.
  std::string structure() const {
    std::string all;
    for (const Element& element : elements) {
      all += element.name;
      for (const auto& [name, value] : element.attributes) all += " " + name;
      all += "\n";
    }
    return all;
  }
  const Element* find(std::string_view name) const {
    for (const Element& element : elements)
      if (element.name == name) return &element;
    return nullptr;
  }
};

class HtmlReader {
 public:
  explicit HtmlReader(std::string_view html) : rest_(html) {}

  Document read() {
    if (!take("<!doctype html>\n")) return fault("no doctype");
    while (!rest_.empty() && document_.fault.empty()) {
      const std::string text = take_until('<');
      if (text.find('>') != text.npos) return fault("a bare > in " + text);
      if (!open_.empty()) document_.elements[open_.back()].content += text;
      if (rest_.empty()) break;
      if (take("</")) {
        close();
      } else if (take("<")) {
        open();
      }
    }
    if (!open_.empty()) return fault("an element is not closed");
    return std::move(document_);
  }

 private:
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  std::string take_until(char end) {
    const std::size_t length = std::min(rest_.find(end), rest_.size());
    std::string text(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return text;
  }
  std::string take_name() {
    std::size_t length = 0;
    while (length < rest_.size() &&
           (std::isalnum(static_cast<unsigned char>(rest_[length])) || rest_[length] == '-'))
      ++length;
    std::string name(rest_.substr(0, length));
    rest_.remove_prefix(length);
    if (name.empty()) fault("no name at " + std::string(rest_.substr(0, 40)));
    return name;
  }
  void close() {
    const std::string name = take_name();
    if (!take(">")) fault("an end tag with more in it");
    if (open_.empty() || document_.elements[open_.back()].name != name) {
      fault("</" + name + "> ends what did not begin");
      return;
    }
    open_.pop_back();
  }
  void open() {
    Element element{.name = take_name(), .attributes = {}, .content = {}};
    while (take(" ")) {
      const std::string name = take_name();
      std::string value;
      if (!take("=\"")) {
        fault("an attribute without quotes: " + name);
        return;
      }
      value = take_until('"');
      if (value.find_first_of("<>") != value.npos) fault("markup in an attribute: " + value);
      take("\"");
      element.attributes.emplace_back(name, value);
    }
    const bool empty = take("/");
    if (!take(">")) {
      fault("a tag does not end: " + element.name);
      return;
    }
    static const std::set<std::string> voids{"meta", "link"};
    if (element.name == "style" || element.name == "script") {
      const std::string end = "</" + element.name + ">";
      const std::size_t length = std::min(rest_.find(end), rest_.size());
      element.content = rest_.substr(0, length);
      rest_.remove_prefix(std::min(length + end.size(), rest_.size()));
      document_.elements.push_back(std::move(element));
      return;
    }
    const bool opens = !empty && !voids.contains(element.name);
    document_.elements.push_back(std::move(element));
    if (opens) open_.push_back(document_.elements.size() - 1);
  }
  Document fault(const std::string& what) {
    if (document_.fault.empty()) document_.fault = what;
    return document_;
  }

  std::string_view rest_;
  Document document_;
  std::vector<std::size_t> open_;
};

Document read(const std::string& html) { return HtmlReader(html).read(); }

// ---- what it shows -------------------------------------------------------------------------

TEST(StatusPage, ShowsTheFiguresInTheWordsOfTheCommand) {
  const std::string page = page_of(json::parse(sample));
  for (const char* text : {"<title>node17: ready · Staithe</title>",
                           "Staithe <span>on node17</span>",
                           "as of 2026-11-22 01:30:05 UTC",
                           "staithed 0.1.0",
                           "up 3d 4h",
                           "listens on 127.0.0.1:5050, [::1]:5050",
                           ">91.0%<",
                           ">12345<",
                           ">45.1 GiB<",
                           ">5.0 GiB<",
                           "40.1 GiB saved",
                           "12 connections open",
                           "12.3 GiB of 80.0 GiB",
                           "15.4% used",
                           "120.5 GiB free on disk",
                           "1234 blobs",
                           "87 manifests",
                           "1 quarantined",
                           "2 pinned, 1.0 MiB of it",
                           "the disk is full: free it",
                           "scrub running",
                           "25.0% of 4.0 GiB",
                           "2 denied by [access]"})
    EXPECT_THAT(page, HasSubstr(text));
}

TEST(StatusPage, ShowsEachFillWithItsProgressSpeedAndTimeLeft) {
  const std::string page = page_of(json::parse(sample));
  for (const char* text :
       {"contoso.azurecr.io/app/web", "sha256:abababababab<", "aria-valuenow=\"46\"",
        "width=\"45.99%\"", ">46.0%<", "117.7 MiB of 256.0 MiB",
        "20.0 MiB/s, 7s left, 4 connections", "32 readers"})
    EXPECT_THAT(page, HasSubstr(text));
  // Of a blob whose size is not known there is an amount, and no share.
  const std::string unknown = page.substr(page.find("contoso.azurecr.io/app/db"));
  EXPECT_THAT(unknown.substr(0, unknown.find("</li>")), HasSubstr(">1.0 KiB<"));
  EXPECT_THAT(unknown.substr(0, unknown.find("</li>")), Not(HasSubstr("aria-valuenow")));
}

TEST(StatusPage, KeepsTheFillsInOneOrder) {
  json::value status = json::parse(sample);
  const std::string page = page_of(status);
  json::array& fills = status.at("fills").as_array();
  std::swap(fills[0], fills[1]);
  EXPECT_EQ(page_of(status), page);
}

TEST(StatusPage, ShowsRegistriesWithTheirErrorsAndWhatEnds) {
  const std::string page = page_of(json::parse(sample));
  for (const char* text :
       {"vm (managed-identity)", "345 requests",
        "renew: certificate /etc/staithe/sp.pem ends in 1d", "<span class=\"state good\">ok</span>",
        "<span class=\"state caution\">throttled for 42s</span>",
        "<span class=\"state bad\">unreachable</span>", "last error: nobody is at home: start it",
        "7 of 100 pulls left per 6h", "3 throttled",
        "last error: the helper ecr-login ended with 1: run it by hand", "not asked yet: ghcr.io<"})
    EXPECT_THAT(page, HasSubstr(text));
  EXPECT_EQ(page.find("nobody is at home"), page.rfind("nobody is at home")) << "said once";
}

TEST(StatusPage, DrawsATokensAgeAndTheMomentOfItsRenewal) {
  const std::string page = page_of(json::parse(sample));
  // 2400 s of 86400 are over, and at 44400 s it is renewed.
  EXPECT_THAT(page, HasSubstr("aria-label=\"entra token, 40m old\"><rect height=\"100%\" "
                              "width=\"2.78%\"/><rect class=\"mark\" height=\"100%\" width=\"2\" "
                              "x=\"51.39%\"/></svg>"));
  EXPECT_THAT(page, HasSubstr("renewed in 11h 40m, valid for 23h 20m"));
  EXPECT_THAT(page, HasSubstr("not renewed by itself, valid for 1h 5m"));
  // Of a kind, the one that is renewed first stands first.
  EXPECT_LT(page.find("renewed in 1m 40s"), page.find("renewed in 50m"));
}

TEST(StatusPage, SaysHowManyTokensItDoesNotDraw) {
  json::value status = json::parse(sample);
  json::array& tokens = status.at("registries").at(0).at("tokens").as_array();
  for (int i = 0; i < 40; ++i) tokens.push_back(tokens[1]);
  EXPECT_THAT(page_of(status), HasSubstr("and 38 tokens that end later"));
}

TEST(StatusPage, ShowsWhatIsWarmed) {
  const std::string page = page_of(json::parse(sample));
  for (const char* text : {"At boot", "1.0 MiB of 4.0 MiB", "1 image left", "4 blobs left",
                           "waits for 1 pulled blob", "configured: 1 of 3 images warm", "1 failed",
                           "next try in 25s", "contoso.azurecr.io/none:1: is not there: push it"})
    EXPECT_THAT(page, HasSubstr(text));
}

TEST(StatusPage, IsWholeWithoutAnyFigure) {
  for (const char* status : {"{}", "null", "[]", "\"text\"", R"({"fills":[],"registries":[]})"}) {
    const std::string page = page_of(json::parse(status));
    EXPECT_EQ(read(page).fault, "") << status;
    EXPECT_THAT(page, HasSubstr("Nothing is being fetched."));
    EXPECT_THAT(page, HasSubstr("nothing asked for yet"));
  }
}

// ---- that nothing breaks out ---------------------------------------------------------------

// What was the same text before is the same afterwards, and the order of texts is a new one, but
// always the same: the page sorts and groups by some.
void replace_texts(json::value& value, const std::function<std::string()>& ending,
                   std::map<std::string, std::string>& texts) {
  if (auto* object = value.if_object()) {
    for (auto& member : *object) replace_texts(member.value(), ending, texts);
  } else if (auto* array = value.if_array()) {
    for (json::value& item : *array) replace_texts(item, ending, texts);
  } else if (auto* text = value.if_string()) {
    auto [found, is_new] = texts.try_emplace(std::string(*text));
    if (is_new) found->second = "text " + std::to_string(1000 + texts.size()) + ending();
    value = found->second;
  }
}

json::value sample_with_texts(const std::function<std::string()>& ending) {
  json::value status = json::parse(sample);
  std::map<std::string, std::string> texts;
  replace_texts(status, ending, texts);
  return status;
}

TEST(StatusPage, HasTheSameStructureWhateverTheTextsAre) {
  const std::string pieces[] = {"<script>alert(1)</script>",
                                "\" onload=\"alert(1)",
                                "'><img src=x onerror=alert(1)>",
                                "</title></style></script>",
                                "<!--",
                                "-->",
                                "]]>",
                                "&lt;b&gt;",
                                "&#60;",
                                "javascript:alert(1)",
                                "\\u003cscript\\u003e",
                                std::string("\0", 1),
                                "\xff\xc0\xaf",
                                "\xe2\x80\xae",
                                "\r\n",
                                "+ADw-script+AD4-",
                                "x",
                                " "};
  const std::string structure =
      read(page_of(sample_with_texts([] { return std::string(); }))).structure();
  std::mt19937 random(7);
  for (int round = 0; round < 1000; ++round) {
    const json::value status = sample_with_texts([&] {
      std::string text;
      for (unsigned i = random() % 4; i > 0; --i) text += pieces[random() % std::size(pieces)];
      return text;
    });
    const Document document = read(page_of(status));
    ASSERT_EQ(document.fault, "") << json::serialize(status);
    ASSERT_EQ(document.structure(), structure) << json::serialize(status);
  }
}

TEST(StatusPage, IsWellFormedForStatusOfAnyShape) {
  const json::value others[] = {nullptr,
                                -1e308,
                                1e308,
                                "<b>",
                                json::array{1, "x"},
                                json::object{{"a", 1}},
                                true,
                                json::array{json::object()},
                                std::uint64_t(-1)};
  std::mt19937 random(5);
  const std::function<void(json::value&)> damage = [&](json::value& value) {
    if (random() % 8 == 0) {
      value = others[random() % std::size(others)];
    } else if (auto* object = value.if_object()) {
      for (auto& member : *object) damage(member.value());
    } else if (auto* array = value.if_array()) {
      for (json::value& item : *array) damage(item);
    }
  };
  for (int round = 0; round < 1000; ++round) {
    json::value status = json::parse(sample);
    damage(status);
    ASSERT_EQ(read(page_of(status)).fault, "") << json::serialize(status);
  }
}

TEST(StatusPage, TakesNothingFromElsewhereAndRunsNothingInline) {
  const Document document = read(page_of(json::parse(sample)));
  ASSERT_EQ(document.fault, "");
  for (const Element& element : document.elements) {
    EXPECT_THAT(element.name, Not(AnyOf("img", "iframe", "object", "embed", "base", "form")));
    for (const auto& [name, value] : element.attributes) {
      EXPECT_THAT(name, Not(AnyOf("src", "style", "srcset", "action"))) << element.name;
      EXPECT_THAT(name, Not(StartsWith("on"))) << element.name;
      if (name == "href") EXPECT_THAT(value, StartsWith("data:image/svg+xml,"));
    }
  }
  // A sheet or script of another place would be named in these.
  EXPECT_THAT(document.find("style")->content, Not(HasSubstr("url(")));
  EXPECT_THAT(document.find("style")->content, Not(HasSubstr("@import")));
  EXPECT_THAT(document.find("script")->content, Not(HasSubstr("http")));
}

TEST(StatusPage, AllowsItsOwnStyleAndScriptAlone) {
  const Document document = read(page_of(json::parse(sample)));
  const auto source = [&](std::string_view element) {
    const std::string& content = document.find(element)->content;
    const std::string hexed = cache::digest_of(cache::Algorithm::sha256, content).hex();
    std::string bytes;
    for (std::size_t i = 0; i < hexed.size(); i += 2)
      bytes += static_cast<char>(std::stoi(hexed.substr(i, 2), nullptr, 16));
    return "'sha256-" + proxy::auth::encode_base64(bytes) + "'";
  };
  EXPECT_EQ(status_page_policy(),
            "default-src 'none'; style-src " + source("style") + "; script-src " +
                source("script") +
                "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'");
}

TEST(StatusPage, IsSmall) { EXPECT_LT(page_of(json::object()).size(), 16'384U); }

}  // namespace
}  // namespace staithe::daemon
