#include "daemon/setup_probe.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/system/system_error.hpp>
#include <cstdint>
#include <optional>
#include <utility>

#include "cache/digest.h"
#include "cache/escape.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using std::chrono::steady_clock;

// A configuration blob is some KiB; layers are not pulled.
constexpr std::uint64_t most_body_bytes = 8 << 20;
constexpr std::string_view manifest_types =
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

asio::awaitable<ListenerAnswer> exchange(std::string address, std::string method,
                                         std::string target, std::string accept,
                                         std::chrono::milliseconds patience) {
  const std::size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  const auto port = static_cast<std::uint16_t>(std::stoi(address.substr(colon + 1)));
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(patience);
  const asio::ip::tcp::endpoint endpoint(asio::ip::make_address(host), port);
  co_await stream.async_connect(endpoint, asio::use_awaitable);

  const http::verb verb = method == "HEAD" ? http::verb::head : http::verb::get;
  http::request<http::empty_body> request(verb, target, 11);
  request.set(http::field::host, address);
  request.set(http::field::user_agent, "staithe-setup/" STAITHE_VERSION);
  if (!accept.empty()) request.set(http::field::accept, accept);
  request.keep_alive(false);
  co_await http::async_write(stream, request, asio::use_awaitable);
  http::response_parser<http::string_body> parser;
  parser.body_limit(most_body_bytes);
  if (verb == http::verb::head) parser.skip(true);
  beast::flat_buffer buffer;
  co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
  auto& response = parser.get();
  ListenerAnswer answer{.status = static_cast<int>(response.result_int()),
                        .digest = std::string(response["Docker-Content-Digest"]),
                        .content_type = std::string(response[http::field::content_type]),
                        .body = std::move(response.body())};
  co_return answer;
}

// The message of an OCI error, or nothing.
std::string message_of(const std::string& body) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  if (error || !value.is_object()) return {};
  const json::value* errors = value.get_object().if_contains("errors");
  if (!errors || !errors->is_array() || errors->get_array().empty()) return {};
  const json::object* first = errors->get_array().front().if_object();
  const json::value* message = first ? first->if_contains("message") : nullptr;
  return message && message->is_string() ? printable(message->get_string(), 500) : std::string();
}

std::string text_of(const json::value& value, std::string_view key) {
  const json::object* object = value.if_object();
  const json::value* text = object ? object->if_contains(key) : nullptr;
  return text && text->is_string() ? std::string(text->get_string()) : std::string();
}

// The digest of the first real image of an index; nothing for a manifest.
std::optional<std::string> first_of_index(const json::value& manifest) {
  const json::object* object = manifest.if_object();
  const json::value* list = object ? object->if_contains("manifests") : nullptr;
  if (!list || !list->is_array()) return std::nullopt;
  for (const json::value& entry : list->get_array())
    if (std::string digest = text_of(entry, "digest"); !digest.empty()) return digest;
  return std::string();
}

class Puller {
 public:
  Puller(Asks asks, const ImageName& image, const AskListener& ask)
      : asks_(asks), image_(image), ask_(ask) {}

  std::vector<TestStep> run() {
    steps_.push_back(test_listener(ask_));
    if (!steps_.back().good) return std::move(steps_);
    const std::string reference = image_.reference.empty() ? "latest" : image_.reference;
    const auto top = manifest(reference);
    if (!top) return std::move(steps_);
    json::value document = *top;
    if (const auto inner = first_of_index(document)) {
      auto found = fetch("platform", "manifests", *inner, *inner);
      if (!found) return std::move(steps_);
      document = json::parse(*found, ignored_);
    }
    const json::object* object = document.if_object();
    const json::value* config = object ? object->if_contains("config") : nullptr;
    const std::string digest = config ? text_of(*config, "digest") : std::string();
    if (digest.empty()) {
      add("blob", true, "the image names no configuration, so no blob was pulled", 0);
      return std::move(steps_);
    }
    fetch("blob", "blobs", digest, digest);
    return std::move(steps_);
  }

 private:
  void add(std::string what, bool good, std::string finding, double seconds) {
    steps_.push_back({std::move(what), good, std::move(finding), seconds});
  }

  // HEAD, as most clients begin, then GET of what it said.
  std::optional<json::value> manifest(const std::string& reference) {
    std::string wanted = reference;
    if (asks_ != Asks::by_path) {  // containers/image asks with GET at once
      const auto began = steady_clock::now();
      const auto answer =
          ask_("HEAD", client_target(asks_, image_, "manifests", reference), manifest_types);
      const double seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
      if (!answer) {
        add("manifest", false, answer.error().detail, seconds);
        return std::nullopt;
      }
      if (answer->status == 200 && answer->digest.empty()) {
        add("manifest", false, "the answer to HEAD has no Docker-Content-Digest", seconds);
        return std::nullopt;
      }
      if (answer->status == 200) wanted = answer->digest;
    }
    auto body = fetch("manifest", "manifests", wanted, wanted.contains(':') ? wanted : "");
    if (!body) return std::nullopt;
    return json::parse(*body, ignored_);
  }

