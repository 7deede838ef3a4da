#include "daemon/control_client.h"

#include <openssl/crypto.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/json/parse.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "cache/error.h"
#include "cache/escape.h"
#include "proxy/auth/json.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using std::chrono::steady_clock;

constexpr std::size_t kMaxHeaderBytes = 16 << 10;

// A connected socket as Beast wants one to read from; everything on it ends at one deadline.
class Connection {
 public:
  Connection(int fd, steady_clock::time_point deadline) : fd_(fd), deadline_(deadline) {}
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  template <class MutableBuffers>
  std::size_t read_some(const MutableBuffers& buffers, beast::error_code& error) {
    const asio::mutable_buffer buffer = *asio::buffer_sequence_begin(buffers);
    const std::size_t count = transfer(
        POLLIN, error, [&] { return recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT); });
    if (!error && count == 0 && buffer.size() > 0) error = asio::error::eof;
    return count;
  }
  // Throws nothing and says nothing: a peer that has hung up may still have answered before.
  void write(std::string_view text) {
    beast::error_code error;
    while (!text.empty() && !error) {
      text.remove_prefix(transfer(POLLOUT, error, [&] {
        return send(fd_, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      }));
    }
  }
  void set_deadline(steady_clock::time_point deadline) { deadline_ = deadline; }
  // Beast's concept of a stream wants this one too.
  template <class MutableBuffers>
  std::size_t read_some(const MutableBuffers& buffers) {
    beast::error_code error;
    const std::size_t count = read_some(buffers, error);
    if (error) throw beast::system_error(error);
    return count;
  }

 private:
  std::size_t transfer(short events, beast::error_code& error, auto system_call) {
    error = {};
    for (;;) {
      const ssize_t count = system_call();
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno == EAGAIN) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline_ - steady_clock::now());
        pollfd waiting{.fd = fd_, .events = events, .revents = 0};
        if (left.count() > 0 && poll(&waiting, 1, static_cast<int>(left.count())) != 0) continue;
        errno = ETIMEDOUT;
      }
      if (errno == EINTR) continue;
      error = beast::error_code(errno, beast::system_category());
      return 0;
    }
  }

  int fd_;
  steady_clock::time_point deadline_;
};

ControlError unreachable(std::string message) { return {true, std::move(message)}; }

std::string where(const std::filesystem::path& socket) { return printable(socket.native(), 200); }

ControlError cannot_connect(const std::filesystem::path& socket, int error) {
  switch (error) {
    case ENOENT:
      return unreachable("staithed does not listen on " + where(socket) +
                         ": start it (systemctl start staithed), or name its socket with --socket "
                         "or $STAITHE_SOCKET");
    case ECONNREFUSED:
      return unreachable("nobody listens on " + where(socket) +
                         " any more: start staithed again (systemctl restart staithed)");
    case EACCES:
      return unreachable("this user may not use " + where(socket) +
                         ": run the command as root or as the user that staithed runs as");
    case EAGAIN:
      return unreachable("staithed does not take connections on " + where(socket) +
                         ": it is overloaded or stuck (journalctl -u staithed)");
    default:
      return unreachable("cannot connect to " + where(socket) + " (" + describe_errno(error) +
                         "): name staithed's socket with --socket or $STAITHE_SOCKET");
  }
}

// A failure: {"error":"..."}, {"message":"..."} or {"errors":[{"code":"...","message":"..."}]}.
ControlError refusal(int status, std::string_view body) {
  ControlError result{.unreachable = false,
                      .message = "staithed answered " + std::to_string(status),
                      .status = status};
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  if (error || !value.is_object()) return result;
  const json::object* object = &value.get_object();
  if (const auto* errors = object->if_contains("errors"); errors && errors->is_array() &&
                                                          !errors->get_array().empty() &&
                                                          errors->get_array().front().is_object()) {
    object = &errors->get_array().front().get_object();
  }
  const auto text_of = [&](const char* key) {
    const json::value* text = object->if_contains(key);
    return text && text->is_string() ? printable(text->get_string(), 1000) : std::string();
  };
  for (const char* key : {"error", "message"}) {
    if (std::string text = text_of(key); !text.empty()) {
      result.message = std::move(text);
      break;
    }
  }
  result.code = text_of("code");
  return result;
}

// What has stood in it is wiped when it is given back: buffers that an answer passes through.
template <class T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() = default;
  template <class U>
  WipingAllocator(const WipingAllocator<U>&) {}
  T* allocate(std::size_t count) { return std::allocator<T>().allocate(count); }
  void deallocate(T* memory, std::size_t count) {
    OPENSSL_cleanse(memory, count * sizeof(T));
    std::allocator<T>().deallocate(memory, count);
  }
  bool operator==(const WipingAllocator&) const = default;
};
using WipedBody = http::basic_string_body<char, std::char_traits<char>, WipingAllocator<char>>;
using WipedText = WipedBody::value_type;

