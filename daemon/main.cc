// staithed: from the command line to the end, as a list of steps.
#include <sys/resource.h>
#include <sys/stat.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>

#include "cache/log.h"
#include "daemon/command_line.h"
#include "daemon/options.h"
#include "daemon/protection.h"
#include "daemon/service.h"

namespace staithe::daemon {
namespace {

constexpr int exit_ok = 0;
constexpr int exit_failed = 1;
constexpr int exit_in_use = 3;

// Connections and open blobs need descriptors; what the hard limit allows is ours to use.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int print(const Exit& exit) {
  std::fputs(exit.text.c_str(), exit.code == 0 ? stdout : stderr);
  return exit.code;
}

int print(const Faults& faults) {
  for (const Fault& fault : faults) std::fprintf(stderr, "%s\n", fault.to_string().c_str());
  return kExitUsage;
}

// Runs the service until SIGTERM or SIGINT; SIGHUP reloads.
int serve(const Run& run, Config config) {
  boost::asio::io_context context(1);
  Service service(context, std::move(config),
                  [&run] { return load_config(run.config_file, Environment::of_process()); });

  boost::asio::signal_set signals(context, SIGTERM, SIGINT, SIGHUP);
  std::function<void(boost::system::error_code, int)> on_signal =
      [&](boost::system::error_code error, int signal) {
        if (error) return;
        if (signal == SIGHUP) {
          (void)service.reload();  // It has logged what was wrong.
        } else {
          service.stop();
        }
        signals.async_wait(on_signal);
      };
  signals.async_wait(on_signal);

  int code = exit_ok;
  boost::asio::co_spawn(context, service.run(), [&](std::exception_ptr error) {
    signals.cancel();
    if (!error) return;
    try {
      std::rethrow_exception(error);
    } catch (const Failure& failure) {
      code = failure.code() == Errc::in_use ? exit_in_use : exit_failed;
      log::error("cannot run", {{"error", failure.error()}});
    } catch (const std::exception& e) {
      code = exit_failed;
      log::error("cannot run", {{"error", e.what()}});
    }
  });
  context.run();
  return code;
}

int main(int argc, const char* const* argv) {
  protect_process();
  const auto asked = parse_command_line(argc, argv);
  if (const auto* exit = std::get_if<Exit>(&asked)) return print(*exit);
  const Run& run = std::get<Run>(asked);

  auto config = load_config(run.config_file, Environment::of_process());
  if (!config) return print(config.error());
  if (run.check) return print(Exit{.code = exit_ok, .text = "the configuration is good\n"});

  ::umask(0077);
  raise_descriptor_limit();
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // A file size limit is an error of the disk, not a death.

  log::start(config->log);
  const int code = serve(run, std::move(*config));
  log::stop();
  return code;
}

}  // namespace
}  // namespace staithe::daemon

int main(int argc, char** argv) { return staithe::daemon::main(argc, argv); }
