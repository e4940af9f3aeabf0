"""Deployment of trained students: predictors, saved students, streaming."""
