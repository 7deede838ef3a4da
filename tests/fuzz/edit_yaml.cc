// registries.yaml of k3s and RKE2, as setup edits it.
#include "daemon/edit_yaml.h"

#include "tests/fuzz/edits.h"

void staithe::fuzz::one(std::string_view input) {
  if (input.size() > 4096) return;
  for (const std::vector<std::string>& hosts :
       {std::vector<std::string>{"docker.io"}, {"contoso.azurecr.io", "*"}, {"localhost:5000"}})
    check_edit(input, [&](std::string_view text) {
      return daemon::add_mirrors(text, hosts, "http://127.0.0.1:5050");
    });
}
