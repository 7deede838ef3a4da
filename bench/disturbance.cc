// What do eviction and a scrub do to those who only want hits?
//
// Hits of small blobs over a few connections, in turns: alone; while blobs of 1 MiB are pulled as
// fast as they come into a cache that is full, so that each pushes others out; and while
// `staithe verify` reads and hashes all that is stored. The origin is a thread of this program.
// First at a rate that leaves room for both, which shows whether hits wait for them; then as fast
// as they are answered, where whatever else runs takes its share of cores that are all busy.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "bench/load.h"
#include "bench/made_cache.h"
#include "bench/network.h"
#include "bench/process.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {
namespace {

constexpr std::size_t pulled_bytes = 1024 * 1024;
constexpr std::size_t small_blobs = 20'000;
constexpr std::size_t asked_for = 500;  // of them, again and again
constexpr unsigned connections = 8;
constexpr double steady_rate = 5'000;  // requests a second; a tenth of what there could be
constexpr const char* repository = "pulled";

struct Options {
  bool quick = false;
  int runs = 5;
  std::string directory = "/tmp";
  std::string json;
  std::string congestion = "reno";
};

std::string pulled_bytes_of(std::size_t number) {
  std::string bytes(pulled_bytes, 'x');
  bytes.replace(0, 20, std::to_string(number) + std::string(20, ' '), 0, 20);
  return bytes;
}

// Answers each request for a blob that it knows, one connection after the other in threads.
class Origin {
 public:
  explicit Origin(std::size_t blobs) {
    for (std::size_t i = 0; i < blobs; ++i) {
      digests_.push_back(cache::digest_of(cache::Algorithm::sha256, pulled_bytes_of(i)));
      numbers_.emplace(digests_.back().to_string(), i);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_.fd(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
        ::listen(listener_.fd(), 64) != 0 ||
        ::getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw Failure(Errc::unreachable, "cannot listen: " + describe_errno(errno));
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept(); });
  }
  ~Origin() {
    ::shutdown(listener_.fd(), SHUT_RDWR);
    accepting_.join();
    for (std::thread& thread : serving_) thread.join();
  }
  std::uint16_t port() const { return port_; }
  const std::vector<cache::Digest>& digests() const { return digests_; }

 private:
  void accept() {
    for (;;) {
      const int fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      serving_.emplace_back([this, fd] { serve(cache::File(fd)); });
    }
  }
  void serve(const cache::File& connection) const {
    std::string text;
    std::array<char, 4096> piece;
    for (;;) {
      const std::size_t end = text.find("\r\n\r\n");
      if (end == std::string::npos) {
        const ssize_t n = ::recv(connection.fd(), piece.data(), piece.size(), 0);
        if (n <= 0) return;
        text.append(piece.data(), static_cast<std::size_t>(n));
        continue;
      }
      const std::string head = text.substr(0, end);
      text.erase(0, end + 4);
      const std::size_t at = head.find("sha256:");
      const auto known =
          at == std::string::npos ? numbers_.end() : numbers_.find(head.substr(at, 7 + 64));
      std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: ";
      const bool bodiless = head.starts_with("HEAD ");
      const std::string body = known == numbers_.end() ? "{}" : pulled_bytes_of(known->second);
      answer += std::to_string(body.size()) + "\r\n\r\n" + (bodiless ? "" : body);
      for (std::string_view rest = answer; !rest.empty();) {
        const ssize_t n = ::send(connection.fd(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n <= 0) return;
        rest.remove_prefix(static_cast<std::size_t>(n));
      }
    }
  }

  cache::File listener_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::uint16_t port_ = 0;
  std::vector<cache::Digest> digests_;
  std::unordered_map<std::string, std::size_t> numbers_;
  std::thread accepting_;
  std::vector<std::thread> serving_;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), scratch_(options.directory), origin_(options.quick ? 64 : 3'000) {
    const std::size_t made = options.quick ? 1'000 : small_blobs;
    make_cache(scratch_.path() / "cache", made);
    // A block of 4 KiB for each small one, and room for a part of the large ones.
    const std::size_t mib = made * 4 / 1024 + (options.quick ? 16 : 400);
    std::ofstream config(scratch_.path() / "staithe.toml");
    config << "[listen]\nregistry = [\"127.0.0.1:" << port_ << "\"]\ncontrol = \"" << control()
           << "\"\n[cache]\ndirectory = \"" << (scratch_.path() / "cache").string()
           << "\"\nmax_size = \"" << mib << "MiB\"\nmin_free = \"0\"\n[log]\nlevel = \"error\"\n"
           << "[[registry]]\nname = \"" << made_registry
           << "\"\nupstream = [\"http://127.0.0.1:" << origin_.port() << "\"]\ndefault = true\n";
    config.close();
    const char* binaries = std::getenv("STAITHE_BIN_DIR");
    programs_ = binaries ? binaries : "build/release";
    daemon_.emplace(std::vector<std::string>{programs_ / "staithed", "--config",
                                             scratch_.path() / "staithe.toml"},
                    scratch_.path() / "log");
    daemon_->wait_for_port(port_);
    for (std::size_t i = 0; i < asked_for; ++i)
      hits_.push_back(
          {.method = "GET",
           .target = "/v2/" + made_repository(i) + "/blobs/" + made_digest(i).to_string(),
           .size_bytes = made_bytes(i).size()});
    run_load({.port = port_, .connections = connections, .requests = hits_, .count = asked_for});
  }

