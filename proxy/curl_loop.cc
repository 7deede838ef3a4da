#include "proxy/curl_loop.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>

#include "cache/escape.h"

namespace staithe::proxy {

namespace {

constexpr std::size_t max_buffered_bytes = 1024 * 1024;  // of one body, before curl is paused
constexpr long curl_buffer_bytes = 256 * 1024;           // one read from the socket
// Of a body, so much comes before its head is looked at, and before its first bytes go on their
// way; then each time twice as much. curl reads on as long as there is something, a whole megabyte
// before anybody else has a turn.
constexpr std::size_t first_buffered_bytes = 64 * 1024;
constexpr long max_idle_connections = 64;
// Azure's load balancers forget idle connections after 4 minutes, S3 and CDNs after less; a
// connection older than this may be dead without a sign.
constexpr long max_idle_seconds = 55;
// A body that comes more slowly than this, over `stall` of waiting for it, does not come at all.
constexpr std::size_t stalled_below_bytes_per_second = 1024;
constexpr const char* system_certificates = "/etc/ssl/certs/ca-certificates.crt";
constexpr const char* system_certificate_directory = "/etc/ssl/certs";

void check(CURLcode code) {
  if (code != CURLE_OK)
    throw Failure(Errc::unreachable, std::string("libcurl: ") + curl_easy_strerror(code));
}

template <class T>
void set(CURL* easy, CURLoption option, T value) {
  check(curl_easy_setopt(easy, option, value));
}

// Header fields as curl takes them; wiped, since one may be a token.
struct FreeFields {
  void operator()(curl_slist* list) const {
    for (curl_slist* item = list; item; item = item->next)
      OPENSSL_cleanse(item->data, std::char_traits<char>::length(item->data));
    curl_slist_free_all(list);
  }
};
using Fields = std::unique_ptr<curl_slist, FreeFields>;

void append(Fields& fields, const std::string& line) {
  curl_slist* longer = curl_slist_append(fields.get(), line.c_str());
  if (!longer) throw std::bad_alloc();
  fields.release();
  fields.reset(longer);
}

// Nothing for anything but IPv4 and IPv6.
std::optional<asio::ip::address> address_in(const curl_sockaddr& from) {
  if (from.family == AF_INET && from.addrlen >= sizeof(sockaddr_in)) {
    sockaddr_in v4{};
    std::memcpy(&v4, &from.addr, sizeof v4);
    return asio::ip::address_v4(ntohl(v4.sin_addr.s_addr));
  }
  if (from.family == AF_INET6 && from.addrlen >= sizeof(sockaddr_in6)) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &from.addr, sizeof v6);
    asio::ip::address_v6::bytes_type bytes;
    static_assert(sizeof bytes == sizeof v6.sin6_addr);
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return asio::ip::address_v6(bytes);
  }
  return std::nullopt;
}

Errc classify(CURLcode code) {
  switch (code) {
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return Errc::upstream_failed;
    case CURLE_WRITE_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
      return Errc::upstream_nonsense;
    default:
      return Errc::unreachable;
  }
}

}  // namespace

// One exchange, from the request to the end of the body.
class CurlLoop::Transfer final : public HttpResponse {
 public:
  Transfer(std::shared_ptr<Impl> impl, HttpRequest request);
  ~Transfer() override;

  asio::awaitable<void> start();

  int status() const override { return status_; }
  const Headers& headers() const override { return headers_; }
  asio::awaitable<bool> read(std::vector<char>& piece) override;

  void done(CURLcode code) {
    ended_ = code;
    wake_.cancel();
  }

