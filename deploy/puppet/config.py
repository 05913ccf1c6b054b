"""Sizes, seeds and places of the small model: the one table that every other file reads.

The published structure stays; only these numbers are smaller. Seeds of training, checking during training and the
final gates never meet: a face or a sentence seen in one is not seen in another.
"""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
STATE = os.environ.get("PUPPET_STATE", os.path.join(HERE, "state"))
CURVES = os.path.join(HERE, "curves")
CKPT = os.path.join(HERE, "ckpt")

FPS, RATE = 25, 16000
PER_FRAME = RATE // FPS  # samples a video frame

SIZE, WIDE = 96, 160  # pixels: of a picture with one person both ways; the width of one with two
FRAMES, CONTEXT = 33, 9  # of a segment; carried over
LATENTS, CONTEXT_LATENTS = 9, 3

VOICE = dict(hidden=96, layers=4, heads=4, ffn=256, conv=64, taps=128, groups=16)
VAE = dict(dim=16, z=16)
DIT = dict(dim=192, heads=4, layers=6, ffn=768, freq=64, in_dim=36, out_dim=16,
           blocks=4, channels=96, hidden=128, tokens=8, audio_dim=128,
           text_len=8, text_dim=16, clip_dim=16)

# first seed of each use; a use may count up from it without meeting the next
SEED_SPEECH, SEED_SPEECH_CHECK, SEED_SPEECH_GATE = 1_000_000, 90_000_000, 95_000_000
SEED_FACE, SEED_FACE_CHECK, SEED_FACE_GATE = 1_000_000, 90_000_000, 95_000_000


def state_path(*parts):
    path = os.path.join(STATE, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path
