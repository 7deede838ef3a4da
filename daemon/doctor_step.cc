#include "daemon/doctor_step.h"

#include "daemon/json_reader.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

constexpr std::size_t most_text_bytes = 2000;

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

StepState state_of(std::string_view text) {
  for (const StepState state : {StepState::ok, StepState::warning, StepState::skipped})
    if (text == to_string(state)) return state;
  return StepState::failed;
}

}  // namespace

const char* to_string(StepState state) {
  switch (state) {
    case StepState::ok:
      return "ok";
    case StepState::warning:
      return "warning";
    case StepState::failed:
      return "failed";
    case StepState::skipped:
      return "skipped";
  }
  return "failed";
}

json::object to_json(const DoctorStep& step) {
  return {{"kind", "step"},
          {"step", step.step},
          {"subject", step.subject},
          {"state", to_string(step.state)},
          {"tried", text_or_null(step.tried)},
          {"seconds", seconds(step.took)},
          {"finding", step.finding},
          {"mend", text_or_null(step.mend)},
          {"class", text_or_null(step.error_class)}};
}

bool is_step(const json::value& line) { return JsonReader(&line)["kind"].text() == "step"; }

DoctorStep step_of(const json::value& line) {
  const JsonReader reader(&line);
  const std::chrono::duration<double> took(std::min(reader["seconds"].number(), 1e6));
  return {.step = reader["step"].text(),
          .subject = reader["subject"].text(),
          .state = state_of(reader["state"].text()),
          .tried = reader["tried"].text(most_text_bytes),
          .took = std::chrono::duration_cast<std::chrono::nanoseconds>(took),
          .finding = reader["finding"].text(most_text_bytes),
          .mend = reader["mend"].text(most_text_bytes),
          .error_class = reader["class"].text()};
}

void DoctorSum::count(StepState state) {
  switch (state) {
    case StepState::ok:
      ++ok;
      break;
    case StepState::warning:
      ++warnings;
      break;
    case StepState::failed:
      ++failed;
      break;
    case StepState::skipped:
      ++skipped;
      break;
  }
}

json::object DoctorSum::to_json(std::chrono::nanoseconds took) const {
  return {{"kind", "sum"},           {"done", true},     {"ok", ok},
          {"warnings", warnings},    {"failed", failed}, {"skipped", skipped},
          {"seconds", seconds(took)}};
}

}  // namespace staithe::daemon
