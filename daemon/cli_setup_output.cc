// How `staithe setup` shows what it did.
#include <algorithm>
#include <boost/json/array.hpp>
#include <cstdio>

#include "cache/escape.h"
#include "daemon/cli_setup.h"
#include "daemon/unified_diff.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

std::string shown_path(const std::filesystem::path& path) { return printable(path.native(), 400); }

std::string diff_of(const FileChange& change) {
  return without_controls(
      without_secrets(unified_diff(shown_path(change.path), change.before, change.after)));
}

std::string coloured(std::string_view diff, const Style& style) {
  std::string result;
  while (!diff.empty()) {
    const std::size_t end = std::min(diff.find('\n'), diff.size());
    const std::string_view line = diff.substr(0, end);
    diff.remove_prefix(std::min(end + 1, diff.size()));
    Tone tone = Tone::plain;
    if (line.starts_with("---") || line.starts_with("+++")) {
      tone = Tone::heading;
    } else if (line.starts_with('+')) {
      tone = Tone::good;
    } else if (line.starts_with('-')) {
      tone = Tone::bad;
    } else if (line.starts_with("@@")) {
      tone = Tone::faint;
    }
    // Never cut to the terminal's width: this is to be read whole, and copied.
    result += paint({std::string(line), tone}, style) + "\n";
  }
  return result;
}

std::string indented(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    result += "    " + without_controls(text.substr(0, end)) + "\n";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

// As the command line has it.
std::string words_of(Client client) {
  return client == Client::tls ? "--tls" : std::string(to_string(client));
}

std::string heading(const Plan& plan, const Style& style) {
  const std::string name(to_string(plan.client));
  return paint({plan.version.empty() ? name : name + " " + printable(plan.version, 80),
                Tone::heading},
               style) +
         "\n";
}

std::string restarts_text(const std::vector<Restart>& restarts, std::string_view word,
                          const Style& style) {
  std::string text;
  for (const Restart& restart : restarts)
    text += paragraph(
        {std::string(word) + ": " + restart.command + " (" + restart.why + ")", Tone::caution}, 2,
        style);
  return text;
}

std::string files(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " file" : " files");
}

json::array to_json(const std::vector<Restart>& restarts) {
  json::array all;
  for (const Restart& restart : restarts)
    all.push_back(json::object{{"command", restart.command}, {"why", restart.why}});
  return all;
}

json::array paths(const std::vector<std::filesystem::path>& list) {
  json::array all;
  for (const auto& path : list) all.emplace_back(path.native());
  return all;
}

}  // namespace

std::string render_setup(const SetupOutcome& outcome, bool apply, const Style& style) {
  const Plan& plan = outcome.plan;
  std::string text = heading(plan, style);
  for (const std::string& warning : plan.warnings)
    text += paragraph({"note: " + warning, Tone::caution}, 2, style);
  for (const Refusal& refusal : plan.refusals) {
    text += paragraph({shown_path(refusal.path) + ": " + refusal.why, Tone::bad}, 2, style);
    if (!refusal.text.empty()) text += "  by hand:\n" + indented(refusal.text);
  }
  for (const FileChange& change : plan.changes) text += coloured(diff_of(change), style);

  const std::string name = words_of(plan.client);
  if (!plan.refusals.empty()) {
    if (apply || !plan.changes.empty()) text += "  nothing is written for " + name + "\n";
    return text;
  }
  if (!outcome.failure.empty()) return text + paragraph({outcome.failure, Tone::bad}, 2, style);
  if (plan.changes.empty()) {
    text += plan.settled.empty()
                ? "  there is nothing to set up\n"
                : "  " + files(plan.settled.size()) + " say already what they have to\n";
  } else if (outcome.applied) {
    text += paragraph({files(plan.changes.size()) + " written; staithe setup " + name +
                           " --undo puts back what was there",
                       Tone::good},
                      2, style);
  } else {
    text += "  nothing is written yet: staithe setup " + name + " --apply\n";
  }
  text += restarts_text(plan.restarts, outcome.applied ? "now" : "then", style);
  if (!outcome.untested.empty())
    text += paragraph({"not tested: " + outcome.untested, Tone::caution}, 2, style);
  if (!outcome.test.empty()) {
    text += "  test" + (outcome.image.empty() ? "" : " with " + printable(outcome.image, 200)) +
            ", as " + name + " asks:\n";
    for (const TestStep& step : outcome.test) {
      char seconds[32];
      std::snprintf(seconds, sizeof seconds, " (%.0f ms)", step.seconds * 1000);
      text += paragraph({std::string(step.good ? "ok, " : "FAILED, ") + step.what + ": " +
                             printable(step.finding, 700) + seconds,
                         step.good ? Tone::good : Tone::bad},
                        4, style);
    }
  }
  return text;
}

