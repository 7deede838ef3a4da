#include "proxy/http.h"

#include <algorithm>

namespace staithe::proxy {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

bool iequals(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

const std::string* Headers::find(std::string_view name) const {
  const auto found =
      std::ranges::find_if(fields_, [&](const Field& field) { return iequals(field.first, name); });
  return found == fields_.end() ? nullptr : &found->second;
}

std::vector<std::string_view> Headers::all(std::string_view name) const {
  std::vector<std::string_view> values;
  for (const Field& field : fields_) {
    if (iequals(field.first, name)) values.emplace_back(field.second);
  }
  return values;
}

asio::awaitable<std::string> read_all(HttpResponse& response, std::size_t limit) {
  std::string body;
  std::vector<char> piece;
  while (co_await response.read(piece)) {
    if (piece.size() > limit - body.size()) {
      throw Failure(Errc::too_large,
                    "the answer is longer than " + std::to_string(limit) + " bytes");
    }
    body.append(piece.data(), piece.size());
  }
  co_return body;
}

}  // namespace staithe::proxy
