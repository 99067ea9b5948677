"""What a comparison of runs may honestly say: variants, paired differences, how soon, numbers."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Variant": ".variants",
        "Comparison": ".variants",
        "compare": ".variants",
        "Difference": ".paired",
        "differences": ".paired",
        "difference_of": ".paired",
        "multiplicity": ".paired",
        "Reach": ".paired",
        "reach_baseline": ".paired",
        "reach_of": ".paired",
        "write_numbers": ".numbers",
    },
)
