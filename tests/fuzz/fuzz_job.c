// Job files: JSON when the first byte is even, YAML when it is odd; then the keys of a job, then its limits.
#include "proto/spec.h"
#include "proto/yaml.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct model m;
    struct err e = {0};
    json_t *tree = NULL;
    if (n < 1) return 0;
    int rc = data[0] & 1 ? yaml_parse(&tree, "job.yaml", data + 1, n - 1, &e)
                         : json_parse(&tree, "job.json", data + 1, n - 1, &e);
    if (rc < 0) {
        fuzz_refused(rc, &e);
        return 0;
    }
    struct spec s;
    spec_init(&s);
    rc = spec_read_tree(&s, "job", tree, &e);
    json_decref(tree);
    if (rc == 0) {
        m = (struct model){.n_sizes = 1,
                           .size = {{"t", 1, {{1.0, 64, 64}}, 7}},
                           .frame_num = 81,
                           .motion_frame = 9,
                           .steps = 2,
                           .fps = 25};
        rc = spec_resolve(&s, &m, &e);
    }
    if (rc < 0) fuzz_refused(rc, &e);
    spec_free(&s);
    return 0;
}
