#include "daemon/owner_request.h"

#include <string>

namespace staithe::daemon {

asio::awaitable<bool> admit_post(proxy::Exchange& exchange) {
  if (exchange.request().method == "POST") co_return true;
  exchange.add("Allow", "POST");
  co_await exchange.reply_error(405, "UNSUPPORTED", "this path is asked with POST");
  co_return false;
}

asio::awaitable<bool> admit_owner(proxy::Exchange& exchange, Access& access,
                                  std::string_view deed) {
  if (co_await access.allows(Right::own, exchange.peer())) co_return true;
  const std::string sentence =
      "only root and the user that staithed runs as may " + std::string(deed);
  co_await exchange.reply_error(403, "DENIED", sentence);
  co_return false;
}

}  // namespace staithe::daemon
