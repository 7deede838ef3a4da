// bench_bare: the limit that a cache is measured against, a server with nothing in it.
//
//     bench_bare PORT LIST [--memory]
//
// LIST has a line per object: target, file, media type, digest, with tabs between. One thread, one
// epoll; a request's target is looked up, a head made ready at the start is sent and the file
// follows by sendfile(). With --memory, small objects are one send() of head and body together. It
// trusts its clients, so it is no server for anything else.
//
// Its connections use reno: BBR, the default on some machines, paces what it sends, which halves
// the rate of a large body over loopback; a limit should not be limited by that.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

constexpr std::size_t small_bytes = 64 * 1024;  // with --memory: kept there up to this size

struct Object {
  int file = -1;
  std::uint64_t size_bytes = 0;
  std::string head;
  std::string whole;  // head and body, if it is kept in memory
};

// Targets are looked up without making a string of them.
struct Hash : std::hash<std::string_view> {
  using is_transparent = void;
};
using Objects = std::unordered_map<std::string, Object, Hash, std::equal_to<>>;

struct Client {
  explicit Client(int accepted) : socket(accepted) {}
  int socket;
  std::string input;
  std::string_view text;           // still to be sent
  const Object* object = nullptr;  // whose file is to be sent after it
  std::uint64_t offset = 0;
};

Objects read_objects(const char* list, bool memory) {
  Objects objects;
  std::ifstream lines(list);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string target, file, type, digest;
    std::getline(words, target, '\t');
    std::getline(words, file, '\t');
    std::getline(words, type, '\t');
    std::getline(words, digest, '\t');
    Object& object = objects[target];
    struct stat status{};
    object.file = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (object.file < 0 || ::fstat(object.file, &status) != 0) {
      std::perror(file.c_str());
      std::exit(1);
    }
    object.size_bytes = static_cast<std::uint64_t>(status.st_size);
    object.head = "HTTP/1.1 200 OK\r\nContent-Type: " + type +
                  "\r\nContent-Length: " + std::to_string(object.size_bytes) +
                  "\r\nDocker-Content-Digest: " + digest + "\r\n\r\n";
    if (!memory || object.size_bytes > small_bytes) continue;
    std::ifstream bytes(file, std::ios::binary);
    object.whole = object.head;
    object.whole.append(std::istreambuf_iterator<char>(bytes), {});
  }
  return objects;
}

// Sends what the socket takes. False if the client is gone; `blocked` if there is more to send.
bool send_more(Client& client, bool& blocked) {
  blocked = false;
  while (!client.text.empty()) {
    const int flags = MSG_NOSIGNAL | (client.object ? MSG_MORE : 0);
    const ssize_t n = ::send(client.socket, client.text.data(), client.text.size(), flags);
    if (n < 0) {
      blocked = errno == EAGAIN;
      return blocked;
    }
    client.text.remove_prefix(static_cast<std::size_t>(n));
  }
  while (client.object) {
    auto offset = static_cast<off_t>(client.offset);
    const ssize_t n = ::sendfile(client.socket, client.object->file, &offset,
                                 client.object->size_bytes - client.offset);
    if (n <= 0) {
      blocked = n < 0 && errno == EAGAIN;
      return blocked;
    }
    client.offset += static_cast<std::uint64_t>(n);
    if (client.offset == client.object->size_bytes) client.object = nullptr;
  }
  return true;
}

// Answers the request at the front of the input if it is whole. False if it cannot be answered.
bool take_request(Client& client, const Objects& objects) {
  const std::size_t end = client.input.find("\r\n\r\n");
  if (end == std::string::npos) return true;
  const std::string_view line(client.input.data(), client.input.find('\r'));
  const bool head_only = line.starts_with("HEAD ");
  const std::size_t target_begin = head_only ? 5 : 4;
  const std::size_t target_end = line.find(' ', target_begin);
  if (target_end == std::string_view::npos) return false;
  const auto found = objects.find(line.substr(target_begin, target_end - target_begin));
  if (found == objects.end()) return false;
  const Object& object = found->second;
  const bool from_memory = !head_only && !object.whole.empty();
  client.text = from_memory ? object.whole : object.head;
  client.object = head_only || from_memory ? nullptr : &object;
  client.offset = 0;
  client.input.erase(0, end + 4);
  return true;
}

int listen_on(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // These two are inherited.
  ::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket, 1024) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  return socket;
}

[[noreturn]] void serve(int listener, const Objects& objects) {
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  ::epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  std::array<epoll_event, 256> events;
  std::array<char, 16 * 1024> piece;
  for (;;) {
    const int ready = ::epoll_wait(poll, events.data(), events.size(), -1);
    for (int i = 0; i < ready; ++i) {
      auto* client = static_cast<Client*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (!client) {
        const int socket = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket < 0) continue;
        event = {.events = EPOLLIN, .data = {.ptr = new Client(socket)}};
        ::epoll_ctl(poll, EPOLL_CTL_ADD, socket, &event);
        continue;
      }
      bool alive = true;
      bool blocked = !client->text.empty() || client->object;
      const bool was_blocked = blocked;
      if (!blocked) {
        const ssize_t n = ::recv(client->socket, piece.data(), piece.size(), 0);
        alive = n > 0;
        if (alive) {
          client->input.append(piece.data(), static_cast<std::size_t>(n));
          alive = take_request(*client, objects);
        }
      }
      if (alive) alive = send_more(*client, blocked);
      if (!alive) {
        ::close(client->socket);
        delete client;
      } else if (blocked != was_blocked) {
        event = {.events = blocked ? EPOLLOUT : EPOLLIN, .data = {.ptr = client}};
        ::epoll_ctl(poll, EPOLL_CTL_MOD, client->socket, &event);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: bench_bare PORT LIST [--memory]\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);  // sendfile() to a client that has left.
  const bool memory = argc > 3 && std::string_view(argv[3]) == "--memory";
  const Objects objects = read_objects(argv[2], memory);
  serve(listen_on(static_cast<std::uint16_t>(std::atoi(argv[1]))), objects);
}
