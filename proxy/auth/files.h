// Files that hold secrets, read with the checks that they need.
//
// The interface lets tests play the files. PosixFiles is the real one; it reads on a pool, since
// a mounted secret may be on a slow file system.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <filesystem>

#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {

namespace asio = boost::asio;

struct FileRules {
  std::size_t max_bytes = std::size_t{64} * 1024;
  // Nobody else may read or write it: owned by us or root, and no right for others. Its group may
  // read it. What a service manager or kubelet mounts for us alone (a projected token) is let off.
  bool is_private = true;
  // The file itself, not what a link points to. Kubernetes mounts secrets as links.
  bool may_be_link = true;
};

class Files {
 public:
  virtual ~Files() = default;
  // The whole file. Throws Failure(identity_missing) with a sentence that names the file, what is
  // wrong with it, and the remedy.
  virtual asio::awaitable<Secret> read(std::filesystem::path path, FileRules rules) = 0;
};

class PosixFiles final : public Files {
 public:
  // `pool` outlives this.
  explicit PosixFiles(asio::thread_pool& pool) : pool_(pool) {}
  asio::awaitable<Secret> read(std::filesystem::path path, FileRules rules) override;

 private:
  asio::thread_pool& pool_;
};

// The text without the line end that editors and `echo` leave. A view into `text`.
std::string_view without_line_end(std::string_view text);

}  // namespace staithe::proxy::auth
