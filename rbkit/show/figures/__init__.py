"""Figures: functions that take runs or domains and an optional `ax`, and return the axes."""
