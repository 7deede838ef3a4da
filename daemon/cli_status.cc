#include "daemon/cli_status.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <string_view>
#include <vector>

#include "daemon/cli_transfers.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using Reader = JsonReader;

constexpr std::size_t kIndent = 2;
constexpr std::size_t kMaxRegistries = 200;
constexpr std::size_t kMaxListen = 16;
constexpr std::size_t kMaxVictims = 10;
constexpr std::size_t kMaxEndings = 8;
constexpr std::size_t kMaxUpstreams = 8;
constexpr std::size_t kMaxFault = 1000;
constexpr std::size_t kBarColumns = 26;
constexpr std::size_t kShortDigest = 19;  // "sha256:" and twelve digits

Span heading(std::string text) { return {std::move(text), Tone::heading}; }

// "3 evicted": a count that is only of interest when there is something to count.
Span counted(const Reader& value, std::string_view what, Tone tone_if_any) {
  return {value.count() + " " + std::string(what), value.number() > 0 ? tone_if_any : Tone::plain};
}

std::string render_daemon(const Reader& status, const Style& style) {
  const std::string state = status["state"].text();
  std::string version = status["version"].text();
  if (!version.empty()) version = " " + version;
  std::string text = flow({heading("staithed" + version),
                           {state, tone_of_state(state)},
                           {"pid " + status["pid"].count()},
                           {"up " + show_seconds(status["uptime_seconds"].number())}},
                          0, style);
  std::vector<Span> listen{{"listens on"}};
  for (const Reader& address : status["listen"].items(kMaxListen)) {
    listen.push_back({address.text()});
  }
  if (listen.size() > 1) text += flow(listen, 0, style);
  const Reader tls = status["tls"];
  if (const std::vector<Span> line = describe_tls(tls); !line.empty())
    text += flow(line, kIndent, style);
  if (const std::string fault = tls["fault"].text(kMaxFault); !fault.empty())
    text += paragraph({"not reloaded: " + fault, Tone::bad}, kIndent, style);
  return text;
}

std::string render_next_victims(const Reader& victims, const Style& style) {
  if (victims.size() == 0) return {};
  std::vector<Row> rows{{{{"NEXT TO GO", Tone::faint},
                          {"KIND", Tone::faint},
                          {"SIZE", Tone::faint},
                          {"LAST USED", Tone::faint},
                          {"WHY", Tone::faint}},
                         {}}};
  for (const Reader& victim : victims.items(kMaxVictims)) {
    const Reader ago = victim["last_used_seconds_ago"];
    rows.push_back({{{victim["digest"].text().substr(0, kShortDigest)},
                     {victim["kind"].text()},
                     {show_bytes(victim["bytes"].number())},
                     {ago.is_number() ? show_seconds(ago.number()) + " ago" : "not known"},
                     {victim["why"].text()}},
                    {}});
  }
  return table(rows, kIndent, style);
}

std::string render_cache(const Reader& cache, const Style& style) {
  const std::string mode = cache["mode"].text();
  const double bytes = cache["bytes"].number();
  const double most = cache["max_bytes"].number();
  std::string text =
      flow({heading("CACHE"), {cache["directory"].text()}, {mode, tone_of_state(mode)}}, 0, style);
  if (const std::string why = cache["mode_reason"].text(); !why.empty())
    text += paragraph({why, tone_of_state(mode)}, kIndent, style);
  text += flow({{show_bytes(bytes) + " of " + show_bytes(most)},
                {bar(most > 0 ? bytes / most : 0, kBarColumns, style)},
                {show_percent(bytes, most)},
                {show_bytes(cache["free_bytes"].number()) + " free on disk"}},
               kIndent, style);
  text += flow({{cache["blobs"].count() + " blobs"},
                {cache["manifests"].count() + " manifests"},
                counted(cache["evicted"], "evicted", Tone::plain),
                counted(cache["quarantined"], "quarantined", Tone::caution)},
               kIndent, style);
  if (cache["pins"].number() > 0) {
    // Nearly all of it, and there is no room for anything else.
    const double pinned = cache["pinned_bytes"].number();
    text += flow({{cache["pins"].count() + " pinned"},
                  {show_bytes(pinned) + " of it kept for them",
                   pinned > 0.9 * most ? Tone::caution : Tone::plain}},
                 kIndent, style);
  }
  return text + flow(describe_scrub(cache["scrub"]), kIndent, style) +
         render_next_victims(cache["next_victims"], style);
}

