"""What happens between a user's graph and its kernels: graph to graph, and graph to plan.

May import `asg` below the roof. Begin with `pipeline.py`, which lists the passes and says why in
that order. `fuse.py` cuts a graph into kernels (`inline.py` and `groups.py` before it, `kernels.py`
for what comes out), `order.py` orders them, and `assign.py` gives every value its place in memory.
"""
