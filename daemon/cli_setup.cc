#include "daemon/cli_setup.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json/array.hpp>
#include <chrono>
#include <utility>

#include "cache/escape.h"
#include "daemon/cli_output.h"
#include "daemon/image_name.h"
#include "daemon/setup_service.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

// A cold manifest may have to come from afar.
constexpr std::chrono::seconds test_patience{60};

int wrong_usage(const CliContext& context, std::string_view what) {
  context.err << "staithe: " << what << " (see staithe setup --help)\n";
  return kExitBadUsage;
}

int failed(const CliContext& context, std::string_view what) {
  context.err << "staithe: " << what << "\n";
  return kExitFailed;
}

std::string one_line(const Faults& faults) {
  std::string text = faults.front().to_string();
  if (faults.size() > 1) text += " (and " + std::to_string(faults.size() - 1) + " more)";
  return text;
}

// Small images that everybody may pull.
constexpr std::array<std::string_view, 3> known_images{"docker.io/library/hello-world:latest",
                                                       "mcr.microsoft.com/hello-world:latest",
                                                       "registry.k8s.io/pause:3.9"};

// What the self-test asks for: what the user says, else what is in the cache, else what is known.
std::optional<ImageName> choose_image(Asks asks, const Served& service,
                                      const std::vector<std::string>& cached) {
  const auto fits = [&](const ImageName& image) {
    return asks == Asks::by_nothing ? image.registry == "docker.io"
                                    : serves(service.registries, image.registry);
  };
  std::vector<std::string> candidates = cached;
  candidates.insert(candidates.end(), known_images.begin(), known_images.end());
  for (const std::string& name : candidates) {
    auto image = parse_image_name(name);
    if (image && fits(*image)) return *std::move(image);
  }
  return std::nullopt;
}

void test(SetupOutcome& outcome, const Machine& machine, const FoundService& found,
          const Served& service, const std::string& given) {
  const Asks asks = outcome.plan.asks;
  if (outcome.plan.client == Client::tls) {
    outcome.untested =
        "staithed listens there once it was restarted; then: curl --cacert "
        "/etc/staithe/tls/ca.crt https://localhost:" +
        std::string(tls_port) + "/v2/";
    return;
  }
  if (!found.is_running) {
    outcome.untested =
        "staithed was not asked, so nothing was pulled: when it runs, staithe setup " +
        std::string(to_string(outcome.plan.client)) + " --apply tests again";
    return;
  }
  if (asks == Asks::kubelet_credential || asks == Asks::nomad_credential) {
    for (const std::string& host : service.hosts()) {
      const auto registry = std::ranges::find(service.registries, host, &ServedRegistry::name);
      const bool known = registry != service.registries.end() ? registry->has_identity : true;
      if (!known) continue;
      outcome.image = host;
      outcome.test.push_back(test_credential(asks, machine, host));
      return;
    }
    outcome.untested = "no registry with an identity is known by name: test one with --registry";
    return;
  }
  const AskListener ask = ask_at(service.address, test_patience);
  std::optional<ImageName> image;
  if (!given.empty()) {
    image = *parse_image_name(given);  // checked before
  } else {
    image = choose_image(asks, service, found.images);
  }
  if (!image) {
    outcome.untested = "no image to pull is known: name one with --image";
    outcome.test.push_back(test_listener(ask));
    return;
  }
  const std::string reference = image->reference.empty() ? "latest" : image->reference;
  outcome.image =
      image->host + "/" + image->repository + (reference.contains(':') ? "@" : ":") + reference;
  outcome.test = test_pull(asks, *image, ask);
}

}  // namespace

SetupCommand::SetupCommand(CLI::App& app)
    : command_(app.add_subcommand(
          "setup", "Have the container engines of this machine pull through staithed")) {
  command_->add_flag("--json", as_json_, "JSON instead of text");
  std::string names;
  for (const Client client : all_clients) {
    if (!names.empty()) names += "|";
    names += to_string(client);
  }
  command_->add_option("clients", clients_, "Which; none: all that are installed")
      ->type_name(names);
  auto* apply = command_->add_flag("--apply", apply_, "Write it, keep what was there, and test it");
  auto* undo = command_->add_flag("--undo", undo_, "Put back what was there before");
  apply->excludes(undo);
  command_->add_flag("--tls", tls_,
                     "A TLS listener on 127.0.0.1:5443 with a certificate of its own");
  command_
      ->add_flag("--force", force_,
                 "Also where somebody has changed the same lines since; their text is kept beside")
      ->needs(undo);
  command_
      ->add_option("--registry", registries_,
                   "Only this one, of those that staithed serves; may be repeated")
      ->type_name("HOST")
      ->expected(1)
      ->take_all();
  command_->add_option("--image", image_, "What the test after --apply pulls")->type_name("IMAGE");
  command_->add_option("--root", root_, "The tree of another machine, for images of systems")
      ->type_name("DIR");
  command_
      ->add_option("--config", config_,
                   "staithed's configuration, for when it is not running (default: "
                   "/etc/staithe/staithe.toml)")
      ->type_name("FILE");
  command_->footer(
      "Examples:\n"
      "  staithe setup                                   what is installed, and what would change\n"
      "  staithe setup containerd                        the changes for containerd, as a diff\n"
      "  staithe setup containerd kubelet --apply\n"
      "  staithe setup podman --registry contoso.azurecr.io --apply\n"
      "  staithe setup containerd --undo\n"
      "  staithe setup --tls --apply                     TLS on 127.0.0.1:5443\n"
      "Nothing is restarted; what has to be is said. What was there before is kept below\n"
      "/var/lib/staithe-setup until --undo. Exit status 1 if something could not be written or "
      "the\n"
      "test pull failed.");
}

