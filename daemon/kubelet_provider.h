// `staithe-credential-provider`: kubelet's exec plugin as a thin client of staithed.
//
// kubelet starts one process for each image that its cache has nothing for, so this one only asks
// the daemon, which asks the identity once for all of them.
#pragma once

#include "daemon/docker_credential.h"

namespace staithe::daemon {

// One request on stdin, one answer on stdout; returns the exit status. kubelet logs stderr when the
// status is not 0. An image of a registry that the daemon has no credential for is answered without
// one, and not cached: kubelet has kept such an answer from private images before (k8s#92326).
int run_kubelet_provider(int argc, const char* const* argv, const HelperContext& context);

}  // namespace staithe::daemon
