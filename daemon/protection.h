// What keeps secrets in a process, for every program that holds one. Called first of all, before
// there is a secret (threat T23).
#pragma once

namespace staithe::daemon {

// No core, neither as a file nor through a program that collects them, and no look into this
// process by others of the same user: ptrace, /proc/PID/mem, process_vm_readv. Children that are
// programs of their own inherit the first alone.
void protect_process();

}  // namespace staithe::daemon
