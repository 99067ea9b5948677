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
        "show": ".display",
        "png": ".display",
        "data_uri": ".display",
        "loss_curves": ".curves",
        "loss_gap": ".curves",
        "loss_by_domain": ".curves",
        "proportions": ".mixture",
        "proportions_side_by_side": ".mixture",
        "replays": ".replay_figure",
        "replay_distance": ".replay_figure",
        "gram": ".gram_figure",
        "gram_over_time": ".gram_figure",
        "domain_order": ".gram_figure",
        "to_cosine": ".gram_figure",
        "domain_cards": ".cards",
        "domain_sizes": ".cards",
        "k_choice": ".choice_figure",
        "domain_map": ".map_figure",
        "gram_on_map": ".gram_map_figure",
        "map_colours": ".map_labels",
        "crosstab": ".crosstab_figure",
        "size_effect": ".sizes_figure",
        "eval_distances": ".sizes_figure",
        "drift": ".drift_figure",
        "drift_shares": ".drift_figure",
        "drift_distances": ".drift_figure",
        "costs": ".cost_figure",
        "cost_table": ".cost_figure",
        "overhead_audit": ".audit_figure",
        "final_figure": ".live.final",
        "attach": ".live.attachment",
        "scrub": ".scrub.scrubber",
        "loss_bands": ".band_figure",
        "difference_forest": ".difference_figure",
        "pareto": ".pareto_figure",
        "gram_by_variant": ".several_figure",
        "proportions_by_variant": ".several_figure",
    },
)