 private:
  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self);
  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self);
  static curl_socket_t on_open_socket(void* self, curlsocktype, curl_sockaddr* address);
  static CURLcode on_ssl_context(CURL*, void* context, void* self);
  static int on_certificate(X509_STORE_CTX* chain, void* self);
  [[noreturn]] void throw_ended();
  // Throws if the body comes too slowly.
  void check_pace();
  std::string where() const { return request_.url.origin().to_string(); }
  // The host whose address is dialled.
  std::string_view dialled_host() const {
    const std::string_view other = request_.connect_to;
    return other.empty() ? std::string_view(request_.url.origin().host)
                         : other.substr(0, other.rfind(':'));
  }

  std::shared_ptr<Impl> impl_;
  HttpRequest request_;
  CURL* easy_ = nullptr;
  Fields fields_;
  Fields connect_to_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  bool added_ = false;

  int status_ = 0;
  Headers headers_;
  std::size_t head_bytes_ = 0;
  bool head_whole_ = false;
  bool head_too_large_ = false;
  std::vector<char> body_;
  std::size_t enough_bytes_ = first_buffered_bytes;  // of it, until somebody has read them
  bool paused_ = false;
  std::optional<CURLcode> ended_;
  std::optional<Error> refused_;  // to dial an address of the host, the first of them
  // Of the body, since its pace was last looked at: what came, and how long that was waited for.
  std::size_t came_bytes_ = 0;
  std::chrono::steady_clock::duration waited_{};
  asio::steady_timer wake_;  // cancelled when something changed; expires at the phase's deadline
};

class CurlLoop::Impl : public std::enable_shared_from_this<Impl> {
 public:
  explicit Impl(asio::any_io_executor loop) : loop_(loop), timer_(loop) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    multi_ = curl_multi_init();
    if (!multi_) throw std::bad_alloc();
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &Impl::on_socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &Impl::on_timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, max_idle_connections);
  }
  ~Impl() { close(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void close() {
    if (!multi_) return;
    curl_multi_cleanup(std::exchange(multi_, nullptr));
    timer_.cancel();
  }

  const asio::any_io_executor& loop() const { return loop_; }

  void add(CURL* easy) {
    if (curl_multi_add_handle(multi_, easy) != CURLM_OK) throw std::bad_alloc();
  }
  void remove(CURL* easy) {
    if (multi_) curl_multi_remove_handle(multi_, easy);
  }

 private:
  // A descriptor of curl's that Asio waits on. Handlers hold it and do nothing once it is no
  // longer wanted.
  struct Watch {
    explicit Watch(asio::any_io_executor loop, int fd) : descriptor(loop, fd) {}
    asio::posix::stream_descriptor descriptor;
    int wanted = 0;  // CURL_CSELECT_IN and _OUT bits
    bool waiting_in = false;
    bool waiting_out = false;
  };

  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) {
    static_cast<Impl*>(self)->watch(fd, what);
    return 0;
  }

  static int on_timer(CURLM*, long milliseconds, void* self) {
    auto* impl = static_cast<Impl*>(self);
    if (milliseconds < 0) {
      impl->timer_.cancel();
      return 0;
    }
    impl->timer_.expires_after(std::chrono::milliseconds(milliseconds));
    impl->timer_.async_wait([weak = impl->weak_from_this()](boost::system::error_code error) {
      if (error) return;
      if (const auto alive = weak.lock()) alive->act(CURL_SOCKET_TIMEOUT, 0);
    });
    return 0;
  }

  void watch(int fd, int what) {
    auto it = watches_.find(fd);
    if (what == CURL_POLL_REMOVE) {
      if (it == watches_.end()) return;
      it->second->wanted = 0;
      it->second->descriptor.release();  // curl owns it, and the number may return at once.
      watches_.erase(it);
      return;
    }
    if (it == watches_.end()) it = watches_.emplace(fd, std::make_shared<Watch>(loop_, fd)).first;
    it->second->wanted =
        (what & CURL_POLL_IN ? CURL_CSELECT_IN : 0) | (what & CURL_POLL_OUT ? CURL_CSELECT_OUT : 0);
    arm(fd, it->second);
  }

  void arm(int fd, const std::shared_ptr<Watch>& watch) {
    if ((watch->wanted & CURL_CSELECT_IN) && !std::exchange(watch->waiting_in, true)) {
      watch->descriptor.async_wait(asio::posix::descriptor_base::wait_read,
                                   ready(fd, watch, CURL_CSELECT_IN));
    }
    if ((watch->wanted & CURL_CSELECT_OUT) && !std::exchange(watch->waiting_out, true)) {
      watch->descriptor.async_wait(asio::posix::descriptor_base::wait_write,
                                   ready(fd, watch, CURL_CSELECT_OUT));
    }
  }

  std::function<void(boost::system::error_code)> ready(int fd, std::shared_ptr<Watch> watch,
                                                       int direction) {
    return [weak = weak_from_this(), fd, watch = std::move(watch),
            direction](boost::system::error_code error) {
      (direction == CURL_CSELECT_IN ? watch->waiting_in : watch->waiting_out) = false;
      const auto alive = weak.lock();
      if (!alive || error || !(watch->wanted & direction)) return;
      alive->act(fd, direction);
      if (watch->wanted) alive->arm(fd, watch);
    };
  }

  void act(curl_socket_t fd, int events) {
    if (!multi_) return;
    int running = 0;
    curl_multi_socket_action(multi_, fd, events, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      transfer->done(message->data.result);
    }
  }

  asio::any_io_executor loop_;
  asio::steady_timer timer_;
  CURLM* multi_ = nullptr;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
};

