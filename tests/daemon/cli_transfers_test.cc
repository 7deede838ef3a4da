#include "daemon/cli_transfers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <string>

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

std::string fills(const char* text, const Style& style = {}) {
  const json::value value = json::parse(text);
  return render_fills(JsonReader(&value), style);
}
std::string warms(const char* text, const Style& style = {}) {
  const json::value value = json::parse(text);
  return render_warms(JsonReader(&value), style);
}

TEST(Fills, ShowHowFarHowFastHowLongStillAndForWhom) {
  EXPECT_EQ(fills(R"([{"digest":"sha256:abababababababab","registry":"r.example",
                       "repository":"app","bytes":52428800,"total":104857600,"readers":1,
                       "connections":4,"bytes_per_second":10485760,"seconds_left":5},
                      {"digest":"sha256:cdcdcdcdcdcdcdcd","registry":"r.example",
                       "repository":"b","bytes":1024,"total":null,"readers":0,
                       "connections":null,"bytes_per_second":null,"seconds_left":null}])"),
            R"(FILLS
  sha256:abababababab  r.example/app  [#####-----]  50.0%  1 reader
    50.0 MiB of 100.0 MiB, 10.0 MiB/s, 5s left, 4 connections
  sha256:cdcdcdcdcdcd  r.example/b    [----------]  ?      0 readers
    1.0 KiB
)");
  EXPECT_EQ(fills("[]"), "");
  EXPECT_EQ(fills("null"), "");
}

TEST(Warms, ShowWhatIsWarmedNowAndWhatOfTheConfiguredFailed) {
  EXPECT_EQ(warms(R"({"running":[{"asker":"request","platform":"all","images":3,"images_left":1,
                       "blobs_left":4,"bytes":52428800,"total":104857600,
                       "waits_for_client_fills":2}],
                      "configured":{"images":2,"warm":1,"failed":1,"next_try_in_seconds":20,
                       "errors":[{"image":"r.example/app:1","error":"it is not there"}]}})"),
            R"(WARM
  on request  all  [#####-----]  50.0 MiB of 100.0 MiB  1 image left  4 blobs left  waits for 2 pulled blobs
  configured  1 of 2 images warm  1 failed  next try in 20s
  r.example/app:1: it is not there
)");
  EXPECT_EQ(warms(R"({"running":[],"configured":{"images":0}})"), "");
  EXPECT_EQ(warms("7"), "");
}

TEST(Warms, FitTheWidth) {
  const std::string text =
      warms(R"({"running":[{"asker":"boot","platform":"linux/amd64","images_left":1,
                "waits_for_client_fills":2}]})",
            {.columns = 40});
  EXPECT_THAT(text, HasSubstr("\n"));
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    EXPECT_LE(column_count(text.substr(at, text.find('\n', at) - at)), 40u);
}

}  // namespace
}  // namespace staithe::daemon
