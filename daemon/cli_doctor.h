// `staithe doctor [REGISTRY|IMAGE]`: what stands between a pull and its image.
//
// The daemon walks what only it can (doctor.h); the listeners and the clients' files are looked at
// here, with the rights of whoever asks. Without a daemon the reasons for that are looked for.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "daemon/cli.h"
#include "daemon/doctor_step.h"
#include "daemon/terminal.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// See VerifyCommand.
class DoctorCommand {
 public:
  explicit DoctorCommand(CLI::App& app);
  DoctorCommand(const DoctorCommand&) = delete;
  DoctorCommand& operator=(const DoctorCommand&) = delete;

  // The exit status; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  CLI::App* command_;
  std::string target_;
  std::string root_ = "/";
  std::string config_file_;
  bool as_json_ = false;
};

// Pure. A step in some lines, and the sum in one.
std::string render_step(const DoctorStep& step, const Style& style);
std::string render_sum(const DoctorSum& sum, double seconds, const Style& style);

}  // namespace staithe::daemon
