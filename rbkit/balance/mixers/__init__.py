"""Mixers: the rules that turn what was observed into the next proportions, one per file."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Mixer": ".base",
        "Stratified": ".fixed",
        "Proportional": ".fixed",
        "Target": ".fixed",
        "Fixed": ".fixed",
        "UniMax": ".fixed",
        "RnB": ".rnb",
        "RepeatAware": ".repeat_aware",
        "ADO": ".ado",
        "Aioli": ".aioli",
        "DGA": ".dga",
        "DoGE": ".doge",
        "DoReMi": ".dro",
        "GroupDRO": ".dro",
        "MGDA": ".torchjd",
        "ODM": ".odm",
        "SkillIt": ".skill_it",
        "UPGrad": ".torchjd",
        "Rule": ".base",
        "check_mixer": ".check",
        "MIXERS": ".registry",
        "mixer_by_name": ".registry",
    },
)
