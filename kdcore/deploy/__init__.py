"""Trained students at work: predictors, bundles, streaming."""
