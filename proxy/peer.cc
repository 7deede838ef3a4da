#include "proxy/peer.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <span>

#include "proxy/tcp_table.h"

namespace staithe::proxy {

namespace {

// What this process was given to ask through; -1: it makes its own.
int given_netlink = -1;

std::optional<TcpEnd> tcp_end(const sockaddr_storage& address) {
  TcpEnd end;
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    end.address.s6_addr[10] = end.address.s6_addr[11] = 0xff;
    std::memcpy(&end.address.s6_addr[12], &v4.sin_addr, 4);
    end.port = ntohs(v4.sin_port);
    return end;
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    end.address = v6.sin6_addr;
    end.port = ntohs(v6.sin6_port);
    return end;
  }
  return std::nullopt;
}

// As the kernel's answer has it.
TcpEnd tcp_end(unsigned family, const __be32 (&words)[4], __be16 port) {
  TcpEnd end;
  end.port = ntohs(port);
  if (family == AF_INET) {
    end.address.s6_addr[10] = end.address.s6_addr[11] = 0xff;
    std::memcpy(&end.address.s6_addr[12], words, 4);
  } else {
    std::memcpy(&end.address, words, 16);
  }
  return end;
}

void put(const TcpEnd& end, unsigned family, __be32 (&words)[4], __be16& port) {
  port = htons(end.port);
  if (family == AF_INET) {
    std::memcpy(words, &end.address.s6_addr[12], 4);
  } else {
    std::memcpy(words, &end.address, 16);
  }
}

// A socket that is, or just was, connected. The kernel answers with a listening socket too if only
// that is left at the address, and that one may be anybody's.
bool is_connected(unsigned state) {
  return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 ||
         state == TCP_CLOSE_WAIT || state == TCP_CLOSING || state == TCP_LAST_ACK;
}

// In a user namespace the kernel calls everybody whom it cannot translate by this one number
// (user_namespaces(7)); it may also be a real user's, and then our own.
constexpr unsigned overflow_uid = 65534;

// True where every uid has a number here: the initial namespace, or one that maps them all.
bool all_uids_are_mapped() {
  std::ifstream map("/proc/self/uid_map");
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  return map >> inside >> outside >> count && inside == 0 && outside == 0 && count >= 0xffffffffU;
}

Peer somebody(unsigned uid) {
  if (uid == static_cast<unsigned>(-1)) return std::nullopt;
  if (uid == overflow_uid && !all_uids_are_mapped()) return std::nullopt;
  return uid;
}

// Of the other socket.
struct Owner {
  Peer user;
  std::uint64_t cgroup = 0;
};

struct Question {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

// Answers to questions that somebody before us has put and not read.
void forget_answers(int netlink) {
  char none = 0;
  while (::recv(netlink, &none, sizeof none, MSG_DONTWAIT) >= 0 || errno == EINTR) {
  }
}

// Kernels from 5.9 on say it without being asked for it; 0 if this one does not. `answer`: the
// whole message.
std::uint64_t cgroup_in(std::span<const char> answer) {
  std::size_t at = NLMSG_LENGTH(sizeof(inet_diag_msg));
  while (at + NLA_HDRLEN <= answer.size()) {
    nlattr attribute{};
    std::memcpy(&attribute, answer.data() + at, sizeof attribute);
    if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > answer.size() - at) return 0;
    std::uint64_t id = 0;
    if (attribute.nla_type == INET_DIAG_CGROUP_ID && attribute.nla_len == NLA_HDRLEN + sizeof id) {
      std::memcpy(&id, answer.data() + at + NLA_HDRLEN, sizeof id);
      return id;
    }
    at += NLA_ALIGN(attribute.nla_len);
  }
  return 0;
}

Owner ask(int netlink, unsigned family, const TcpEnd& ours, const TcpEnd& theirs) {
  static std::uint32_t last_sequence = 0;
  const std::uint32_t sequence = ++last_sequence;
  Question question{};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST;  // without NLM_F_DUMP: exactly this one
  question.header.nlmsg_seq = sequence;
  question.body.sdiag_family = static_cast<__u8>(family);
  question.body.sdiag_protocol = IPPROTO_TCP;
  question.body.idiag_states = ~0U;
  // Their socket, so theirs is its source.
  put(theirs, family, question.body.id.idiag_src, question.body.id.idiag_sport);
  put(ours, family, question.body.id.idiag_dst, question.body.id.idiag_dport);
  question.body.id.idiag_cookie[0] = question.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;

  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(netlink, &question, sizeof question, MSG_DONTWAIT,
               reinterpret_cast<const sockaddr*>(&kernel),
               sizeof kernel) != static_cast<ssize_t>(sizeof question))
    return {};

