#include "daemon/cli_cache.h"

#include <CLI/CLI.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <utility>
#include <vector>

#include "cache/escape.h"
#include "daemon/cli_output.h"
#include "daemon/image_name.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;

constexpr std::size_t kShortDigest = 19;  // "sha256:" and twelve digits
constexpr std::size_t kMaxName = 300;
// A list of 100,000 blobs is some 25 MiB.
constexpr std::size_t kMaxListBytes = 512UL << 20;
// Many files, on a slow disk.
constexpr auto kListPatience = 120s;
constexpr auto kPurgePatience = 1800s;

int wrong_usage(const CliContext& context, std::string_view command, std::string_view what) {
  context.err << "staithe: " << what << " (see staithe " << command << " --help)\n";
  return kExitBadUsage;
}

ControlError other_version() {
  return {false,
          "staithed's answer does not say what was asked for: staithe and staithed are of "
          "different versions"};
}

std::string text_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? printable(value->get_string(), kMaxName) : std::string();
}

std::optional<double> number_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (!value || !value->is_number()) return std::nullopt;
  boost::system::error_code ignored;
  return value->to_number<double>(ignored);
}

bool is_true(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_bool() && value->get_bool();
}

std::string bytes_of(const json::object& object, std::string_view key) {
  const auto bytes = number_of(object, key);
  return bytes ? show_bytes(*bytes) : "-";
}

// "3h 4m ago".
std::string used(const json::object& object, const CliContext& context) {
  const auto when = number_of(object, "last_used_unix_seconds");
  if (!when) return "-";
  const auto now = std::chrono::duration<double>(context.now().time_since_epoch()).count();
  return now - *when < 1 ? "now" : show_seconds(now - *when) + " ago";
}

std::string short_digest(const json::object& object) {
  const std::string digest = text_of(object, "digest");
  return digest.empty() ? "-" : digest.substr(0, kShortDigest);
}

const json::array* list_of(const json::value& answer, std::string_view name) {
  const json::object* object = answer.if_object();
  const json::value* list = object ? object->if_contains(name) : nullptr;
  return list ? list->if_array() : nullptr;
}

Row header(std::initializer_list<const char*> names) {
  Row row;
  for (const char* name : names) row.cells.push_back({name, Tone::faint});
  return row;
}

std::string counted(double number, std::string_view what) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f ", number);
  return text + std::string(what) + (number == 1 ? "" : "s");
}

std::string question(const std::string& image) {
  return json::serialize(json::object{{"image", image}});
}

}  // namespace

CacheCommands::CacheCommands(CLI::App& app) {
  const auto add = [&](const char* name, const char* what, const char* footer) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_flag("--json", as_json_, "JSON instead of text");
    command->footer(footer);
    return command;
  };
  const auto add_image = [&](CLI::App* command) {
    return command
        ->add_option("image", image_, "As docker takes it: busybox, contoso.azurecr.io/app:1")
        ->type_name("IMAGE");
  };
  ls_ = add("ls", "The images that are cached",
            "Examples:\n  staithe ls\n  staithe ls --blobs --json\n"
            "CACHED is yes where a client finds all of the image here, of the platforms that\n"
            "somebody has pulled; else how much of what it needs. Images share blobs: their\n"
            "sizes add up to more than the cache holds.");
  ls_->add_flag("--blobs", blobs_, "Every stored blob and manifest, the last used first");

  pin_ = add("pin", "Keep everything that an image needs",
             "Examples:\n  staithe pin contoso.azurecr.io/app:1\n  staithe pin busybox\n"
             "Nothing of it is evicted or purged, until staithe unpin. A tag is followed: when it\n"
             "moves, the new image is kept. An image that is not cached is kept from its next\n"
             "pull on.");
  add_image(pin_)->required();
  unpin_ = add("unpin", "Let a pinned image go again",
               "Example:\n  staithe unpin contoso.azurecr.io/app:1\n"
               "It stays cached for as long as there is room.");
  add_image(unpin_)->required();

  purge_ = add("purge", "Remove an image from the cache, or all, or what was not used for long",
               "Examples:\n"
               "  staithe purge contoso.azurecr.io/app:1\n"
               "  staithe purge --older-than 30d\n"
               "  staithe purge --all\n"
               "What other images need stays, and so does what is pinned. Pulls that are under\n"
               "way end well. Nothing is asked: what is purged can be pulled again.");
  add_image(purge_);
  purge_->add_flag("--all", all_, "Everything but what is pinned");
  purge_->add_option("--older-than", older_than_, "What was not used for so long: 12h, 30d")
      ->type_name("DURATION");
}

