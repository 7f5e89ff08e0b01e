"""What happens between a user's graph and its kernels: graph to graph, and graph to plan.

May import `asg`. Begin with `pipeline.py`, which lists the passes and says why in that order.
"""
