"""The page of a report: its content, tables and pictures."""
