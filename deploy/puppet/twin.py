"""Writes what this code computes from a shipped folder, for the C engine to be held to: `twin.py MODEL FOLDER`.

FOLDER becomes a golden set (`golden FOLDER` runs it): the weights in f32, and inputs and outputs of the VAE both ways, of the
transformer with a voice and without, and of the voice network. The weights come from the shipped files alone, so that this
also shows that they load back into the training code: statistics of the latents are unfolded by the published table.
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

import speech
from config import DIT, FRAMES, SEED_SPEECH_GATE, VOICE
from dit import dit_new, windows
from export import MEAN, STD, voice_config
from vae import vae_new
from voice import voice_new


MULTI = "InfiniteTalk/multi/infinitetalk.safetensors"


def put(folder, name, tensors, **facts):
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, os.path.join(folder, name + ".safetensors"),
              {k: json.dumps(v) for k, v in facts.items()})


def shipped(model, *names):
    out = {}
    for n in names:
        out.update(load_file(os.path.join(model, n)))
    return {k: v.float() for k, v in out.items()}


def fill(net, tensors):
    """Every parameter of the net from the file; what the net lacks must be what training leaves out."""
    net.load_state_dict({k: tensors[k] for k in net.state_dict()})
    return net.eval().requires_grad_(False)


def do_vae(model, folder, gen):
    t = shipped(model, "Wan2.1_VAE.safetensors")
    net, mean, std = fill(vae_new(), t), torch.tensor(MEAN), torch.tensor(STD)
    put(folder, "weights_vae", t, config=dict(mean=MEAN, std=STD))
    video = torch.rand(3, 17, 48, 64, generator=gen) * 2 - 1
    z = ((net.encode(video.permute(1, 2, 3, 0)[None])[0] - mean) / std)[0].permute(3, 0, 1, 2)
    put(folder, "vae_encode", {"in.video": video, "latent": z})
    z = torch.randn(16, 5, 6, 8, generator=gen)
    put(folder, "vae_decode", {"in.latent": z, "video_unclamped": net.decode(z.permute(1, 2, 3, 0)[None] * std + mean)[0].permute(3, 0, 1, 2)})


def do_dit(model, folder, gen):
    t = shipped(model, "diffusion_pytorch_model.safetensors", "InfiniteTalk/single/infinitetalk.safetensors")
    two = os.path.exists(os.path.join(model, MULTI))
    net = fill(dit_new(), dict(t, **{"second." + k: v for k, v in (shipped(model, MULTI) if two else t).items()}))
    c = dict(model_type="i2v", dim=DIT["dim"], num_heads=DIT["heads"], num_layers=DIT["layers"], ffn_dim=DIT["ffn"],
             freq_dim=DIT["freq"], text_dim=DIT["text_dim"], text_len=DIT["text_len"], in_dim=DIT["in_dim"],
             out_dim=DIT["out_dim"], audio_window=5, vae_scale=4, output_dim=DIT["audio_dim"], context_tokens=DIT["tokens"],
             clip_dim=DIT["clip_dim"], clip_tokens=257, eps=1e-6)
    put(folder, "weights_dit", t, config=c)
    frames, width = (FRAMES - 1) // 4 + 1, DIT["blocks"] * DIT["channels"]
    x, y = torch.randn(16, frames, 12, 12, generator=gen), torch.randn(20, frames, 12, 12, generator=gen)
    rows = torch.randn(FRAMES + 10, width, generator=gen)
    at = torch.arange(5, 5 + FRAMES)[:, None] + torch.arange(-2, 3)
    first, later = windows(rows, 5, FRAMES)
    run = lambda a, b: net(x[None], y[None], torch.tensor([437.5]), a[None], b[None])[0]
    put(folder, "dit_puppet", {
        "in.x": x, "in.y": y, "in.t": torch.tensor([437.5]), "in.audio": rows[at].reshape(1, FRAMES, 5, DIT["blocks"], DIT["channels"]),
        "in.context": torch.randn(DIT["text_len"], DIT["text_dim"], generator=gen), "in.clip_fea": torch.randn(257, DIT["clip_dim"], generator=gen),
        "in.ref_target_masks": torch.ones(3, 12, 12), "out": run(first, later), "null_audio.out": run(first * 0, later * 0)}, config=c)


def do_voice(model, folder):
    t = shipped(model, "chinese-wav2vec2-base/model.safetensors")
    net = fill(voice_new(), {k[len("wav2vec2."):]: v for k, v in t.items()})
    put(folder, "weights_wav2vec2", t, config=dict(voice_config(), do_normalize=False))
    wave = torch.from_numpy(speech.unit(SEED_SPEECH_GATE, True, 60)[0])
    put(folder, "wav2vec2", {"in.speech": wave[None], "embedding": net(wave[None])[0]})


if __name__ == "__main__":
    model, folder = sys.argv[1:3]
    os.makedirs(folder, exist_ok=True)
    gen = torch.Generator().manual_seed(31)
    with torch.no_grad():
        do_vae(model, folder, gen)
        do_dit(model, folder, gen)
        do_voice(model, folder)
    print("run: golden", folder)
