"""`python -m asg` is the command line."""

from asg.cli import main

main(prog_name="asg")
