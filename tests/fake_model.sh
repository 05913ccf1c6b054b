# To be sourced: a model folder for tests with the fake worker, which reads none of it; only the coordinator looks at it.
#   fake_model FOLDER
fake_model() {
  mkdir "$1"
  cat >"$1/model.yaml" <<Y
frame-num: 17
motion-frame: 5
steps: 3
sizes:
  - {name: tiny, shift: 7, buckets: [[1.0, 64, 64]]}
dit: part
adapter: part
text: part
tokenizer: part
clip: part
vae: part
voice: part
Y
  : >"$1/part"
}