std::string render_traffic(const Reader& traffic, const Style& style) {
  const Reader ratio = traffic["hit_ratio"];
  const double served = traffic["bytes_served"].number();
  const double fetched = traffic["bytes_fetched"].number();
  std::string text = flow({heading("TRAFFIC")}, 0, style);
  text += flow({{traffic["requests"].count() + " requests"},
                {traffic["hits"].count() + " hits"},
                {traffic["misses"].count() + " misses"},
                {traffic["collapsed"].count() + " collapsed"},
                counted(traffic["stale"], "stale", Tone::caution),
                counted(traffic["errors"], "errors", Tone::bad)},
               kIndent, style);
  text += flow(
      {{ratio.is_number() ? show_percent(ratio.number(), 1) + " hit ratio" : "no hit ratio yet"},
       {show_bytes(served) + " served"},
       {show_bytes(fetched) + " fetched"},
       {show_bytes(traffic["bytes_saved"].number()) + " saved"}},
      kIndent, style);
  return text;
}

// How each of a registry's upstreams fares, in the order in which they are asked.
std::vector<Span> describe_upstreams(const Reader& upstreams) {
  std::vector<Span> notes;
  for (const Reader& upstream : upstreams.items(kMaxUpstreams)) {
    const std::string state = upstream["state"].text();
    const std::string error = upstream["last_error"].text();
    notes.push_back({std::to_string(notes.size() + 1) + ". " + upstream["url"].text() + ": " +
                         state + describe_wait(upstream) +
                         (error.empty() ? "" : "; last error: " + error),
                     state == "ok" || state == "idle" ? Tone::faint : tone_of_state(state)});
  }
  return notes;
}

std::string render_registries(const Reader& registries, const Style& style) {
  std::string text = flow({heading("REGISTRIES")}, 0, style);
  std::vector<Row> rows{{{{"NAME", Tone::faint},
                          {"UPSTREAM", Tone::faint},
                          {"IDENTITY", Tone::faint},
                          {"STATE", Tone::faint}},
                         {}}};
  for (const Reader& registry : registries.items(kMaxRegistries)) {
    std::string upstream;
    const bool has_mirrors = registry["upstreams"].size() > 1;
    for (const Reader& url : registry["upstream"].items(kMaxUpstreams)) {
      upstream += (upstream.empty() ? "" : ", ") + url.text();
    }
    if (has_mirrors) upstream = std::to_string(registry["upstreams"].size()) + " in order";
    const std::string state = registry["state"].text();
    const std::string shown_state = state + describe_wait(registry);
    Row row{{{registry["name"].text()},
             {upstream.empty() ? "-" : upstream},
             {describe_identity(registry)},
             {shown_state, tone_of_state(state)}},
            {}};
    if (has_mirrors) row.notes = describe_upstreams(registry["upstreams"]);
    if (const std::string tokens = describe_tokens(registry["tokens"]); !tokens.empty()) {
      row.notes.push_back({tokens, Tone::faint});
    }
    if (const Span quota = describe_quota(registry["rate_limit"]); !quota.text.empty()) {
      row.notes.push_back(quota);
    }
    for (const Reader& credential : registry["credentials"].items(kMaxEndings)) {
      if (const std::string warning = describe_ending(credential); !warning.empty())
        row.notes.push_back({warning, Tone::caution});
    }
    if (const std::string error = registry["last_error"].text(); !error.empty() && !has_mirrors) {
      row.notes.push_back({"last error: " + error, state == "ok" ? Tone::faint : Tone::bad});
    }
    rows.push_back(std::move(row));
  }
  if (rows.size() == 1) return text + flow({{"none asked for yet", Tone::faint}}, kIndent, style);
  text += table(rows, kIndent, style);
  if (registries.size() > kMaxRegistries) {
    text += flow({{"and " + std::to_string(registries.size() - kMaxRegistries) + " more"}}, kIndent,
                 style);
  }
  return text;
}

}  // namespace

Tone tone_of_state(std::string_view state) {
  if (state == "ok" || state == "ready" || state == "read-write") return Tone::good;
  if (state == "idle") return Tone::faint;
  if (state == "unreachable" || state == "unauthorized" || state == "failed" || state == "off") {
    return Tone::bad;
  }
  return Tone::caution;
}

std::vector<Span> describe_scrub(const Reader& scrub) {
  const std::string state = scrub["state"].text();
  if (state.empty()) return {};
  std::vector<Span> line{{"scrub " + state, state == "off" ? Tone::caution : Tone::plain}};
  const bool running = state == "running" || state == "yielding";
  if (running) {
    const double total = scrub["total_bytes"].number();
    line.push_back({show_percent(scrub["bytes"].number(), total) + " of " + show_bytes(total)});
    line.push_back(
        {scrub["objects"].count() + " of " + scrub["total_objects"].count() + " objects"});
    line.push_back({"since " + show_seconds(scrub["began_seconds_ago"].number())});
  } else if (scrub["ended_seconds_ago"].is_number()) {
    line.push_back({"last one " + show_seconds(scrub["ended_seconds_ago"].number()) + " ago"});
    line.push_back({scrub["objects"].count() + " objects"});
  }
  if (running || scrub["ended_seconds_ago"].is_number())
    line.push_back(counted(scrub["damaged"], "damaged", Tone::caution));
  if (scrub["next_in_seconds"].is_number())
    line.push_back({"next look in " + show_seconds(scrub["next_in_seconds"].number())});
  return line;
}

