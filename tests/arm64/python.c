/* The Python of the emulated userland: starts the real one under qemu.

   Without binfmt_misc a kernel runs no programs of another processor. This one is of the host's,
   and statically linked, so that it runs inside the userland as well: as the interpreter of scripts
   (#!/opt/latlas/bin/python), through links that an environment has to it, and as sys.executable,
   which is how the agent starts its workers. Python learns by what name it was called. */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define QEMU "/usr/local/bin/qemu-aarch64-static"

int main(int argc, char **argv) {
  char *before[] = {QEMU, "-cpu", "cortex-a72", "-0", argv[0], "/usr/bin/python3.11"};
  const int n_before = sizeof before / sizeof *before;
  char **all = calloc(n_before + argc, sizeof *all);
  if (all == NULL) return 126;
  for (int i = 0; i < n_before; i++) all[i] = before[i];
  for (int i = 1; i < argc; i++) all[n_before + i - 1] = argv[i];
  execv(QEMU, all);
  perror(QEMU);
  return 127;
}
