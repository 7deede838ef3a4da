// What a reload takes over.
#include "daemon/options.h"

namespace staithe::daemon {

void take_over(Config& running, const Config& read) {
  running.proxy.registries = read.proxy.registries;
  running.proxy.identities = read.proxy.identities;
  running.proxy.hosts = read.proxy.hosts;
  running.tls_file = read.tls_file;
  running.proxy.access = read.proxy.access;
  // Every registry has its own by now; this is what `staithe config` shows of it.
  running.freshness = read.freshness;
  running.cache.max_size = read.cache.max_size;
  running.cache.min_free = read.cache.min_free;
  running.cache.scrub_interval = read.cache.scrub_interval;
  running.drain_timeout = read.drain_timeout;
  running.warm = read.warm;
  running.log.level = read.log.level;
}

}  // namespace staithe::daemon