std::optional<int> SetupCommand::run(const CliContext& context,
                                     const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  std::vector<Client> clients;
  for (const std::string& name : clients_) {
    const auto client = parse_client(name);
    if (!client) {
      std::string known;
      for (const Client each : all_clients) {
        if (!known.empty()) known += ", ";
        known += to_string(each);
      }
      return wrong_usage(context, "there is no client " + shown(name) + "; known are " + known);
    }
    if (std::ranges::find(clients, *client) == clients.end()) clients.push_back(*client);
  }
  if (tls_ && !clients.empty())
    return wrong_usage(context, "--tls is set up by itself: staithe setup --tls --apply");
  if (tls_) clients.push_back(Client::tls);
  if ((apply_ || undo_) && clients.empty()) {
    return wrong_usage(context,
                       "which client? staithe setup shows what is installed, and --apply "
                       "and --undo want names: staithe setup containerd --apply");
  }
  if (!image_.empty()) {
    if (const auto image = parse_image_name(image_); !image)
      return wrong_usage(context, image.error().detail);
  }
  std::error_code error;
  const std::filesystem::path root = std::filesystem::canonical(root_, error);
  if (error || !std::filesystem::is_directory(root, error))
    return wrong_usage(context, "--root " + shown(root_) + " is not a directory");
  const SetupDisk disk(root);
  return undo_ ? undo(context, disk, clients) : plan(context, disk, socket, std::move(clients));
}

int SetupCommand::undo(const CliContext& context, const SetupDisk& disk,
                       const std::vector<Client>& clients) {
  bool good = true;
  json::array all;
  for (const Client client : clients) {
    const auto undone = undo_setup(disk, client, force_);
    if (!undone) {
      good = false;
      all.push_back(
          json::object{{"client", to_string(client)}, {"failure", undone.error().detail}});
      if (!as_json_) failed(context, undone.error().detail);
      continue;
    }
    good = good && undone->conflicts.empty();
    all.push_back(to_json(client, *undone));
    if (!as_json_) context.out << render_undo(client, *undone, context.terminal.style);
  }
  if (as_json_) print_json(context, json::object{{"clients", std::move(all)}});
  const int finished = finish(context);
  return good ? finished : kExitFailed;
}

int SetupCommand::plan(const CliContext& context, const SetupDisk& disk,
                       const std::filesystem::path& socket, std::vector<Client> clients) {
  FoundService found;
  std::string source;  // where it is from, if not from the daemon
  auto asked = config_.empty() ? ask_service(socket)
                               : std::unexpected(ControlError{.unreachable = true, .message = ""});
  if (asked) {
    found = *std::move(asked);
  } else if (!asked.error().unreachable) {
    return report(context, asked.error());
  } else {
    // Without a daemon its configuration says what it will serve.
    std::optional<std::filesystem::path> file;
    if (!config_.empty()) {
      file = config_;
    } else if (disk.root() != "/") {
      const std::filesystem::path inside = disk.root() / "etc/staithe/staithe.toml";
      std::error_code ignored;
      if (std::filesystem::exists(inside, ignored)) file = inside;
    }
    const bool defaults = !file && disk.root() != "/";
    const auto config = defaults ? parse_config("", "built-in defaults", context.environment)
                                 : load_config(file, context.environment);
    if (!config) return failed(context, one_line(config.error()));
    auto service = service_of(*config);
    if (!service) return failed(context, service.error().detail);
    found = *std::move(service);
    source = defaults ? "the built-in configuration"
                      : printable(file ? file->native() : std::string(kDefaultConfigFile), 400) +
                            ", or what is built in";
  }
  Served service = found.service;
  if (!registries_.empty()) {
    auto chosen = only(found.service, registries_);
    if (!chosen) return failed(context, chosen.error().detail);
    service = *std::move(chosen);
  }

  const RootMachine machine(disk, context.environment.get("PATH"));
  const bool overview = clients.empty();
  if (overview) clients.assign(all_clients.begin(), all_clients.end());
  if (!source.empty() && !as_json_) {
    const std::string why = config_.empty() ? "staithed is not running: its" : "staithed's";
    context.out << paragraph({why + " address and registries are those of " + source, Tone::faint},
                             0, context.terminal.style)
                << "\n";
  }
  bool good = true;
  bool first = true;
  std::string missing;
  json::array all;
  for (const Client client : clients) {
    SetupOutcome outcome;
    outcome.plan = plan_setup(client, machine, service);
    if (overview && !outcome.plan.found) {
      missing += (missing.empty() ? "" : ", ") + std::string(to_string(client));
      continue;
    }
    if (apply_ && outcome.plan.refusals.empty()) {
      const auto applied = apply_setup(disk, outcome.plan);
      if (!applied) outcome.failure = applied.error().detail;
      outcome.applied = applied.has_value();
      if (applied) test(outcome, machine, found, service, image_);
    }
    good = good && (overview || outcome.plan.refusals.empty()) && outcome.failure.empty() &&
           std::ranges::all_of(outcome.test, &TestStep::good);
    if (as_json_) {
      all.push_back(to_json(outcome));
    } else {
      if (!std::exchange(first, false)) context.out << "\n";
      context.out << render_setup(outcome, apply_, context.terminal.style) << std::flush;
    }
  }
  if (as_json_) {
    print_json(context, json::object{{"address", service.address},
                                     {"running", found.is_running},
                                     {"clients", std::move(all)}});
  } else if (!missing.empty()) {
    context.out << (first ? "" : "\n")
                << paragraph({"not installed: " + missing, Tone::faint}, 0, context.terminal.style);
  }
  const int finished = finish(context);
  return good ? finished : kExitFailed;
}

}  // namespace staithe::daemon
