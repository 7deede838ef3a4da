#include "daemon/cli_output.h"

#include <boost/json/serialize.hpp>

namespace staithe::daemon {

int report(const CliContext& context, const ControlError& error) {
  context.err << "staithe: " << error.message << "\n";
  return error.unreachable ? kExitUnreachable : kExitFailed;
}

void print_json(const CliContext& context, const boost::json::value& value) {
  context.out << without_controls(boost::json::serialize(value)) << "\n" << std::flush;
}

int finish(const CliContext& context) {
  context.out << std::flush;
  return context.out ? kExitOk : kExitFailed;
}

}  // namespace staithe::daemon
