#include "daemon/protection.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace staithe::daemon {

void protect_process() {
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  ::setrlimit(RLIMIT_CORE, &none);
  // A core that is piped to a program knows no limit, only this.
  ::prctl(PR_SET_DUMPABLE, 0);
}

}  // namespace staithe::daemon
