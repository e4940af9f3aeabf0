"""Transforms of joint positions."""
