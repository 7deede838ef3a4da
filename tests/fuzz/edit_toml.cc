// TOML files of containerd, podman and BuildKit, as setup edits them.
#include "daemon/edit_toml.h"

#include <toml++/toml.h>

#include "tests/fuzz/edits.h"

void staithe::fuzz::one(std::string_view input) {
  if (input.size() > 4096) return;
  check_edit(input, [](std::string_view text) {
    return daemon::set_toml_key(text, {"plugins", "io.containerd.grpc.v1.cri", "registry"},
                                "config_path", "\"/etc/containerd/certs.d\"");
  });
  check_edit(input, [](std::string_view text) {
    return daemon::set_toml_key(text, {"registry", "docker.io"}, "mirrors", "[\"127.0.0.1:5050\"]");
  });
  // These are made once; a second time the table is there.
  for (const bool first : {true, false}) {
    const auto edited =
        first ? daemon::insert_first_table(input, {"host"}, "http://127.0.0.1:5050",
                                           "capabilities = [\"pull\", \"resolve\"]\n")
              : daemon::append_toml(input, "[[registry]]\nprefix = \"*.azurecr.io\"\n");
    if (!edited) {
      check(is_printable(edited.error().detail));
      continue;
    }
    (void)toml::parse(*edited);  // Throws for what is no TOML.
    check(daemon::without_change(input, *edited, *edited).value_or("\1") == input);
  }
}