  void run() {
    Report report({"staithe"});
    for (int i = 0; i < options_.runs; ++i) {
      for (const double rate : {steady_rate, 0.0}) {
        const std::string hits = rate > 0 ? "hits, 5,000/s, " : "hits, as many as may be, ";
        measure(report, hits + "alone", rate, {});
        measure(report, hits + "while pulls push others out", rate, [&] { pull(); });
        measure(report, hits + "while all is verified", rate, [&] { verify(); });
      }
    }
    report.note("congestion", options_.congestion);
    report.note("blobs pulled", std::to_string(next_));
    report.print(options_.json);
  }

 private:
  std::string control() const { return (scratch_.path() / "control.sock").string(); }

  // `deed`, if there is one, again and again while hits are measured.
  void measure(Report& report, const std::string& name, double requests_per_second,
               const std::function<void()>& deed) {
    std::atomic<bool> over = false;
    std::atomic<std::size_t> times = 0;
    std::thread other([&] {
      for (; deed && !over; ++times) deed();
    });
    LoadResult result = run_load({.port = port_,
                                  .connections = connections,
                                  .requests = hits_,
                                  .window = std::chrono::milliseconds(options_.quick ? 100 : 3000),
                                  .rate = requests_per_second});
    over = true;
    other.join();
    const double rate = static_cast<double>(result.answers) / result.seconds;
    report.add({.name = name, .unit = "requests/s"}, "staithe", rate);
    report.add({.name = name, .unit = "p50 us"}, "staithe",
               quantile(result.latencies_microseconds, 0.5));
    report.add({.name = name, .unit = "p99 us", .goal = "1.25 of alone"}, "staithe",
               quantile(result.latencies_microseconds, 0.99));
    if (deed)
      report.add({.name = name, .unit = "times done"}, "staithe", static_cast<double>(times));
  }

  void pull() {
    const cache::Digest& digest = origin_.digests()[next_++ % origin_.digests().size()];
    const std::string target = std::string("/v2/") + repository + "/blobs/" + digest.to_string();
    run_load({.port = port_,
              .connections = 1,
              .requests = {{.method = "GET", .target = target, .size_bytes = pulled_bytes}},
              .warm_up = std::chrono::milliseconds(0),
              .count = 1});
  }

  void verify() {
    output_of((programs_ / "staithe").string() + " --socket " + control() + " verify 2>&1");
  }

  const Options options_;
  const Scratch scratch_;
  Origin origin_;
  const std::uint16_t port_ = free_port();
  std::filesystem::path programs_;
  std::optional<Process> daemon_;
  std::vector<Request> hits_;
  std::size_t next_ = 0;
};

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) {
  using namespace staithe::bench;
  Options options;
  if (const char* temporary = std::getenv("TMPDIR")) options.directory = temporary;
  CLI::App app("What do eviction and a scrub do to those who only want hits?");
  app.add_option("--runs", options.runs, "runs of each")->check(CLI::Range(1, 100));
  app.add_flag("--quick", options.quick, "small, and no figure of use: only that it works");
  app.add_option("--directory", options.directory, "where the cache is made (default $TMPDIR)");
  app.add_option("--json", options.json, "a file for every figure");
  app.add_option("--congestion", options.congestion, "TCP's congestion control; host: as it is");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) options.runs = 1;
  options.congestion = own_loopback(options.congestion);
  take_signals();
  try {
    Bench(options).run();
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_disturbance: %s\n", e.what());
    return 1;
  }
}
