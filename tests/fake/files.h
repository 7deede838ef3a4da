// Files, played by a test: a text or an error by path; what was asked is remembered.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cache/error.h"
#include "proxy/auth/files.h"

namespace staithe::fake {

class FakeFiles final : public proxy::auth::Files {
 public:
  struct Asked {
    std::filesystem::path path;
    proxy::auth::FileRules rules;
  };

  void write(const std::filesystem::path& path, std::string text) {
    texts_[path] = std::move(text);
  }
  void remove(const std::filesystem::path& path) { texts_.erase(path); }

  asio::awaitable<proxy::auth::Secret> read(std::filesystem::path path,
                                            proxy::auth::FileRules rules) override {
    asked.push_back({path, rules});
    const auto found = texts_.find(path);
    if (found == texts_.end())
      throw Failure(Errc::identity_missing, "the file " + path.string() + " cannot be read");
    if (found->second.size() > rules.max_bytes)
      throw Failure(Errc::identity_missing,
                    "the file " + path.string() + " is longer than allowed");
    co_return proxy::auth::Secret(found->second);
  }

  std::vector<Asked> asked;

 private:
  std::map<std::filesystem::path, std::string> texts_;
};

}  // namespace staithe::fake
