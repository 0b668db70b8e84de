"""Sweeps: many trainings as one compiled program; `funcnet.sweep` is the way in."""