  // The body of a 200 whose digest is `digest` (any, if that is empty).
  std::optional<std::string> fetch(const char* what, std::string_view kind,
                                   const std::string& reference, const std::string& digest) {
    const auto began = steady_clock::now();
    auto answer = ask_("GET", client_target(asks_, image_, kind, reference),
                       kind == "manifests" ? manifest_types : std::string_view());
    const double seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
    if (!answer) {
      add(what, false, answer.error().detail, seconds);
      return std::nullopt;
    }
    if (answer->status != 200) {
      const std::string message = message_of(answer->body);
      add(what, false,
          "staithed answered " + std::to_string(answer->status) +
              (message.empty() ? std::string() : ": " + message),
          seconds);
      return std::nullopt;
    }
    const std::string expected = digest.empty() ? answer->digest : digest;
    const std::string found =
        cache::digest_of(
            expected.starts_with("sha512:") ? cache::Algorithm::sha512 : cache::Algorithm::sha256,
            answer->body)
            .to_string();
    if (found != expected) {
      add(what, false,
          "the bytes are " + found + " and not " + printable(expected, 100) +
              ": staithe verify looks for damage in the cache",
          seconds);
      return std::nullopt;
    }
    add(what, true, found + ", " + std::to_string(answer->body.size()) + " bytes", seconds);
    return std::move(answer->body);
  }

  Asks asks_;
  const ImageName& image_;
  const AskListener& ask_;
  std::vector<TestStep> steps_;
  boost::system::error_code ignored_;
};

}  // namespace

AskListener ask_at(std::string address, std::chrono::milliseconds patience) {
  return
      [address = std::move(address), patience](std::string_view method, const std::string& target,
                                               std::string_view accept) -> Result<ListenerAnswer> {
        asio::io_context loop;
        Result<ListenerAnswer> result = fail(Errc::unreachable, "");
        asio::co_spawn(
            loop, exchange(address, std::string(method), target, std::string(accept), patience),
            [&](std::exception_ptr error, ListenerAnswer answer) {
              if (!error) {
                result = std::move(answer);
                return;
              }
              std::string cause;
              try {
                std::rethrow_exception(error);
              } catch (const boost::system::system_error& why) {
                cause = why.code().message();
              } catch (const std::exception& why) {
                cause = why.what();
              }
              result = fail(Errc::unreachable, "staithed does not answer at " + address + " (" +
                                                   printable(cause, 200) +
                                                   "): systemctl status staithed");
            });
        loop.run();
        return result;
      };
}

std::string client_target(Asks asks, const ImageName& image, std::string_view kind,
                          std::string_view reference) {
  std::string path = "/v2/";
  if (asks == Asks::by_path) path += image.host + "/";
  path += image.repository + "/" + std::string(kind) + "/" + std::string(reference);
  if (asks == Asks::by_ns) {
    path += "?ns=";
    for (const char c : image.host) path += c == ':' ? std::string("%3A") : std::string(1, c);
  }
  return path;
}

std::vector<TestStep> test_pull(Asks asks, const ImageName& image, const AskListener& ask) {
  return Puller(asks, image, ask).run();
}

TestStep test_listener(const AskListener& ask) {
  const auto began = steady_clock::now();
  const auto answer = ask("GET", "/v2/", {});
  TestStep step{.what = "listener"};
  step.seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
  step.good = answer && answer->status == 200;
  if (!answer) {
    step.finding = answer.error().detail;
  } else if (step.good) {
    step.finding = "GET /v2/ is answered";
  } else {
    step.finding = "GET /v2/ is answered with " + std::to_string(answer->status) +
                   ": another program listens there";
  }
  return step;
}

TestStep test_credential(Asks asks, const Machine& machine, const std::string& host) {
  const bool is_kubelet = asks == Asks::kubelet_credential;
  TestStep step{.what = "credential"};
  std::string input = host;
  if (is_kubelet) {
    input = json::serialize(json::object{{"apiVersion", "credentialprovider.kubelet.k8s.io/v1"},
                                         {"kind", "CredentialProviderRequest"},
                                         {"image", host + "/staithe-setup:test"}});
  }
  const auto began = steady_clock::now();
  auto said = is_kubelet ? machine.run("staithe-credential-provider", {}, input)
                         : machine.run("docker-credential-staithe-nomad", {"get"}, input);
  step.seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
  if (!said) {
    step.finding = "the helper fails for " + host + ": staithe status shows why";
    return step;
  }
  // A password stands behind the name in both answers; which one is nobody's business.
  step.good = is_kubelet ? said->contains("\"password\"")
                         : said->contains("\"Secret\"") && !said->contains("\"Secret\":\"\"");
  proxy::auth::wipe(*said);
  step.finding = step.good ? "there is a credential for " + host
                           : "there is no credential for " + host + ": staithe status shows why";
  return step;
}

}  // namespace staithe::daemon
