// The parts of the status page that are files beside this one, made constants by CMake.
#pragma once

#include <string_view>

namespace staithe::daemon::page {

extern const std::string_view style;   // page.css
extern const std::string_view script;  // page.js

}  // namespace staithe::daemon::page
