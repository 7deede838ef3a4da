// What the credentials' code needs from its surroundings, all of it handed in.
#pragma once

#include <memory>

#include "cache/clock.h"
#include "cache/random.h"
#include "cache/task_group.h"
#include "proxy/auth/files.h"
#include "proxy/auth/programs.h"
#include "proxy/auth/token_meter.h"
#include "proxy/http.h"

namespace staithe::proxy::auth {

// Outlives every object that is given one, and every task of the group; copied freely.
struct Environment {
  HttpClient& http;
  Clock& clock;
  TaskGroup& tasks;  // renewals and fetches run here; cancel and join it at the end
  Random& random;
  Files& files;
  Programs& programs;
  HttpLimits limits;
  // Where fetches of tokens are counted; null: nowhere.
  std::shared_ptr<TokenMeter> meter = {};
};

}  // namespace staithe::proxy::auth
