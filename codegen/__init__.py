"""Planned kernels become WGSL text, and texts become an artefact.

May import `asg`, `asg.passes`, `asg.shaders` and Jinja.
"""
