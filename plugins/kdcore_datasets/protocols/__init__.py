"""Protocols: rules that say which recordings train, validate and test."""
