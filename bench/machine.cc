#include "bench/machine.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "bench/process.h"
#include "cache/disk.h"

namespace staithe::bench {

void note_machine(const Programs& programs, const std::filesystem::path& directory,
                  Report& report) {
  utsname kernel{};
  ::uname(&kernel);
  report.note("cores", std::to_string(std::thread::hardware_concurrency()));
  report.note("cpu", output_of("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"));
  report.note("kernel", std::string(kernel.sysname) + " " + kernel.release);
  report.note("disk", output_of("df --output=source,fstype '" + directory.string() +
                                "' | tail -n 1 | tr -s ' '"));
  report.note("staithed", output_of("'" + programs.staithed.parent_path().string() +
                                    "/staithe' version 2>/dev/null | head -n 1"));
  report.note("docker-registry", output_of("'" + programs.registry.string() + "' --version"));
  report.note("nginx", output_of("'" + programs.nginx.string() + "' -v 2>&1"));
  report.note("varnish", programs.varnish.empty() ? "not installed"
                                                  : output_of("'" + programs.varnish.string() +
                                                              "' -V 2>&1 | head -n 1"));
}

std::string load_average() {
  std::ifstream file("/proc/loadavg");
  std::string line;
  std::getline(file, line);
  return line;
}

std::filesystem::path beside_this_program() {
  return std::filesystem::canonical("/proc/self/exe").parent_path();
}

void settle(const std::filesystem::path& directory) {
  const cache::File file(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ::syncfs(file.fd());
}

}  // namespace staithe::bench