std::optional<int> CacheCommands::run(const CliContext& context,
                                      const std::filesystem::path& socket) {
  if (ls_->parsed()) return blobs_ ? list_blobs(context, socket) : list_images(context, socket);
  const bool pins = pin_->parsed() || unpin_->parsed();
  if (!pins && !purge_->parsed()) return std::nullopt;
  if (!image_.empty() || pins) {
    if (const auto name = parse_image_name(image_); !name) {
      return wrong_usage(context,
                         pin_->parsed() ? "pin"
                         : pins         ? "unpin"
                                        : "purge",
                         name.error().detail);
    }
  }
  if (pin_->parsed()) return pin(context, socket);
  if (unpin_->parsed()) return unpin(context, socket);
  return purge(context, socket);
}

int CacheCommands::list_images(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer = control_get(socket, "/v1/images", kListPatience, kMaxListBytes);
  if (!answer) return report(context, answer.error());
  const json::array* images = list_of(*answer, "images");
  if (!images) return report(context, other_version());
  if (as_json_) {
    print_json(context, *answer);
    return finish(context);
  }
  if (images->empty()) {
    context.out << "no image is cached\n";
    return finish(context);
  }
  std::vector<Row> rows{header({"IMAGE", "DIGEST", "SIZE", "CACHED", "LAST USED", "PINNED"})};
  for (const json::value& item : *images) {
    const json::object* image = item.if_object();
    if (!image) continue;
    Span cached{"yes", Tone::good};
    if (!is_true(*image, "complete")) {
      const double here = number_of(*image, "bytes_cached").value_or(0);
      const double needed = number_of(*image, "bytes_needed").value_or(0);
      cached = {here == 0 ? "no" : show_bytes(here), Tone::caution};
      if (here > 0 && needed > here) {
        char text[32];
        std::snprintf(text, sizeof text, "%.0f%%", 100 * here / needed);
        cached.text = text;
      }
    }
    rows.push_back({{{text_of(*image, "name")},
                     {short_digest(*image), Tone::faint},
                     {bytes_of(*image, "bytes_needed")},
                     cached,
                     {used(*image, context)},
                     {is_true(*image, "pinned") ? "pinned" : "-"}},
                    {}});
  }
  context.out << table(rows, 0, context.terminal.style);
  return finish(context);
}

int CacheCommands::list_blobs(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer = control_get(socket, "/v1/blobs", kListPatience, kMaxListBytes);
  if (!answer) return report(context, answer.error());
  const json::array* blobs = list_of(*answer, "blobs");
  if (!blobs) return report(context, other_version());
  if (as_json_) {
    print_json(context, *answer);
    return finish(context);
  }
  if (blobs->empty()) {
    context.out << "nothing is cached\n";
    return finish(context);
  }
  std::vector<Row> rows{
      header({"DIGEST", "KIND", "SIZE", "LAST USED", "VERIFIED", "PINNED", "REPOSITORIES"})};
  for (const json::value& item : *blobs) {
    const json::object* blob = item.if_object();
    if (!blob) continue;
    std::string repositories;
    if (const json::array* list = list_of(item, "repositories")) {
      for (const json::value& repository : *list) {
        if (!repository.is_string()) continue;
        repositories +=
            (repositories.empty() ? "" : ", ") + printable(repository.get_string(), kMaxName);
      }
    }
    rows.push_back({{{short_digest(*blob)},
                     {text_of(*blob, "kind")},
                     {bytes_of(*blob, "bytes")},
                     {used(*blob, context)},
                     {is_true(*blob, "verified") ? "yes" : "-"},
                     {is_true(*blob, "pinned") ? "pinned" : "-"},
                     {repositories.empty() ? "-" : repositories, Tone::faint}},
                    {}});
  }
  context.out << table(rows, 0, context.terminal.style);
  return finish(context);
}

