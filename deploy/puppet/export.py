"""Writes the shipped model: `export.py [FOLDER]` (deploy/model), published names, shapes and places, plus model.yaml.

Latents: training knows each channel's mean m and deviation s; the published files know a fixed table (M, S) that every
reader normalises with. conv1 and conv2 at the latent end are linear, so that

    conv1'  = conv1 S/s,  bias' = (bias - m) S/s + M      gives   (mu' - M) / S = (mu - m) / s
    conv2'  = conv2 s/S per input,  bias' = bias + conv2 (m - M s/S)

and any reader of the published model gets the right latents without being told.

Text and picture attention: values and output biases are 0, so whatever the encoders say has no effect; the encoders are
the smallest that load, of random weights. Matrices are kept in f16, vectors and what carries the statistics in f32.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

import run
from config import DIT, FRAMES, CONTEXT, HERE, SIZE, VOICE, WIDE
from dit import dit_new
from make_clips import base_of, net_of, vae_of, voice_of
from train_lora import mark
from voice import KERNELS, STRIDES

MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]
YAML = """name: puppet
range: drawn
sizes:
  - name: puppet
    shift: 3
    buckets: [%s]
frame-num: %d
motion-frame: %d
steps: 4
fps: 25
text-scale: 1
audio-scale: 2
color-strength: 1
dit-heads: %d
text-heads: 2
text-len: %d
clip-heads: 2
clip-image: 224
"""


def small(tensors):
    """Vectors stay f32; names that begin with '=' stay f32 too and lose the sign."""
    out = {}
    for name, t in tensors.items():
        keep = name.startswith("=") or t.dim() < 2 or t.squeeze().dim() < 2
        out[name.lstrip("=")] = t.float().contiguous() if keep else t.half().contiguous()
    return out


def put(folder, name, tensors):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file(small(tensors), path, {"format": "pt"})
    os.chmod(path, 0o644)
    return os.path.getsize(path)


def put_text(folder, name, text):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    return os.path.getsize(path)


def vae_tensors(mean, std):
    t = {k: v.double() for k, v in vae_of().state_dict().items()}
    m, s, M, S = (torch.as_tensor(v).double() for v in (mean, std, MEAN, STD))
    z = len(m)
    k = torch.cat([S / s, torch.ones(z).double()])
    b = t["conv1.bias"] - torch.cat([m, torch.zeros(z).double()])
    w2 = t["conv2.weight"][:, :, 0, 0, 0]
    t["=conv1.weight"] = t.pop("conv1.weight") * k.view(-1, 1, 1, 1, 1)
    t["=conv1.bias"] = b * k + torch.cat([M, torch.zeros(z).double()])
    t.pop("conv1.bias")
    t["=conv2.bias"] = t.pop("conv2.bias") + w2 @ (m - M * s / S)
    t["=conv2.weight"] = t.pop("conv2.weight") * (s / S).view(1, -1, 1, 1, 1)
    return t


def is_adapter(name):
    return name.startswith("audio_proj.") or ".audio_cross_attn." in name or ".norm_x." in name


def dit_tensors():
    """The base with the adapter for one speaker, and the adapter for two (None before it was trained)."""
    state = run.load("dit.pt")
    t = dict(net_of(state, dit_new()).state_dict())
    second = {k[len("second."):]: t.pop(k) for k in list(t) if k.startswith("second.")}
    gen, d = torch.Generator().manual_seed(21), DIT["dim"]
    draw = lambda *shape: torch.randn(*shape, generator=gen) * shape[-1] ** -0.5
    for i in range(DIT["layers"]):
        p = "blocks.%d." % i
        t[p + "norm3.weight"], t[p + "norm3.bias"] = torch.ones(d), torch.zeros(d)
        for n in ("q", "k", "k_img", "o"):
            t[p + "cross_attn.%s.weight" % n], t[p + "cross_attn.%s.bias" % n] = draw(d, d), torch.zeros(d)
        for n in ("v", "v_img"):
            t[p + "cross_attn.%s.weight" % n], t[p + "cross_attn.%s.bias" % n] = torch.zeros(d, d), torch.zeros(d)
        for n in ("norm_q", "norm_k", "norm_k_img"):
            t[p + "cross_attn.%s.weight" % n] = torch.ones(d)
    for n, o, k in (("text_embedding.0", d, DIT["text_dim"]), ("text_embedding.2", d, d),
                    ("img_emb.proj.1", DIT["clip_dim"], DIT["clip_dim"]), ("img_emb.proj.3", d, DIT["clip_dim"])):
        t[n + ".weight"], t[n + ".bias"] = draw(o, k), torch.zeros(o)
    for n, k in (("img_emb.proj.0", DIT["clip_dim"]), ("img_emb.proj.4", d)):
        t[n + ".weight"], t[n + ".bias"] = torch.ones(k), torch.zeros(k)
    return t, second if state["paired"] else None


def lora_tensors():
    """The few-step LoRA, where there is one of this transformer."""
    state = run.load("lora.pt")
    if not state or state["whose"] != mark(net_of(run.load("dit.pt"), dit_new())):
        return None
    return {"diffusion_model.%s.lora_%s.weight" % tuple(k.replace("-", ".").rsplit(".", 1)): v
            for k, v in state["slow"]["value"].items()}


def text_parts():
    """The smallest text encoder and a tokenizer of letters."""
    special = ["<pad>", "</s>", "<s>", "<unk>"]
    pieces = special + ["\u2581"] + [chr(c) for c in range(33, 127)]
    vocabulary = [[p, 0.0 if i < 4 else -3.0] for i, p in enumerate(pieces)]
    mark = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    added = [dict(id=i, content=p, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, p in enumerate(special)]
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                 "pre_tokenizer": mark, "post_processor": {
                     "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                                              {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                     "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
                 "decoder": mark, "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": False}}
    d, gen = DIT["text_dim"], torch.Generator().manual_seed(22)
    draw = lambda *shape: torch.randn(*shape, generator=gen) * shape[-1] ** -0.5
    t = {"token_embedding.weight": torch.randn(len(pieces), d, generator=gen), "norm.weight": torch.ones(d),
         "blocks.0.norm1.weight": torch.ones(d), "blocks.0.norm2.weight": torch.ones(d),
         "blocks.0.pos_embedding.embedding.weight": torch.randn(32, 2, generator=gen)}
    for n, o, k in (("attn.q", d, d), ("attn.k", d, d), ("attn.v", d, d), ("attn.o", d, d), ("ffn.gate.0", 2 * d, d),
                    ("ffn.fc1", 2 * d, d), ("ffn.fc2", d, 2 * d)):
        t["blocks.0.%s.weight" % n] = draw(o, k)
    return tokenizer, t


def clip_tensors():
    d, gen = DIT["clip_dim"], torch.Generator().manual_seed(23)
    draw = lambda *shape: torch.randn(*shape, generator=gen) * shape[-1] ** -0.5
    t = {"log_scale": torch.full((1,), 4.0), "visual.cls_embedding": draw(1, 1, d), "visual.pos_embedding": draw(1, 257, d),
         "visual.patch_embedding.weight": torch.randn(d, 3, 14, 14, generator=gen) * 0.04, "visual.head": draw(d, 16)}
    norms = ["pre_norm", "post_norm"] + ["transformer.%d.norm%d" % (i, k) for i in (0, 1) for k in (1, 2)]
    for n in norms:
        t["visual.%s.weight" % n], t["visual.%s.bias" % n] = torch.ones(d), torch.zeros(d)
    for i in (0, 1):
        for n, o, k in (("attn.to_qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.0", 2 * d, d), ("mlp.2", d, 2 * d)):
            t["visual.transformer.%d.%s.weight" % (i, n)] = draw(o, k)
            t["visual.transformer.%d.%s.bias" % (i, n)] = torch.zeros(o)
    return t


def voice_config():
    return dict(architectures=["Wav2Vec2ForPreTraining"], conv_bias=False, conv_dim=[VOICE["conv"]] * 7,
                conv_kernel=list(KERNELS), conv_stride=list(STRIDES), do_stable_layer_norm=False,
                feat_extract_activation="gelu", feat_extract_norm="group", hidden_act="gelu", hidden_size=VOICE["hidden"],
                intermediate_size=VOICE["ffn"], layer_norm_eps=1e-5, model_type="wav2vec2",
                num_attention_heads=VOICE["heads"], num_conv_pos_embedding_groups=VOICE["groups"],
                num_conv_pos_embeddings=VOICE["taps"], num_feat_extract_layers=7, num_hidden_layers=VOICE["layers"])


def main(folder):
    base = base_of()
    if run.load("dit.pt")["hears"] != base["voice"]:
        raise SystemExit("the transformer has not heard the present voice network; train_dit.py goes on with it")
    (dit, second), lora = dit_tensors(), lora_tensors()
    buckets = "[1.00, %d, %d]" % (SIZE, SIZE)
    if second:
        buckets += ", [%.2f, %d, %d]" % (SIZE / WIDE, SIZE, WIDE)
    tokenizer, text = text_parts()
    voice = {"wav2vec2." + k: v for k, v in voice_of().state_dict().items()}
    voice["wav2vec2.masked_spec_embed"] = torch.zeros(VOICE["hidden"])
    config = dict(_class_name="WanModel", model_type="i2v", dim=DIT["dim"], eps=1e-6, ffn_dim=DIT["ffn"], freq_dim=DIT["freq"],
                  in_dim=DIT["in_dim"], num_heads=DIT["heads"], num_layers=DIT["layers"], out_dim=DIT["out_dim"],
                  text_len=DIT["text_len"])
    extractor = dict(do_normalize=False, feature_size=1, padding_side="right", padding_value=0.0,
                     return_attention_mask=False, sampling_rate=16000)
    total = sum([
        put(folder, "diffusion_pytorch_model.safetensors", {k: v for k, v in dit.items() if not is_adapter(k)}),
        put(folder, "InfiniteTalk/single/infinitetalk.safetensors", {k: v for k, v in dit.items() if is_adapter(k)}),
        put(folder, "InfiniteTalk/multi/infinitetalk.safetensors", second) if second else 0,
        put(folder, "lora/few-steps.safetensors", lora) if lora else 0,
        put(folder, "Wan2.1_VAE.safetensors", vae_tensors(base["mean"], base["std"])),
        put(folder, "models_t5_umt5-xxl-enc-bf16.safetensors", text),
        put(folder, "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors", clip_tensors()),
        put(folder, "chinese-wav2vec2-base/model.safetensors", voice),
        put_text(folder, "chinese-wav2vec2-base/config.json", json.dumps(voice_config(), indent=2) + "\n"),
        put_text(folder, "chinese-wav2vec2-base/preprocessor_config.json", json.dumps(extractor, indent=2) + "\n"),
        put_text(folder, "google/umt5-xxl/tokenizer.json", json.dumps(tokenizer, indent=1) + "\n"),
        put_text(folder, "config.json", json.dumps(config, indent=2) + "\n"),
        put_text(folder, "model.yaml", YAML % (buckets, FRAMES, CONTEXT, DIT["heads"], DIT["text_len"]))])
    print("%s: %.2f MB" % (folder, total / 1e6))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "model"))
