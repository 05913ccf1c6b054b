"""Draws the portraits that the quickstart speaks with: `portraits.py [FOLDER]` (deploy/media).

Faces of seeds that neither training nor any measure uses, five times as fine as the model's pictures: the program brings
them to its own size as it would any other.
"""
import os
import sys

import numpy as np

import face
import png
from config import HERE, SEED_FACE_GATE, SIZE, WIDE

ONE, TWO, TIMES = 503, (500, 513), 5


def main(folder):
    rest = np.array([face.REST_POSE])
    png.write(os.path.join(folder, "drawn.png"), face.portrait(face.face_new(SEED_FACE_GATE + ONE), rest, TIMES * SIZE)[0])
    people = [(face.face_new(SEED_FACE_GATE + s, face.PAIR_SIZE), x) for s, x in zip(TWO, (44, WIDE - 44))]
    png.write(os.path.join(folder, "drawn-two.png"), face.render(people, [rest, rest], WIDE, TIMES * SIZE)[0])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "media"))
