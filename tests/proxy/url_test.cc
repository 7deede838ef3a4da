#include "proxy/url.h"

#include <curl/urlapi.h>
#include <gtest/gtest.h>

#include <string>

#include "cache/random.h"

namespace staithe::proxy {
namespace {

struct Accepted {
  std::string_view text;
  std::string_view origin;
  std::string_view target;
};

TEST(Url, ReadsAbsoluteUrls) {
  const Accepted table[] = {
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io", "/"},
      {"https://contoso.azurecr.io/", "https://contoso.azurecr.io", "/"},
      {"HTTPS://Contoso.AzureCR.io:443/v2/", "https://contoso.azurecr.io", "/v2/"},
      {"http://localhost:80/a", "http://localhost", "/a"},
      {"http://localhost:5000/v2/x?n=1&last=a%2Fb", "http://localhost:5000",
       "/v2/x?n=1&last=a%2Fb"},
      {"https://h:/x", "https://h", "/x"},
      {"https://h:0443/x", "https://h", "/x"},
      {"https://h?q=1", "https://h", "/?q=1"},
      {"https://h/a/../b/./c", "https://h", "/b/c"},
      {"https://h/a%2e%2e/b", "https://h", "/a%2e%2e/b"},
      {"https://h/caf\xc3\xa9?x=\xff", "https://h", "/caf%C3%A9?x=%FF"},
      {"https://h/a\\b", "https://h", "/a%5Cb"},
      {"https://h/user@host", "https://h", "/user@host"},
      {"https://a_b.example/", "https://a_b.example", "/"},
      {"https://[::1]:8443/", "https://[::1]:8443", "/"},
      {"https://[0:0:0:0:0:0:0:1]/", "https://[::1]", "/"},
      {"https://[2001:DB8::A]/", "https://[2001:db8::a]", "/"},
      {"http://127.0.0.1/", "http://127.0.0.1", "/"},
      // Other spellings of one address come out as that address.
      {"http://0x7f.1/", "http://127.0.0.1", "/"},
      {"http://2130706433/", "http://127.0.0.1", "/"},
      {"http://0251.0376.0251.0376/", "http://169.254.169.254", "/"},
  };
  for (const Accepted& row : table) {
    const Result<Url> url = Url::parse(row.text);
    ASSERT_TRUE(url) << row.text << ": " << url.error().detail;
    EXPECT_EQ(url->origin().to_string(), row.origin) << row.text;
    EXPECT_EQ(url->target(), row.target) << row.text;
    EXPECT_EQ(url->wire(), std::string(row.origin) + std::string(row.target));
  }
}

TEST(Url, RefusesWhatCanBeReadInTwoWays) {
  const std::string_view table[] = {
      "",
      "/",
      "contoso.azurecr.io",
      "contoso.azurecr.io:443/v2/",
      "//contoso.azurecr.io/",
      "ftp://h/",
      "file:///etc/passwd",
      "javascript:alert(1)",
      "https:",
      "https:/h/",
      "https:h",
      "https:///h/",
      "https:////h/",
      "https://",
      "https://?q",
      "https:///",
      "https://:443/",
      "https://user@h/",
      "https://user:secret@h/",
      "https://h@evil.example/",
      "https://@h/",
      "https://h/#fragment",
      "https://h#f",
      "https://h/a b",
      " https://h/",
      "https://h/ ",
      "https://h/\r\nX: y",
      "https://h\t/",
      "https://h/\x01",
      "https://h/\x7f",
      "https://h:0/",
      "https://h:65536/",
      "https://h:-1/",
      "https://h:80:80/",
      "https://h:http/",
      "https://h:8 0/",
      "https://h./",
      "https://h../",
      "https://.h/",
      "https://a..b/",
      "https://./",
      "https://h%2eevil/",
      "https://%68/",
      "https://h\\evil.example/",
      "https://h\\@evil/",
      "https://ex\xc3\xa4mple/",
      "https://h!/",
      "https://h$/",
      "https://h,i/",
      "https://(h)/",
      "https://[::1/",
      "https://::1/",
      "https://[fe80::1%25eth0]/",
      "https://[1.2.3.4]/",
      "https://[::1]x/",
      "https://[]/",
      "https://1.2.3.4.5/",
      "https://256.256.256.256/",
      "https://h.0x1/",
      "https://1.2.3.400/",
  };
  for (const std::string_view text : table) {
    const Result<Url> url = Url::parse(text);
    ASSERT_FALSE(url) << text << " became " << url->wire();
    EXPECT_EQ(url.error().code, Errc::bad_request);
  }
  EXPECT_FALSE(Url::parse("https://h/" + std::string(16 * 1024, 'a')));
  EXPECT_FALSE(Url::parse("https://" + std::string(64, 'a') + "/"));
  EXPECT_TRUE(Url::parse("https://" + std::string(63, 'a') + "/"));
  std::string long_host;
  for (int i = 0; i < 60; ++i) long_host += "abcd.";
  EXPECT_FALSE(Url::parse("https://" + long_host + "io/"));
  EXPECT_FALSE(Url::parse(std::string_view("https://h/\0", 11)));
}

TEST(Url, ErrorsShowNeitherQueryNorUser) {
  for (const std::string_view text : {
           "https://h/p?sig=SECRET#x",
           "https://user:SECRET@h/p",
           "https://user:SEC?SECRET@h/p",
           "https://user:SEC/SECRET@h/p",
           "https://h /p?sig=SECRET",
           "user:SECRET@h/p",
           "ftp://SECRET@h/p",
           "https://SECRET@h@i/p",
           "https://h/p?a=b@c&sig=SECRET",
           "https://h /p?a=b@c&sig=SECRET",
           "h/p?a=b@c&sig=SECRET",
           "https://user@h/p?sig=SECRET",
           "https://h/a@b c?sig=SECRET",
           "https://user@h/p#SECRET",
           "https://h/p#SECRET",
       }) {
    const Result<Url> url = Url::parse(text);
    if (url) {
      EXPECT_FALSE(url->printable().contains("SECRET")) << url->printable();
    } else {
      EXPECT_FALSE(url.error().detail.contains("SECRET")) << url.error().detail;
    }
  }
  EXPECT_EQ(Url::parse("https://user:SECRET@h/p").error().detail,
            "'https://...@h/p' is not a usable URL: it names a user");
  const Result<Url> bad = Url::parse("https://contoso.azurecr.io/v2/\r\nEvil: 1");
  EXPECT_EQ(
      bad.error().detail,
      "'https://contoso.azurecr.io/v2/\\r\\nEvil: 1' is not a usable URL: it holds a space or "
      "a control character");
}

TEST(Url, PrintsWithoutQuery) {
  const Url url =
      Url::parse("https://store.blob.core.windows.net:8443/c/d?sig=SECRET&se=1").value();
  EXPECT_EQ(url.printable(), "https://store.blob.core.windows.net:8443/c/d");
  EXPECT_EQ(url.path(), "/c/d");
  EXPECT_EQ(url.wire(), "https://store.blob.core.windows.net:8443/c/d?sig=SECRET&se=1");
}

TEST(Url, ResolvesALocationAsABrowserWould) {
  const Url base = Url::parse("https://hub.example:8443/v2/a/b?x=1").value();
  const struct {
    std::string_view location, wire;
  } table[] = {
      {"https://other.example/x?y=z", "https://other.example/x?y=z"},
      {"HTTP://other.example/", "http://other.example/"},
      {"/x/y?z", "https://hub.example:8443/x/y?z"},
      {"c", "https://hub.example:8443/v2/a/c"},
      {"./c", "https://hub.example:8443/v2/a/c"},
      {"../c", "https://hub.example:8443/v2/c"},
      {"../../../../c", "https://hub.example:8443/c"},
      {"?y=2", "https://hub.example:8443/v2/a/b?y=2"},
      {"//other.example:444/x", "https://other.example:444/x"},
      {"/a@b:c", "https://hub.example:8443/a@b:c"},
      {"/\\evil.example/x", "https://hub.example:8443/%5Cevil.example/x"},
      {"\\\\evil.example/x", "https://hub.example:8443/v2/a/%5C%5Cevil.example/x"},
      {"/sig?sig=a%2Bb%3D&t=\xc3\xa9", "https://hub.example:8443/sig?sig=a%2Bb%3D&t=%C3%A9"},
  };
  for (const auto& row : table) {
    const Result<Url> url = base.resolve(row.location);
    ASSERT_TRUE(url) << row.location << ": " << url.error().detail;
    EXPECT_EQ(url->wire(), row.wire) << row.location;
  }
}

TEST(Url, RefusesOddLocations) {
  const Url base = Url::parse("https://hub.example/v2/").value();
  for (const std::string_view location :
       {"", "///evil.example/x", "////evil.example", "https:evil.example", "https:/evil.example",
        "https:///evil.example", "ftp://evil.example/", "javascript:1", "data:,x", "/a b",
        "/a\r\nb", "//user@evil.example/", "//", "/x#y", "https://evil.example.", "mailto:a@b"}) {
    const Result<Url> url = base.resolve(location);
    EXPECT_FALSE(url) << location << " became " << url->wire();
  }
  EXPECT_FALSE(base.resolve("/" + std::string(20'000, 'a')));
}

TEST(Url, WithTargetStaysOnItsOriginAndOnOneLine) {
  const Url base = Url::parse("https://h:8443/v2/?x").value();
  EXPECT_EQ(base.with_target("/oauth2/token").wire(), "https://h:8443/oauth2/token");
  EXPECT_EQ(base.with_target("/a b\r\nX: y#z\\\xff").wire(),
            "https://h:8443/a%20b%0D%0AX:%20y%23z%5C%FF");
  EXPECT_EQ(base.with_target("//evil.example/").origin(), base.origin());
}

// The host that was checked is the host that is dialled: libcurl, given what we send, must find the
// origin that we found.
TEST(Url, LibcurlReadsTheWireFormAsWeDo) {
  const std::string_view pieces[] = {"https://",
                                     "http://",
                                     "HTTPS://",
                                     "//",
                                     "/",
                                     "\\",
                                     "@",
                                     ":",
                                     "?",
                                     "#",
                                     "%",
                                     "%2f",
                                     "%00",
                                     "[",
                                     "]",
                                     "::1",
                                     "127.0.0.1",
                                     "0x7f",
                                     "1",
                                     ".",
                                     "..",
                                     "a",
                                     "evil.example",
                                     "contoso.azurecr.io",
                                     "443",
                                     "65536",
                                     " ",
                                     "\t",
                                     "&",
                                     "=",
                                     "~",
                                     "\xff",
                                     "xn--",
                                     "-",
                                     "_",
                                     ";",
                                     ",",
                                     "localhost"};
  SeededRandom random(11);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = random.next() % 4 ? "https://" : "";
    for (auto n = 1 + random.next() % 6; n > 0; --n)
      text += pieces[random.next() % std::size(pieces)];
    const Result<Url> url = Url::parse(text);
    if (!url) continue;
    ++accepted;
    CURLU* curl = curl_url();
    ASSERT_EQ(curl_url_set(curl, CURLUPART_URL, url->wire().c_str(), 0), CURLUE_OK) << text;
    char* host = nullptr;
    char* port = nullptr;
    ASSERT_EQ(curl_url_get(curl, CURLUPART_HOST, &host, 0), CURLUE_OK);
    ASSERT_EQ(curl_url_get(curl, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT), CURLUE_OK);
    EXPECT_EQ(host, url->origin().host) << text;
    EXPECT_EQ(port, std::to_string(url->origin().port)) << text;
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(curl);
    // Once read, always read the same.
    const Result<Url> again = Url::parse(url->wire());
    ASSERT_TRUE(again) << url->wire();
    EXPECT_EQ(again->wire(), url->wire());
  }
  EXPECT_GT(accepted, 500);
}

TEST(Origin, ShowsThePortOnlyWhereItIsNotTheSchemesOwn) {
  EXPECT_EQ((Origin{"https", "h", 443}).to_string(), "https://h");
  EXPECT_EQ((Origin{"https", "h", 80}).to_string(), "https://h:80");
  EXPECT_EQ((Origin{"http", "h", 80}).authority(), "h");
  EXPECT_EQ((Origin{"http", "[::1]", 5000}).authority(), "[::1]:5000");
}

TEST(PercentEncoding, KeepsOnlyUnreservedCharacters) {
  EXPECT_EQ(percent_encode("azAZ09-._~"), "azAZ09-._~");
  EXPECT_EQ(percent_encode("repository:app/web:pull"), "repository%3Aapp%2Fweb%3Apull");
  EXPECT_EQ(percent_encode("a b&c=d+e%"), "a%20b%26c%3Dd%2Be%25");
  EXPECT_EQ(percent_encode("\r\n\xff"), "%0D%0A%FF");
}

TEST(PercentEncoding, IsUndone) {
  SeededRandom random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (auto n = random.next() % 40; n > 0; --n) text += static_cast<char>(random.next());
    EXPECT_EQ(percent_decode(percent_encode(text)), text);
  }
  EXPECT_EQ(percent_decode("a%2Fb%2fc+d"), "a/b/c+d");
  for (const std::string_view broken : {"%", "%2", "%g0", "%0g", "a%", "%%41"}) {
    EXPECT_FALSE(percent_decode(broken)) << broken;
  }
}

TEST(HostUnder, ComparesWholeLabelsFromTheRight) {
  EXPECT_TRUE(host_under("contoso.azurecr.io", "azurecr.io"));
  EXPECT_TRUE(host_under("Contoso.AzureCR.IO", "azurecr.io"));
  EXPECT_TRUE(host_under("a.westeurope.data.azurecr.io", "azurecr.io"));
  EXPECT_TRUE(host_under("azurecr.io", "azurecr.io"));
  EXPECT_FALSE(host_below("azurecr.io", "azurecr.io"));
  EXPECT_TRUE(host_below("a.azurecr.io", "azurecr.io"));
  EXPECT_FALSE(host_under("notazurecr.io", "azurecr.io"));
  EXPECT_FALSE(host_under("azurecr.io.evil.example", "azurecr.io"));
  EXPECT_FALSE(host_under(".azurecr.io", "azurecr.io"));
  EXPECT_FALSE(host_under("azurecr.io", "a.azurecr.io"));
  EXPECT_FALSE(host_under("anything", ""));
  EXPECT_FALSE(host_under("anything.", ""));
  EXPECT_FALSE(host_under("", "azurecr.io"));
}

TEST(IsIpLiteral, KnowsEverySpellingThatAResolverTakes) {
  for (const std::string_view host :
       {"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0X7F.1", "017700000001", "1.2.3.4.",
        "[::1]", "::1", "[::ffff:127.0.0.1]", "fe80::1%eth0", "0x", "1.2.3.4.5", "example.1"}) {
    EXPECT_TRUE(is_ip_literal(host)) << host;
  }
  for (const std::string_view host :
       {"localhost", "a.b", "1.example", "127.0.0.1.nip.io", "0x7f.example", "xn--1", "", "."}) {
    EXPECT_FALSE(is_ip_literal(host)) << host;
  }
}

}  // namespace
}  // namespace staithe::proxy
