"""What a run does: steps that fill folders, the order of a run, and what is made of folders."""
