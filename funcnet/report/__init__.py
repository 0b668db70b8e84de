"""Reports of runs and sweeps in one HTML file, and a page of a run while it goes on."""
