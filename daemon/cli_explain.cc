#include "daemon/cli_explain.h"

#include <CLI/CLI.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/cli_output.h"
#include "daemon/cli_status.h"
#include "daemon/cli_transfers.h"
#include "daemon/control_client.h"
#include "daemon/image_name.h"
#include "daemon/json_reader.h"
#include "proxy/url.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t indent = 2;
constexpr std::size_t most_upstreams = 50;
constexpr std::size_t most_parts = 300;
constexpr std::size_t most_names = 200;
constexpr std::size_t short_digest = 19;  // "sha256:" and twelve digits

Span heading(std::string text) { return {std::move(text), Tone::heading}; }

std::string joined(const JsonReader& list, std::size_t most) {
  std::string text;
  for (const JsonReader& item : list.items(most)) text += (text.empty() ? "" : ", ") + item.text();
  if (list.size() > most) text += " and " + std::to_string(list.size() - most) + " more";
  return text;
}

std::string render_unknown(const JsonReader& answer, const Style& style) {
  return flow({{"rule"}, {"none", Tone::bad}}, indent, style) +
         paragraph({"No [[registry]] of staithe.toml answers to " + answer["registry"].text() +
                    ", so a pull of this name is refused, and clients fall back to the "
                    "registry itself. Configured: " +
                    joined(answer["configured"], most_names) + "."},
                   indent, style);
}

// "root, staithed's user, users nomad, groups docker ([registry.access]); not you (uid 1000)".
std::string render_access(const JsonReader& access, const Style& style) {
  const std::string by = access["by"].text();
  std::string who = "every local user";
  if (!by.empty()) {
    who = "root, staithed's user";
    for (const char* const list : {"users", "groups"})
      if (access[list].size() > 0)
        who += ", " + std::string(list) + " " + joined(access[list], most_names);
    who += " ([" + by + "])";
  }
  std::vector<Span> line{{"access      "}, {who}};
  const JsonReader caller = access["caller"];
  if (caller.is_object() && !caller["may_pull"].is_true())
    line.push_back({"not you, uid " + (caller["uid"].is_number() ? caller["uid"].count()
                                                                 : std::string("unknown")),
                    Tone::bad});
  return flow(line, indent, style);
}

std::string render_rule(const JsonReader& answer, const Style& style) {
  const JsonReader rule = answer["rule"];
  std::string which = "[[registry]] " + rule["name"].text() + ", number " + rule["number"].count();
  which += rule["wildcard"].is_true() ? ", by wildcard" : ", by name";
  if (rule["default"].is_true()) which += ", the default";
  std::string text = flow({{"rule        "}, {which}}, indent, style);
  const std::string repository = answer["repository"].text();
  const std::string upstream = rule["upstream_repository"].text();
  text += flow({{"repository  "},
                {repository + (upstream == repository ? "" : " (" + upstream + " upstream)")}},
               indent, style);
  if (const JsonReader access = answer["access"]; access.is_object())
    text += render_access(access, style);
  const JsonReader identity = answer["identity"];
  const std::string name = identity["name"].text();
  std::string who = name.empty() ? "" : name + " (";
  who += identity["kind"].text() + (name.empty() ? "" : ")");
  if (const std::string prefix = identity["prefix"].text(); !prefix.empty())
    who += ", the one for " + prefix;
  return text + flow({{"identity    "}, {who}}, indent, style);
}

