#include "daemon/status_page.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <ranges>
#include <string_view>
#include <tuple>
#include <vector>

#include "cache/digest.h"
#include "daemon/cli_status.h"
#include "daemon/cli_transfers.h"
#include "daemon/html.h"
#include "daemon/json_reader.h"
#include "daemon/page/page.h"
#include "daemon/terminal.h"
#include "proxy/auth/base64.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using Reader = JsonReader;

// What a person can look through; of the rest the number is said.
constexpr std::size_t most_fills = 100;
constexpr std::size_t most_warms = 16;
constexpr std::size_t most_registries = 200;
constexpr std::size_t most_upstreams = 8;
constexpr std::size_t most_endings = 8;
constexpr std::size_t most_errors = 10;
constexpr std::size_t most_listen = 16;
constexpr std::size_t most_tokens = 10'000;
constexpr std::size_t most_tokens_of_a_kind = 4;
constexpr std::size_t error_bytes = 1000;
constexpr std::size_t short_digest = 19;  // "sha256:" and twelve digits

constexpr Markup class_of(Tone tone) {
  switch (tone) {
    case Tone::plain:
    case Tone::heading:
      return "";
    case Tone::good:
      return "good";
    case Tone::caution:
      return "caution";
    case Tone::bad:
      return "bad";
    case Tone::faint:
      return "faint";
  }
  return "";
}

// ---- pieces --------------------------------------------------------------------------------

void put(Html& html, const Span& span) {
  if (span.text.empty()) return;
  html << "<span class=\"" << class_of(span.tone) << "\">" << Text(span.text) << "</span>\n";
}

// Beside each other, as many as fit in a line.
void put_flow(Html& html, const std::vector<Span>& spans) {
  if (std::ranges::all_of(spans, [](const Span& span) { return span.text.empty(); })) return;
  html << "<p class=\"note flow\">\n";
  for (const Span& span : spans) put(html, span);
  html << "</p>\n";
}

void put_sentence(Html& html, std::string_view sentence, Tone tone) {
  html << "<p class=\"note " << class_of(tone) << "\">" << Text(sentence) << "</p>\n";
}

void put_state(Html& html, std::string_view state, std::string_view more = "") {
  html << "<span class=\"state " << class_of(tone_of_state(state)) << "\">" << Text(state)
       << Text(more) << "</span>\n";
}

void begin_section(Html& html, Markup heading, std::size_t count = 0) {
  html << "<section>\n<h2>" << heading;
  if (count > 0) html << " <span>" << Text(std::to_string(count)) << "</span>";
  html << "</h2>\n";
}

void put_rest(Html& html, std::size_t all, std::size_t shown) {
  if (all > shown) put_sentence(html, "and " + std::to_string(all - shown) + " more", Tone::faint);
}

// ---- pictures ------------------------------------------------------------------------------

double share(double part, double whole) {
  const double value = part / whole;
  return std::isfinite(value) ? std::clamp(value, 0.0, 1.0) : 0;
}

