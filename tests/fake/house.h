// The proxy with everything below it, in one process: the real store in a directory of its own, the
// real listener on a port of its own, and a played upstream.
//
//   House house;
//   house.upstream.on("https://r.example/v2/app/blobs/" + digest, ...);
//   const Answer answer = house.get("/v2/r.example/app/blobs/" + digest);
//
// Time is the machine's, because disk work runs on real threads; tests order things by gates, and
// let hours pass at once by house.clock.pass().
#pragma once

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cache/store.h"
#include "proxy/front.h"
#include "proxy/proxy.h"
#include "proxy/server.h"
#include "tests/fake/clock.h"
#include "tests/fake/http.h"

namespace staithe::fake {

// What a client got: the head, and the bytes until the connection ended.
struct Answer {
  std::string head;
  std::string body;
  int status = 0;
  bool complete = false;  // as many bytes as Content-Length says
  bool reset = false;     // ended by RST instead of FIN

  std::string field(std::string_view name) const {
    for (std::size_t at = head.find("\r\n"); at != std::string::npos;
         at = head.find("\r\n", at + 2)) {
      const std::string_view line = std::string_view(head).substr(at + 2);
      const std::size_t colon = line.find(':');
      if (colon == std::string_view::npos || !proxy::iequals(line.substr(0, colon), name)) continue;
      return std::string(line.substr(colon + 2, line.find("\r\n") - colon - 2));
    }
    return {};
  }
};

// No credentials: the tests of proxy/auth have those.
class NoCredentials : public proxy::auth::Authorizer {
 public:
  asio::awaitable<proxy::auth::Authorization> for_pull(std::string) override { co_return nullptr; }
  bool refused(const std::string&, const proxy::auth::Authorization&,
               const proxy::Headers&) override {
    return false;
  }
  bool forbidden(const proxy::auth::Authorization&) override { return false; }
  asio::awaitable<proxy::auth::Login> login() override {
    throw Failure(Errc::not_found, "no credentials here");
  }
  std::string login_name() const override { return {}; }
  asio::awaitable<std::string> probe(proxy::auth::Part, std::string) override { co_return ""; }
  asio::awaitable<void> renew() override { co_return; }
  std::vector<proxy::auth::TokenStatus> tokens() const override { return {}; }
  std::vector<proxy::auth::Ending> endings() const override { return {}; }
  std::optional<Error> last_error() const override { return std::nullopt; }
};

class House {
 public:
  explicit House(cache::Size max_size = {.bytes = 1 << 30}, cache::Disk* other_disk = nullptr,
                 int clock_speed = 1)
      : clock(clock_speed),
        directory_(make_directory()),
        disk_(other_disk ? *other_disk : posix_),
        tasks_(io.get_executor(), ignore),
        store(io.get_executor(),
              {.directory = directory_ / "cache", .max_size = max_size, .min_free = {}}, disk_,
              clock, ignore),
        upstream(clock),
        registries(make_settings(),
                   [this](const std::string& name, const proxy::RegistrySettings& entry,
                          const std::string&) { return make_upstream(name, entry); }),
        fills(io.get_executor(), store, clock),
        proxy(io.get_executor(), registries, store, fills, tasks_, clock),
        front_(io.get_executor(), proxy.answers(), proxy.admission(), clock, proxy.meter(), 2),
        server_(io.get_executor(), {.connections = 1000, .connection = {}}, proxy,
                store.disk_pool(), &loops_, &front_) {
    std::signal(SIGPIPE, SIG_IGN);  // As the daemon does: sendfile() has no flag for it.
    run(store.open());
    server_.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
    proxy.admit(proxy::HostPolicy(server_.addresses(), {}));
    proxy.set_ready(true);
    server_.start();
  }

  ~House() {
    run(stop());
    std::filesystem::remove_all(directory_);
  }

  // Runs the loop until `work` is done.
  template <class T>
  T run(asio::awaitable<T> work) {
    std::exception_ptr error;
    bool done = false;
    if constexpr (std::is_void_v<T>) {
      asio::co_spawn(io, std::move(work), [&](std::exception_ptr e) {
        error = e;
        done = true;
      });
      run_until(done);
      if (error) std::rethrow_exception(error);
    } else {
      std::optional<T> value;
      asio::co_spawn(io, std::move(work), [&](std::exception_ptr e, T result) {
        error = e;
        value.emplace(std::move(result));
        done = true;
      });
      run_until(done);
      if (error) std::rethrow_exception(error);
      return std::move(*value);
    }
  }
  // Runs the loop until `condition()`.
  template <class Condition>
  void run_until_true(Condition condition) {
    while (!condition()) step();
  }

