// Devices that are known by what others and we have measured on them.
//
// Products are what a large bf16 product reaches, attention what this program's kernel should (a tensor-core kernel
// without the newest instructions: 350 of an H100's 600), wires what is attainable of the nominal rate. They are
// figures to plan with, not promises; a probe on the machine itself is better.
#include "worker/plan/rates.h"

#include <stdio.h>
#include <string.h>

static const struct rates_device devices[] = {
    {"h100",
     {.linear = 700e12,
      .attention = 350e12,
      .conv = 200e12,
      .copy = 3.0e12,
      .near = 300e9,
      .far = 45e9,
      .latency = 20e-6,
      .hides = true,
      .node = 8,
      .memory = 80000000000},
     "products 700 of 790 measured, attention of the mma.sync class, NVLink 300 of 450 GB/s, a 400 Gb/s adapter"},
    {"h200",
     {.linear = 700e12,
      .attention = 350e12,
      .conv = 200e12,
      .copy = 4.2e12,
      .near = 300e9,
      .far = 45e9,
      .latency = 20e-6,
      .hides = true,
      .node = 8,
      .memory = 141000000000},
     "an H100 with faster and more memory"},
    {"a100",
     {.linear = 250e12,
      .attention = 190e12,
      .conv = 90e12,
      .copy = 1.7e12,
      .near = 200e9,
      .far = 22e9,
      .latency = 20e-6,
      .hides = true,
      .node = 8,
      .memory = 80000000000},
     "80 % of the nominal products, NVLink 200 of 300 GB/s, a 200 Gb/s adapter"},
    {"4090",
     {.linear = 150e12,
      .attention = 150e12,
      .conv = 60e12,
      .copy = 0.9e12,
      .near = 10e9,
      .far = 10e9,
      .latency = 30e-6,
      .hides = true,
      .node = 8,
      .memory = 24000000000},
     "cards on PCIe without peer access: all goes through the host's memory"},
};

int rates_stated(const struct rates_device **out, const char *name, struct err *e)
{
    char known[128] = "";
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        if (strcmp(devices[i].name, name) == 0) {
            *out = &devices[i];
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", devices[i].name);
    }
    return err_set(e, E_INPUT, "--device: no figures are known of '%s'; they are of %s", name, known);
}
