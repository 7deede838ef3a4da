#include "proxy/auth/demand.h"

#include "proxy/auth/challenge.h"
#include "proxy/auth/json.h"
#include "proxy/auth/token_call.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_service_bytes = 1024;

// A 200 without credentials is a registry's only if it looks like one: a captive portal answers 200
// to everything, and "send no credentials" is not to be learnt from it.
bool is_from_a_registry(const Answer& answer) {
  return answer.headers.find("docker-distribution-api-version") || answer.body.empty() ||
         parse_json_object(answer.body.reveal());
}

}  // namespace

Result<Demand> read_demand(const Headers& headers, const RealmRule& rule) {
  const Result<std::vector<Challenge>> challenges =
      parse_challenges(headers.all("www-authenticate"));
  if (!challenges) return std::unexpected(challenges.error());
  const Challenge* challenge = choose(*challenges);
  if (!challenge) {
    return fail(Errc::upstream_nonsense,
                "it answers 401 and asks for neither a Bearer token nor a Basic password");
  }
  Demand demand;
  if (challenge->scheme == "basic") {
    demand.kind = Demand::Kind::basic;
    return demand;
  }
  Result<Url> realm = rule(*challenge->param("realm"));
  if (!realm) return std::unexpected(std::move(realm.error()));
  demand.kind = Demand::Kind::bearer;
  demand.realm = std::move(*realm);
  if (const std::string* service = challenge->param("service")) {
    if (service->size() > max_service_bytes)
      return fail(Errc::upstream_nonsense, "its challenge has an endless service name");
    demand.service = *service;
  }
  return demand;
}

asio::awaitable<Demand> DemandSource::fetch() {
  const std::string step = "asking " + registry_.authority() + " how to authenticate";
  HttpRequest request;
  request.url = Url::parse(registry_.to_string() + "/v2/").value();
  request.host_named_by = HostNamedBy::configuration;
  request.ca_file = ca_file_;
  request.limits = environment_.limits;
  const Answer answer = co_await ask(environment_, std::move(request), step);
  Result<Demand> demand = Demand{};
  if (answer.status == 401) {
    demand = read_demand(answer.headers, rule_);
    if (!demand) throw Failure(demand.error().code, step + ": " + demand.error().detail);
  } else if (answer.status == 200 && !is_from_a_registry(answer)) {
    throw Failure(Errc::upstream_nonsense,
                  step +
                      ": 200, but not from a registry; check the network path to it (captive "
                      "portal, proxy)");
  } else if (answer.status != 200) {
    throw_refused(answer, step,
                  "A registry answers 200 or 401 here; check the network path to it (firewall, "
                  "private endpoint, proxy)");
  }
  demand->life = Life{
      .since = answer.sent, .wall_since = answer.wall_sent, .lasts = demand_life, .refresh_in = {}};
  co_return std::move(*demand);
}

}  // namespace staithe::proxy::auth
