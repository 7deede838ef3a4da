// Manifests of a hostile upstream, as pins and purges read them: bounded, each digest once, and
// none that is not in the document.
#include <set>

#include "cache/image.h"
#include "daemon/platform.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const auto found = cache::references_of(input);
  check(found.manifests.size() + found.blobs.size() <= cache::most_references);
  check(!found.cut || found.manifests.size() + found.blobs.size() == cache::most_references);
  std::set<cache::Digest> seen;
  for (const auto* list : {&found.manifests, &found.blobs}) {
    for (const auto& descriptor : *list) {
      check(seen.insert(descriptor.digest).second);
      check(input.contains(descriptor.digest.to_string()) || input.contains('\\'));
    }
  }
  // The same document, as `staithe warm` chooses from it.
  const auto entries = daemon::index_entries(input);
  for (const char* text : {"all", "linux/amd64", "linux/arm64/v8"}) {
    const auto choice = daemon::parse_platform_choice(text);
    const auto chosen = daemon::chosen(entries, *choice);
    check(chosen.size() <= entries.size());
    for (const auto& entry : chosen)
      check(std::ranges::any_of(entries,
                                [&](const auto& one) { return one.digest == entry.digest; }));
  }
  check(is_printable(daemon::platforms_of(entries)));
}
