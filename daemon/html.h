// HTML that is written here, with texts from elsewhere in it.
//
// What is markup is decided by the compiler: only a constant of this program can be some, and
// everything that is known at run time has to be a Text, which is escaped. So no page has a place
// where the escaping was forgotten. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace staithe::daemon {

// Markup of this program's source; any other pointer does not compile.
class Markup {
 public:
  consteval Markup(const char* text) : text_(text) {}
  constexpr std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

// Text between tags, or of an attribute's value in double quotes. Bytes that are not UTF-8 and
// control characters are replaced by what a person can see.
class Text {
 public:
  explicit Text(std::string_view text);
  const std::string& escaped() const { return escaped_; }

 private:
  std::string escaped_;
};

class Html {
 public:
  Html& operator<<(Markup markup) {
    html_ += markup.text();
    return *this;
  }
  Html& operator<<(const Text& text) {
    html_ += text.escaped();
    return *this;
  }
  // A whole element's content that is part of this program: a style sheet, a script.
  Html& embed(std::string_view part_of_program) {
    html_ += part_of_program;
    return *this;
  }
  std::string take() { return std::move(html_); }

 private:
  std::string html_;
};

}  // namespace staithe::daemon
