#include "daemon/kubelet_request.h"

#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <utility>

#include "cache/escape.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using proxy::auth::wipe;

constexpr std::array<std::string_view, 3> api_versions{
    "credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1"};
constexpr std::string_view request_kind = "CredentialProviderRequest";
constexpr std::string_view token_field = "serviceAccountToken";
constexpr std::string_view annotations_field = "serviceAccountAnnotations";
constexpr std::size_t max_depth = 4;
constexpr std::size_t max_annotations = 256;

// The parser's events, as it meets them: what a document tree would lose, a field that stands there
// twice, is still to be seen here.
class Reader {
 public:
  constexpr static std::size_t max_object_size = 1024;
  constexpr static std::size_t max_array_size = 1024;
  constexpr static std::size_t max_key_size = 4096;
  constexpr static std::size_t max_string_size = kMaxKubeletRequestBytes;

  using Code = json::error_code;
  using View = json::string_view;

  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    wipe(text_);
    for (auto& [name, value] : fields) wipe(value);
  }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code& code) {
    if (++depth_ == 1) return true;
    if (depth_ == 2 && key_ == annotations_field) {
      has_annotations = true;
      return true;
    }
    return stop(code, wrong_type());
  }
  bool on_object_end(std::size_t, Code&) {
    if (--depth_ == 1) names_.clear();
    return true;
  }
  bool on_array_begin(Code& code) { return stop(code, wrong_type()); }
  bool on_array_end(std::size_t, Code&) { return true; }
  bool on_key_part(View part, std::size_t, Code&) {
    text_.append(part);
    return true;
  }
  bool on_key(View part, std::size_t, Code& code) {
    text_.append(part);
    std::string& key = depth_ == 1 ? key_ : annotation_;
    key = std::exchange(text_, {});
    if (depth_ == 2) {
      if (annotations.size() == max_annotations)
        return stop(code, std::string(annotations_field) + " has more entries than anybody needs");
      if (!names_.insert(key).second) return stop(code, field() + " is there twice");
      return true;
    }
    if (!seen_.insert(key).second) return stop(code, field() + " is there twice");
    constexpr std::array<std::string_view, 5> known{"apiVersion", "kind", "image", token_field,
                                                    annotations_field};
    if (std::ranges::find(known, key) == known.end())
      return stop(code, field() + " is not a field of a CredentialProviderRequest");
    return true;
  }
  bool on_string_part(View part, std::size_t, Code&) {
    text_.append(part);
    return true;
  }
  bool on_string(View part, std::size_t, Code& code) {
    text_.append(part);
    if (depth_ == 0 || (depth_ == 1 && key_ == annotations_field)) return stop(code, wrong_type());
    if (depth_ == 1) {
      fields[key_] = std::exchange(text_, {});
    } else {
      annotations[annotation_] = std::exchange(text_, {});
    }
    return true;
  }
  bool on_number_part(View, Code&) { return true; }
  bool on_int64(std::int64_t, View, Code& code) { return stop(code, wrong_type()); }
  bool on_uint64(std::uint64_t, View, Code& code) { return stop(code, wrong_type()); }
  bool on_double(double, View, Code& code) { return stop(code, wrong_type()); }
  bool on_bool(bool, Code& code) { return stop(code, wrong_type()); }
  bool on_null(Code& code) { return stop(code, wrong_type()); }
  bool on_comment_part(View, Code&) { return true; }
  bool on_comment(View, Code&) { return true; }

  std::map<std::string, std::string, std::less<>> fields;
  std::map<std::string, std::string, std::less<>> annotations;
  bool has_annotations = false;
  std::string fault;  // what is wrong, if it is not the JSON itself

 private:
  // The field in which the parser stands.
  std::string field() const {
    const std::string name = printable(key_, 80);
    return names_.empty() ? name : name + "[\"" + printable(annotation_, 80) + "\"]";
  }
  std::string wrong_type() const {
    if (depth_ == 0) return "the request is not an object";
    if (key_ == annotations_field && names_.empty()) return key_ + " is not an object of strings";
    return field() + " is not a string";
  }
  bool stop(Code& code, std::string what) {
    fault = std::move(what);
    code = json::error::syntax;
    return false;
  }

  std::size_t depth_ = 0;
  std::string text_;
  std::string key_;
  std::string annotation_;
  std::set<std::string, std::less<>> seen_;
  std::set<std::string, std::less<>> names_;  // of the annotations, while they are read
};

std::unexpected<Error> refuse(const std::string& why) {
  return fail(Errc::bad_request, "kubelet's request cannot be read: " + why);
}

}  // namespace

Result<KubeletRequest> parse_kubelet_request(std::string_view text) {
  if (text.size() > kMaxKubeletRequestBytes) return refuse("it is larger than 1 MiB");
  json::parse_options options;
  options.max_depth = max_depth;
  json::basic_parser<Reader> parser(options);
  json::error_code error;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
  Reader& reader = parser.handler();
  if (!reader.fault.empty()) return refuse(reader.fault);
  if (error) return refuse("it is not JSON (" + error.message() + ")");
  if (text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    return refuse("something follows its end");

  const auto take = [&](std::string_view name) {
    const auto found = reader.fields.find(name);
    return found == reader.fields.end() ? std::string() : std::move(found->second);
  };
  KubeletRequest request;
  request.api_version = take("apiVersion");
  if (std::ranges::find(api_versions, request.api_version) == api_versions.end()) {
    return refuse(
        "apiVersion is not credentialprovider.kubelet.k8s.io/v1, v1beta1 or v1alpha1: set it in "
        "the CredentialProviderConfig");
  }
  if (take("kind") != request_kind) return refuse("kind is not CredentialProviderRequest");
  // The token mode came with v1; in the older versions these names are as unknown as any other.
  for (const std::string_view name : {token_field, annotations_field}) {
    const bool there = name == token_field ? reader.fields.contains(name) : reader.has_annotations;
    if (there && request.api_version != api_versions.front())
      return refuse(std::string(name) + " is not a field of this apiVersion");
  }
  request.image = take("image");
  if (request.image.empty()) return refuse("image is missing or empty");
  request.service_account_token = proxy::auth::Secret::take(take(token_field));
  request.service_account_annotations = std::move(reader.annotations);
  return request;
}

std::string to_json(const KubeletAnswer& answer) {
  const json::storage_ptr memory = proxy::auth::wiping_memory();
  json::object object(memory);
  object["apiVersion"] = answer.api_version;
  object["kind"] = "CredentialProviderResponse";
  object["cacheKeyType"] = answer.cache_key == CacheKey::image ? "Image" : "Registry";
  if (answer.cache_duration) object["cacheDuration"] = go_duration(*answer.cache_duration);
  if (!answer.host.empty()) {
    json::object entry(memory);
    entry["username"] = answer.username;
    entry["password"] = answer.password.reveal();
    json::object auth(memory);
    auth[answer.host] = std::move(entry);
    object["auth"] = std::move(auth);
  }
  return json::serialize(object);
}

std::string go_duration(std::chrono::seconds duration) {
  const auto seconds = duration.count();
  std::string text;
  if (seconds >= 3600) text += std::to_string(seconds / 3600) + "h";
  if (seconds >= 60) text += std::to_string(seconds / 60 % 60) + "m";
  return text + std::to_string(seconds % 60) + "s";
}

std::optional<std::chrono::seconds> cache_duration(std::optional<std::chrono::seconds> life) {
  constexpr std::chrono::minutes margin{5};
  if (!life) return std::nullopt;
  return std::max<std::chrono::seconds>(*life - margin, std::chrono::seconds(0));
}

}  // namespace staithe::daemon
