"""Commands that compare runs: compare, ablate, sweep, report, reproduce."""
