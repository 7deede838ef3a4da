// Reads JSON whose shape nobody has checked: absent and mistyped look alike.
#pragma once

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "cache/escape.h"

namespace staithe::daemon {

class JsonReader {
 public:
  // `value` outlives the reader; null is absent.
  explicit JsonReader(const boost::json::value* value) : value_(value) {}

  JsonReader operator[](std::string_view key) const {
    const boost::json::object* object = value_ ? value_->if_object() : nullptr;
    return JsonReader(object ? object->if_contains(key) : nullptr);
  }
  std::vector<JsonReader> items(std::size_t most) const {
    std::vector<JsonReader> result;
    const boost::json::array* array = value_ ? value_->if_array() : nullptr;
    if (!array) return result;
    for (const boost::json::value& item : *array) {
      if (result.size() == most) break;
      result.emplace_back(&item);
    }
    return result;
  }
  std::size_t size() const {
    const boost::json::array* array = value_ ? value_->if_array() : nullptr;
    return array ? array->size() : 0;
  }
  // Escaped; empty if it is not a text.
  std::string text(std::size_t most_bytes = 300) const {
    const boost::json::string* text = value_ ? value_->if_string() : nullptr;
    return text ? printable(*text, most_bytes) : std::string();
  }
  bool is_true() const { return value_ && value_->is_bool() && value_->get_bool(); }
  bool is_number() const { return value_ && value_->is_number(); }
  bool is_object() const { return value_ && value_->is_object(); }
  double number() const { return is_number() ? value_->to_number<double>(ignored_) : 0; }
  // As a whole number, "0" if it is none.
  std::string count() const {
    if (!is_number()) return "0";
    char text[32];
    std::snprintf(text, sizeof text, "%.0f", std::clamp(number(), 0.0, 1e15));
    return text;
  }

 private:
  const boost::json::value* value_;
  mutable boost::system::error_code ignored_;
};

}  // namespace staithe::daemon
