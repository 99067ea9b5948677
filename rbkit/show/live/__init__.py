"""Training while it runs: a run folder, drawn again and again, and one figure at the end.

:mod:`~rbkit.show.live.snapshot` says what there is to show, :mod:`~rbkit.show.live.frame` draws
it, and three views show it to someone: the panel of a training cell, one attached from
elsewhere, and a terminal.
"""
