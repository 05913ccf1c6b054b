// Inside of worker/synth: the small documents of a model folder.
#ifndef WORKER_SYNTH_DOCS_H
#define WORKER_SYNTH_DOCS_H

#include "worker/synth/parts.h"

// Each writes one file at `path`.
int docs_config(const char *path, const struct synth_sizes *s, struct err *e);    // config.json of the transformer
int docs_voice(const char *path, const struct synth_sizes *s, struct err *e);     // config.json of the speech encoder
int docs_extractor(const char *path, const struct synth_sizes *s, struct err *e); // its preprocessor_config.json
int docs_tokenizer(const char *path, const struct synth_sizes *s, struct err *e); // tokenizer.json
int docs_model(const char *path, const struct synth_sizes *s, struct err *e);     // model.yaml

#endif
