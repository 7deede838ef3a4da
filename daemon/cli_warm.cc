#include "daemon/cli_warm.h"

#include <CLI/CLI.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <utility>

#include "cache/error.h"
#include "daemon/cli_output.h"
#include "daemon/cli_warm_progress.h"
#include "daemon/control_client.h"
#include "daemon/image_list.h"
#include "daemon/image_name.h"
#include "daemon/json_reader.h"
#include "daemon/platform.h"
#include "daemon/values.h"
#include "daemon/warm_control.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using std::chrono::steady_clock;

constexpr const char* kWarmTarget = "/v1/warm";
constexpr std::size_t kMaxListBytes = 1 << 20;
// A registry that asks for patience is waited for.
constexpr std::chrono::seconds kPatience{300};
constexpr std::chrono::seconds kPlainLineInterval{10};

// A few lines at the bottom of the terminal that are drawn anew in their place.
class Block {
 public:
  explicit Block(std::ostream& out) : out_(out) {}
  ~Block() { clear(); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void draw(const std::vector<std::string>& lines) {
    std::string text = back();
    for (const std::string& line : lines) text += line + "\x1b[K\n";
    lines_ = lines.size();
    out_ << text << "\x1b[J" << std::flush;
  }
  void clear() {
    if (lines_ > 0) out_ << back() << "\x1b[J" << std::flush;
    lines_ = 0;
  }

 private:
  std::string back() const {
    return lines_ > 0 ? "\r\x1b[" + std::to_string(lines_) + "A" : std::string();
  }
  std::ostream& out_;
  std::size_t lines_ = 0;
};

// At most kMaxListBytes, or why not.
std::expected<std::string, std::string> read_list(const std::string& file, std::istream& input) {
  std::ifstream opened;
  if (file != "-") {
    errno = 0;
    opened.open(file, std::ios::binary);
    if (!opened)
      return std::unexpected("the list " + shown(file) +
                             " cannot be read: " + describe_errno(errno));
  }
  std::istream& in = file == "-" ? input : opened;
  std::string text(kMaxListBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.gcount() == 0 && errno == EISDIR))
    return std::unexpected("the list " + shown(file) + " cannot be read: " + describe_errno(errno));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > kMaxListBytes)
    return std::unexpected("the list " + shown(file) + " is larger than 1 MiB");
  return text;
}

}  // namespace

WarmCommand::WarmCommand(CLI::App& app)
    : command_(app.add_subcommand("warm", "Bring images into the cache ahead of their pulls")) {
  command_->add_flag("--json", as_json_, "JSON lines, as they come");
  command_->add_option("images", images_, "As docker takes them: busybox, contoso.azurecr.io/app:1")
      ->type_name("IMAGE");
  command_->add_option("--file", file_, "A list: one image per line, # begins a comment; -: stdin")
      ->type_name("LIST");
  command_
      ->add_option("--platform", platform_,
                   "linux/amd64, linux/arm64/v8, or all; default: the one that staithed runs on")
      ->type_name("PLATFORM");
  command_->footer(
      "Examples:\n"
      "  staithe warm contoso.azurecr.io/app:1 busybox\n"
      "  staithe warm --file images.txt --platform all\n"
      "What is cached already is not fetched again, so an interrupted warm goes on where it was.\n"
      "Pulls go first: while clients' transfers are under way, no further blob is begun, or one "
      "at\n"
      "a time where that lasts longer than five seconds.\n"
      "Nothing is kept for ever by this: staithe pin does that.\n"
      "Exit status: 0 all are warm, 1 one or more failed, 2 wrong usage, 3 no daemon.");
}

std::expected<std::vector<std::string>, std::vector<std::string>> WarmCommand::images(
    const CliContext& context) const {
  std::vector<std::string> faults;
  for (const std::string& name : images_)
    if (const auto image = parse_image_name(name); !image) faults.push_back(image.error().detail);
  std::vector<std::string> names = images_;
  if (!file_.empty()) {
    auto text = read_list(file_, context.in);
    if (!text) return std::unexpected(std::vector<std::string>{std::move(text.error())});
    auto listed = parse_image_list(*text, file_ == "-" ? "stdin" : file_);
    if (listed) {
      names.insert(names.end(), listed->begin(), listed->end());
    } else {
      faults.insert(faults.end(), listed.error().begin(), listed.error().end());
    }
  }
  if (faults.empty() && names.empty())
    faults.emplace_back(file_.empty() ? "an image or --file LIST is missing"
                                      : "the list " + shown(file_) + " names no image");
  if (faults.empty() && names.size() > most_warm_images)
    faults.push_back("a warm takes at most " + std::to_string(most_warm_images) + " images, not " +
                     std::to_string(names.size()) + ": split the list");
  if (!faults.empty()) return std::unexpected(std::move(faults));
  return names;
}

std::optional<int> WarmCommand::run(const CliContext& context,
                                    const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  auto names = images(context);
  std::vector<std::string> faults = names ? std::vector<std::string>() : names.error();
  if (const auto choice = parse_platform_choice(platform_); !choice)
    faults.push_back(choice.error().detail);
  if (!faults.empty()) {
    for (const std::string& fault : faults) context.err << "staithe: " << fault << "\n";
    context.err << "staithe: nothing was begun (see staithe warm --help)\n";
    return kExitBadUsage;
  }
  json::array list;
  for (std::string& name : *names) list.emplace_back(std::move(name));
  const std::string question =
      json::serialize(json::object{{"images", std::move(list)}, {"platform", platform_}});
  if (question.size() > most_warm_bytes) {
    context.err << "staithe: the images' names take more than " << most_warm_bytes / 1024
                << " KiB together: split the list\n";
    return kExitBadUsage;
  }
  return warm(context, socket, question);
}

int WarmCommand::warm(const CliContext& context, const std::filesystem::path& socket,
                      const std::string& question) const {
  const auto began = steady_clock::now();
  auto shown_at = began;
  const bool draw = context.terminal.is_terminal && !as_json_;
  WarmProgress progress;
  Block block(context.out);
  json::value sum;
  const auto on_line = [&](const json::value& line) {
    const bool done = JsonReader(&line)["done"].is_true();
    if (done) sum = line;
    if (as_json_) {
      print_json(context, line);
      return;
    }
    const auto now = steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - began).count();
    progress.add(line, seconds);
    if (const std::string end = render_warm_end(line); !end.empty()) {
      block.clear();
      context.out << end << "\n" << std::flush;
    }
    if (done) return;
    if (draw) {
      block.draw(progress.bars(seconds, context.terminal.style));
    } else if (now - shown_at >= kPlainLineInterval) {
      shown_at = now;
      context.out << progress.all(seconds, context.terminal.style) << "\n" << std::flush;
    }
  };
  const auto ended = control_stream(socket, kWarmTarget, question, on_line, kPatience);
  block.clear();
  if (!ended) return report(context, ended.error());
  if (sum.is_null()) {
    return report(context, {false,
                            "staithed's answer has no end: staithe and staithed are of different "
                            "versions"});
  }
  if (!as_json_) context.out << render_warm_sum(sum) << "\n" << std::flush;
  for (const std::string& error : warm_errors(sum)) context.err << "staithe: " << error << "\n";
  const int finished = finish(context);
  return JsonReader(&sum)["failed"].number() == 0 ? finished : kExitFailed;
}

}  // namespace staithe::daemon
