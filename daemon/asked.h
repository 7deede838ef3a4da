// What a request to the control socket says in its body: a JSON object of texts. Pure, for hostile
// input.
#pragma once

#include <boost/json/value.hpp>
#include <span>
#include <string_view>
#include <utility>

namespace staithe::daemon {

// Its memory is wiped when it goes, since a field may hold a secret.
class Asked {
 public:
  // `fields` are all that the request may have; an empty body has none of them. Throws
  // Failure(bad_request), whose sentence quotes nothing that is not one of these names.
  static Asked parse(std::string_view body, std::span<const std::string_view> fields);

  // Empty if it is not there.
  std::string_view operator[](std::string_view field) const;
  bool has(std::string_view field) const { return document_.get_object().contains(field); }

 private:
  explicit Asked(boost::json::value document) : document_(std::move(document)) {}

  boost::json::value document_;
};

}  // namespace staithe::daemon
