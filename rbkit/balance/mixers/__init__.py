"""Mixers: the rules that turn what was observed into the next proportions, one per file."""

from rbkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Mixer": ".base",
        "Stratified": ".fixed",
        "Proportional": ".fixed",
        "Target": ".fixed",
        "RnB": ".rnb",
        "MIXERS": ".registry",
        "mixer_by_name": ".registry",
    },
)
