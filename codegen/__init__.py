"""Planned kernels become WGSL text, and texts become an artefact.

May import `asg` below the roof, `asg.passes`, `asg.shaders` and, in `render.py`, Jinja. Begin with
`build.py`, which makes the artefact, then `emit.py`, which writes the statements that compute a
value; `map_kernel.py` is the simplest of the kernel classes.
"""
