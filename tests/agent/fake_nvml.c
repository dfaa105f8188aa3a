/* A stand-in for libnvidia-ml.so.1 with one GPU: what the tests check is that pointers, structures
   and the order of arguments are those of a C library, which a fake in Python cannot tell. */
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilisation_t;
typedef struct {
  unsigned int pid;
  unsigned long long memory;
  unsigned int gpu_instance, compute_instance;
} process_t;
typedef struct {
  unsigned int pid;
  unsigned long long time_us;
  unsigned int sm, memory, encoder, decoder;
} sample_t;

static int the_gpu;

#define REFUSE_OTHERS(gpu) if ((gpu) != (void *)&the_gpu) return 2

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) {
  if (index) return 2;
  *gpu = &the_gpu;
  return 0;
}
int nvmlDeviceGetName(void *gpu, char *name, unsigned int length) {
  REFUSE_OTHERS(gpu);
  strncpy(name, "NVIDIA Made-up", length);
  return 0;
}
int nvmlDeviceGetClockInfo(void *gpu, int type, unsigned int *mhz) {
  REFUSE_OTHERS(gpu);
  if (type != 1) return 2;
  *mhz = 1410;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *gpu, unsigned long long *reasons) {
  REFUSE_OTHERS(gpu);
  *reasons = 0x24;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *memory) {
  REFUSE_OTHERS(gpu);
  memory->total = 3ull << 33;
  memory->free = 1ull << 33;
  memory->used = 1ull << 34;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *gpu, utilisation_t *load) {
  REFUSE_OTHERS(gpu);
  load->gpu = 40;
  load->memory = 7;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned int *count, process_t *found) {
  REFUSE_OTHERS(gpu);
  unsigned int room = *count;
  *count = 100;
  if (room < 100) return 7;
  for (unsigned int i = 0; i < 100; i++) {
    found[i].pid = 1000 + i;
    found[i].memory = i ? (unsigned long long)i << 32 : ~0ull;
  }
  return 0;
}
int nvmlDeviceGetProcessUtilization(void *gpu, sample_t *samples, unsigned int *count,
                                    unsigned long long since_us) {
  REFUSE_OTHERS(gpu);
  if (since_us != 5000000000000000ull) return 2;
  *count = 5;
  samples[0] = (sample_t){1002, since_us + 2, 25, 1, 0, 0};
  samples[1] = (sample_t){1002, since_us + 1, 90, 1, 0, 0};
  /* What drivers add: nonsense, what was asked for no more, and rows that nobody filled in. */
  samples[2] = (sample_t){1002, since_us + 3, 37100, 0, 0, 0};
  samples[3] = (sample_t){1003, since_us, 80, 1, 0, 0};
  samples[4] = (sample_t){0, 0, 0, 0, 0, 0};
  return 0;
}
