"""WGSL templates, one per kernel class and schedule family, and shared WGSL helper functions.

Holds no Python logic and imports nothing.
"""
