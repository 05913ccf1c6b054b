// Shapes that every backend's ops are tried with: odd sizes, tails, empty axes, strides, both dtypes, every op.
//
// A row is an op, its sizes (their meaning stands above each group), dtypes, activation, and how the tensors lie. The
// bound is of the largest absolute value of the reference; 0 means the dtype's own (F32 1e-5, BF16 1e-2).
#ifndef TESTS_OP_CASES_H
#define TESTS_OP_CASES_H

#include "kernels/trial.h"

#define BOTH(...)                                                                                                      \
    {__VA_ARGS__, .t = DT_F32}, { __VA_ARGS__, .t = DT_BF16 }

static const struct op_case op_cases[] = {
    // rows, outputs, inputs
    BOTH("linear", {1, 1, 1}),
    BOTH("linear", {5, 3, 7}, .how = HOW_BIAS),
    BOTH("linear", {0, 8, 8}, .how = HOW_BIAS),
    BOTH("linear", {3, 0, 8}),
    BOTH("linear", {3, 5, 0}, .how = HOW_BIAS),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_PACKED | HOW_STRIDED, .act = ACT_GELU_TANH),
    BOTH("linear", {17, 96, 64}, .how = HOW_STRIDED, .act = ACT_SILU),
    BOTH("linear", {130, 256, 320}, .how = HOW_BIAS | HOW_PACKED, .act = ACT_GELU_TANH),
    BOTH("linear", {130, 100, 320}, .how = HOW_BIAS | HOW_PACKED, .act = ACT_GELU_ERF),
    BOTH("linear", {130, 100, 320}, .how = HOW_BIAS | HOW_PACKED | HOW_STRIDED | HOW_EVEN, .act = ACT_RELU),
    BOTH("linear", {1, 700, 333}, .how = HOW_PACKED, .act = ACT_RELU),
    BOTH("linear", {65, 40, 1500}, .how = HOW_BIAS | HOW_PACKED, .wt = DT_F16),
    BOTH("linear", {65, 40, 150}, .how = HOW_BIAS | HOW_PACKED, .wt = DT_F32),
    BOTH("linear", {65, 40, 150}, .how = HOW_BIAS | HOW_PACKED, .wt = DT_BF16),
    BOTH("linear", {9, 3000, 1100}, .how = HOW_BIAS, .wt = DT_F16),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_TAKEN),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_TAKEN | HOW_STRIDED, .act = ACT_GELU_TANH),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_TAKEN, .wt = DT_F32),
    BOTH("linear", {33, 65, 129}, .how = HOW_BIAS | HOW_TAKEN, .wt = DT_BF16),
    BOTH("linear", {3, 65, 129}, .how = HOW_TAKEN, .wt = DT_F16),

    // rows, outputs, inputs; a row of x is zeros
    BOTH("linear_scaled", {1, 1, 1}, .wt = DT_I8),
    BOTH("linear_scaled", {5, 3, 7}, .wt = DT_F8_E4M3, .how = HOW_BIAS),
    BOTH("linear_scaled", {0, 8, 8}, .wt = DT_I8),
    BOTH("linear_scaled", {3, 0, 8}, .wt = DT_I8),
    BOTH("linear_scaled", {3, 5, 0}, .wt = DT_F8_E4M3, .how = HOW_BIAS),
    BOTH("linear_scaled", {33, 64, 128}, .wt = DT_F8_E4M3, .how = HOW_BIAS, .act = ACT_GELU_TANH),
    BOTH("linear_scaled", {33, 64, 128}, .wt = DT_I8, .how = HOW_BIAS, .act = ACT_GELU_TANH),
    BOTH("linear_scaled", {33, 65, 129}, .wt = DT_F8_E4M3, .how = HOW_BIAS | HOW_STRIDED, .act = ACT_SILU),
    BOTH("linear_scaled", {33, 65, 129}, .wt = DT_I8, .how = HOW_STRIDED, .act = ACT_RELU),
    BOTH("linear_scaled", {17, 48, 1040}, .wt = DT_I8, .how = HOW_BIAS | HOW_STRIDED | HOW_EVEN),
    BOTH("linear_scaled", {17, 48, 1040}, .wt = DT_F8_E4M3, .how = HOW_STRIDED | HOW_EVEN),

    // batches, queries, heads, keys, width, width of values
    BOTH("attention", {1, 1, 1, 1, 1, 1}),
    BOTH("attention", {1, 0, 2, 5, 8, 8}),
    BOTH("attention", {2, 5, 3, 7, 9, 11}),
    BOTH("attention", {1, 64, 2, 64, 64, 64}, .how = HOW_STRIDED),
    BOTH("attention", {1, 65, 2, 257, 128, 128}, .how = HOW_STRIDED),
    BOTH("attention", {2, 70, 2, 33, 80, 80}, .how = HOW_BIAS),
    BOTH("attention", {1, 130, 3, 600, 40, 72}, .how = HOW_BIAS | HOW_STRIDED),
    BOTH("attention", {1, 20, 2, 700, 64, 64}, .how = HOW_BIAS | HOW_MASKED),
    BOTH("attention", {21, 12, 2, 32, 128, 128}),
    BOTH("attention", {1, 3, 1, 1025, 384, 384}),
    BOTH("attention", {1, 200, 1, 200, 5, 1}),
    BOTH("attention_more", {1, 70, 2, 300, 64, 48}, .how = HOW_STRIDED),
    BOTH("attention_more", {2, 3, 3, 40, 128, 128}),
    BOTH("attention", {1, 130, 2, 100, 64, 64}, .how = HOW_STRIDED | HOW_EVEN | HOW_MILD),
    BOTH("attention", {1, 150, 2, 129, 128, 128}, .how = HOW_STRIDED | HOW_EVEN | HOW_MILD),
    BOTH("attention", {2, 10, 2, 70, 128, 120}, .how = HOW_STRIDED | HOW_EVEN | HOW_MILD),
    BOTH("attention", {1, 90, 2, 75, 56, 64}, .how = HOW_BIAS | HOW_MILD),
    BOTH("attention", {1, 20, 2, 33, 80, 80}, .how = HOW_BIAS | HOW_MILD),
    BOTH("attention", {1, 3, 2, 33, 17, 130}, .how = HOW_MILD),
    BOTH("attention_more", {1, 130, 2, 200, 128, 128}, .how = HOW_STRIDED | HOW_EVEN | HOW_MILD),
    BOTH("attention_more", {1, 70, 2, 300, 64, 48}, .how = HOW_STRIDED | HOW_EVEN | HOW_MILD),
    // queries, heads, width, keys, classes
    BOTH("attention_map", {50, 2, 64, 35, 3}),
    BOTH("attention_map", {130, 3, 128, 300, 3}, .how = HOW_STRIDED),
    BOTH("attention_map", {9, 1, 5, 4, 1}, .how = HOW_PUBLISHED),
    BOTH("attention_map", {9, 2, 6, 4, 3}, .how = HOW_PUBLISHED),

    // rows, width
    BOTH("norm", {1, 1}),
    BOTH("norm", {0, 16}),
    BOTH("norm", {7, 37}, .how = HOW_BIAS),
    BOTH("norm", {33, 128}, .how = HOW_MODULATED | HOW_STRIDED),
    BOTH("norm", {5, 5120}, .how = HOW_MODULATED | HOW_INPLACE),
    BOTH("norm", {5, 130}, .how = HOW_BIAS | HOW_MODULATED),
    BOTH("norm", {9, 100}, .how = HOW_MODULATED | HOW_WIDE),
    BOTH("add_norm", {9, 100}, .how = HOW_MODULATED | HOW_GATE),
    BOTH("add_norm", {33, 257}, .how = HOW_BIAS | HOW_STRIDED),
    BOTH("add_norm", {4, 5120}, .how = HOW_MODULATED | HOW_GATE | HOW_STRIDED),
    BOTH("norm", {33, 1032}, .how = HOW_BIAS | HOW_MODULATED | HOW_STRIDED | HOW_EVEN),
    BOTH("add_norm", {9, 136}, .how = HOW_MODULATED | HOW_GATE | HOW_STRIDED | HOW_EVEN),
    BOTH("gate_add", {9, 104}, .how = HOW_GATE | HOW_STRIDED | HOW_EVEN),
    BOTH("gate_add", {9, 100}, .how = HOW_GATE),
    BOTH("gate_add", {33, 67}, .how = HOW_STRIDED),
    BOTH("rms_norm", {3, 1}),
    BOTH("rms_norm", {9, 100}, .how = HOW_STRIDED),
    BOTH("rms_norm", {5, 5120}, .how = HOW_INPLACE),
    BOTH("rms_norm", {5, 1080}, .how = HOW_STRIDED | HOW_EVEN),
    BOTH("l2_norm", {9, 96}, .how = HOW_STRIDED | HOW_EVEN),
    BOTH("l2_norm", {9, 96}, .act = ACT_SILU),
    BOTH("l2_norm", {70, 3}, .how = HOW_STRIDED),
    BOTH("l2_norm", {70, 384}, .how = HOW_INPLACE, .act = ACT_SILU),
    BOTH("col_sums", {1, 1}),
    BOTH("col_sums", {300, 77}, .how = HOW_STRIDED),
    BOTH("col_norm", {300, 77}, .how = HOW_STRIDED, .act = ACT_GELU_ERF),
    BOTH("col_norm", {31, 512}, .how = HOW_INPLACE),

    // t, h, w of the grid, first row, rows, width
    {"rope_grid", {3, 4, 5, 7, 30, 128}, .t = DT_F32},
    {"rope_grid", {1, 1, 1, 0, 1, 6}, .t = DT_F32},
    // rows, width
    {"rope_line", {50, 128}, .t = DT_F32},
    // batches, rows, heads, width
    BOTH("rope", {2, 9, 3, 10}, .how = HOW_STRIDED),
    BOTH("rope", {1, 33, 2, 128}),
    // rows, heads, width
    BOTH("qk_norm_rope", {9, 3, 10}),
    BOTH("qk_norm_rope", {33, 5, 128}, .how = HOW_STRIDED),
    BOTH("qk_norm_rope", {33, 5, 128}, .how = HOW_STRIDED | HOW_EVEN),
    // classes, columns
    {"row_range", {3, 1}, .t = DT_F32},
    {"row_range", {3, 301}, .t = DT_F32, .how = HOW_STRIDED},
    BOTH("class_pos", {3, 301}),

    // t, h, w, ci, co, kernel t h w, stride t h w, pad (0: none, 1: same, 2: causal time and same, 3: after only),
    // groups
    BOTH("conv", {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1}),
    BOTH("conv", {3, 5, 6, 4, 7, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_BIAS),
    BOTH("conv", {6, 9, 11, 32, 48, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("conv", {6, 8, 8, 96, 3, 3, 3, 3, 1, 1, 1, 1, 1}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("conv", {4, 9, 9, 16, 32, 1, 3, 3, 1, 2, 2, 3, 1}, .how = HOW_PACKED),
    BOTH("conv", {5, 4, 4, 24, 24, 3, 1, 1, 2, 1, 1, 0, 1}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("conv", {1, 1, 400, 1, 16, 1, 1, 10, 1, 1, 5, 0, 1}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("conv", {200, 1, 1, 16, 16, 3, 1, 1, 2, 1, 1, 0, 1}, .how = HOW_PACKED, .act = ACT_GELU_ERF),
    BOTH("conv", {1, 1, 90, 32, 32, 1, 1, 16, 1, 1, 1, 1, 4}, .how = HOW_BIAS | HOW_PACKED, .act = ACT_GELU_ERF),
    BOTH("conv", {1, 30, 1, 8, 8, 1, 4, 1, 1, 1, 1, 1, 8}, .how = HOW_BIAS),
    BOTH("conv", {1, 28, 28, 3, 20, 1, 14, 14, 1, 14, 14, 0, 1}, .how = HOW_BIAS | HOW_PACKED),
    BOTH("conv", {0, 8, 8, 4, 4, 1, 3, 3, 1, 1, 1, 1, 1}),
    BOTH("conv", {2, 7, 7, 8, 12, 1, 3, 3, 1, 1, 1, 1, 1}, .how = HOW_PACKED | HOW_BIAS, .wt = DT_F16),
    BOTH("conv", {2, 7, 7, 8, 12, 1, 1, 1, 1, 1, 1, 0, 1}, .how = HOW_PACKED | HOW_BIAS, .wt = DT_F32),
    BOTH("conv", {2, 7, 7, 40, 70, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_PACKED | HOW_BIAS, .act = ACT_SILU),
    BOTH("conv", {2, 6, 9, 8, 65, 1, 3, 3, 1, 1, 1, 1, 1}, .how = HOW_BIAS),
    BOTH("conv", {6, 9, 11, 32, 48, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_BIAS | HOW_TAKEN),
    BOTH("conv", {6, 9, 11, 32, 48, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_BIAS | HOW_TAKEN, .wt = DT_BF16),
    BOTH("conv", {1, 1, 90, 32, 32, 1, 1, 16, 1, 1, 1, 1, 4}, .how = HOW_BIAS | HOW_TAKEN),
    BOTH("conv", {1, 1, 90, 32, 48, 1, 1, 3, 1, 1, 2, 0, 1}, .how = HOW_TAKEN),
    BOTH("conv", {1, 90, 1, 32, 48, 1, 3, 1, 1, 1, 1, 0, 1}, .how = HOW_TAKEN),
    // t, h, w, c
    BOTH("upsample2", {2, 3, 5, 16}),
    BOTH("upsample2", {2, 3, 5, 7}),
    BOTH("upsample2", {0, 3, 5, 7}),

    // three axes; permuted by HOW_STRIDED; from t to wt
    BOTH("copy", {3, 4, 5}),
    BOTH("copy", {3, 4, 5}, .how = HOW_STRIDED),
    {"copy", {3, 4, 56}, .t = DT_BF16, .how = HOW_EVEN},
    BOTH("copy", {13, 40, 50}, .wt = DT_F16),
    BOTH("copy", {13, 40, 50}, .wt = DT_F32, .how = HOW_STRIDED),
    BOTH("copy", {13, 40, 50}, .wt = DT_BF16),
    BOTH("copy", {3, 4, 1}, .wt = DT_F64),
    {"copy", {3, 4, 50}, .t = DT_U8, .wt = DT_F32},
    {"copy", {3, 4, 50}, .t = DT_I32, .wt = DT_BF16},
    {"copy", {3, 4, 50}, .t = DT_F16, .wt = DT_F32},
    BOTH("fill", {3, 4, 5}, .how = HOW_STRIDED),
    BOTH("fill", {7, 40, 50}),
    // rows, width, table rows
    BOTH("embed", {7, 33, 9}, .how = HOW_STRIDED),
    BOTH("embed", {7, 33, 9}, .wt = DT_F16),
    // rows in, rows out, width
    BOTH("lerp_rows", {9, 20, 33}, .how = HOW_STRIDED),
    BOTH("lerp_rows", {1, 5, 3}),
    // elements
    BOTH("act", {1}, .act = ACT_SILU),
    BOTH("act", {1003}, .act = ACT_GELU_TANH),
    BOTH("act", {1003}, .act = ACT_GELU_ERF, .how = HOW_INPLACE),
    BOTH("act", {1003}, .act = ACT_RELU),
    BOTH("act", {0}, .act = ACT_SILU),
    BOTH("mul", {1003}),
    BOTH("axpby", {1003}),
    BOTH("axpby", {40}, .how = HOW_INPLACE),
    {"project_out", {1003}, .t = DT_F32},
    {"project_out", {70000}, .t = DT_F32, .how = HOW_GATE},
    {"mean_change", {70001}, .t = DT_F32},
    {"mean_change", {1}, .t = DT_F32},
    // h, w in; h, w out; channels
    {"resize_cubic", {7, 9, 16, 5, 3}, .t = DT_F32},
    {"resize_cubic", {20, 9, 7, 9, 1}, .t = DT_F32},
    // t, h, w
    {"lab_stats", {2, 6, 8}, .t = DT_F32},
    {"lab_match", {2, 6, 8}, .t = DT_F32},
    {"yuv420", {2, 6, 8}, .t = DT_F32},
};

#endif
