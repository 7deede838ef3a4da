// Small changes to registries.yaml of k3s and RKE2 that keep every other byte. Pure.
//
// Not a reader of YAML: it knows the block form that the documentation of k3s shows and people
// write, line by line, and refuses everything else (flow style, anchors, tabs, several documents).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"

namespace staithe::daemon {

// `text` with `url` as the endpoint of each of `hosts` below `mirrors:`; the text itself if all are
// there. A host with another endpoint is an error: only its owner knows which is to be first.
Result<std::string> add_mirrors(std::string_view text, const std::vector<std::string>& hosts,
                                std::string_view url);

}  // namespace staithe::daemon
