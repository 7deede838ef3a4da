// A machine for the planners of `staithe setup`: files by path and programs by name, in memory.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "daemon/setup.h"

namespace staithe::fake {

class FakeMachine final : public daemon::Machine {
 public:
  FakeMachine& file(const std::filesystem::path& path, std::string text) {
    files[path] = std::move(text);
    return *this;
  }
  // Installed in /usr/bin; says `says` whatever it is asked.
  FakeMachine& program(const std::string& name, std::string says) {
    programs[name] = std::move(says);
    return *this;
  }
  FakeMachine& link(const std::filesystem::path& path) {
    links.insert(path);
    return *this;
  }

  Result<std::optional<std::string>> read(const std::filesystem::path& path) const override {
    if (links.contains(path)) return fail(Errc::storage_failed, "it is a symbolic link");
    const auto found = files.find(path);
    if (found == files.end()) return std::nullopt;
    return found->second;
  }
  std::vector<std::string> list(const std::filesystem::path& directory) const override {
    std::set<std::string> names;
    for (const auto& [path, text] : files) {
      const auto relative = path.lexically_relative(directory);
      if (!relative.empty() && *relative.begin() != ".." && *relative.begin() != ".")
        names.insert(relative.begin()->native());
    }
    return {names.begin(), names.end()};
  }
  std::filesystem::path find(std::string_view program) const override {
    if (!programs.contains(std::string(program))) return {};
    return std::filesystem::path("/usr/bin") / program;
  }
  std::optional<std::string> run(std::string_view program, const std::vector<std::string>&,
                                 std::string_view input) const override {
    inputs.emplace_back(input);
    const auto found = programs.find(std::string(program));
    if (found == programs.end()) return std::nullopt;
    return found->second;
  }
  bool is_running() const override { return running; }

  // The plan as if it were applied.
  void apply(const daemon::Plan& plan) {
    for (const daemon::FileChange& change : plan.changes) files[change.path] = change.after;
  }

  std::map<std::filesystem::path, std::string> files;
  std::map<std::string, std::string> programs;
  std::set<std::filesystem::path> links;
  mutable std::vector<std::string> inputs;
  bool running = false;
};

// The registries that staithed has without a configuration, and two that are in its cache.
inline daemon::Served usual_service() {
  return {.address = "127.0.0.1:5050",
          .registries = {{"*.azurecr.io", false, true},
                         {"docker.io", true, false},
                         {"quay.io", false, false}},
          .seen = {"contoso.azurecr.io", "elsewhere.example"}};
}

// The change of a file, or nothing.
inline const daemon::FileChange* change_of(const daemon::Plan& plan,
                                           const std::filesystem::path& path) {
  for (const daemon::FileChange& change : plan.changes)
    if (change.path == path) return &change;
  return nullptr;
}

inline std::string after(const daemon::Plan& plan, const std::filesystem::path& path) {
  const daemon::FileChange* change = change_of(plan, path);
  return change ? change->after : "(unchanged)";
}

}  // namespace staithe::fake