Span describe_quota(const Reader& quota) {
  if (!quota["limit"].is_number()) return {};
  const double limit = quota["limit"].number();
  const double remaining = quota["remaining"].number();
  return {quota["remaining"].count() + " of " + quota["limit"].count() + " pulls left per " +
              show_seconds(quota["window_seconds"].number()),
          remaining < 0.1 * limit ? Tone::caution : Tone::faint};
}

std::string describe_wait(const Reader& upstream) {
  if (upstream["paused_seconds"].number() > 0)
    return " for " + show_seconds(upstream["paused_seconds"].number());
  if (upstream["retry_in_seconds"].is_number())
    return ", tried again in " + show_seconds(upstream["retry_in_seconds"].number());
  return {};
}

std::string describe_identity(const Reader& registry) {
  const std::string identity = registry["identity"].text();
  const std::string kind = registry["identity_kind"].text();
  if (identity.empty()) return kind.empty() ? "anonymous" : kind;
  return identity + (kind.empty() ? "" : " (" + kind + ")");
}

std::string describe_tokens(const Reader& tokens) {
  struct Kind {
    std::size_t count = 0;
    double expires = 0;
    double renews = 0;
    bool by_itself = true;
  };
  constexpr std::size_t kMaxTokens = 10'000;
  std::map<std::string, Kind> kinds;
  std::vector<std::string> order;
  for (const Reader& token : tokens.items(kMaxTokens)) {
    const std::string name = token["kind"].text();
    const double expires = token["expires_in_seconds"].number();
    const double renews = token["renews_in_seconds"].number();
    const bool by_itself = token["renews_in_seconds"].is_number();
    Kind& kind = kinds[name];
    if (kind.count++ == 0) {
      order.push_back(name);
      kind.expires = expires;
      kind.renews = renews;
    }
    kind.expires = std::min(kind.expires, expires);
    kind.renews = std::min(kind.renews, renews);
    kind.by_itself = kind.by_itself && by_itself;
  }
  std::string text;
  for (const std::string& name : order) {
    const Kind& kind = kinds[name];
    text += text.empty() ? "tokens: " : "; ";
    if (kind.count > 1) text += std::to_string(kind.count) + " ";
    text += name + " valid for " + show_seconds(kind.expires) +
            (kind.by_itself ? ", renewed in " + show_seconds(kind.renews)
                            : std::string(", not renewed by itself"));
  }
  return text;
}

std::vector<Span> describe_tls(const Reader& tls) {
  if (!tls["expires_in_seconds"].is_number()) return {};
  const double left = tls["expires_in_seconds"].number();
  std::vector<Span> line;
  if (left <= 0) {
    line.push_back({"TLS certificate has ended: staithe setup --tls --apply", Tone::bad});
  } else if (tls["near"].is_true()) {
    line.push_back(
        {"TLS certificate ends in " + show_seconds(left) + ": staithe setup --tls --apply",
         Tone::caution});
  } else {
    line.push_back({"TLS certificate valid for " + show_seconds(left)});
  }
  line.push_back({tls["handshakes"].count() + " handshakes"});
  line.push_back(counted(tls["failed"], "failed", Tone::caution));
  return line;
}

std::string describe_ending(const Reader& credential) {
  if (!credential["near"].is_true()) return {};
  const double left = credential["expires_in_seconds"].number();
  return "renew: " + credential["what"].text() +
         (left > 0 ? " ends in " + show_seconds(left) : " has ended");
}

std::string render_status(const json::value& value, const Style& style, Order order) {
  const Reader status(&value);
  std::vector<std::string> sections{
      render_cache(status["cache"], style), render_traffic(status["traffic"], style),
      render_registries(status["registries"], style), render_fills(status["fills"], style),
      render_warms(status["warm"], style)};
  // What moves: the last two.
  if (order == Order::transfers_first) std::ranges::rotate(sections, sections.end() - 2);
  std::string text = render_daemon(status, style);
  if (const Reader lost = status["log"]["dropped"]; lost.number() > 0)
    text += paragraph(
        {lost.count() + " lines of the log were lost: their sink is too slow", Tone::caution},
        kIndent, style);
  for (const std::string& section : sections) {
    if (!section.empty()) text += "\n" + section;
  }
  return text;
}

}  // namespace staithe::daemon
