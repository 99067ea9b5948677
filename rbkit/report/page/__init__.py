"""The pieces of the page that compares runs; :mod:`rbkit.report.page.page` joins them."""
