// What to do about what `staithe doctor` has found: a sentence with the command to type. Pure.
//
// An error's own sentence says what went wrong where; here stands what an operator of Azure does
// about it, by the step that failed and the class of its error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"
#include "proxy/settings.h"

namespace staithe::daemon {

// Whose step it was. Empty texts are not known.
struct MendFor {
  std::string registry;    // as image names write it
  std::string upstream;    // where it is asked: "https://contoso.azurecr.io"
  std::string host;        // whom the last request of the step went to
  std::string repository;  // as upstream names it
  std::string reference;
  std::string identity_name;
  const proxy::IdentitySettings* identity = nullptr;
  // To tell an Azure Container Registry from others; see AzureSettings.
  const std::vector<std::string>* acr_suffixes = nullptr;
};

// `step` is one of those that the daemon walks: "identity" to "blob-host".
std::string mend_for(std::string_view step, const Error& error, const MendFor& whose);

}  // namespace staithe::daemon
