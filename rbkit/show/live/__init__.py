"""Training while it runs: a run folder, looked at again and again, and one figure at the end.

:mod:`~rbkit.show.live.facts` says what there is to show, :mod:`~rbkit.show.live.frame` draws it,
and three views put it before somebody: the panel of a training cell, one attached from
elsewhere, and a terminal.
"""
