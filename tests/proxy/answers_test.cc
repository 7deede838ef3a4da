#include "proxy/answers.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{1000h};

cache::Digest digest_of(std::string_view text) {
  return cache::digest_of(cache::Algorithm::sha256, text);
}

std::shared_ptr<Answer> answer_of(const cache::Digest& digest, std::string_view body) {
  return std::make_shared<Answer>(digest, "HTTP/1.1 200 OK\r\n", body);
}

TEST(Answers, TakeNothingThatWasFoundBeforeSomethingWasTakenBack) {
  Answers answers;
  const std::uint64_t erased = answers.taken_back();
  answers.erase(digest_of("any"));
  answers.put("/a", answer_of(digest_of("a"), "body"), erased);
  EXPECT_EQ(answers.size(), 0u);
  const std::uint64_t cleared = answers.taken_back();
  answers.clear();
  answers.put("/a", answer_of(digest_of("a"), "body"), cleared);
  EXPECT_EQ(answers.size(), 0u);
  answers.put("/a", answer_of(digest_of("a"), "body"), answers.taken_back());
  EXPECT_EQ(answers.size(), 1u);
}

TEST(Answers, AreFoundByTheirTargetUntilTheirEnd) {
  Answers answers;
  const auto answer = answer_of(digest_of("a"), "body");
  answer->until = start + 10s;
  answers.put("/v2/a", answer, answers.taken_back());
  ASSERT_EQ(answers.find("/v2/a", start), answer);
  EXPECT_EQ(answer->text, "HTTP/1.1 200 OK\r\n\r\nbody");
  EXPECT_EQ(answer->head(), "HTTP/1.1 200 OK\r\n");
  EXPECT_EQ(answer->body(), "body");
  EXPECT_FALSE(answers.find("/v2/b", start));
  EXPECT_TRUE(answers.find("/v2/a", start + 9s));
  EXPECT_FALSE(answers.find("/v2/a", start + 10s));
}

TEST(Answers, SayHowOldATagsConfirmationIs) {
  const auto answer = answer_of(digest_of("a"), "body");
  EXPECT_EQ(answer->age_field(start), "");
  answer->confirmed = start - 5s;
  EXPECT_EQ(answer->age_field(start), "Age: 5\r\n");
  EXPECT_EQ(answer->age_field(start + 1500ms), "Age: 6\r\n");
  EXPECT_EQ(answer->age_field(start - 10s), "Age: 0\r\n") << "from the future";
}

TEST(Answers, OfATagCanGoWithoutThoseOfItsDigest) {
  Answers answers;
  const auto by_tag = answer_of(digest_of("a"), "body");
  by_tag->confirmed = start;
  answers.put("/tag", by_tag, answers.taken_back());
  answers.put("/digest", answer_of(digest_of("a"), "body"), answers.taken_back());
  answers.erase(digest_of("a"), true);
  EXPECT_FALSE(answers.find("/tag", start));
  EXPECT_TRUE(answers.find("/digest", start));
  answers.erase(digest_of("a"));
  EXPECT_FALSE(answers.find("/digest", start));
  EXPECT_EQ(answers.bytes(), 0U);
}

TEST(Answers, TakeNothingThatIsTooLarge) {
  Answers answers(10'000);
  answers.put("/a", answer_of(digest_of("a"), std::string(10'000, 'x')), answers.taken_back());
  EXPECT_EQ(answers.size(), 0U);
  Answers large;
  large.put("/a", answer_of(digest_of("a"), std::string(Answers::most_body_bytes + 1, 'x')),
            large.taken_back());
  EXPECT_EQ(large.size(), 0U);
}

TEST(Answers, LetGoOfWhatIsNotAskedFor) {
  Answers answers(100'000);
  answers.put("/asked", answer_of(digest_of("asked"), "body"), answers.taken_back());
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "/" + std::to_string(i);
    answers.put(name, answer_of(digest_of(name), std::string(1000, 'x')), answers.taken_back());
    EXPECT_TRUE(answers.find("/asked", start));
  }
}

TEST(Answers, TellEachUseOnce) {
  Answers answers;
  answers.put("/a", answer_of(digest_of("a"), "body"), answers.taken_back());
  answers.put("/b", answer_of(digest_of("b"), "body"), answers.taken_back());
  const auto used = [&] {
    std::vector<cache::Digest> digests;
    answers.take_used([&](const cache::Digest& digest) { digests.push_back(digest); });
    return digests;
  };
  EXPECT_TRUE(used().empty());
  answers.find("/a", start);
  answers.find("/a", start);
  EXPECT_EQ(used(), std::vector{digest_of("a")});
  EXPECT_TRUE(used().empty());
}

// What the memory may forget, and must not make up.
TEST(Answers, AreThoseOfAModelAndWithinTheirBound) {
  std::mt19937 random(7);
  const auto roll = [&](unsigned sides) { return random() % sides; };
  for (int round = 0; round < 50; ++round) {
    const std::uint64_t most = 2'000 + roll(40'000);
    Answers answers(most);
    std::map<std::string, AnswerPtr> model;  // what was put and not taken back
    Instant now = start;
    for (int step = 0; step < 400; ++step) {
      const std::string target = "/" + std::to_string(roll(30));
      const auto digest = digest_of(std::to_string(roll(12)));
      switch (roll(8)) {
        case 0:
        case 1:
        case 2: {
          const auto answer = answer_of(digest, std::string(roll(6000), 'x'));
          if (roll(2)) answer->until = now + std::chrono::seconds(roll(20));
          if (roll(2)) answer->confirmed = now;
          answers.put(target, answer, answers.taken_back());
          model[target] = answer;
          const std::uint64_t least = answer->text.size() + target.size();
          EXPECT_TRUE(least + 1024 > most || now >= answer->until || answers.find(target, now));
          break;
        }
        case 3: {
          const bool by_tag_only = roll(2);
          answers.erase(digest, by_tag_only);
          std::erase_if(model, [&](const auto& entry) {
            return entry.second->digest == digest && (!by_tag_only || entry.second->confirmed);
          });
          break;
        }
        case 4:
          if (roll(20) == 0) {
            answers.clear();
            model.clear();
          }
          break;
        case 5:
          now += std::chrono::seconds(roll(5));
          break;
        default:
          break;
      }
      ASSERT_LE(answers.bytes(), most);
      if (const auto found = answers.find(target, now)) {
        ASSERT_TRUE(model.contains(target));
        ASSERT_EQ(found, model[target]);
        ASSERT_LT(now, found->until);
      }
    }
    answers.clear();
    EXPECT_EQ(answers.bytes(), 0U);
    EXPECT_EQ(answers.size(), 0U);
  }
}

TEST(Answers, AreNotFoundByAnyThreadOnceErased) {
  Answers answers;
  constexpr std::uint32_t rounds = 2000;
  // Odd: it may be there; even: it was erased.
  std::atomic<std::uint32_t> round = 0;
  std::atomic<bool> found_erased = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      for (;;) {
        const std::uint32_t before = round;
        const bool found = answers.find("/a", start) != nullptr;
        if (found && before % 2 == 0 && round == before) found_erased = true;
        if (before >= 2 * rounds) return;
      }
    });
  for (std::uint32_t i = 0; i < rounds; ++i) {
    ++round;
    answers.put("/a", answer_of(digest_of("a"), "body"), answers.taken_back());
    answers.erase(digest_of("a"));
    ++round;
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_FALSE(found_erased);
}

}  // namespace
}  // namespace staithe::proxy
