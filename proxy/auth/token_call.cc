#include "proxy/auth/token_call.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <charconv>

#include "cache/escape.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "proxy/auth/source.h"
#include "proxy/errors.h"
#include "proxy/words.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_words_bytes = 300;  // of a server, in one of our sentences
[[noreturn]] void rethrow_with_step(const Failure& failure, const std::string& step) {
  const Errc code = failure.code() == Errc::too_large ? Errc::upstream_nonsense : failure.code();
  throw Failure(code, step + ": " + failure.error().detail);
}

}  // namespace

Form& Form::add(std::string_view name, std::string_view value) {
  std::string encoded = percent_encode(value);
  std::string longer;
  longer.reserve(text_.size() + name.size() + encoded.size() + 2);
  longer += text_;
  if (!longer.empty()) longer += '&';
  longer += name;
  longer += '=';
  longer += encoded;
  wipe(encoded);
  wipe(text_);
  text_ = std::move(longer);
  return *this;
}

std::optional<std::int64_t> Answer::date() const { return parse_http_date(headers.get("date")); }

std::optional<std::chrono::seconds> Answer::retry_after() const {
  const std::string_view text = headers.get("retry-after");
  std::int64_t seconds = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (failed != std::errc() || end != text.data() + text.size() || seconds < 0) return std::nullopt;
  return std::min<std::chrono::seconds>(std::chrono::seconds(seconds), std::chrono::hours(24));
}

asio::awaitable<Answer> ask(Environment environment, HttpRequest request, std::string step) {
  Answer answer;
  answer.sent = environment.clock.now();
  answer.wall_sent = environment.clock.wall();
  std::string body;
  std::vector<char> piece;
  try {
    const std::unique_ptr<HttpResponse> response =
        co_await environment.http.send(std::move(request));
    answer.status = response->status();
    answer.headers = response->headers();
    body.reserve(max_answer_bytes);  // It never moves, so there is one copy to wipe.
    while (co_await response->read(piece)) {
      if (piece.size() > max_answer_bytes - body.size())
        throw Failure(Errc::too_large, "the answer is longer than 64 KiB");
      body.append(piece.data(), piece.size());
      OPENSSL_cleanse(piece.data(), piece.size());
      // Each read is bounded by the stall limit; this bounds a peer that drips.
      if (environment.clock.now() - answer.sent > call_time)
        throw Failure(Errc::unreachable, "the answer took longer than a minute");
    }
  } catch (const Failure& failure) {
    wipe(body);
    rethrow_with_step(failure, step);
  }
  answer.body = Secret::take(std::move(body));
  co_return answer;
}

Errc classify(int status) {
  switch (status) {
    case 401:
      return Errc::unauthorized;
    case 403:
      return Errc::denied;
    case 404:
      return Errc::upstream_nonsense;
    case 429:
      return Errc::throttled;
    default:
      break;
  }
  if (status >= 500) return Errc::upstream_failed;
  return status >= 400 ? Errc::unauthorized : Errc::upstream_nonsense;
}

std::string describe(const Answer& answer, const std::vector<std::string_view>& sent) {
  std::string words = words_of(answer.body.reveal());
  if (answer.status >= 300 && answer.status < 400)
    words = "a redirect, which is not followed with credentials";
  const std::string_view id = answer.headers.get("x-ms-correlation-request-id");
  words = printable(without_secrets(words, sent), max_words_bytes);
  std::string described = std::to_string(answer.status);
  if (!words.empty()) described += " " + words;
  if (!id.empty()) described += "; correlation id " + printable(without_secrets(id, sent), 80);
  return described;
}

void throw_refused(const Answer& answer, const std::string& step, std::string_view remedy,
                   const std::vector<std::string_view>& sent) {
  std::string detail = step + ": " + describe(answer, sent);
  if (!remedy.empty()) {
    detail += detail.ends_with('.') ? " " : ". ";
    detail += remedy;
  }
  const Errc code = answer.status == 403 && tells_of_firewall(answer.body.reveal())
                        ? Errc::firewall
                        : classify(answer.status);
  if (const auto retry = answer.retry_after();
      retry && (answer.status == 429 || answer.status == 503))
    throw Postponed(code, std::move(detail), *retry);
  throw Failure(code, std::move(detail));
}

bool is_token_text(std::string_view text) {
  return !text.empty() && text.size() <= max_token_bytes &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

Result<Life> life_of(const Answer& answer, std::string_view token,
                     std::optional<std::int64_t> expires_in,
                     std::optional<std::int64_t> expires_on) {
  LifeClues clues{
      .expires_in = expires_in,
      .expires = expires_on,
      .issued = std::nullopt,
      .server_date = answer.date(),
      .wall =
          std::chrono::floor<std::chrono::seconds>(answer.wall_sent).time_since_epoch().count()};
  if (const Result<Claims> claims = read_jwt(token)) {
    if (claims->expires) {
      clues.expires = std::min(*claims->expires, expires_on.value_or(*claims->expires));
      clues.issued = claims->issued;
    }
  }
  const Result<std::chrono::nanoseconds> lasts = remaining_life(clues);
  if (!lasts) return std::unexpected(lasts.error());
  return Life{.since = answer.sent,
              .wall_since = answer.wall_sent,
              .lasts = *lasts,
              .refresh_in = std::nullopt};
}

}  // namespace staithe::proxy::auth
