"""What executes: the NumPy interpreter, and the players of artefacts.

May import `asg` only: the graph for the interpreter, the artefact for the executors. Begin with
`executable.py`, which users hold; below it `executor.py` plays an artefact on the device that
`wgpu_device.py` opens. `bundle.py` saves and loads artefacts. `interpreter.py` is the meaning of
a graph, `numpy_executable.py` gives it the interface of an executable.
"""
