"""The pieces of the page that compares runs, one file each; ``rbkit.report.index`` joins them."""
