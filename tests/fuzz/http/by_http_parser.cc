#include <http_parser.h>

#include "tests/fuzz/http/heard.h"

namespace staithe::fuzz {

Heard read_by_http_parser(std::string_view bytes) {
  Heard heard;
  http_parser_settings settings;
  http_parser_settings_init(&settings);
  settings.on_url = detail::on_url<http_parser>;
  settings.on_header_field = detail::on_field<http_parser>;
  settings.on_header_value = detail::on_value<http_parser>;
  settings.on_headers_complete = detail::on_head<http_parser>;
  settings.on_body = detail::on_body<http_parser>;
  settings.on_message_complete = detail::on_end<http_parser>;
  http_parser parser;
  http_parser_init(&parser, HTTP_REQUEST);
  parser.data = &heard;
  while (!heard.whole && heard.size < bytes.size()) {
    http_parser_execute(&parser, &settings, bytes.data() + heard.size, 1);
    if (HTTP_PARSER_ERRNO(&parser) != HPE_OK) break;
    ++heard.size;
  }
  heard.method = http_method_str(static_cast<http_method>(parser.method));
  heard.upgrade = parser.upgrade != 0;
  return heard;
}

}  // namespace staithe::fuzz
