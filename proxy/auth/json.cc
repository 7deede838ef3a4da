#include "proxy/auth/json.h"

#include <openssl/crypto.h>

#include <boost/json/memory_resource.hpp>
#include <boost/json/parser.hpp>
#include <boost/json/storage_ptr.hpp>
#include <charconv>
#include <cmath>
#include <new>
#include <string>

#include "cache/escape.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_depth = 8;

// The heap, wiped on the way back.
class WipingMemory final : public json::memory_resource {
 private:
  // Boost 1.81 gives strings back with another alignment than it asked for, so the one that every
  // allocation has must do for all.
  void* do_allocate(std::size_t size_bytes, std::size_t alignment) override {
    if (alignment > __STDCPP_DEFAULT_NEW_ALIGNMENT__) throw std::bad_alloc();
    return ::operator new(size_bytes);
  }
  void do_deallocate(void* memory, std::size_t size_bytes, std::size_t /*alignment*/) override {
    OPENSSL_cleanse(memory, size_bytes);
    ::operator delete(memory);
  }
  bool do_is_equal(const json::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

std::unexpected<Error> wrong(std::string_view name, std::string_view expected) {
  return fail(Errc::upstream_nonsense,
              "the answer's '" + printable(name, 40) + "' is not " + std::string(expected));
}

}  // namespace

json::storage_ptr wiping_memory() { return json::make_shared_resource<WipingMemory>(); }

Result<json::value> parse_json_object(std::string_view text) {
  json::parse_options options;
  options.max_depth = max_depth;
  const json::storage_ptr memory = wiping_memory();
  json::parser parser(memory, options);
  parser.reset(memory);
  json::error_code error;
  parser.write(text.data(), text.size(), error);
  if (error) return fail(Errc::upstream_nonsense, "the answer is not JSON: " + error.message());
  json::value value = parser.release();
  if (!value.is_object()) return fail(Errc::upstream_nonsense, "the answer is not a JSON object");
  return value;
}

Result<std::string_view> text_field(const json::object& object, std::string_view name) {
  const json::value* field = object.if_contains(name);
  if (!field || field->is_null()) return std::string_view();
  const json::string* text = field->if_string();
  if (!text) return wrong(name, "a string");
  return std::string_view(text->data(), text->size());
}

Result<std::optional<std::int64_t>> number_field(const json::object& object,
                                                 std::string_view name) {
  const json::value* field = object.if_contains(name);
  if (!field || field->is_null()) return std::nullopt;
  if (const auto* number = field->if_int64()) return *number;
  if (const auto* number = field->if_double()) {
    // RFC 7519 allows fractions in dates; what lies below the second does not matter here.
    if (std::isfinite(*number) && std::fabs(*number) < 0x1p53)
      return static_cast<std::int64_t>(std::floor(*number));
    return wrong(name, "a usable number");
  }
  if (const json::string* text = field->if_string()) {
    if (text->empty()) return std::nullopt;
    std::int64_t number = 0;
    const char* end = text->data() + text->size();
    const auto [stop, failed] = std::from_chars(text->data(), end, number);
    if (failed == std::errc() && stop == end) return number;
  }
  return wrong(name, "a whole number");
}

}  // namespace staithe::proxy::auth
