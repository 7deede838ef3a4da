#include "proxy/listings.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

TEST(Link, IsRewrittenToThePathThatTheClientAsked) {
  EXPECT_EQ(rewrite_link("</v2/prefix/app/tags/list?last=b&n=2>; rel=\"next\"",
                         "/v2/contoso.azurecr.io/app/tags/list?n=2"),
            "</v2/contoso.azurecr.io/app/tags/list?last=b&n=2>; rel=\"next\"");
  EXPECT_EQ(rewrite_link("<https://contoso.azurecr.io/v2/app/tags/list?n=2&last=b>; rel=\"next\"",
                         "/v2/app/tags/list?ns=contoso.azurecr.io"),
            "</v2/app/tags/list?last=b&n=2&ns=contoso.azurecr.io>; rel=\"next\"");
}

TEST(Link, IsLeftOutIfItIsNotUnderstood) {
  for (const char* link : {"", "garbage", "<>; rel=\"next\"", "</x>; rel=\"next\"", "</x?last=a>",
                           "</x?y=z>; rel=\"next\"", ">x?last=a<; rel=\"next\""})
    EXPECT_EQ(rewrite_link(link, "/v2/app/tags/list"), "") << link;
}

TEST(Link, CarriesNoControlCharacters) {
  EXPECT_EQ(rewrite_link("</x?last=a\rb&n=1>; rel=\"next\"", "/v2/app/tags/list"),
            "</v2/app/tags/list?n=1>; rel=\"next\"");
  // Found by fuzzing: nor may the request's own path stand there whatever it is.
  EXPECT_EQ(rewrite_link("</x?last=a>; rel=\"next\"", "/a<b.example/v2/app/tags/list"), "");
}

}  // namespace
}  // namespace staithe::proxy
