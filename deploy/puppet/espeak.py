"""espeak-ng as a library: text to samples and the phonemes with their times.

The library calls back with blocks of samples and of events. An event of type 7 is the start of a phoneme; its id holds up
to eight bytes of IPA. Its `sample` counts at the synthesiser's own rate, not at that of a resampled track. The library
keeps its state in globals, so there is one Synth a process.
"""
import ctypes

import numpy as np

PHONEME, MODE_RETRIEVAL, INIT_PHONEME_EVENTS, INIT_IPA = 7, 2, 1, 2
PARAM_RATE, PARAM_PITCH, PARAM_RANGE = 1, 3, 4


class Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_ms", ctypes.c_int), ("sample", ctypes.c_int),
                ("user", ctypes.c_void_p), ("id", ctypes.c_char * 8)]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Synth:
    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(MODE_RETRIEVAL, 0, None, INIT_PHONEME_EVENTS | INIT_IPA)
        if self.rate <= 0:
            raise RuntimeError("espeak-ng finds no voice data; install the package espeak-ng")
        self.blocks, self.events = [], []
        self.callback = CALLBACK(self._take)  # kept alive as long as the library may call it
        self.lib.espeak_SetSynthCallback(self.callback)

    def _take(self, samples, n, events):
        if n > 0 and samples:
            self.blocks.append(np.ctypeslib.as_array(samples, (n,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == PHONEME:
                self.events.append((events[i].sample, events[i].id.decode("utf8", "ignore")))
            i += 1
        return 0

    def say(self, text, voice, rate, pitch, spread):
        """int16 samples at self.rate and [(first sample, IPA)]; nothing when the voice is unknown."""
        self.blocks.clear()
        self.events.clear()
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            return np.zeros(0, np.int16), []
        for key, value in ((PARAM_RATE, rate), (PARAM_PITCH, pitch), (PARAM_RANGE, spread)):
            self.lib.espeak_SetParameter(key, value, 0)
        raw = text.encode()
        self.lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        wave = np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.int16)
        return wave, list(self.events)
