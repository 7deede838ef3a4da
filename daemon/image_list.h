// A list of images in a file: one name per line, "#" begins a comment, empty lines are passed over.
// Pure.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::daemon {

// The names as they stand there, or a sentence for each line that is none: "`file`:3: ...".
std::expected<std::vector<std::string>, std::vector<std::string>> parse_image_list(
    std::string_view text, const std::string& file);

}  // namespace staithe::daemon
