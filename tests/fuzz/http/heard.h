// The same bytes as other HTTP/1 parsers of Debian read them: llhttp, which Node.js reads requests
// with, and http-parser, its predecessor, which many servers still have. Their headers use the same
// names, so each stands in a file of its own.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::fuzz {

// What a parser has told by its callbacks, up to the end of the first message.
struct Heard {
  bool whole = false;
  bool upgrade = false;  // what follows is another protocol
  std::string method;
  std::string target;
  std::vector<std::string> hosts;
  std::string body;
  std::size_t size = 0;  // of the message

  std::string field_name;
  std::string field_value;
  bool in_value = false;

  void name_part(std::string_view part) {
    if (in_value) end_field();
    field_name.append(part);
  }
  void value_part(std::string_view part) {
    in_value = true;
    field_value.append(part);
  }
  void end_field() {
    std::string lower = field_name;
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    while (field_value.ends_with(' ') || field_value.ends_with('\t')) field_value.pop_back();
    if (lower == "host") hosts.push_back(field_value);
    field_name.clear();
    field_value.clear();
    in_value = false;
  }
};

namespace detail {

// Both libraries have the same callbacks under other types.
template <class Parser>
Heard& heard(Parser* parser) {
  return *static_cast<Heard*>(parser->data);
}
template <class Parser>
int on_url(Parser* parser, const char* at, std::size_t size) {
  heard(parser).target.append(at, size);
  return 0;
}
template <class Parser>
int on_field(Parser* parser, const char* at, std::size_t size) {
  heard(parser).name_part({at, size});
  return 0;
}
template <class Parser>
int on_value(Parser* parser, const char* at, std::size_t size) {
  heard(parser).value_part({at, size});
  return 0;
}
template <class Parser>
int on_head(Parser* parser) {
  if (!heard(parser).field_name.empty()) heard(parser).end_field();
  return 0;
}
template <class Parser>
int on_body(Parser* parser, const char* at, std::size_t size) {
  heard(parser).body.append(at, size);
  return 0;
}
template <class Parser>
int on_end(Parser* parser) {
  heard(parser).whole = true;
  return 0;
}

}  // namespace detail

// Both read byte by byte, so that the end of the message is where it was told.
Heard read_by_llhttp(std::string_view bytes);
Heard read_by_http_parser(std::string_view bytes);

}  // namespace staithe::fuzz
