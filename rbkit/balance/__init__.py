"""Balance: from the signals of training to the share of each domain.

``GramTracker`` watches a linear layer and gives the Gram matrix of domain gradients,
a ``Mixer`` turns it into proportions, a ``MixtureSampler`` draws the examples. The room
works on arrays, torch modules and names; it knows no corpus, plot or notebook, so it can
be taken alone.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "GramTracker": ".gram",
        "GramEstimate": ".signals",
        "Observation": ".signals",
        "MixtureSampler": ".sampler",
        "Mixer": ".mixers.base",
        "Stratified": ".mixers.fixed",
        "Proportional": ".mixers.fixed",
        "Target": ".mixers.fixed",
        "Fixed": ".mixers.fixed",
        "UniMax": ".mixers.fixed",
        "RnB": ".mixers.rnb",
        "RepeatAware": ".mixers.repeat_aware",
        "ADO": ".mixers.ado",
        "Aioli": ".mixers.aioli",
        "DGA": ".mixers.dga",
        "DoGE": ".mixers.doge",
        "DoReMi": ".mixers.dro",
        "GroupDRO": ".mixers.dro",
        "MGDA": ".mixers.torchjd",
        "ODM": ".mixers.odm",
        "SkillIt": ".mixers.skill_it",
        "UPGrad": ".mixers.torchjd",
        "check_mixer": ".mixers.check",
        "mixer_by_name": ".mixers.registry",
    },
)
