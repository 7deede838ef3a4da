// A daemon of which there is only the control socket: it says to each connection what it was told
// to, whatever is asked.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

namespace staithe::fake {

// An HTTP answer with a body of JSON.
inline std::string answer(std::string_view body, std::string_view status = "200 OK") {
  return "HTTP/1.1 " + std::string(status) +
         "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}
// A failure as the daemon answers it.
inline std::string refusal(std::string_view status, std::string_view code,
                           std::string_view message) {
  return answer(R"({"errors":[{"code":")" + std::string(code) + R"(","message":")" +
                    std::string(message) + R"("}]})",
                status);
}

// The base of a fixture. Owns a directory for the test's files, in which the socket is.
class ControlDaemon {
 protected:
  ControlDaemon() {
    std::string pattern = testing::TempDir() + "/control_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    socket_ = directory_ / "control.sock";
  }
  ~ControlDaemon() {
    stop();
    std::filesystem::remove_all(directory_);
  }
  ControlDaemon(const ControlDaemon&) = delete;
  ControlDaemon& operator=(const ControlDaemon&) = delete;

  void stop() {
    if (!server_.joinable()) return;
    shutdown(listener_, SHUT_RDWR);
    server_.join();
    close(listener_);
  }

  // `reply` gets the request, head and body, on the server's thread, and gives all bytes of the
  // answer; the connection then closes.
  void serve(std::function<std::string(const std::string& request)> reply) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(socket_.native().size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, socket_.c_str(), socket_.native().size());
    ASSERT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(listen(listener_, 8), 0);
    server_ = std::thread([this, reply = std::move(reply)] {
      for (;;) {
        const int client = accept(listener_, nullptr, nullptr);
        if (client < 0) return;
        const std::string request = receive(client);
        ++requests_;
        const std::string text = reply(request);
        send(client, text.data(), text.size(), MSG_NOSIGNAL);
        close(client);
      }
    });
  }
  void serve(const std::string& text) {
    serve([text](const std::string&) { return text; });
  }

  std::filesystem::path directory_;
  std::filesystem::path socket_;
  int listener_ = -1;
  std::thread server_;
  std::atomic<int> requests_{0};

 private:
  static std::string receive(int client) {
    std::string request;
    char buffer[4096];
    for (;;) {
      const std::size_t end = request.find("\r\n\r\n");
      if (end != request.npos) {
        const std::size_t field = request.find("Content-Length: ");
        const std::size_t length =
            field < end ? std::strtoul(request.c_str() + field + 16, nullptr, 10) : 0;
        if (request.size() >= end + 4 + length) return request;
      }
      const ssize_t size = recv(client, buffer, sizeof buffer, 0);
      if (size <= 0) return request;
      request.append(buffer, static_cast<std::size_t>(size));
    }
  }
};

// The body of a request.
inline std::string body_of(const std::string& request) {
  return request.substr(std::min(request.find("\r\n\r\n") + 4, request.size()));
}

}  // namespace staithe::fake