  Answer get(const std::string& target, const std::string& fields = {}) {
    return run(ask("GET " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" +
                   fields + "\r\n"));
  }
  Answer head(const std::string& target) {
    return run(ask("HEAD " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
  }
  // A GET of what is kept in memory, on a connection that stays: the front answers it, unless
  // `fields` say otherwise. Empty if it is not kept.
  std::string get_kept(const std::string& target, const std::string& fields = {}) {
    const auto kept = proxy.answers().find(target, clock.now());
    if (!kept) return {};
    asio::ip::tcp::socket socket(io);
    socket.connect(endpoint());
    asio::write(socket, asio::buffer("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + fields +
                                     "\r\n"));
    std::string text(kept->text.size(), '\0');
    bool done = false;
    asio::async_read(socket, asio::buffer(text),
                     [&](boost::system::error_code, std::size_t) { done = true; });
    run_until(done);
    return text;
  }
  // Sends `text` as it stands and reads until the connection ends.
  asio::awaitable<Answer> ask(std::string text) {
    return ask_at(server_.addresses().front(), std::move(text));
  }
  asio::awaitable<Answer> ask_at(std::string address, std::string text) {
    asio::ip::tcp::socket socket(io);
    co_await socket.async_connect(endpoint_of(address), asio::use_awaitable);
    co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
    std::string all;
    std::array<char, 64 * 1024> piece;
    Answer answer;
    for (;;) {
      const auto [error, n] =
          co_await socket.async_read_some(asio::buffer(piece), asio::as_tuple(asio::use_awaitable));
      all.append(piece.data(), n);
      if (!error) continue;
      answer.reset = error == asio::error::connection_reset;
      break;
    }
    const std::size_t end = all.find("\r\n\r\n");
    if (end == std::string::npos) co_return answer;
    answer.head = all.substr(0, end + 2);
    answer.body = all.substr(end + 4);
    answer.status = std::atoi(answer.head.substr(9, 3).c_str());
    const std::string length = answer.field("Content-Length");
    answer.complete = !length.empty() && std::to_string(answer.body.size()) == length;
    co_return answer;
  }
  proxy::Server& server() { return server_; }
  asio::ip::tcp::endpoint endpoint() const { return endpoint_of(server_.addresses().front()); }
  static asio::ip::tcp::endpoint endpoint_of(const std::string& address) {
    return {asio::ip::make_address("127.0.0.1"),
            static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)))};
  }

  // Plays a registry "r.example" that has `bytes` as a blob of `repository`, ranges included.
  cache::Digest play_blob(const std::string& repository, const std::string& bytes) {
    const auto digest = cache::digest_of(cache::Algorithm::sha256, bytes);
    play_blob_as(repository, digest, bytes);
    return digest;
  }
  void play_blob_as(const std::string& repository, const cache::Digest& digest,
                    const std::string& bytes) {
    upstream.on("https://r.example/v2/" + repository + "/blobs/" + digest.to_string(),
                [bytes](const Asked& asked) { return blob_reply(asked, bytes); });
  }
  static Reply blob_reply(const Asked& asked, const std::string& bytes) {
    const auto wanted = proxy::parse_range(asked.headers.get("Range"), bytes.size());
    if (!wanted)
      return {.status = 416,
              .headers = {{"Content-Range", "bytes */" + std::to_string(bytes.size())}}};
    const auto& range = *wanted;
    const std::uint64_t begin = range ? range->begin : 0;
    const std::uint64_t end = range ? range->end : bytes.size();
    Reply reply{.status = range ? 206 : 200,
                .headers = {{"Content-Length", std::to_string(end - begin)}}};
    if (range)
      reply.headers.emplace_back("Content-Range", "bytes " + std::to_string(begin) + "-" +
                                                      std::to_string(end - 1) + "/" +
                                                      std::to_string(bytes.size()));
    if (asked.method != "HEAD") reply.body = bytes.substr(begin, end - begin);
    return reply;
  }
  std::size_t upstream_gets(const cache::Digest& digest) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(upstream.asked(), [&](const Asked& asked) {
          return asked.method == "GET" && asked.url.ends_with(digest.to_string());
        }));
  }

  asio::io_context io{1};
  PassingClock clock;

 private:
  static void ignore(std::string_view, std::string_view) {}
  static std::vector<proxy::RegistrySettings> make_settings() {
    proxy::RegistrySettings ours;
    ours.name = "r.example";
    ours.data_hosts = {"data.example"};
    ours.is_default = true;
    proxy::RegistrySettings hub;
    hub.name = "docker.io";
    return {std::move(ours), std::move(hub)};
  }
  static std::filesystem::path make_directory() {
    std::string name = std::filesystem::temp_directory_path() / "staithe-house-XXXXXX";
    if (!::mkdtemp(name.data())) std::abort();
    return name;
  }
  void step() {
    if (io.stopped()) io.restart();
    io.run_one_for(std::chrono::seconds(10));
  }
  void run_until(const bool& done) {
    while (!done) step();
  }
  asio::awaitable<void> stop() {
    tasks_.cancel();
    co_await fills.stop();
    co_await server_.stop();
    co_await tasks_.join();
    co_await store.close();
  }
  std::unique_ptr<proxy::Upstream> make_upstream(const std::string& name,
                                                 const proxy::RegistrySettings& entry) {
    proxy::Url base =
        *proxy::Url::parse(entry.upstream.empty() ? "https://" + name : entry.upstream.front());
    const proxy::RedirectPolicy redirects{
        .registry = base.origin(), .data_hosts = entry.data_hosts, .acr_suffixes = {}};
    return std::make_unique<proxy::Upstream>(
        io.get_executor(),
        proxy::Upstream::Settings{.base = std::move(base),
                                  .prefix = entry.prefix,
                                  .ca_file = {},
                                  .redirects = redirects,
                                  .max_connections = entry.max_connections,
                                  .limits = {}},
        std::make_unique<NoCredentials>(), upstream, clock);
  }

  std::filesystem::path directory_;
  cache::PosixDisk posix_;
  cache::Disk& disk_;
  TaskGroup tasks_;

 public:
  cache::Store store;
  FakeHttpClient upstream;
  proxy::Registries registries;
  proxy::Fills fills;
  proxy::Proxy proxy;

 private:
  proxy::Loops loops_{1};
  proxy::Front front_;
  proxy::Server server_;
};

}  // namespace staithe::fake
