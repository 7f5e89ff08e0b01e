"""WGSL templates, one per kernel class and schedule family, and shared WGSL helper functions.

Holds no Python logic and imports nothing. Begin with `map.wgsl.j2`. `helpers/` has functions that
take the place of built-in ones which are inexact or lose NaN; a first line `// needs:` names the
helpers that one calls. The text must please naga and Tint alike.
"""
