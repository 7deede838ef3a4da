#include <llhttp/llhttp.h>

#include "tests/fuzz/http/heard.h"

namespace staithe::fuzz {

Heard read_by_llhttp(std::string_view bytes) {
  Heard heard;
  llhttp_settings_t settings;
  llhttp_settings_init(&settings);
  settings.on_url = detail::on_url<llhttp_t>;
  settings.on_header_field = detail::on_field<llhttp_t>;
  settings.on_header_value = detail::on_value<llhttp_t>;
  settings.on_headers_complete = detail::on_head<llhttp_t>;
  settings.on_body = detail::on_body<llhttp_t>;
  settings.on_message_complete = detail::on_end<llhttp_t>;
  llhttp_t parser;
  llhttp_init(&parser, HTTP_REQUEST, &settings);
  parser.data = &heard;
  while (!heard.whole && heard.size < bytes.size()) {
    const llhttp_errno_t code = llhttp_execute(&parser, bytes.data() + heard.size, 1);
    if (code != HPE_OK && code != HPE_PAUSED_UPGRADE) break;
    ++heard.size;
  }
  heard.method = llhttp_method_name(static_cast<llhttp_method_t>(llhttp_get_method(&parser)));
  heard.upgrade = llhttp_get_upgrade(&parser) != 0;
  return heard;
}

}  // namespace staithe::fuzz
