// A docker config.json as whoever wrote it left it, and what the credential helper says that it
// names: a password that can be sent, or a sentence.
#include "proxy/auth/password.h"
#include "tests/fuzz/played.h"

namespace staithe::fuzz {

namespace {

void check_password(const Result<proxy::auth::Password>& password) {
  if (!password) {
    check(is_printable(password.error().detail) && !password.error().detail.empty());
    return;
  }
  const std::string_view secret = password->secret.reveal();
  check(!secret.empty());
  check(password->identity_token || !password->username.contains(':'));
  check(password->username.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
  check(secret.find('\0') == std::string_view::npos);
  check(password->life.lasts.count() > 0);
}

}  // namespace

void one(std::string_view input) {
  // What a helper says stands behind the first empty line.
  const std::size_t half = std::min(input.find("\n\n"), input.size());
  Played played;
  played.files.write("/config.json", std::string(input.substr(0, half)));
  std::string said(input.substr(std::min(input.size(), half + 2)));
  played.programs.play = [&](const proxy::auth::ProgramRun& run) {
    check(run.program.starts_with("docker-credential-") &&
          run.program.find('/') == std::string::npos && is_printable(run.program));
    check(run.program != "docker-credential-staithe");
    return fake::FakePrograms::Said{.exit_status = static_cast<int>(said.size() % 2),
                                    .output = said};
  };
  for (const char* name : {"contoso.azurecr.io", "docker.io", "localhost:5000"}) {
    proxy::auth::DockerConfig source(played.environment(), "/config.json", name);
    check_password(played.run(source.fetch()));
  }
  proxy::auth::PasswordFile file(played.environment(), "user", "/config.json");
  check_password(played.run(file.fetch()));
}

}  // namespace staithe::fuzz
