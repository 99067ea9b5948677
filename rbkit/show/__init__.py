"""A run folder becomes something to look at: figures, alt texts, display in a notebook.

Figures are functions of data and an optional ``ax``; they return the axes, never call
``plt.show()`` and leave the global settings of matplotlib alone.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "rbkit_style": ".style",
        "set_alt": ".style",
        "alt_text": ".style",
        "mixer_colour": ".style",
        "domain_colours": ".style",
        "show": ".style",
        "png": ".style",
        "loss_curves": ".figures.losses",
        "loss_by_domain": ".figures.losses",
        "proportions": ".figures.mixture",
        "proportions_side_by_side": ".figures.mixture",
        "replays": ".figures.mixture",
        "replay_distance": ".figures.mixture",
        "gram": ".figures.gram",
        "gram_over_time": ".figures.gram",
        "domain_order": ".gram_layout",
        "to_cosine": ".gram_layout",
        "domain_sizes": ".figures.domains",
        "k_choice": ".figures.domains",
        "domain_map": ".figures.map",
        "gram_on_map": ".figures.map",
        "map_colours": ".figures.map",
        "crosstab": ".figures.domains",
        "size_effect": ".figures.domains",
        "eval_distances": ".figures.domains",
        "drift": ".figures.domains",
        "drift_shares": ".figures.domains",
        "drift_distances": ".figures.domains",
        "headroom": ".figures.headroom",
        "costs": ".figures.costs",
        "cost_table": ".figures.costs",
        "final_figure": ".live.final",
        "attach": ".live.panel",
        "scrub": ".scrub.scrubber",
        "loss_bands": ".figures.compare",
        "difference_forest": ".figures.compare",
        "pareto": ".figures.compare",
        "gram_by_variant": ".figures.compare",
        "proportions_by_variant": ".figures.compare",
    },
)