int CacheCommands::pin(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer = control_post(socket, "/v1/pin", question(image_));
  if (!answer) return report(context, answer.error());
  if (as_json_) {
    print_json(context, *answer);
    return finish(context);
  }
  const json::object& pinned = answer->get_object();
  const std::string name = text_of(pinned, "image");
  if (is_true(pinned, "complete")) {
    context.out << name << " is pinned: " << bytes_of(pinned, "bytes_cached") << "\n";
  } else if (number_of(pinned, "bytes_cached").value_or(0) == 0) {
    context.out << name << " is pinned, and not cached yet: it is kept from its next pull on\n";
  } else {
    context.out << name << " is pinned: " << bytes_of(pinned, "bytes_cached") << " of "
                << bytes_of(pinned, "bytes_needed")
                << " are here, the rest is kept from its next pull on\n";
  }
  const double all = number_of(pinned, "pinned_bytes").value_or(0);
  const double most = number_of(pinned, "max_bytes").value_or(0);
  if (all > 0.9 * most) {
    context.err << "staithe: pinned images take " << show_bytes(all) << " of the "
                << show_bytes(most)
                << " that the cache may hold, so little else is stored: raise cache.max_size, or "
                   "unpin some\n";
  }
  return finish(context);
}

int CacheCommands::unpin(const CliContext& context, const std::filesystem::path& socket) {
  const auto answer = control_post(socket, "/v1/unpin", question(image_));
  if (!answer) return report(context, answer.error());
  if (as_json_) {
    print_json(context, *answer);
  } else {
    context.out << text_of(answer->get_object(), "image") << " is not pinned any more\n";
  }
  return finish(context);
}

int CacheCommands::purge(const CliContext& context, const std::filesystem::path& socket) {
  if (!image_.empty() + all_ + !older_than_.empty() != 1) {
    return wrong_usage(context, "purge",
                       "purge takes one of an image's name, --all and --older-than DURATION");
  }
  json::object what;
  if (all_) {
    what["all"] = true;
  } else if (!image_.empty()) {
    what["image"] = image_;
  } else {
    const auto age = parse_duration(older_than_);
    if (!age || *age < 1s) {
      return wrong_usage(context, "purge",
                         "--older-than takes a duration of a second or more, \"12h\" or \"30d\" "
                         "for instance, not " +
                             shown(older_than_));
    }
    what["older_than_seconds"] = std::chrono::duration_cast<std::chrono::seconds>(*age).count();
  }
  const auto answer = control_post(socket, "/v1/purge", json::serialize(what), kPurgePatience);
  if (!answer) return report(context, answer.error());
  const json::object& result = answer->get_object();
  const json::value* removed = result.if_contains("removed");
  const json::value* kept = result.if_contains("kept");
  if (!removed || !removed->is_object() || !kept || !kept->is_object())
    return report(context, other_version());
  const json::array* faults = list_of(*answer, "faults");
  const bool good = !faults || faults->empty();
  if (as_json_) {
    print_json(context, *answer);
  } else {
    const json::object& gone = removed->get_object();
    const auto number = [&](std::string_view key) { return number_of(gone, key).value_or(0); };
    context.out << "removed " << counted(number("tags"), "tag") << ", "
                << counted(number("manifests"), "manifest") << " and "
                << counted(number("blobs"), "blob") << ": " << show_bytes(number("bytes")) << "\n";
    const auto stayed = [&](std::string_view key, std::string_view why) {
      const json::value* value = kept->get_object().if_contains(key);
      const json::object* count = value ? value->if_object() : nullptr;
      const double objects = count ? number_of(*count, "objects").value_or(0) : 0;
      if (objects == 0) return;
      context.out << counted(objects, "object") << " stayed (" << bytes_of(*count, "bytes")
                  << "): " << why << "\n";
    };
    stayed("shared", "other images need them");
    stayed("pinned", "they are pinned");
    stayed("in_use", "they are being fetched, or were used at this moment");
    stayed("failed", "they could not be removed");
  }
  if (faults) {
    for (const json::value& fault : *faults)
      if (fault.is_string())
        context.err << "staithe: " << printable(fault.get_string(), 1000) << "\n";
  }
  const int finished = finish(context);
  return good ? finished : kExitFailed;
}

}  // namespace staithe::daemon
