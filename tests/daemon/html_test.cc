#include "daemon/html.h"

#include <gtest/gtest.h>

#include <concepts>
#include <string>

namespace staithe::daemon {
namespace {

TEST(Text, EscapesWhatIsMarkup) {
  EXPECT_EQ(Text("<b a=\"1\" c='2'>&amp;</b>").escaped(),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;&lt;/b&gt;");
  EXPECT_EQ(Text("contoso.azurecr.io/app:1 – ok").escaped(), "contoso.azurecr.io/app:1 – ok");
}

TEST(Text, ShowsWhatIsNoText) {
  EXPECT_EQ(Text(std::string_view("a\0b\x1b[2J", 7)).escaped(), "a\\u0000b\\u001b[2J");
  EXPECT_EQ(Text("\xff\xfe<").escaped(), "??&lt;");
  EXPECT_EQ(Text("\u202e"
                 "evil")
                .escaped(),
            "\\u202eevil");
}

TEST(Html, TakesOnlyConstantsAsMarkup) {
  static_assert(!std::convertible_to<std::string, Markup>);
  static_assert(!std::convertible_to<std::string_view, Text>, "said in so many words");
  Html html;
  html << "<p title=\"" << Text("\"") << "\">" << Text("a < b") << "</p>";
  EXPECT_EQ(html.take(), "<p title=\"&quot;\">a &lt; b</p>");
}

}  // namespace
}  // namespace staithe::daemon