  alignas(nlmsghdr) std::array<char, 8192> buffer;
  sockaddr_nl from{};
  socklen_t from_size = sizeof from;
  const ssize_t got = ::recvfrom(netlink, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&from), &from_size);
  if (got < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(inet_diag_msg))) || from.nl_pid != 0)
    return {};  // an error, or not the kernel
  const auto* const header = reinterpret_cast<const nlmsghdr*>(buffer.data());
  if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_seq != sequence ||
      header->nlmsg_len > static_cast<std::uint32_t>(got) ||
      header->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg)))
    return {};
  const auto* const found = reinterpret_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  const unsigned found_family = found->idiag_family;
  const bool same = (found_family == AF_INET || found_family == AF_INET6) &&
                    tcp_end(found_family, found->id.idiag_src, found->id.idiag_sport) == theirs &&
                    tcp_end(found_family, found->id.idiag_dst, found->id.idiag_dport) == ours;
  // Without an inode no process holds the socket, and the uid says nothing.
  if (!same || !is_connected(found->idiag_state) || found->idiag_inode == 0) return {};
  return {.user = somebody(found->idiag_uid),
          .cgroup = cgroup_in({buffer.data(), header->nlmsg_len})};
}

// As systemd's RestrictAddressFamilies=, a container's seccomp profile and SELinux say it.
bool is_forbidden(int error) { return error == EAFNOSUPPORT || error == EPERM || error == EACCES; }

// An IPv6 socket stands in the second list, also when it is connected by IPv4.
Owner look_up(const TcpEnd& ours, const TcpEnd& theirs) {
  for (const char* const name : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    std::ifstream table(name);
    const auto line = find_tcp_line(table, theirs, ours);
    if (line && is_connected(line->state) && line->inode != 0) return {.user = somebody(line->uid)};
  }
  return {};
}

Owner owner_of(const TcpEnd& ours, const TcpEnd& theirs) {
  const bool v4 = IN6_IS_ADDR_V4MAPPED(&ours.address) && IN6_IS_ADDR_V4MAPPED(&theirs.address);
  const unsigned family = v4 ? AF_INET : AF_INET6;
  if (given_netlink >= 0) {
    forget_answers(given_netlink);
    return ask(given_netlink, family, ours, theirs);
  }
  const int netlink =
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
  if (netlink < 0) return is_forbidden(errno) ? look_up(ours, theirs) : Owner();
  const Owner owner = ask(netlink, family, ours, theirs);
  ::close(netlink);
  return owner;
}

// Nobody's if it is no TCP connection.
Owner owner_by_tcp(int fd, const sockaddr_storage& local) {
  sockaddr_storage remote{};
  socklen_t size = sizeof remote;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&remote), &size) != 0) return {};
  const auto ours = tcp_end(local);
  const auto theirs = tcp_end(remote);
  return ours && theirs ? owner_of(*ours, *theirs) : Owner();
}

bool local_address_of(int fd, sockaddr_storage& local) {
  socklen_t size = sizeof local;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0;
}

}  // namespace

bool TcpEnd::operator==(const TcpEnd& other) const {
  return port == other.port && std::memcmp(&address, &other.address, sizeof address) == 0;
}

Peer tcp_peer(const TcpEnd& ours, const TcpEnd& theirs) { return owner_of(ours, theirs).user; }

void ask_peers_through(int netlink) {
  if (given_netlink >= 0) ::close(given_netlink);
  given_netlink = netlink;
}

Peer peer_of(int fd) {
  sockaddr_storage local{};
  if (!local_address_of(fd, local)) return std::nullopt;
  if (local.ss_family != AF_UNIX) return owner_by_tcp(fd, local).user;
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return std::nullopt;
  return somebody(credentials.uid);
}

std::uint64_t cgroup_of(int fd) {
  sockaddr_storage local{};
  if (!local_address_of(fd, local) || local.ss_family == AF_UNIX) return 0;
  return owner_by_tcp(fd, local).cgroup;
}

}  // namespace staithe::proxy
