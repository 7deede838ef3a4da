// One exchange of the real client, to its end.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cache/error.h"
#include "proxy/curl_loop.h"

namespace staithe::proxy {

inline asio::awaitable<std::string> status_and_body(CurlLoop& loop, HttpRequest request) {
  const std::unique_ptr<HttpResponse> response = co_await loop.send(std::move(request));
  const int status = response->status();
  const std::string body = co_await read_all(*response, 100);
  co_return std::to_string(status) + " " + body;
}

// "200 ok", or what `told` says of the error; neither is empty.
inline std::string outcome_of(asio::io_context& io, CurlLoop& loop, HttpRequest request,
                              const std::function<std::string(const Error&)>& told) {
  std::string outcome;
  asio::co_spawn(io, status_and_body(loop, std::move(request)),
                 [&](const std::exception_ptr& error, std::string got) {
                   try {
                     if (error) std::rethrow_exception(error);
                     outcome = std::move(got);
                   } catch (const Failure& failure) {
                     outcome = told(failure.error());
                   }
                 });
  io.restart();
  while (outcome.empty() && io.run_one() > 0) {
  }
  return outcome;
}

}  // namespace staithe::proxy
