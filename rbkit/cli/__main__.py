"""``python -m rbkit.cli``."""

from rbkit.cli import main

main()