CurlLoop::Transfer::Transfer(std::shared_ptr<Impl> impl, HttpRequest request)
    : impl_(std::move(impl)), request_(std::move(request)), wake_(impl_->loop()) {
  easy_ = curl_easy_init();
  if (!easy_) throw std::bad_alloc();
  const bool https = request_.url.origin().scheme == "https";
  set(easy_, CURLOPT_PRIVATE, this);
  set(easy_, CURLOPT_URL, request_.url.wire().c_str());
  set(easy_, CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
  set(easy_, CURLOPT_FOLLOWLOCATION, 0L);
  set(easy_, CURLOPT_PROXY, "");
  set(easy_, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(easy_, CURLOPT_NOSIGNAL, 1L);
  set(easy_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(easy_, CURLOPT_HTTP09_ALLOWED, 0L);
  set(easy_, CURLOPT_HTTP_CONTENT_DECODING, 0L);
  set(easy_, CURLOPT_USERAGENT, "staithe/" STAITHE_VERSION);
  set(easy_, CURLOPT_BUFFERSIZE, curl_buffer_bytes);
  set(easy_, CURLOPT_MAXAGE_CONN, max_idle_seconds);
  set(easy_, CURLOPT_OPENSOCKETFUNCTION, &Transfer::on_open_socket);
  set(easy_, CURLOPT_OPENSOCKETDATA, this);
  set(easy_, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.limits.connect.count()));
  set(easy_, CURLOPT_ERRORBUFFER, error_text_.data());
  set(easy_, CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(easy_, CURLOPT_HEADERDATA, this);
  set(easy_, CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(easy_, CURLOPT_WRITEDATA, this);
  if (https) {
    // Named, since libcurl and OpenSSL would otherwise take them from the environment.
    set(easy_, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    set(easy_, CURLOPT_CAINFO,
        request_.ca_file.empty() ? system_certificates : request_.ca_file.c_str());
    set(easy_, CURLOPT_CAPATH, system_certificate_directory);
    if (!request_.ca_pem.empty()) {
      curl_blob pem{
          .data = request_.ca_pem.data(), .len = request_.ca_pem.size(), .flags = CURL_BLOB_COPY};
      set(easy_, CURLOPT_CAINFO, static_cast<const char*>(nullptr));
      set(easy_, CURLOPT_CAPATH, static_cast<const char*>(nullptr));
      set(easy_, CURLOPT_CAINFO_BLOB, &pem);
    }
    if (!request_.certificate_thumbprint.empty()) {
      set(easy_, CURLOPT_SSL_VERIFYHOST, 0L);  // The one certificate is the proof.
      set(easy_, CURLOPT_SSL_CTX_FUNCTION, &Transfer::on_ssl_context);
      set(easy_, CURLOPT_SSL_CTX_DATA, this);
      // A connection that was verified in another way is not for this, nor this one for others.
      set(easy_, CURLOPT_FRESH_CONNECT, 1L);
      set(easy_, CURLOPT_FORBID_REUSE, 1L);
      set(easy_, CURLOPT_SSL_SESSIONID_CACHE, 0L);  // A resumed session shows no certificate.
    }
  }
  if (!request_.connect_to.empty()) {
    append(connect_to_, "::" + request_.connect_to);
    set(easy_, CURLOPT_CONNECT_TO, connect_to_.get());
  }
  if (request_.method == "HEAD") {
    set(easy_, CURLOPT_NOBODY, 1L);
  } else if (request_.method == "POST") {
    set(easy_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
    set(easy_, CURLOPT_POSTFIELDS, request_.body.data());
    append(fields_, "Expect:");  // No pause for a 100 Continue that token servers never send.
  } else {
    assert(request_.method == "GET");
  }
  for (const auto& [name, value] : request_.headers.fields()) {
    if (name.find_first_of("\r\n:") != std::string::npos ||
        value.find_first_of("\r\n") != std::string::npos)
      throw Failure(Errc::bad_request, "a header field with a line break is not sent");
    append(fields_, name + ": " + value);
  }
  set(easy_, CURLOPT_HTTPHEADER, fields_.get());
}

CurlLoop::Transfer::~Transfer() {
  if (added_) impl_->remove(easy_);
  curl_easy_cleanup(easy_);
  OPENSSL_cleanse(request_.body.data(), request_.body.size());
}

asio::awaitable<void> CurlLoop::Transfer::start() {
  impl_->add(easy_);
  added_ = true;
  const auto deadline =
      std::chrono::steady_clock::now() + request_.limits.connect + request_.limits.first_byte;
  while (!head_whole_ && !ended_) {
    if (std::chrono::steady_clock::now() >= deadline)
      throw Failure(Errc::unreachable, where() + " did not answer within " +
                                           std::to_string(request_.limits.first_byte.count()) +
                                           " ms");
    wake_.expires_at(deadline);
    co_await wake_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  if (!head_whole_) throw_ended();
}

asio::awaitable<bool> CurlLoop::Transfer::read(std::vector<char>& piece) {
  const auto began = std::chrono::steady_clock::now();
  const auto deadline = began + request_.limits.stall;
  while (body_.empty()) {
    if (ended_) {
      if (*ended_ == CURLE_OK) co_return false;
      throw_ended();
    }
    if (std::chrono::steady_clock::now() >= deadline)
      throw Failure(Errc::unreachable, where() + " sent nothing for " +
                                           std::to_string(request_.limits.stall.count()) +
                                           " ms in the middle of a body");
    wake_.expires_at(deadline);
    co_await wake_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  piece.clear();
  piece.swap(body_);
  enough_bytes_ = std::min(2 * enough_bytes_, max_buffered_bytes);
  if (std::exchange(paused_, false)) curl_easy_pause(easy_, CURLPAUSE_CONT);
  came_bytes_ += piece.size();
  waited_ += std::chrono::steady_clock::now() - began;
  check_pace();
  co_return true;
}

void CurlLoop::Transfer::check_pace() {
  if (waited_ < request_.limits.stall) return;
  const double seconds = std::chrono::duration<double>(waited_).count();
  if (static_cast<double>(came_bytes_) < seconds * stalled_below_bytes_per_second && !ended_)
    throw Failure(Errc::unreachable, where() + " sent only " + std::to_string(came_bytes_) +
                                         " bytes of a body in " +
                                         std::to_string(request_.limits.stall.count()) + " ms");
  came_bytes_ = 0;
  waited_ = {};
}

std::size_t CurlLoop::Transfer::on_header(char* data, std::size_t, std::size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (transfer.head_whole_) return size;  // Trailers mean nothing here.
  transfer.head_bytes_ += size;
  if (transfer.head_bytes_ > transfer.request_.limits.head_bytes) {
    transfer.head_too_large_ = true;
    return 0;
  }
  std::string_view line(data, size);
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {
    transfer.headers_ = Headers();
  } else if (line.empty()) {
    long status = 0;
    curl_easy_getinfo(transfer.easy_, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200) {  // Else an interim response; the final one follows.
      transfer.status_ = static_cast<int>(status);
      transfer.head_whole_ = true;
      transfer.wake_.cancel();
    }
  } else if (const std::size_t colon = line.find(':'); colon != std::string_view::npos) {
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
    while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
    transfer.headers_.add(std::string(line.substr(0, colon)), std::string(value));
  }
  return size;
}

std::size_t CurlLoop::Transfer::on_body(char* data, std::size_t, std::size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  std::vector<char>& body = transfer.body_;
  if (!body.empty() && body.size() + size > max_buffered_bytes) {
    transfer.paused_ = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  // What has come this far is a large one: no growing, and copying, step by step.
  if (body.size() + size > body.capacity() && body.size() + size > first_buffered_bytes)
    body.reserve(max_buffered_bytes);
  body.insert(body.end(), data, data + size);
  transfer.wake_.cancel();
  // In time, since what curl has read and cannot deliver it copies.
  if (body.size() >= transfer.enough_bytes_ ||
      body.size() + curl_buffer_bytes > max_buffered_bytes) {
    transfer.paused_ = true;
    curl_easy_pause(transfer.easy_, CURLPAUSE_RECV);
  }
  return size;
}

// Called for each address that is tried, when everything that could change it has been done.
curl_socket_t CurlLoop::Transfer::on_open_socket(void* self, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(self);
  const auto target = address_in(*address);
  if (!target) return CURL_SOCKET_BAD;
  if (auto allowed = may_dial(transfer.request_.host_named_by, transfer.dialled_host(), *target);
      !allowed) {
    if (!transfer.refused_) transfer.refused_ = std::move(allowed.error());
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

CURLcode CurlLoop::Transfer::on_ssl_context(CURL*, void* context, void* self) {
  SSL_CTX_set_cert_verify_callback(static_cast<SSL_CTX*>(context), &Transfer::on_certificate, self);
  return CURLE_OK;
}

int CurlLoop::Transfer::on_certificate(X509_STORE_CTX* chain, void* self) {
  const auto& transfer = *static_cast<Transfer*>(self);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned size = 0;
  const X509* certificate = X509_STORE_CTX_get0_cert(chain);
  if (!certificate || X509_digest(certificate, EVP_sha1(), hash.data(), &size) != 1) return 0;
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    constexpr std::string_view digits = "0123456789abcdef";
    hex += digits[hash[i] >> 4];
    hex += digits[hash[i] & 0xf];
  }
  const bool good = iequals(hex, transfer.request_.certificate_thumbprint);
  X509_STORE_CTX_set_error(chain, good ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
  return good ? 1 : 0;
}

void CurlLoop::Transfer::throw_ended() {
  if (head_too_large_)
    throw Failure(Errc::upstream_nonsense, where() + " sent a response head of more than " +
                                               std::to_string(request_.limits.head_bytes) +
                                               " bytes");
  const CURLcode code = ended_.value_or(CURLE_OK);
  if (code == CURLE_OK) throw Failure(Errc::upstream_nonsense, where() + " sent no HTTP response");
  // Of a host with other addresses besides, what became of those is the news.
  if (refused_ && code == CURLE_COULDNT_CONNECT) throw Failure(*refused_);
  if (code == CURLE_OUT_OF_MEMORY)  // What libcurl calls a header line beyond its own limit.
    throw Failure(Errc::upstream_nonsense, where() + " sent a header line of more than 100 KiB");
  const char* cause = error_text_[0] ? error_text_.data() : curl_easy_strerror(code);
  throw Failure(classify(code), where() + ": " + printable(cause, 300));
}

CurlLoop::CurlLoop(asio::any_io_executor loop) {
  for (auto& pool : pools_) pool = std::make_shared<Impl>(loop);
}

CurlLoop::~CurlLoop() {
  for (const auto& pool : pools_) pool->close();
}

asio::awaitable<std::unique_ptr<HttpResponse>> CurlLoop::send(HttpRequest request) {
  const auto& pool = pools_.at(static_cast<std::size_t>(request.host_named_by));
  auto transfer = std::make_unique<Transfer>(pool, std::move(request));
  co_await transfer->start();
  co_return transfer;
}

}  // namespace staithe::proxy