std::string render_upstreams(const JsonReader& upstreams, const Style& style) {
  std::string text = "\n" + flow({heading("UPSTREAM")}, 0, style);
  std::vector<Row> rows;
  for (const JsonReader& upstream : upstreams.items(most_upstreams)) {
    const std::string state = upstream["state"].text();
    std::string shown_state = state;
    if (upstream["paused_seconds"].number() > 0)
      shown_state += " for " + show_seconds(upstream["paused_seconds"].number());
    Row row{{{joined(upstream["upstream"], 8)}, {shown_state, tone_of_state(state)}}, {}};
    if (const std::string tokens = describe_tokens(upstream["tokens"]); !tokens.empty())
      row.notes.push_back({tokens, Tone::faint});
    for (const JsonReader& credential : upstream["credentials"].items(8))
      if (const std::string warning = describe_ending(credential); !warning.empty())
        row.notes.push_back({warning, Tone::caution});
    if (const std::string error = upstream["last_error"].text(1000); !error.empty()) {
      row.notes.push_back({"last error: " + error, Tone::bad});
      if (const std::string remedy = upstream["remedy"].text(1000); !remedy.empty())
        row.notes.push_back({"remedy: " + remedy});
    }
    rows.push_back(std::move(row));
  }
  return text + table(rows, indent, style);
}

std::string render_tag(const JsonReader& answer, const Style& style) {
  const JsonReader tag = answer["tag"];
  std::vector<Span> line{heading("TAG")};
  if (!tag.is_object()) line = {heading("DIGEST")};
  line.push_back({answer["reference"].text()});
  line.push_back({answer["pinned"].is_true() ? "pinned" : "not pinned"});
  std::string text = "\n" + flow(line, 0, style);
  if (!tag.is_object()) return text;
  const double ttl = tag["ttl_seconds"].number();
  if (const std::string digest = tag["digest"].text(); !digest.empty()) {
    const double age = tag["age_seconds"].number();
    std::vector<Span> what{{digest.substr(0, short_digest)},
                           {"confirmed " + show_seconds(age) + " ago"}};
    what.push_back({age < ttl ? "trusted for " + show_seconds(ttl - age)
                    : ttl > 0 ? "asked for again by the next pull"
                              : "asked for at each pull"});
    const double stale = tag["stale_for_seconds"].number();
    what.push_back({stale > 0 ? "served for " + show_seconds(stale) + " while upstream fails"
                              : "not served while upstream fails"});
    return text + flow(what, indent, style);
  }
  return text + flow({{"not known here yet"},
                      {ttl > 0 ? "trusted for " + show_seconds(ttl) + " once it is"
                               : "asked for at each pull"}},
                     indent, style);
}

Span state_of(const JsonReader& part) {
  const std::string state = part["state"].text();
  const double bytes = part["bytes"].number();
  const double total = part["total"].number();
  if (state == "cached") return {state, Tone::good};
  if (state == "missing") return {state, Tone::caution};
  return {state + " " + show_percent(bytes, total) + " of it", Tone::caution};
}

std::string render_content(const JsonReader& answer, const Style& style) {
  const JsonReader parts = answer["parts"];
  if (parts.size() == 0) return {};
  std::vector<Span> head{heading("CONTENT")};
  if (const std::string platform = answer["platform"].text(); !platform.empty())
    head.push_back({platform});
  const double here = answer["bytes_here"].number();
  head.push_back(
      {answer["bytes_needed"].is_number()
           ? show_bytes(here) + " of " + show_bytes(answer["bytes_needed"].number()) + " are here"
           : show_bytes(here) + " are here, of a total that is not known yet"});
  std::string text = "\n" + flow(head, 0, style);
  std::vector<Row> rows{{{{"KIND", Tone::faint},
                          {"DIGEST", Tone::faint},
                          {"SIZE", Tone::faint},
                          {"STATE", Tone::faint},
                          {"LAST USED", Tone::faint}},
                         {}}};
  for (const JsonReader& part : parts.items(most_parts)) {
    const JsonReader used = part["last_used_seconds_ago"];
    Row row{{{part["kind"].text()},
             {part["digest"].text().substr(0, short_digest), Tone::faint},
             {part["total"].is_number() ? show_bytes(part["total"].number()) : "-"},
             state_of(part),
             {used.is_number() ? show_seconds(used.number()) + " ago" : "-"}},
            {}};
    if (const std::string pace = describe_pace(part); !pace.empty())
      row.notes.push_back({pace, Tone::faint});
    rows.push_back(std::move(row));
  }
  text += table(rows, indent, style);
  if (parts.size() > most_parts)
    text += flow({{"and " + std::to_string(parts.size() - most_parts) + " more"}}, indent, style);
  std::string others;
  for (const JsonReader& platform : answer["platforms"].items(most_names)) {
    if (platform["platform"].text() == answer["platform"].text()) continue;
    others += (others.empty() ? "" : ", ") + platform["platform"].text() +
              (platform["state"].text() == "cached" ? " (manifest cached)" : "");
  }
  if (!others.empty()) text += paragraph({"also for " + others, Tone::faint}, indent, style);
  return text;
}