// A connected socket, or why there is none.
std::expected<std::unique_ptr<Connection>, ControlError> connect_to(
    const std::filesystem::path& socket, std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& path = socket.native();
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return std::unexpected(
        unreachable("\"" + where(socket) + "\" cannot be a socket's path: it has 1 to 107 bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return std::unexpected(cannot_connect(socket, errno));
  auto connection = std::make_unique<Connection>(fd, steady_clock::now() + timeout);
  // On a Unix socket connect() is done at once; a full backlog is EAGAIN.
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return std::unexpected(cannot_connect(socket, errno));
  }
  return connection;
}

ControlError no_answer(const std::filesystem::path& socket, const beast::error_code& error) {
  if (error == boost::system::errc::timed_out) {
    return unreachable("staithed took the connection on " + where(socket) +
                       " and does not answer: it is overloaded or stuck (journalctl -u staithed)");
  }
  return unreachable("what listens on " + where(socket) + " does not answer as staithed does (" +
                     printable(error.message()) + "): check --socket and $STAITHE_SOCKET");
}

// One exchange: `request` is all of it. Returns the body of a 200.
std::expected<WipedText, ControlError> exchange(const std::filesystem::path& socket,
                                                std::string_view request, std::size_t most_bytes,
                                                std::chrono::milliseconds timeout) {
  const auto connection = connect_to(socket, timeout);
  if (!connection) return std::unexpected(connection.error());
  (*connection)->write(request);

  beast::error_code error;
  http::response_parser<WipedBody> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(most_bytes);
  beast::basic_flat_buffer<WipingAllocator<char>> buffer;
  http::read(**connection, buffer, parser, error);
  if (error) return std::unexpected(no_answer(socket, error));
  auto& response = parser.get();
  if (response.result() != http::status::ok) {
    return std::unexpected(refusal(static_cast<int>(response.result_int()), response.body()));
  }
  return std::move(response.body());
}

std::string head(std::string_view method, std::string_view target) {
  return std::string(method) + " " + std::string(target) +
         " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: staithe/" STAITHE_VERSION
         "\r\nAccept: application/json\r\nConnection: close\r\n";
}

std::string post_head(std::string_view target, std::size_t body_bytes) {
  return head("POST", target) +
         "Content-Type: application/json\r\nContent-Length: " + std::to_string(body_bytes) +
         "\r\n\r\n";
}

ControlError not_json(const std::filesystem::path& socket) {
  return unreachable("what listens on " + where(socket) +
                     " answers with something that is not JSON: check --socket and "
                     "$STAITHE_SOCKET");
}

}  // namespace

std::expected<json::value, ControlError> control_get(const std::filesystem::path& socket,
                                                     std::string_view target,
                                                     std::chrono::milliseconds timeout,
                                                     std::size_t most_bytes) {
  const auto body = exchange(socket, head("GET", target) + "\r\n", most_bytes, timeout);
  if (!body) return std::unexpected(body.error());
  boost::system::error_code bad_json;
  json::value value = json::parse(*body, bad_json);
  if (bad_json) return std::unexpected(not_json(socket));
  return value;
}

std::expected<json::value, ControlError> control_post(const std::filesystem::path& socket,
                                                      std::string_view target, std::string body,
                                                      std::chrono::milliseconds timeout) {
  std::string request = post_head(target, body.size());
  // Once, so that growing leaves no copy behind.
  request.reserve(request.size() + body.size());
  request += body;
  proxy::auth::wipe(body);
  const auto answer = exchange(socket, request, kMaxControlPostAnswerBytes, timeout);
  proxy::auth::wipe(request);
  if (!answer) return std::unexpected(answer.error());
  auto value = proxy::auth::parse_json_object(*answer);
  if (!value) return std::unexpected(not_json(socket));
  return *std::move(value);
}

std::expected<void, ControlError> control_stream(
    const std::filesystem::path& socket, std::string_view target, std::string_view body,
    const std::function<void(const json::value&)>& on_line, std::chrono::milliseconds patience) {
  const auto connection = connect_to(socket, patience);
  if (!connection) return std::unexpected(connection.error());
  (*connection)->write(post_head(target, body.size()) + std::string(body));

  beast::error_code error;
  http::response_parser<http::string_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(boost::none);  // as long as it takes; a line has its bound below
  beast::flat_buffer buffer;
  http::read_header(**connection, buffer, parser, error);
  std::string& text = parser.get().body();
  while (!error) {
    const bool good = parser.get().result() == http::status::ok;
    for (std::size_t end = 0; good && (end = text.find('\n')) != text.npos;) {
      boost::system::error_code bad_json;
      const json::value line = json::parse(text.substr(0, end), bad_json);
      if (bad_json) return std::unexpected(not_json(socket));
      text.erase(0, end + 1);
      on_line(line);
    }
    if (text.size() > kMaxControlPostAnswerBytes) return std::unexpected(not_json(socket));
    if (parser.is_done()) break;
    (*connection)->set_deadline(steady_clock::now() + patience);
    http::read_some(**connection, buffer, parser, error);
  }
  if (error && parser.is_header_done()) {
    return std::unexpected(ControlError{
        .unreachable = false,
        .message = "staithed broke its answer off: it was stopped, or is stuck (journalctl -u "
                   "staithed)"});
  }
  if (error) return std::unexpected(no_answer(socket, error));
  if (parser.get().result() != http::status::ok)
    return std::unexpected(refusal(static_cast<int>(parser.get().result_int()), text));
  if (!text.empty()) return std::unexpected(not_json(socket));
  return {};
}

}  // namespace staithe::daemon
