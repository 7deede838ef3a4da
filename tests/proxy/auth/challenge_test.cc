#include "proxy/auth/challenge.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cache/random.h"

namespace staithe::proxy::auth {
namespace {

// One line per challenge: `scheme token68 name=value name=value`.
std::string shown(const std::vector<Challenge>& challenges) {
  std::string text;
  for (const Challenge& challenge : challenges) {
    if (!text.empty()) text += " | ";
    text += challenge.scheme;
    if (!challenge.token68.empty()) text += " <" + challenge.token68 + ">";
    for (const auto& [name, value] : challenge.params) text += " " + name + "=[" + value + "]";
  }
  return text;
}

struct Row {
  std::vector<std::string_view> fields;
  std::string_view expected;
};

TEST(Challenges, AreReadAsTheGrammarSays) {
  const Row table[] = {
      {{R"(Bearer realm="https://contoso.azurecr.io/oauth2/token",service="contoso.azurecr.io")"},
       "bearer realm=[https://contoso.azurecr.io/oauth2/token] service=[contoso.azurecr.io]"},
      {{R"(Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token")"},
       "bearer realm=[https://auth.docker.io/token] service=[registry.docker.io] "
       "scope=[repository:a/b:pull,push] error=[invalid_token]"},
      {{"Basic realm=\"Azure Container Registry\""}, "basic realm=[Azure Container Registry]"},
      {{"Basic realm=/var/opt/azcmagent/tokens/a-b.key"},
       "basic realm=[/var/opt/azcmagent/tokens/a-b.key]"},
      {{"BEARER Realm=x,SERVICE=y"}, "bearer realm=[x] service=[y]"},
      {{"bearer realm = \"x\" , service\t=\ty"}, "bearer realm=[x] service=[y]"},
      {{"Bearer realm=\"a\\\"b\\\\c\""}, "bearer realm=[a\"b\\c]"},
      {{"Bearer realm=\"\""}, "bearer realm=[]"},
      {{"Bearer realm=\"a, Basic realm=b\""}, "bearer realm=[a, Basic realm=b]"},
      {{"Negotiate"}, "negotiate"},
      {{"Negotiate YII="}, "negotiate <YII=>"},
      {{"Negotiate a+b/c-d._~=="}, "negotiate <a+b/c-d._~==>"},
      {{"Negotiate, NTLM, Basic realm=\"x\""}, "negotiate | ntlm | basic realm=[x]"},
      {{"Negotiate YII=, Bearer realm=\"r\",service=\"s\", Basic realm=\"x\", charset=\"UTF-8\""},
       "negotiate <YII=> | bearer realm=[r] service=[s] | basic realm=[x] charset=[UTF-8]"},
      {{"Basic realm=\"x\", Bearer realm=\"r\""}, "basic realm=[x] | bearer realm=[r]"},
      {{"Basic realm=\"x\"", "Bearer realm=\"r\""}, "basic realm=[x] | bearer realm=[r]"},
      {{", ,, Bearer realm=r ,,, Basic realm=x , "}, "bearer realm=[r] | basic realm=[x]"},
      {{"Bearer ,realm=r"}, "bearer realm=[r]"},
      {{""}, ""},
      {{" , "}, ""},
      {{}, ""},
      {{"Bearer realm=\"caf\xc3\xa9\""}, "bearer realm=[caf\xc3\xa9]"},
      {{"Digest realm=\"a\", nonce=\"b\", Bearer realm=\"c\""},
       "digest realm=[a] nonce=[b] | bearer realm=[c]"},
  };
  for (const Row& row : table) {
    const auto challenges = parse_challenges(row.fields);
    ASSERT_TRUE(challenges) << row.expected << ": " << challenges.error().detail;
    EXPECT_EQ(shown(*challenges), row.expected);
  }
}

TEST(Challenges, ThatMakeNoSenseAreRefusedWhole) {
  for (const std::string_view field : {
           "realm=\"x\"",                       // no scheme
           "\"x\"",                             //
           "=x",                                //
           "Bearer realm=\"x",                  // unterminated
           "Bearer realm=\"x\\",                // unterminated
           "Bearer realm=\"x\"y",               // no comma
           "Bearer realm=\"x\" service=\"y\"",  // no comma
           "Bearer realm=x service=y",          //
           "Bearer realm=",                     // a token68, so far
           "Bearer realm=,service=x",           // no value
           "Bearer realm=\"x\",realm=\"y\"",    // which one?
           "Bearer realm=\"x\",REALM=\"y\"",    //
           "Bearer Basic realm=\"x\"",          // two schemes, no comma
           "Bearer a b",                        //
           "Bearer@ realm=x",                   //
           "Bearer: realm=x",                   //
           "Negotiate YII=, realm=x",           // a parameter after a token
           "Bearer realm=\"a\rb\"",             // control characters
           "Bearer realm=\"a\x7f\"",            //
           "Bearer realm=\"a\x01\"",            //
           "Bearer realm=x\x80y",               // not printable, not quoted
           "Bearer realm=\"x\", ;",             //
           "(comment)",                         //
       }) {
    const auto challenges = parse_challenges({field});
    if (field == "Bearer realm=") {
      ASSERT_TRUE(challenges);
      EXPECT_EQ(shown(*challenges), "bearer <realm=>");
      continue;
    }
    ASSERT_FALSE(challenges) << field << " became " << shown(*challenges);
    EXPECT_EQ(challenges.error().code, Errc::upstream_nonsense);
  }
  EXPECT_FALSE(parse_challenges({std::string_view("Bearer realm=\"\0\"", 16)}));
}

TEST(Challenges, HaveLimits) {
  const std::string most(max_challenge_bytes - 16, 'x');
  EXPECT_TRUE(parse_challenges({"Bearer realm=" + most}));
  EXPECT_FALSE(parse_challenges({"Bearer realm=" + most, "Bearer realm=yyyy"}));

  std::string schemes = "Basic realm=x";
  for (std::size_t i = 1; i < max_challenges; ++i) schemes += ", Basic realm=x";
  EXPECT_EQ(parse_challenges({schemes})->size(), max_challenges);
  EXPECT_FALSE(parse_challenges({schemes + ", Basic realm=x"}));
  EXPECT_FALSE(parse_challenges({schemes, "Basic"}));

  std::string params = "Bearer p0=x";
  for (std::size_t i = 1; i < max_challenge_params; ++i) params += ",p" + std::to_string(i) + "=x";
  EXPECT_TRUE(parse_challenges({params}));
  EXPECT_FALSE(parse_challenges({params + ",q=x"}));
}

TEST(Challenges, BearerIsPreferredToBasic) {
  const auto chosen = [](std::vector<std::string_view> fields) -> std::string {
    const auto challenges = parse_challenges(fields).value();
    const Challenge* challenge = choose(challenges);
    return challenge ? shown({*challenge}) : "none";
  };
  EXPECT_EQ(chosen({"Basic realm=x, Bearer realm=y"}), "bearer realm=[y]");
  EXPECT_EQ(chosen({"Basic realm=x", "Negotiate"}), "basic realm=[x]");
  EXPECT_EQ(chosen({"Basic"}), "basic");
  EXPECT_EQ(chosen({"Bearer error=x, Basic realm=y"}), "basic realm=[y]");
  EXPECT_EQ(chosen({"Bearer error=x, Bearer realm=z"}), "bearer realm=[z]");
  EXPECT_EQ(chosen({"Negotiate, NTLM"}), "none");
  EXPECT_EQ(chosen({}), "none");
}

TEST(Challenges, AnyBytesAreReadOrRefused) {
  const std::string_view pieces[] = {
      "Bearer", "Basic",       " ",  ",",    "=",    "\"", "\\",      "realm",
      "x",      "https://h/t", "\t", "\x80", "\x01", "==", "service", "~"};
  SeededRandom random(5);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (auto n = random.next() % 16; n > 0; --n) text += pieces[random.next() % std::size(pieces)];
    const auto challenges = parse_challenges({text});
    if (!challenges) continue;
    ASSERT_LE(challenges->size(), max_challenges);
    for (const Challenge& challenge : *challenges) ASSERT_FALSE(challenge.scheme.empty()) << text;
  }
}

// What we write by the grammar, we read.
TEST(Challenges, QuotedValuesComeBackAsTheyWere) {
  SeededRandom random(6);
  for (int i = 0; i < 2000; ++i) {
    std::string value;
    for (auto n = random.next() % 30; n > 0; --n) {
      char c = static_cast<char>(random.next());
      if ((c >= 0 && c < ' ') || c == 0x7f) c = ',';
      value += c;
    }
    std::string quoted;
    for (const char c : value) {
      if (c == '"' || c == '\\' || random.next() % 8 == 0) quoted += '\\';
      quoted += c;
    }
    const auto challenges =
        parse_challenges({"Basic realm=\"q\", Bearer realm=\"" + quoted + "\", service=s"});
    ASSERT_TRUE(challenges) << quoted;
    ASSERT_EQ(challenges->size(), 2U);
    EXPECT_EQ(*challenges->at(1).param("realm"), value);
    EXPECT_EQ(*challenges->at(1).param("service"), "s");
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
