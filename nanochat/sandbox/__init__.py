"""Programs that a model wrote, run where they can do no harm.

programs.py  the door: `run` judges many programs at once
jail.py      what runs in the child: locks itself in, then runs the program, or the tests of it
kernel.py    the walls: namespaces, Landlock, seccomp
"""
