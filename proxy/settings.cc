#include "proxy/settings.h"

namespace staithe::proxy {

const char* to_string(IdentityKind kind) {
  switch (kind) {
    case IdentityKind::anonymous:
      return "anonymous";
    case IdentityKind::managed_identity:
      return "managed-identity";
    case IdentityKind::service_principal:
      return "service-principal";
    case IdentityKind::workload_identity:
      return "workload-identity";
    case IdentityKind::basic:
      return "basic";
    case IdentityKind::token:
      return "token";
    case IdentityKind::helper:
      return "helper";
    case IdentityKind::docker_config:
      return "docker-config";
  }
  return "anonymous";
}

}  // namespace staithe::proxy
