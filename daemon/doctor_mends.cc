#include "daemon/doctor_mends.h"

#include <algorithm>
#include <array>

#include "cache/escape.h"
#include "proxy/auth/identities.h"
#include "proxy/auth/trust.h"
#include "proxy/url.h"

namespace staithe::daemon {
namespace {

using proxy::IdentityKind;

bool says(const Error& error, std::string_view words) { return error.detail.contains(words); }

// "contoso", the name that az takes; empty if the registry is none of Azure's.
std::string acr_name(const MendFor& whose) {
  if (!whose.acr_suffixes) return {};
  const auto url = proxy::Url::parse(whose.upstream);
  for (const std::string& host : {whose.registry, url ? url->origin().host : std::string()}) {
    const auto parsed = proxy::auth::parse_acr_host(host, *whose.acr_suffixes);
    if (parsed) return printable(parsed->name, 80);
  }
  return {};
}

std::string shown_registry(const MendFor& whose) { return printable(whose.registry, 120); }

// What az calls the identity.
std::string assignee(const MendFor& whose) {
  const auto* identity = whose.identity;
  if (identity && !identity->client_id.empty()) return printable(identity->client_id, 80);
  if (identity && !identity->object_id.empty()) return printable(identity->object_id, 80);
  if (identity && identity->kind == IdentityKind::managed_identity && identity->resource_id.empty())
    return "$(az vm show --resource-group GROUP --name VM --query identity.principalId --output "
           "tsv)";
  return "PRINCIPAL_ID";
}

std::string section(const MendFor& whose) {
  return "[identity." + printable(whose.identity_name, 60) + "]";
}

std::string grant_the_role(const MendFor& whose) {
  const std::string name = acr_name(whose);
  if (name.empty())
    return "give this identity the right to pull from " + shown_registry(whose) +
           ", or use another one in its [[registry]]";
  return "az role assignment create --assignee " + assignee(whose) +
         " --role AcrPull --scope $(az acr show --name " + name +
         " --query id --output tsv); where the registry uses ABAC, the role is Container Registry "
         "Repository Reader; it takes up to 10 minutes, then: staithe renew " +
         shown_registry(whose);
}

std::string open_the_firewall(const MendFor& whose) {
  const std::string name = acr_name(whose);
  if (name.empty())
    return "let this machine's address through the network rules of " + shown_registry(whose);
  return "az acr network-rule add --name " + name +
         " --ip-address ADDRESS, with the address that the registry names, or reach it by its "
         "private endpoint: getent hosts " +
         printable(whose.host, 120) + " then gives a private address";
}

std::string file_of(const proxy::IdentitySettings& identity) {
  for (const auto* file : {&identity.client_secret_file, &identity.certificate_file,
                           &identity.password_file, &identity.token_file, &identity.file})
    if (!file->empty()) return printable(file->native(), 150);
  return "its file";
}

// By the number that Entra gives.
struct EntraMend {
  std::string_view number;
  std::string_view mend;
};
constexpr std::array entra_mends = {
    EntraMend{"AADSTS7000222",
              "the client secret has ended: az ad app credential reset --id CLIENT --append, and "
              "put the new password into FILE"},
    EntraMend{"AADSTS7000215",
              "FILE does not hold the secret's value (not its id): az ad app credential reset "
              "--id CLIENT --append, and put the new password into FILE"},
    EntraMend{"AADSTS700016",
              "there is no such application in this tenant: az ad sp show --id CLIENT, and correct "
              "client_id or tenant_id in SECTION"},
    EntraMend{"AADSTS90002",
              "there is no such tenant: correct tenant_id in SECTION (az account show --query "
              "tenantId --output tsv), and azure.cloud"},
    EntraMend{"AADSTS900023",
              "there is no such tenant: correct tenant_id in SECTION (az account show --query "
              "tenantId --output tsv), and azure.cloud"},
    EntraMend{"AADSTS700024",
              "the proof was made at another time than Entra's: set this machine's clock "
              "(timedatectl set-ntp true), and have the token in FILE renewed"},
    EntraMend{"AADSTS700027",
              "Entra does not know this certificate: az ad app credential reset --id CLIENT --cert "
              "@FILE --append"},
    EntraMend{"AADSTS700211",
              "no federated credential fits the token's issuer: az ad app federated-credential "
              "list --id CLIENT"},
    EntraMend{"AADSTS700212",
              "no federated credential fits the token's audience: az ad app federated-credential "
              "list --id CLIENT"},
    EntraMend{"AADSTS700213",
              "no federated credential fits the token's subject: az ad app federated-credential "
              "list --id CLIENT"},
    EntraMend{"AADSTS70021",
              "no federated credential fits the token: az ad app federated-credential list --id "
              "CLIENT"},
    EntraMend{"AADSTS500011",
              "this cloud does not know the audience: correct azure.cloud or azure.audience"},
    EntraMend{"AADSTS7000229",
              "the application has no service principal in this tenant: az ad sp create --id "
              "CLIENT"},
};

std::string with(std::string text, std::string_view placeholder, const std::string& value) {
  for (std::size_t at = text.find(placeholder); at != std::string::npos;
       at = text.find(placeholder, at + value.size()))
    text.replace(at, placeholder.size(), value);
  return text;
}

std::string entra_mend(const Error& error, const MendFor& whose) {
  const proxy::IdentitySettings none;
  const auto& identity = whose.identity ? *whose.identity : none;
  for (const EntraMend& one : entra_mends) {
    // AADSTS70021 begins other numbers.
    const std::size_t at = error.detail.find(one.number);
    if (at == std::string::npos) continue;
    const std::size_t end = at + one.number.size();
    if (end < error.detail.size() && error.detail[end] >= '0' && error.detail[end] <= '9') continue;
    std::string mend = with(std::string(one.mend), "CLIENT", assignee(whose));
    mend = with(std::move(mend), "FILE", file_of(identity));
    return with(std::move(mend), "SECTION", section(whose));
  }
  if (error.code == Errc::unauthorized)
    return "see what Entra says above, and correct tenant_id, client_id or the secret of " +
           section(whose);
  return {};
}

std::string managed_identity_mend(const Error& error, const MendFor& whose) {
  const proxy::IdentitySettings none;
  const auto& identity = whose.identity ? *whose.identity : none;
  switch (error.code) {
    case Errc::identity_missing:
    case Errc::unauthorized: {
      std::string named = identity.resource_id;
      if (named.empty()) named = identity.client_id;
      if (named.empty()) named = identity.object_id;
      if (named.empty())
        return "az vm identity assign --resource-group GROUP --name VM switches on this VM's own "
               "identity; to use one that is assigned to it already, name it by client_id in " +
               section(whose) + " (az vm identity show --resource-group GROUP --name VM)";
      return "az vm identity assign --resource-group GROUP --name VM --identities " +
             (identity.resource_id.empty() ? "RESOURCE_ID" : printable(named, 250)) +
             ", or correct the id " + printable(named, 250) + " in " + section(whose) +
             " (az vm identity show --resource-group GROUP --name VM lists what is assigned)";
    }
    case Errc::unreachable:
      return "on an Azure VM, let staithed reach " + printable(whose.host, 120) +
             " (a firewall, network policy or network namespace is in between): curl -sS -H "
             "Metadata:true 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'; "
             "elsewhere use kind = \"service-principal\" or \"workload-identity\" in " +
             section(whose);
    case Errc::upstream_nonsense:
      return "something else than the identity service answers at " + printable(whose.host, 120) +
             ": see azure.imds_endpoint and what listens there";
    default:
      return "the identity service is not well at present: try again in a minute";
  }
}

std::string identity_mend(const Error& error, const MendFor& whose) {
  const proxy::IdentitySettings none;
  const auto& identity = whose.identity ? *whose.identity : none;
  if (whose.identity_name == proxy::auth::Identities::signed_in)
    return "az acr login --name NAME --expose-token | staithe login " + shown_registry(whose) +
           " --token-stdin";
  switch (identity.kind) {
    case IdentityKind::managed_identity:
      return managed_identity_mend(error, whose);
    case IdentityKind::helper:
      return "run it by hand: echo " + shown_registry(whose) + " | docker-credential-" +
             printable(identity.helper, 60) +
             " get; it has to be in staithed's PATH and to work for its user";
    case IdentityKind::token:
      return "put a new token into " + file_of(identity) +
             ": az acr login --name NAME --expose-token --output tsv --query accessToken";
    default:
      break;
  }
  if (!identity.federated_identity.empty() && error.code != Errc::identity_missing)
    return managed_identity_mend(error, whose);
  return "the user that staithed runs as must be able to read " + file_of(identity) +
         ", and the right thing must be in it; under systemd, LoadCredential= and "
         "${CREDENTIALS_DIRECTORY} do both";
}

std::string unreachable_mend(const Error& error, const MendFor& whose) {
  const std::string host = printable(whose.host, 150);
  if (says(error, "resolve"))
    return "this machine's name service does not know " + host + ": getent hosts " + host +
           "; correct the name or the upstream in [[registry]], or, with a private endpoint, link "
           "the zone privatelink.azurecr.io to this network";
  if (says(error, "certificate") || says(error, "SSL") || says(error, "TLS"))
    return "let it be trusted: ca_file in its [[registry]], or update-ca-certificates for all "
           "programs; a proxy that opens TLS and a wrong clock show here too: openssl s_client "
           "-connect " +
           host + ":443";
  return "let this machine reach " + host +
         " (firewall, security group, route, private endpoint): curl -sS -o /dev/null -w "
         "'%{http_code}' https://" +
         host + "/v2/";
}

std::string data_host_mend(const Error& error, const MendFor& whose) {
  const std::string name = acr_name(whose);
  std::string mend = "the registry answers, and sends blobs from " + printable(whose.host, 150) +
                     ": let this machine reach that host too";
  if (says(error, "resolve")) mend += ", and its name service know it";
  if (!name.empty())
    mend +=
        "; a private endpoint needs one for the data too, and a firewall needs a rule for "
        "*.blob.core.windows.net or for dedicated data endpoints (az acr show-endpoints --name " +
        name + ")";
  return mend;
}

std::string not_found_mend(const MendFor& whose) {
  const std::string name = acr_name(whose);
  const std::string repository = printable(whose.repository, 150);
  if (name.empty())
    return "correct the name: " + shown_registry(whose) + "/" + repository +
           " has nothing called " + printable(whose.reference, 150);
  return "correct the name: az acr repository show-tags --name " + name + " --repository " +
         repository + " says what there is";
}

}  // namespace

std::string mend_for(std::string_view step, const Error& error, const MendFor& whose) {
  if (error.code == Errc::cancelled) return {};
  if (error.code == Errc::config) return "correct staithe.toml, then: staithe reload";
  if (error.code == Errc::throttled)
    return "wait: staithed asks again by itself when the pause is over; fewer pulls at once, or an "
           "identity or tier with a higher limit, keep it from coming back";
  if (step == "identity") return identity_mend(error, whose);
  if (error.code == Errc::firewall) return open_the_firewall(whose);
  if (step == "entra") {
    if (std::string mend = entra_mend(error, whose); !mend.empty()) return mend;
    if (error.code == Errc::unreachable) return unreachable_mend(error, whose);
  }
  if (step == "blob-host") {
    if (says(error, "data_hosts"))
      return "add that host to data_hosts of the [[registry]] for " + shown_registry(whose) +
             ", if it is the registry's, then: staithe reload";
    const auto home = proxy::Url::parse(whose.upstream);
    const bool elsewhere = home && home->origin().host != whose.host;
    if (elsewhere && (error.code == Errc::unreachable || error.code == Errc::upstream_failed))
      return data_host_mend(error, whose);
    if (elsewhere && error.code == Errc::denied)
      return "the host of the blobs refuses the registry's link: its own network rules keep this "
             "machine out, or the clock of this machine is wrong";
  }
  switch (error.code) {
    case Errc::unreachable:
      return unreachable_mend(error, whose);
    case Errc::unauthorized:
      if (step == "exchange")
        return grant_the_role(whose) +
               "; identity and registry have to be of one tenant, and the registry has to take "
               "tokens for azure.audience";
      [[fallthrough]];
    case Errc::denied:
      return step == "challenge" ? "a registry answers 200 or 401 here: a proxy, a firewall or "
                                   "another server is in "
                                   "between; curl -sS -D - -o /dev/null " +
                                       whose.upstream + "/v2/"
                                 : grant_the_role(whose);
    case Errc::manifest_unknown:
    case Errc::name_unknown:
    case Errc::blob_unknown:
      return not_found_mend(whose);
    case Errc::upstream_failed:
      return "the trouble is the registry's: pulls try again by themselves; if it lasts, see its "
             "status page";
    case Errc::upstream_nonsense:
      return "something between here and " + printable(whose.host, 150) +
             " answers in its place or changes answers (proxy, captive portal): curl -sS -D - -o "
             "/dev/null " +
             printable(whose.upstream, 150) + "/v2/";
    default:
      return "see what staithed says of it: journalctl -u staithed";
  }
}

}  // namespace staithe::daemon