// A length within a picture. In steps that are finer than a pixel, and the same in every locale.
Text length(double part) {
  const auto hundredths = static_cast<int>(std::lround(part * 10'000));
  char text[16];
  std::snprintf(text, sizeof text, "%d.%02d%%", hundredths / 100, hundredths % 100);
  return Text(text);
}

void put_bar(Html& html, double part, std::string_view label) {
  html << "<svg role=\"img\" aria-label=\"" << Text(label) << "\"><rect height=\"100%\" width=\""
       << length(part) << "\"/></svg>\n";
}

void put_progress(Html& html, std::optional<double> part, std::string_view label) {
  html << "<svg role=\"progressbar\" aria-label=\"" << Text(label) << "\"";
  if (part)
    html << " aria-valuemin=\"0\" aria-valuemax=\"100\" aria-valuenow=\""
         << Text(std::to_string(std::lround(*part * 100))) << "\"";
  html << "><rect height=\"100%\" width=\"" << length(part.value_or(0)) << "\"/></svg>\n";
}

std::optional<double> progress_of(const Reader& transfer) {
  const double total = transfer["total"].number();
  if (!(total > 0)) return std::nullopt;
  return share(transfer["bytes"].number(), total);
}

std::string amount(const Reader& transfer) {
  const double total = transfer["total"].number();
  const std::string bytes = show_bytes(transfer["bytes"].number());
  return total > 0 ? bytes + " of " + show_bytes(total) : bytes;
}

// ---- sections ------------------------------------------------------------------------------

void put_facts(Html& html, const Reader& status) {
  html << "<p class=\"facts flow\">\n";
  put_state(html, status["state"].text());
  std::string version = "staithed";
  if (const std::string number = status["version"].text(); !number.empty()) version += " " + number;
  std::string listen;
  for (const Reader& address : status["listen"].items(most_listen))
    listen += (listen.empty() ? "listens on " : ", ") + address.text();
  for (const std::string& fact : {version, "pid " + status["pid"].count(),
                                  "up " + show_seconds(status["uptime_seconds"].number()), listen})
    put(html, {fact, Tone::faint});
  html << "</p>\n";
  put_flow(html, describe_tls(status["tls"]));
  if (const std::string fault = status["tls"]["fault"].text(error_bytes); !fault.empty())
    put_sentence(html, "not reloaded: " + fault, Tone::bad);
}

void put_figure(Html& html, Markup name, std::string_view figure, std::string_view note) {
  html << "<div><dt>" << name << "</dt><dd>" << Text(figure) << "</dd><dd class=\"note\">"
       << Text(note) << "</dd></div>\n";
}

void put_figures(Html& html, const Reader& status) {
  const Reader traffic = status["traffic"];
  const Reader ratio = traffic["hit_ratio"];
  html << "<dl class=\"figures\">\n";
  put_figure(html, "Hit ratio", ratio.is_number() ? show_percent(ratio.number(), 1) : "–",
             ratio.is_number() ? "of answers spared upstream" : "nothing asked for yet");
  put_figure(html, "Requests", traffic["requests"].count(),
             counted(status["connections"]["open"], "connection") + " open");
  put_figure(html, "Served", show_bytes(traffic["bytes_served"].number()), "to clients");
  put_figure(html, "Fetched", show_bytes(traffic["bytes_fetched"].number()),
             "from upstream, " + show_bytes(traffic["bytes_saved"].number()) + " saved");
  html << "</dl>\n";
}

void put_fills(Html& html, const Reader& fills) {
  begin_section(html, "Fills", fills.size());
  if (fills.size() == 0) put_sentence(html, "Nothing is being fetched.", Tone::faint);
  // In an order that stays, so that a bar is at the same place a second later.
  std::vector<Reader> sorted = fills.items(fills.size());
  std::ranges::sort(sorted, {}, [](const Reader& fill) {
    return std::tuple(fill["registry"].text(), fill["repository"].text(), fill["digest"].text());
  });
  html << "<ul class=\"things\">\n";
  for (const Reader& fill : sorted | std::views::take(most_fills)) {
    const std::string digest = fill["digest"].text();
    const std::string registry = fill["registry"].text();
    const std::string name = registry + (registry.empty() ? "" : "/") + fill["repository"].text();
    const std::optional<double> part = progress_of(fill);
    html << "<li id=\"fill-" << Text(digest) << "\">\n<div class=\"head\"><h3>" << Text(name)
         << "</h3>\n<code>" << Text(digest.substr(0, short_digest)) << "</code></div>\n";
    put_progress(html, part, name);
    put_flow(html, {{part ? show_percent(*part, 1) : "", Tone::plain},
                    {amount(fill), Tone::plain},
                    {describe_pace(fill), Tone::plain},
                    {counted(fill["readers"], "reader"), Tone::plain}});
    html << "</li>\n";
  }
  html << "</ul>\n";
  put_rest(html, fills.size(), most_fills);
  html << "</section>\n";
}

void put_warms(Html& html, const Reader& warm) {
  const Reader running = warm["running"];
  const Reader configured = warm["configured"];
  if (running.size() == 0 && !(configured["images"].number() > 0)) return;
  begin_section(html, "Warm");
  html << "<ul class=\"things\">\n";
  for (const Reader& one : running.items(most_warms)) {
    const bool at_boot = one["asker"].text() == "boot";
    html << "<li>\n<h3>" << Text(at_boot ? "At boot" : "On request") << "</h3>\n";
    put_progress(html, progress_of(one), "warming");
    std::vector<Span> line{{one["platform"].text()},
                           {amount(one)},
                           {counted(one["images_left"], "image") + " left"},
                           {counted(one["blobs_left"], "blob") + " left"}};
    if (one["waits_for_client_fills"].number() > 0)
      line.push_back(
          {"waits for " + counted(one["waits_for_client_fills"], "pulled blob"), Tone::caution});
    put_flow(html, line);
    html << "</li>\n";
  }
  html << "</ul>\n";
  if (configured["images"].number() > 0) {
    const bool failed = configured["failed"].number() > 0;
    const Reader next = configured["next_try_in_seconds"];
    put_flow(html,
             {{"configured: " + configured["warm"].count() + " of " +
               counted(configured["images"], "image") + " warm"},
              {failed ? configured["failed"].count() + " failed" : "", Tone::bad},
              {next.is_number() ? "next try in " + show_seconds(next.number()) : "", Tone::plain}});
  }
  for (const Reader& error : configured["errors"].items(most_errors))
    put_sentence(html, error["image"].text() + ": " + error["error"].text(error_bytes), Tone::bad);
  html << "</section>\n";
}

// Its life as a bar: how much of it is over, and a mark where it is renewed.
void put_token(Html& html, const Reader& token) {
  const double age = token["age_seconds"].number();
  const double life = age + token["expires_in_seconds"].number();
  const Reader renews = token["renews_in_seconds"];
  const std::string kind = token["kind"].text();
  const std::string ahead = renews.is_number() ? "renewed in " + show_seconds(renews.number())
                                               : std::string("not renewed by itself");
  const std::string sentence =
      ahead + ", valid for " + show_seconds(token["expires_in_seconds"].number());
  html << "<li><span>" << Text(kind) << "</span>\n<svg role=\"img\" aria-label=\""
       << Text(kind + " token, " + show_seconds(age) + " old")
       << "\"><rect height=\"100%\" width=\"" << length(share(age, life)) << "\"/>";
  if (renews.is_number())
    html << "<rect class=\"mark\" height=\"100%\" width=\"2\" x=\""
         << length(share(age + renews.number(), life)) << "\"/>";
  html << "</svg>\n<span class=\"note\">" << Text(sentence) << "</span></li>\n";
}

// Of each kind those that are renewed or end first.
void put_tokens(Html& html, const Reader& tokens) {
  if (tokens.size() == 0) return;
  std::vector<Reader> sorted = tokens.items(most_tokens);
  std::ranges::sort(sorted, {}, [](const Reader& token) {
    const Reader renews = token["renews_in_seconds"];
    const double ends = token["expires_in_seconds"].number();
    return std::tuple(renews.is_number() ? renews.number() : ends, ends,
                      token["age_seconds"].number());
  });
  // In the order in which one leads to the next, which is that of the status.
  std::vector<std::string> kinds;
  for (const Reader& token : tokens.items(most_tokens)) {
    const std::string kind = token["kind"].text();
    if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
  }
  html << "<ul class=\"tokens\">\n";
  std::size_t shown = 0;
  for (const std::string& kind : kinds) {
    auto of_kind =
        sorted |
        std::views::filter([&](const Reader& token) { return token["kind"].text() == kind; }) |
        std::views::take(most_tokens_of_a_kind);
    for (const Reader& token : of_kind) {
      put_token(html, token);
      ++shown;
    }
  }
  html << "</ul>\n";
  if (tokens.size() > shown)
    put_sentence(html, "and " + std::to_string(tokens.size() - shown) + " tokens that end later",
                 Tone::faint);
}

// One line for each of several upstreams, in the order in which they are asked.
void put_upstreams(Html& html, const Reader& upstreams) {
  html << "<ul>\n";
  for (const Reader& upstream : upstreams.items(most_upstreams)) {
    const std::string state = upstream["state"].text();
    html << "<li>\n<div class=\"note head\"><span>" << Text(upstream["url"].text()) << "</span>\n";
    put_state(html, state, describe_wait(upstream));
    html << "</div>\n";
    if (const std::string error = upstream["last_error"].text(error_bytes); !error.empty())
      put_sentence(html, "last error: " + error,
                   state == "ok" || state == "idle" ? Tone::faint : Tone::bad);
    html << "</li>\n";
  }
  html << "</ul>\n";
}

// Configured, and nobody has asked for anything of it.
bool is_unused(const Reader& registry) {
  return registry["state"].text() == "idle" && registry["tokens"].size() == 0 &&
         registry["requests"].number() == 0 && registry["last_error"].text().empty();
}

void put_registry(Html& html, const Reader& registry) {
  const std::string state = registry["state"].text();
  const bool has_mirrors = registry["upstreams"].size() > 1;
  html << "<li>\n<div class=\"head\"><h3>" << Text(registry["name"].text()) << "</h3>\n";
  put_state(html, state, describe_wait(registry));
  html << "</div>\n";
  std::vector<Span> line{{describe_identity(registry)}};
  for (const Reader& url : registry["upstream"].items(has_mirrors ? 0 : 1))
    line.push_back({url.text()});
  line.push_back({counted(registry["requests"], "request")});
  if (registry["throttled"].number() > 0)
    line.push_back({registry["throttled"].count() + " throttled", Tone::caution});
  if (registry["refused"].number() > 0)
    line.push_back({registry["refused"].count() + " refused", Tone::caution});
  line.push_back(describe_quota(registry["rate_limit"]));
  put_flow(html, line);
  if (has_mirrors) put_upstreams(html, registry["upstreams"]);
  for (const Reader& credential : registry["credentials"].items(most_endings)) {
    if (const std::string warning = describe_ending(credential); !warning.empty())
      put_sentence(html, warning, Tone::caution);
  }
  if (const std::string error = registry["last_error"].text(error_bytes);
      !error.empty() && !has_mirrors)
    put_sentence(html, "last error: " + error, state == "ok" ? Tone::faint : Tone::bad);
  put_tokens(html, registry["tokens"]);
  html << "</li>\n";
}

void put_registries(Html& html, const Reader& registries) {
  begin_section(html, "Registries");
  html << "<ul class=\"things\">\n";
  std::string unused;
  std::size_t shown = 0;
  for (const Reader& registry : registries.items(most_registries)) {
    ++shown;
    if (is_unused(registry)) {
      unused += (unused.empty() ? "" : ", ") + registry["name"].text();
    } else {
      put_registry(html, registry);
    }
  }
  if (!unused.empty()) html << "<li class=\"note\">not asked yet: " << Text(unused) << "</li>\n";
  html << "</ul>\n";
  put_rest(html, registries.size(), shown);
  html << "</section>\n";
}

void put_cache(Html& html, const Reader& cache) {
  const std::string mode = cache["mode"].text();
  const double bytes = cache["bytes"].number();
  const double most = cache["max_bytes"].number();
  begin_section(html, "Cache");
  html << "<div class=\"head\"><span>" << Text(show_bytes(bytes)) << " of "
       << Text(show_bytes(most)) << "</span>\n";
  put_state(html, mode);
  html << "</div>\n";
  put_bar(html, share(bytes, most), show_percent(bytes, most) + " of the room is used");
  if (const std::string why = cache["mode_reason"].text(error_bytes); !why.empty())
    put_sentence(html, why, tone_of_state(mode));
  const bool quarantined = cache["quarantined"].number() > 0;
  put_flow(
      html,
      {{show_percent(bytes, most) + " used"},
       {show_bytes(cache["free_bytes"].number()) + " free on disk"},
       {counted(cache["blobs"], "blob")},
       {counted(cache["manifests"], "manifest")},
       {cache["evicted"].count() + " evicted"},
       {cache["quarantined"].count() + " quarantined", quarantined ? Tone::caution : Tone::plain},
       {cache["pins"].number() > 0 ? cache["pins"].count() + " pinned, " +
                                         show_bytes(cache["pinned_bytes"].number()) + " of it"
                                   : "",
        Tone::plain}});
  put_flow(html, describe_scrub(cache["scrub"]));
  put_flow(html, {{cache["directory"].text()}});
  html << "</section>\n";
}

// How requests were answered: one bar of all, and a row for each way.
void put_traffic(Html& html, const Reader& traffic) {
  struct Way {
    Markup name;
    const char* key;
    Markup colour;  // a class; none: as the ground of the bar
    Tone tone;      // if there is any
  };
  constexpr Way ways[] = {{"hits", "hits", "main", Tone::plain},
                          {"collapsed", "collapsed", "second", Tone::plain},
                          {"stale", "stale", "second", Tone::caution},
                          {"misses", "misses", "", Tone::plain},
                          {"errors", "errors", "", Tone::bad}};
  double all = 0;
  for (const Way& way : ways) all += traffic[way.key].number();
  begin_section(html, "Answers");
  html << "<svg aria-hidden=\"true\">";
  double begin = 0;
  for (const Way& way : ways) {
    if (way.colour.text().empty()) continue;
    const double part = share(traffic[way.key].number(), all);
    html << "<rect class=\"" << way.colour << "\" height=\"100%\" x=\"" << length(begin)
         << "\" width=\"" << length(part) << "\"/>";
    begin = std::min(begin + part, 1.0);
  }
  html << "</svg>\n<table>\n<thead><tr><th scope=\"col\">answer</th><th scope=\"col\">requests</th>"
          "<th scope=\"col\">share</th></tr></thead>\n<tbody>\n";
  for (const Way& way : ways) {
    const Reader count = traffic[way.key];
    html << "<tr class=\"" << class_of(count.number() > 0 ? way.tone : Tone::plain)
         << "\"><th scope=\"row\"><span class=\"key " << way.colour << "\"></span>" << way.name
         << "</th><td>" << Text(count.count()) << "</td><td>"
         << Text(all > 0 ? show_percent(count.number(), all) : "–") << "</td></tr>\n";
  }
  html << "</tbody>\n</table>\n";
  if (traffic["denied"].number() > 0)
    put_sentence(html, traffic["denied"].count() + " denied by [access]", Tone::caution);
  html << "</section>\n";
}

// "2026-11-22 01:30:05 UTC".
std::string show_time(WallTime now) {
  const auto day = std::chrono::floor<std::chrono::days>(now);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(std::chrono::floor<std::chrono::seconds>(now - day));
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u %02d:%02d:%02d UTC",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<int>(time.hours().count()),
                static_cast<int>(time.minutes().count()), static_cast<int>(time.seconds().count()));
  return text;
}

// Of a style sheet or a script, for the policy that allows it alone.
std::string hash_source(std::string_view embedded) {
  const std::string hexed = cache::digest_of(cache::Algorithm::sha256, embedded).hex();
  std::string bytes;
  for (std::size_t i = 0; i < hexed.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hexed.substr(i, 2), nullptr, 16));
  return "'sha256-" + proxy::auth::encode_base64(bytes) + "'";
}