json::object to_json(const SetupOutcome& outcome) {
  const Plan& plan = outcome.plan;
  json::array changes;
  for (const FileChange& change : plan.changes) {
    changes.push_back(json::object{{"path", change.path.native()},
                                   {"action", change.before ? "change" : "create"},
                                   {"diff", diff_of(change)}});
  }
  json::array refusals;
  for (const Refusal& refusal : plan.refusals) {
    refusals.push_back(json::object{
        {"path", refusal.path.native()}, {"why", refusal.why}, {"by_hand", refusal.text}});
  }
  json::array warnings;
  for (const std::string& warning : plan.warnings) warnings.emplace_back(warning);
  json::array steps;
  for (const TestStep& step : outcome.test) {
    steps.push_back(json::object{{"what", step.what},
                                 {"good", step.good},
                                 {"finding", step.finding},
                                 {"seconds", step.seconds}});
  }
  const auto or_null = [](const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(text);
  };
  return {{"client", to_string(plan.client)},
          {"found", plan.found},
          {"version", or_null(plan.version)},
          {"changes", std::move(changes)},
          {"settled", paths(plan.settled)},
          {"refusals", std::move(refusals)},
          {"warnings", std::move(warnings)},
          {"restarts", to_json(plan.restarts)},
          {"applied", outcome.applied},
          {"failure", or_null(outcome.failure)},
          {"test", json::object{{"image", or_null(outcome.image)},
                                {"untested", or_null(outcome.untested)},
                                {"steps", std::move(steps)}}}};
}

std::string render_undo(Client client, const Undone& undone, const Style& style) {
  std::string text = paint({std::string(to_string(client)), Tone::heading}, style) + "\n";
  for (const Undone::Conflict& conflict : undone.conflicts) {
    text += paragraph({shown_path(conflict.path) +
                           ": somebody has changed the lines that setup has written; from what it "
                           "wrote to what is there:",
                       Tone::bad},
                      2, style);
    text += coloured(without_controls(without_secrets(
                         unified_diff(shown_path(conflict.path), conflict.ours, conflict.found))),
                     style);
  }
  if (!undone.conflicts.empty()) {
    return text + "  nothing is changed. staithe setup " + words_of(client) +
           " --undo --force puts back what was there before setup, and keeps the present text\n";
  }
  if (!undone.anything) return text + "  there is nothing to undo\n";
  for (const auto& path : undone.restored) text += "  as it was: " + shown_path(path) + "\n";
  for (const auto& path : undone.merged)
    text += paragraph(
        {"as it was, but for what was changed since by others: " + shown_path(path), Tone::plain},
        2, style);
  for (const auto& [path, copy] : undone.replaced)
    text += paragraph({"the text that was there is now in " + shown_path(copy), Tone::caution}, 2,
                      style);
  for (const auto& path : undone.left)
    text +=
        paragraph({"left, because others have put files there: " + shown_path(path), Tone::caution},
                  2, style);
  return text + restarts_text(undone.restarts, "now", style);
}

json::object to_json(Client client, const Undone& undone) {
  json::array conflicts;
  for (const Undone::Conflict& conflict : undone.conflicts) {
    conflicts.push_back(
        json::object{{"path", conflict.path.native()},
                     {"diff", without_controls(without_secrets(unified_diff(
                                  shown_path(conflict.path), conflict.ours, conflict.found)))}});
  }
  json::array replaced;
  for (const auto& [path, copy] : undone.replaced)
    replaced.push_back(json::object{{"path", path.native()}, {"kept", copy.native()}});
  return {{"client", to_string(client)},
          {"undone", undone.anything},
          {"restored", paths(undone.restored)},
          {"merged", paths(undone.merged)},
          {"replaced", std::move(replaced)},
          {"left", paths(undone.left)},
          {"conflicts", std::move(conflicts)},
          {"restarts", to_json(undone.restarts)},
          {"failure", nullptr}};
}

}  // namespace staithe::daemon
