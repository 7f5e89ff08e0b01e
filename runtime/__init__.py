"""What executes: the NumPy interpreter, and the players of artefacts.

May import `asg` below the roof: the graph for the interpreter, the artefact for the executors; and
wgpu in `wgpu_device.py`. Begin with `executable.py`, which users hold: on a device, where
`executor.py` plays the artefact, or as the interpreter's front. `bundle.py` saves and loads
artefacts. `interpreter.py` is the meaning of a graph.
"""