// Which page it is: another program's has another style or script, which a page that is open has to
// load anew.
const std::string& build() {
  static const std::string digest =
      cache::digest_of(cache::Algorithm::sha256,
                       std::string(page::style) + std::string(page::script))
          .hex()
          .substr(0, 16);
  return digest;
}

}  // namespace

std::string render_status_page(const json::value& value, WallTime now) {
  const Reader status(&value);
  const std::string host = status["host"].text();
  Html html;
  html << "<!doctype html>\n<html lang=\"en\" data-build=\"" << Text(build())
       << "\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>"
       << Text((host.empty() ? "" : host + ": ") + status["state"].text())
       << " · Staithe</title>\n"
          "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' "
          "viewBox='0 0 8 8' fill='%231b6a8c'%3E%3Cpath d='M0 1h8v1H0zM1 3h6v1H1zM2 5h4v2H2z'/%3E"
          "%3C/svg%3E\">\n<style>";
  html.embed(page::style);
  html << "</style>\n</head>\n<body>\n<header>\n<h1>Staithe";
  if (!host.empty()) html << " <span>on " << Text(host) << "</span>";
  html << "</h1>\n<p id=\"reach\" role=\"status\">as of " << Text(show_time(now))
       << "; load it again for newer figures</p>\n</header>\n<main>\n";
  put_facts(html, status);
  put_figures(html, status);
  html << "<div class=\"column\">\n";
  put_fills(html, status["fills"]);
  put_warms(html, status["warm"]);
  put_registries(html, status["registries"]);
  html << "</div>\n<div class=\"column\">\n";
  put_cache(html, status["cache"]);
  put_traffic(html, status["traffic"]);
  html << "</div>\n</main>\n<script>";
  html.embed(page::script);
  html << "</script>\n</body>\n</html>\n";
  return html.take();
}

const std::string& status_page_policy() {
  static const std::string policy =
      "default-src 'none'; style-src " + hash_source(page::style) + "; script-src " +
      hash_source(page::script) +
      "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
      "frame-ancestors 'none'";
  return policy;
}

bool opens_status_page(const proxy::Request& request) {
  return (request.method == "GET" || request.method == "HEAD") && request.target == "/" &&
         request.field("Sec-Fetch-Mode") == "navigate" &&
         request.field("Sec-Fetch-Dest") == "document" && request.field("Origin").empty();
}

asio::awaitable<void> reply_with_status_page(proxy::Exchange& exchange, json::value status,
                                             WallTime now) {
  exchange.add("Content-Security-Policy", status_page_policy());
  exchange.add("X-Content-Type-Options", "nosniff");
  exchange.add("Referrer-Policy", "no-referrer");
  exchange.add("Cross-Origin-Resource-Policy", "same-origin");
  exchange.add("Cross-Origin-Opener-Policy", "same-origin");
  exchange.add("Cache-Control", "no-store");
  const std::string html = render_status_page(status, now);
  co_await exchange.reply(200, "text/html; charset=utf-8", html);
}

}  // namespace staithe::daemon