std::string render_next_pull(const JsonReader& next, const Style& style) {
  const std::string result = next["result"].text();
  std::string what;
  if (result == "hit") what = "all from the cache";
  if (result == "partly") what = "partly from the cache";
  if (result == "miss") what = "from upstream";
  if (next["bytes_to_fetch"].number() > 0)
    what += ", " + show_bytes(next["bytes_to_fetch"].number()) + " to fetch";
  std::string text =
      "\n" +
      flow({heading("NEXT PULL"), {result, result == "hit" ? Tone::good : Tone::caution}, {what}},
           0, style);
  const JsonReader asks = next["asks"];
  if (asks.size() == 0) return text + flow({{"asks nothing upstream"}}, indent, style);
  text += flow({{"asks upstream:"}}, indent, style);
  for (const JsonReader& ask : asks.items(most_parts)) text += flow({{ask.text()}}, 4, style);
  return text;
}

}  // namespace

std::string render_explanation(const boost::json::value& value, const Style& style) {
  const JsonReader answer(&value);
  const std::string image = answer["image"].text();
  const std::string asked = answer["asked"].text();
  std::vector<Span> title{heading("IMAGE"), {image}};
  if (!asked.empty() && asked != image) title.push_back({"(what \"" + asked + "\" means)"});
  std::string text = flow(title, 0, style);
  if (!answer["rule"].is_object()) return text + render_unknown(answer, style);
  return text + render_rule(answer, style) + render_upstreams(answer["upstreams"], style) +
         render_tag(answer, style) + render_content(answer, style) +
         render_next_pull(answer["next_pull"], style);
}

ExplainCommand::ExplainCommand(CLI::App& app)
    : command_(app.add_subcommand(
          "explain", "Why an image is pulled as it is: rule, upstream, identity, what is cached")) {
  command_->add_flag("--json", as_json_, "JSON instead of text");
  command_->add_option("image", image_, "As docker takes it: busybox, contoso.azurecr.io/app:1")
      ->type_name("IMAGE")
      ->required();
  command_->footer(
      "Examples:\n  staithe explain contoso.azurecr.io/app:1\n  staithe explain --json busybox\n"
      "Says what this daemon knows: nothing is asked upstream for it, and nothing counts as used.\n"
      "Exit status 1 if no [[registry]] answers to the name.");
}

std::optional<int> ExplainCommand::run(const CliContext& context,
                                       const std::filesystem::path& socket) {
  if (!command_->parsed()) return std::nullopt;
  if (const auto name = parse_image_name(image_); !name) {
    context.err << "staithe: " << name.error().detail << " (see staithe explain --help)\n";
    return kExitBadUsage;
  }
  const auto answer = control_get(socket, "/v1/explain?image=" + proxy::percent_encode(image_));
  if (!answer) return report(context, answer.error());
  if (as_json_) {
    print_json(context, *answer);
  } else {
    context.out << render_explanation(*answer, context.terminal.style);
  }
  const int finished = finish(context);
  return JsonReader(&*answer)["rule"].is_object() ? finished : kExitFailed;
}

}  // namespace staithe::daemon
