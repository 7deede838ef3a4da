#include "proxy/auth/secret_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {
namespace {

using testing::HasSubstr;

// Every way that a kernel may leave us with; the first may fall back to the second here.
const std::vector<SecretMemory::Settings> ways{
    {}, {.memfd_secret = false}, {.memfd_secret = false, .lock = false}};

void fill(char* bytes, std::size_t size) { std::memset(bytes, 'S', size); }

// The VmFlags line of the mapping that holds `address`.
std::string flags_of(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      inside = begin <= wanted && wanted < end;
    if (inside && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

// True if the kernel finds no bytes there to copy, or none but zeros. Asks the kernel, because a
// look of our own at pages that are gone would end the process.
bool is_gone(const char* address, std::size_t size) {
  int ends[2];
  if (::pipe(ends) != 0) return false;
  std::vector<char> copy(size, 'x');
  bool gone = true;
  if (::write(ends[1], address, size) == static_cast<ssize_t>(size)) {
    gone = ::read(ends[0], copy.data(), size) == static_cast<ssize_t>(size) &&
           std::ranges::all_of(copy, [](char c) { return c == 0; });
  }
  ::close(ends[0]);
  ::close(ends[1]);
  return gone;
}

// What `check` says in a forked child.
bool in_child(const std::function<bool()>& check) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(check() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(SecretMemory, WipesWhatIsGivenBack) {
  for (const auto& way : ways) {
    SecretMemory memory(way);
    char* const stays = memory.allocate(1);
    char* const bytes = memory.allocate(1000);
    fill(bytes, 1000);
    memory.release(bytes, 1000);
    EXPECT_TRUE(memory.unused_is_wiped());
    EXPECT_EQ(memory.report().used_bytes, 64u);
    // The same place again, and it is zero.
    char* const again = memory.allocate(1000);
    EXPECT_EQ(again, bytes);
    for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(again[i], 0) << i;
    memory.release(again, 1000);
    memory.release(stays, 1);
  }
}

// The check above can fail: it finds a byte that nobody owns.
TEST(SecretMemory, FindsBytesThatWereLeft) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "AddressSanitizer would stop the write that this test makes";
#endif
#endif
  SecretMemory memory({});
  char* const bytes = memory.allocate(64);
  EXPECT_TRUE(memory.unused_is_wiped());
  volatile char* const beyond = bytes + 200;
  *beyond = 'S';
  EXPECT_FALSE(memory.unused_is_wiped());
  *beyond = 0;
  memory.release(bytes, 64);
}

TEST(SecretMemory, IsWhereSecretsStand) {
  SecretMemory& memory = SecretMemory::of_process();
  const std::size_t before = memory.report().used_bytes;
  std::string flags;
  {
    const Secret secret("a token that has some length, so that it is worth looking for");
    EXPECT_GT(memory.report().used_bytes, before);
    flags = flags_of(secret.reveal().data());
    Secret other(secret.reveal());
    other = Secret("shorter");
  }
  EXPECT_EQ(memory.report().used_bytes, before);
  EXPECT_TRUE(memory.unused_is_wiped());
  EXPECT_THAT(flags, HasSubstr(" dd "));
  if (memory.report().locked_bytes == memory.report().bytes) {
    EXPECT_THAT(flags, HasSubstr(" lo "));
    EXPECT_THAT(memory.describe(), HasSubstr("locked, out of cores"));
  } else {
    EXPECT_THAT(memory.describe(), HasSubstr("RLIMIT_MEMLOCK"));
  }
}

TEST(SecretMemory, IsLockedAndOutOfCoresAsItSays) {
  for (const auto& way : ways) {
    SecretMemory memory(way);
    char* const bytes = memory.allocate(20);
    fill(bytes, 20);
    const auto report = memory.report();
    const std::string flags = flags_of(bytes);
    EXPECT_THAT(flags, HasSubstr(" dd "));
    EXPECT_TRUE(report.out_of_cores);
    EXPECT_TRUE(report.gone_on_fork);
    EXPECT_EQ(flags.contains(" lo "), report.locked_bytes > 0) << flags;
    if (!way.lock) EXPECT_EQ(report.locked_bytes, 0u);
    if (!way.memfd_secret) EXPECT_EQ(report.hidden_bytes, 0u);
    memory.release(bytes, 20);
  }
}

TEST(SecretMemory, IsGoneInAForkedChild) {
  for (const auto& way : ways) {
    SecretMemory memory(way);
    char* const bytes = memory.allocate(100);
    fill(bytes, 100);
    EXPECT_FALSE(is_gone(bytes, 100));
    EXPECT_TRUE(in_child([&] { return is_gone(bytes, 100); }));
    memory.release(bytes, 100);
  }
}

// As a forked test or a daemon's child may: it lets go of what it inherited and makes its own.
TEST(SecretMemory, OfAForkedChildIsItsOwn) {
  auto inherited = std::make_unique<Secret>("swordfish");
  EXPECT_TRUE(in_child([&] {
    inherited.reset();
    const Secret own("a new one");
    return own.reveal() == "a new one" && SecretMemory::of_process().report().used_bytes == 64;
  }));
  EXPECT_EQ(inherited->reveal(), "swordfish");
}

TEST(SecretMemory, DoesWithoutLocksWhereNoneAreGranted) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become a user whose limit counts";
  EXPECT_TRUE(in_child([] {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0 || ::setuid(65534) != 0) return false;
    SecretMemory memory({});
    char* const bytes = memory.allocate(4096);
    fill(bytes, 4096);
    const auto report = memory.report();
    const bool said = memory.describe().starts_with("not locked (RLIMIT_MEMLOCK");
    memory.release(bytes, 4096);
    return said && report.locked_bytes == 0 && report.hidden_bytes == 0 && report.out_of_cores &&
           memory.unused_is_wiped();
  }));
  // Half of it: the first region is locked, the next one is not, and both serve.
  EXPECT_TRUE(in_child([] {
    const rlimit some{200 * 1024, 200 * 1024};
    if (::setrlimit(RLIMIT_MEMLOCK, &some) != 0 || ::setuid(65534) != 0) return false;
    SecretMemory memory({});
    char* const first = memory.allocate(100 * 1024);
    char* const second = memory.allocate(100 * 1024);
    const bool said = memory.describe().starts_with("partly locked");
    memory.release(first, 100 * 1024);
    memory.release(second, 100 * 1024);
    return said;
  }));
}

TEST(SecretMemory, GrowsToItsBoundAndGivesBackWhatIsEmpty) {
  SecretMemory memory({.memfd_secret = false, .lock = false, .most_bytes = 1 << 20});
  constexpr std::size_t size = 64 * 1024;
  std::vector<char*> slots;
  EXPECT_THROW(for (;;) slots.push_back(memory.allocate(size)), std::bad_alloc);
  EXPECT_GE(slots.size(), 8u);
  EXPECT_EQ(memory.report().bytes, 1u << 20);
  EXPECT_THROW(memory.allocate(std::size_t(1) << 40), std::bad_alloc);
  EXPECT_THROW(memory.allocate(SIZE_MAX), std::bad_alloc);
  for (char* slot : slots) memory.release(slot, size);
  EXPECT_EQ(memory.report().bytes, 128u * 1024) << "one region is kept";
  EXPECT_EQ(memory.report().used_bytes, 0u);
  // Larger than any token: a region of its own, for as long as it is used.
  char* const large = memory.allocate(500'000);
  fill(large, 500'000);
  memory.release(large, 500'000);
  EXPECT_EQ(memory.report().bytes, 128u * 1024);
}

TEST(SecretMemory, KeepsSlotsApartWhateverTheOrder) {
  for (const auto& way : ways) {
    SecretMemory memory(way);
    struct Slot {
      char* bytes;
      std::size_t size;
      char mark;
    };
    std::vector<Slot> slots;
    std::mt19937 random(20);
    const auto intact = [](const Slot& slot) {
      for (std::size_t i = 0; i < slot.size; ++i) {
        if (slot.bytes[i] != slot.mark) return false;
      }
      return true;
    };
    for (int round = 0; round < 5000; ++round) {
      if (slots.size() < 60 && random() % 2 == 0) {
        // Sizes of secrets: most are small, some are of the largest size.
        const std::size_t size = 1 + random() % (random() % 8 == 0 ? 65536 : 3000);
        const Slot slot{memory.allocate(size), size, static_cast<char>('a' + random() % 26)};
        for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(slot.bytes[i], 0);
        std::memset(slot.bytes, slot.mark, size);
        slots.push_back(slot);
      } else if (!slots.empty()) {
        const std::size_t i = random() % slots.size();
        ASSERT_TRUE(intact(slots[i])) << "round " << round;
        memory.release(slots[i].bytes, slots[i].size);
        slots[i] = slots.back();
        slots.pop_back();
      }
      if (round % 500 == 0) ASSERT_TRUE(memory.unused_is_wiped());
    }
    for (const Slot& slot : slots) {
      EXPECT_TRUE(intact(slot));
      memory.release(slot.bytes, slot.size);
    }
    EXPECT_EQ(memory.report().used_bytes, 0u);
    EXPECT_TRUE(memory.unused_is_wiped());
  }
}

TEST(SecretMemory, ServesThreadsAtTheSameTime) {
  SecretMemory& memory = SecretMemory::of_process();
  const std::size_t before = memory.report().used_bytes;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<Secret> kept(20);
      for (int round = 0; round < 3000; ++round) {
        const std::size_t i = random() % kept.size();
        const std::string text(1 + random() % 2000, static_cast<char>('a' + t));
        if (!kept[i].empty() && kept[i].reveal().front() != static_cast<char>('a' + t)) ++wrong[t];
        kept[i] = Secret(text);
        if (kept[i].reveal() != text) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
  EXPECT_EQ(memory.report().used_bytes, before);
  EXPECT_TRUE(memory.unused_is_wiped());
}

}  // namespace
}  // namespace staithe::proxy::auth
